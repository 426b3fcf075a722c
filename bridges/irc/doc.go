// Package irc is the connector for IRC: it turns what happens on IRC networks
// into events of bridgev2 and back. Channels are rooms that all logins of a
// network share, private messages are rooms of one login, and a nick is a
// ghost. The connection itself is package client's; rooms, users and messages
// on the Matrix side are bridgev2's.
//
// From Matrix to IRC go: texts, emotes and notices with their formatting;
// replies, as the nick in front or a short quotation; edits, as "s/old/new/" or
// the new text behind an asterisk; files, as public links; topics; kicks, bans
// and invitations; power levels, as modes; leaving a room. Reactions and
// deletions do not: IRC has nothing for them, and the sender is told.
//
// From IRC to Matrix go: messages, actions, notices; joins, parts, quits, kicks,
// nick changes; topics; modes, as power levels or else as notices; net splits,
// as one line.
package irc
