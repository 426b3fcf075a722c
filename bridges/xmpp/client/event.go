package client

import "mellium.im/xmpp/jid"

// Event is something that happened, in the order of the stream.
type Event interface{ event() }

// Connected is that there is a connection. Resumed says that nothing was lost
// since the last one; otherwise rooms must be entered again.
type Connected struct{ Resumed bool }

// Disconnected is that the connection broke, or could not be made; the next
// attempt follows.
type Disconnected struct{ Err error }

// Lost is that the stream of before can not go on: nothing is known any more of
// what it carried last, and we are in no room.
type Lost struct{}

// Presence is that a contact comes, goes or changes.
type Presence struct {
	From      jid.JID
	Available bool
	Nick      string
	HasPhoto  bool
	Photo     string // SHA-1 of the avatar in hexadecimal, empty for none
}

// Subscribe is that somebody asks to see when the user is there.
type Subscribe struct{ From jid.JID }

// RosterItem is a contact.
type RosterItem struct {
	JID          jid.JID
	Name         string
	Subscription string // none, to, from, both, remove
}

// RosterChanged is that a contact was changed, or removed.
type RosterChanged struct{ Item RosterItem }

// AvatarChanged is that a contact published an avatar (XEP-0084). An empty hash
// means that there is none any more.
type AvatarChanged struct {
	Of   jid.JID
	Hash string
}

// NickChanged is that a contact published a nickname (XEP-0172).
type NickChanged struct {
	Of   jid.JID
	Nick string
}

// BookmarkChanged is that another client of the account changed a bookmark, or
// removed it: then it is empty but for the room.
type BookmarkChanged struct{ Bookmark }

// OccupantHere is that somebody came into a room, or changed there.
type OccupantHere struct {
	Room jid.JID
	Occupant
}

// OccupantGone is that somebody left a room.
type OccupantGone struct {
	Room jid.JID
	Occupant
	Self          bool
	How           Departure
	Actor, Reason string
	Alternate     jid.JID // where a destroyed room says to go
}

// Departure is how somebody left a room.
type Departure string

// The departures.
const (
	Left      Departure = "left"
	Kicked    Departure = "kicked"
	Banned    Departure = "banned"
	Removed   Departure = "removed" // the room was closed to members only, or the service stops
	Destroyed Departure = "destroyed"
	Dropped   Departure = "dropped" // an error, such as a lost connection
)

// OccupantRenamed is that somebody has a new nick.
type OccupantRenamed struct {
	Room     jid.JID
	From     Occupant
	To       string
	Self     bool
	Occupant Occupant // with the new nick
}

// Invited is that somebody invites the user into a room.
type Invited struct {
	Room, By jid.JID
	Reason   string
}

func (Connected) event()       {}
func (Disconnected) event()    {}
func (Lost) event()            {}
func (Presence) event()        {}
func (Subscribe) event()       {}
func (RosterChanged) event()   {}
func (AvatarChanged) event()   {}
func (NickChanged) event()     {}
func (BookmarkChanged) event() {}
func (OccupantHere) event()    {}
func (OccupantGone) event()    {}
func (OccupantRenamed) event() {}
func (Invited) event()         {}
func (*Message) event()        {}
