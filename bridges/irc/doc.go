// Package irc is the connector for IRC: it turns what happens on IRC networks
// into events of bridgev2 and back. Channels are rooms that all logins of a
// network share, private messages are rooms of one login, and a nick is a
// ghost. The connection itself is package client's; rooms, users and messages
// on the Matrix side are bridgev2's.
//
// What goes across, and what does not, stands in docs/bridges/irc.md.
package irc
