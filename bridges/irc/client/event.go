package client

import (
	"time"

	"github.com/ergochat/irc-go/ircmsg"
)

// Event is something that happened on the connection: one of the types of this
// file.
type Event interface{ event() }

// Source is who caused an event. Name is a nick, or a server's name when User
// and Host are empty.
type Source struct {
	ircmsg.NUH
	Account string // services account, when the network tells; else empty
	Own     bool   // it is our own nick
}

// IsServer reports whether the source is a server.
func (s Source) IsServer() bool { return s.User == "" && s.Host == "" }

// Kind is the kind of a Message.
type Kind int

// The kinds of messages.
const (
	Text   Kind = iota // PRIVMSG
	Action             // CTCP ACTION, "/me"
	Notice             // NOTICE, to which nothing may answer by itself
)

// Connected tells that the server has welcomed us. Channels follow as Joined.
type Connected struct {
	Nick   string
	Wanted string // the configured nick; Nick differs when it was taken
}

// Disconnected tells that the connection is gone. Until the next Connected
// nothing is known of any channel.
type Disconnected struct {
	Err   error
	Retry time.Duration // until the next attempt; negative when there is none
}

// Message is a text to a channel or to us. An own message comes only when it
// was sent by another client of the same user, through a bouncer; echoes of
// what was sent here end in the Outcome of the request.
type Message struct {
	Source  Source
	Channel string // empty for a private message
	Peer    string // the other nick of a private message
	Kind    Kind
	Text    string // with formatting codes, valid UTF-8
	ID      string // the network's msgid, or empty
	ReplyTo string // msgid of the message that this answers, or empty
	Time    time.Time
}

// CTCP is a request or, with Reply, an answer of the client-to-client
// protocol, other than ACTION.
type CTCP struct {
	Source  Source
	Command string
	Args    string
	Reply   bool
}

// Joined tells that a user entered a channel.
type Joined struct {
	Source  Source
	Channel string
	Time    time.Time
}

// Synced tells that the member list of a channel that we entered is complete.
type Synced struct{ Channel string }

// Parted tells that a user left a channel.
type Parted struct {
	Source  Source
	Channel string
	Reason  string
	Time    time.Time
}

// Kicked tells that a user was thrown out of a channel.
type Kicked struct {
	Source  Source
	Nick    string
	Own     bool // it was us
	Channel string
	Reason  string
	Time    time.Time
}

// Quit tells that a user left the network.
type Quit struct {
	Source   Source
	Channels []string // that we shared
	Reason   string
	Time     time.Time
}

// NetSplit tells that servers lost each other, and who vanished by that, or with
// Healed that they found each other and who came back.
type NetSplit struct {
	Servers [2]string
	Healed  bool
	Nicks   map[string][]string // by channel
}

// Renamed tells that a user changed the nick.
type Renamed struct {
	Source   Source // with the old nick
	Nick     string
	Channels []string // that we shared
	Time     time.Time
}

// TopicChanged tells a channel's topic, also once after joining, when Source
// is empty.
type TopicChanged struct {
	Source  Source
	Channel string
	Topic   string
	Time    time.Time
}

// ModeChanged tells changed modes of a channel and its members.
type ModeChanged struct {
	Source  Source
	Channel string
	Changes []ModeChange
	Time    time.Time
}

// Profile tells a user's host, account or real name after a change. Fields
// that did not change are empty.
type Profile struct {
	Source   Source
	RealName string
}

// Invited tells that somebody asked us into a channel.
type Invited struct {
	Source  Source
	Channel string
}

// JoinFailed tells that a channel could not be entered again after a
// reconnect. The client does not try again by itself.
type JoinFailed struct {
	Channel string
	Err     error
}

// NickRegained tells that the configured nick, which was taken, is ours again.
type NickRegained struct{ Nick string }

// ServerText is a line for people from the server that belongs to no request.
type ServerText struct {
	Code string // numeric or command
	Text string
}

func (Connected) event()    {}
func (Disconnected) event() {}
func (Message) event()      {}
func (CTCP) event()         {}
func (Joined) event()       {}
func (Synced) event()       {}
func (Parted) event()       {}
func (Kicked) event()       {}
func (Quit) event()         {}
func (NetSplit) event()     {}
func (Renamed) event()      {}
func (TopicChanged) event() {}
func (ModeChanged) event()  {}
func (Profile) event()      {}
func (Invited) event()      {}
func (JoinFailed) event()   {}
func (NickRegained) event() {}
func (ServerText) event()   {}
