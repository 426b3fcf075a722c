package bridgetest

import (
	"testing"

	"maunium.net/go/mautrix/id"
)

// Network is a real server of a network with people on it, as the contract
// needs it. What it has not, its Features say, and the contract asks for
// nothing else.
type Network interface {
	Features() Features

	// Settings tell another process of the test how to reach the server, through
	// Proxy. The function that Contract gets makes Options of them.
	Settings() string

	// Proxy is what the bridge's connections go through.
	Proxy() *Proxy

	// LogIn logs a Matrix user in, from the word "login" to the bot on, and
	// returns the account on the network. The same user gets the same account
	// each time, another user another one.
	LogIn(u *User, manage id.RoomID) (account string)

	// Person connects somebody who uses the network with another client than the
	// bridge, until the test ends. Each name is asked for once.
	Person(t *testing.T, name string) Person
}

// Features are what a network has, each as the contract can expect it.
type Features struct {
	// Group is the group in which Person is from the beginning, and which a
	// login enters by the command Join. Empty for networks whose groups can not
	// be joined by a command.
	Group, Join string

	// StartChat is what "start-chat" takes to open a chat with somebody called
	// "dora"; empty if there is no such command.
	StartChat string

	// What exists in which direction.
	Formatting, Media, Replies, Edits, Reactions, Deletions, Receipts, Typing Ways

	// History says that what people write while the bridge is away arrives when
	// it is back.
	History bool

	// Exact says that a message that was cut off is neither lost nor doubled,
	// because both sides can tell what has arrived. Without it a message may be
	// lost, if its sender is told so, and after a kill it may come twice.
	Exact bool

	// Jumbled says that a server of the network gives what came during a break of
	// the connection in another order.
	Jumbled bool
}

// Ways are the directions in which a feature exists.
type Ways struct {
	Out bool // from Matrix to the network
	In  bool // from the network to Matrix
}

// Both is a feature that exists in both directions.
var Both = Ways{Out: true, In: true}

// Person is somebody on the network. A chat is named by the group, or for a
// private one by the account of the other.
type Person interface {
	// Ghost is the person's Matrix user.
	Ghost() id.UserID

	// Write says something in a chat and returns the network's ID of it, if
	// there is one. ReplyTo and Replaces are such IDs.
	Write(chat string, m Post) string

	// React gives a reaction, Delete takes a message back, Read marks everything
	// up to a message as read, Type begins to type. Only those are called that
	// Features has with In.
	React(chat, message, emoji string)
	Delete(chat, message string)
	Read(chat, message string)
	Type(chat string)

	// Seen is everything from others that the person's client has seen so far,
	// in its order.
	Seen() []Seen
}

// Post is something that is said.
type Post struct {
	Text     string // without formatting
	Bold     string // the part of Text that is bold
	File     *File
	ReplyTo  string // the message that it answers
	Replaces string // the message that it corrects
}

// File is a file in a message.
type File struct {
	Name, MimeType string
	Data           []byte
}

// Kind is what somebody on the network sees of another one.
type Kind string

// The kinds.
const (
	Said     Kind = "message" // or a correction: then Replaces is set
	Reacted  Kind = "reaction"
	Deleted  Kind = "deletion"
	HasRead  Kind = "receipt"
	IsTyping Kind = "typing"
)

// Seen is what the client of somebody on the network shows.
type Seen struct {
	Kind Kind
	Chat string
	From string // the account of whoever did it, or the name in the group
	ID   string // of the message
	Post
	Target string // what was reacted to, deleted or read
	Emoji  string
}
