// Package appservices tells appservices what happens on the homeserver, and
// asks them what they know. It reads the log: each appservice is told of it in
// transactions, one at a time and in order, from a position that is saved, so
// that a restart or an appservice that is down loses nothing. It also keeps the
// registrations in force, from files and from bridges of this process.
//
// It decides nothing about rooms or accounts. What an appservice does on the
// server goes through the client-server API; a bridge of this process reaches
// that through a Wire.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/
package appservices
