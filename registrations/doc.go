// Package registrations knows the registration files of appservices: it reads,
// checks and makes them, tells what their namespaces cover, and keeps the set
// of those that are in force. It opens no files and talks to nobody.
//
// Identifiers are plain strings here, because this package stands on the
// lowest floor.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#registration
package registrations
