// Package xmpp is the connector for XMPP: it turns what happens on an account
// into events of bridgev2 and back. Every login has rooms of its own: one for
// each account, or occupant of a room, that it writes with, and one for each
// multi-user chat that it is in. The connection itself is package client's;
// rooms, users and messages on the Matrix side are bridgev2's.
//
// An account is a ghost; so is somebody in a room that does not show who is who,
// under room and nick. What was written while the bridge was away is read from
// the archives of the account and of the rooms.
package xmpp
