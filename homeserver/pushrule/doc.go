// Package pushrule knows a user's push rules: the server's default rules, how
// a client may edit its own, and what they say about an event. It stores
// nothing and notifies nobody.
package pushrule
