// Package alone holds no code: its test runs each bridge as a program of its
// own beside a homeserver, which knows it by the registrations that it has
// written, and lets a Matrix user talk through it; and it lets bridges that ran
// in our server move out. The homeservers are ours, on SQLite and on PostgreSQL,
// and those that SWITCHBOARD_TEST_PEERS names.
package alone
