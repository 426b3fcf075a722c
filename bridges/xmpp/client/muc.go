package client

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"

	"mellium.im/xmpp/jid"
)

// Room is a multi-user chat that we are in, or enter (XEP-0045).
type Room struct {
	JID       jid.JID
	Nick      string // ours
	Occupants map[string]Occupant
	entered   bool
	waiting   chan error // of Enter
}

// Occupant is somebody in a room.
type Occupant struct {
	Nick        string
	JID         jid.JID // without a resource; zero if the room does not show it
	ID          string  // XEP-0421; empty if the room has none
	Affiliation string  // owner, admin, member, none, outcast
	Role        string  // moderator, participant, visitor, none
	Photo       string  // SHA-1 of the avatar in hexadecimal
}

// RoomInfo is what a room says of itself.
type RoomInfo struct {
	Name                       string
	Archived                   bool
	Anonymous                  bool   // only moderators see who is who
	SubjectByAll, SubjectKnown bool   // who may change the subject, if the room says so
	Moderates, Moderated0      bool   // it retracts for moderators, as since 2023 or as before
	Avatar                     string // its SHA-1 in hexadecimal, if the room says it
}

// Enter is how to enter a room.
type Enter struct {
	Room     jid.JID
	Nick     string
	Password string
	History  int // how many old messages the room is asked for
}

// maxNickTries is how many nicks are tried while they are taken.
const maxNickTries = 5

// Enter goes into a room and returns the nick we have there: the one asked for,
// or with underscores when it is taken.
func (c *Client) Enter(ctx context.Context, in Enter) (nick string, err error) {
	nick = in.Nick
	for range maxNickTries {
		err = c.enter(ctx, in, nick)
		var refused *StanzaError
		if !errors.As(err, &refused) || refused.Condition != "conflict" {
			break
		}
		nick += "_"
	}
	if err != nil {
		return "", err
	}
	room, ok := c.Room(in.Room)
	if !ok {
		return "", fmt.Errorf("%s let us in and threw us out again", in.Room)
	}
	return room.Nick, nil // the service may have changed it
}

func (c *Client) enter(ctx context.Context, in Enter, nick string) error {
	to, err := in.Room.WithResource(nick)
	if err != nil {
		return fmt.Errorf("%q can not be a nick: %w", nick, err)
	}
	key := in.Room.String()
	waiting := make(chan error, 1)
	c.mu.Lock()
	c.rooms[key] = &Room{JID: in.Room, Nick: nick, Occupants: make(map[string]Occupant), waiting: waiting}
	c.mu.Unlock()
	x := El(nsMUC, "x", El("", "history").Set("maxstanzas", strconv.Itoa(in.History)))
	if in.Password != "" {
		x.Add(El("", "password", in.Password))
	}
	c.Send(El(nsClient, "presence", x, capabilities()).Set("to", to.String()), func(err error) {
		if err != nil {
			select {
			case waiting <- err:
			default:
			}
		}
	})
	select {
	case err = <-waiting:
	case <-ctx.Done():
		err = fmt.Errorf("%s did not answer: %w", in.Room, ctx.Err())
	}
	if err != nil {
		c.mu.Lock()
		if r := c.rooms[key]; r != nil && r.waiting == waiting {
			delete(c.rooms, key)
		}
		c.mu.Unlock()
	}
	return err
}

// Leave goes out of a room.
func (c *Client) Leave(room jid.JID, reason string) {
	r, ok := c.Room(room)
	if !ok {
		return
	}
	to, err := room.WithResource(r.Nick)
	if err != nil {
		return
	}
	e := El(nsClient, "presence").Set("to", to.String(), "type", "unavailable")
	if reason != "" {
		e.Add(El(nsClient, "status", reason))
	}
	c.Send(e, nil)
}

// Rename asks for another nick in a room. Whether it is taken shows in the
// answer: an OccupantRenamed, or an error that is returned.
func (c *Client) Rename(room jid.JID, nick string) error {
	to, err := room.WithResource(nick)
	if err != nil {
		return fmt.Errorf("%q can not be a nick: %w", nick, err)
	}
	c.Send(El(nsClient, "presence", capabilities()).Set("to", to.String()), nil)
	return nil
}

// PingRoom asks whether we are still in a room (XEP-0410). The error says that
// we are not, or that nobody knows: NotThere tells which.
func (c *Client) PingRoom(ctx context.Context, room jid.JID) error {
	r, ok := c.Room(room)
	if !ok {
		return fmt.Errorf("we are not in %s", room)
	}
	to, err := room.WithResource(r.Nick)
	if err != nil {
		return err
	}
	_, err = c.Ask(ctx, "get", to, El(nsPing, "ping"))
	return err
}

// NotThere reports whether PingRoom's error says that we are not in the room.
// Those that say so are from the room; what our own client answers to the ping
// shows that it came through.
func NotThere(err error) bool {
	var refused *StanzaError
	if !errors.As(err, &refused) {
		return false
	}
	switch refused.Condition {
	case "service-unavailable", "feature-not-implemented", "item-not-found", "remote-server-not-found", "remote-server-timeout":
		return false
	}
	return true
}

// Passing reports whether an error says nothing of us, but that somebody does not
// answer at present.
func Passing(err error) bool {
	var refused *StanzaError
	if !errors.As(err, &refused) {
		return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrOffline) || errors.Is(err, ErrUnconfirmed)
	}
	switch refused.Condition {
	case "remote-server-timeout", "remote-server-not-found", "service-unavailable", "internal-server-error", "resource-constraint":
		return true
	}
	return false
}

// Room returns a room that we are in, as it is now.
func (c *Client) Room(room jid.JID) (Room, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	r := c.rooms[room.Bare().String()]
	if r == nil || !r.entered {
		return Room{}, false
	}
	out := *r
	out.Occupants = maps.Clone(r.Occupants)
	return out, true
}

// NickIn is our nick in a room that we are in, or enter.
func (c *Client) NickIn(room jid.JID) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if r := c.rooms[room.Bare().String()]; r != nil {
		return r.Nick
	}
	return ""
}

// onRoomPresence handles a presence of a room. It is false if there is no such
// room.
func (c *Client) onRoomPresence(e *Element, from jid.JID) bool {
	c.mu.Lock()
	r := c.rooms[from.Bare().String()]
	c.mu.Unlock()
	if r == nil {
		return false
	}
	switch e.At("type") {
	case "error":
		c.onRoomError(r, e)
	case "":
		c.onHere(r, e, from.Resourcepart())
	case "unavailable":
		c.onGone(r, e, from.Resourcepart())
	}
	return true
}

func (c *Client) onRoomError(r *Room, e *Element) {
	err := stanzaError(e)
	c.mu.Lock()
	waiting, entered := r.waiting, r.entered
	c.mu.Unlock()
	if !entered {
		select {
		case waiting <- err:
		default:
		}
		return
	}
	// Of a nick that was asked for in vain, or because we are not there any more.
	c.handle(&Message{From: r.JID, Type: "error", Error: err})
}

// codes are the status codes in a presence.
func codes(e *Element) []string {
	var out []string
	for _, s := range e.Get(nsMUCUser, "x").All(nsMUCUser, "status") {
		out = append(out, s.At("code"))
	}
	return out
}

// occupant reads who a presence is about.
func occupant(e *Element, nick string) Occupant {
	item := e.Get(nsMUCUser, "x").Get(nsMUCUser, "item")
	o := Occupant{
		Nick: nick, Affiliation: item.At("affiliation"), Role: item.At("role"),
		ID:    e.Get(nsOccupant, "occupant-id").At("id"),
		Photo: e.Get(nsVCardX, "x").Get(nsVCardX, "photo").Content(),
	}
	if j, err := jid.Parse(item.At("jid")); err == nil && item.At("jid") != "" {
		o.JID = j.Bare()
	}
	return o
}

func (c *Client) onHere(r *Room, e *Element, nick string) {
	if nick == "" { // of the room itself
		if photo := e.Get(nsVCardX, "x").Get(nsVCardX, "photo"); photo != nil {
			c.handle(AvatarChanged{r.JID, photo.Text})
		}
		return
	}
	o := occupant(e, nick)
	status := codes(e)
	c.mu.Lock()
	r.Occupants[nick] = o
	entering := !r.entered && (slices.Contains(status, "110") || nick == r.Nick)
	if entering {
		r.entered, r.Nick = true, nick
	}
	entered, waiting := r.entered, r.waiting
	c.mu.Unlock()
	if entering {
		select {
		case waiting <- nil:
		default:
		}
		if slices.Contains(status, "201") { // the room is new: take it as it is
			c.unlock(r.JID)
		}
		return
	}
	if entered {
		c.handle(OccupantHere{r.JID, o})
	}
}

// unlock accepts the settings of a room that we have made. The answer tells
// nothing that the room's presence would not.
func (c *Client) unlock(room jid.JID) {
	accepted := El(nsMUCOwner, "query", El(nsForms, "x").Set("type", "submit"))
	c.Send(El(nsClient, "iq", accepted).Set("type", "set", "id", NewID(), "to", room.String()), nil)
}

func (c *Client) onGone(r *Room, e *Element, nick string) {
	status := codes(e)
	x := e.Get(nsMUCUser, "x")
	item := x.Get(nsMUCUser, "item")
	c.mu.Lock()
	o, known := r.Occupants[nick]
	delete(r.Occupants, nick)
	self := nick == r.Nick || slices.Contains(status, "110")
	to := item.At("nick")
	renamed := slices.Contains(status, "303") && to != ""
	if renamed {
		if self {
			r.Nick = to
		}
		next := o
		next.Nick = to
		r.Occupants[to] = next
	} else if self {
		delete(c.rooms, r.JID.String())
	}
	entered, waiting := r.entered, r.waiting
	next := r.Occupants[to]
	c.mu.Unlock()
	if renamed {
		c.handle(OccupantRenamed{Room: r.JID, From: o, To: to, Self: self, Occupant: next})
		return
	}
	gone := OccupantGone{Room: r.JID, Occupant: o, Self: self, How: departure(status, x), Actor: item.Get(nsMUCUser, "actor").At("nick")}
	gone.Nick = nick
	if gone.Reason = item.Get(nsMUCUser, "reason").Content(); gone.Reason == "" {
		gone.Reason = e.Get(nsClient, "status").Content()
	}
	if d := x.Get(nsMUCUser, "destroy"); d != nil {
		gone.Reason = d.Get(nsMUCUser, "reason").Content()
		gone.Alternate, _ = jid.Parse(d.At("jid"))
	}
	if self && !entered {
		select {
		case waiting <- fmt.Errorf("%s: %s", gone.How, gone.Reason):
		default:
		}
	}
	if known || self {
		c.handle(gone)
	}
}

func departure(status []string, x *Element) Departure {
	for _, p := range []struct {
		code string
		how  Departure
	}{{"301", Banned}, {"307", Kicked}, {"333", Dropped}, {"321", Removed}, {"322", Removed}, {"332", Removed}} {
		if slices.Contains(status, p.code) {
			if p.how == Kicked && slices.Contains(status, "333") {
				return Dropped
			}
			return p.how
		}
	}
	if x.Get(nsMUCUser, "destroy") != nil {
		return Destroyed
	}
	return Left
}

// onInvitation handles both forms of an invitation into a room.
func (c *Client) onInvitation(e *Element) bool {
	from, err := jid.Parse(e.At("from"))
	if err != nil || e.At("type") == "error" {
		return false
	}
	if invite := e.Get(nsMUCUser, "x").Get(nsMUCUser, "invite"); invite != nil {
		by, _ := jid.Parse(invite.At("from"))
		c.handle(Invited{from.Bare(), by.Bare(), invite.Get(nsMUCUser, "reason").Content()})
		return true
	}
	if x := e.Get(nsConfInv, "x"); x != nil && e.At("type") != "groupchat" {
		room, err := jid.Parse(x.At("jid"))
		if err == nil {
			c.handle(Invited{room.Bare(), from.Bare(), x.At("reason")})
		}
		return err == nil
	}
	return false
}

// Info asks a room what it is.
func (c *Client) Info(ctx context.Context, room jid.JID) (RoomInfo, error) {
	answer, err := c.Ask(ctx, "get", room.Bare(), El(nsDisco, "query"))
	if err != nil {
		return RoomInfo{}, err
	}
	q := answer.Get(nsDisco, "query")
	has := features(q)
	if !has[nsMUC] {
		return RoomInfo{}, fmt.Errorf("%s is no room", room)
	}
	info := RoomInfo{
		Name: q.Get(nsDisco, "identity").At("name"), Archived: has[nsMAM], Anonymous: !has["muc_nonanonymous"],
		Moderates: has[nsModerate], Moderated0: has[nsModerate0],
	}
	for _, f := range q.Get(nsForms, "x").All(nsForms, "field") {
		value := f.Get(nsForms, "value").Content()
		switch f.At("var") {
		case "muc#roominfo_avatarhash", "{http://modules.prosody.im/mod_vcard_muc}avatar#sha1":
			info.Avatar = value
		case "muc#roominfo_changesubject", "muc#roomconfig_changesubject":
			info.SubjectByAll, info.SubjectKnown = value == "1" || value == "true", true
		}
	}
	return info, nil
}

// SetRole kicks (none), silences (visitor), gives voice (participant) or makes a
// moderator of somebody in a room.
func (c *Client) SetRole(ctx context.Context, room jid.JID, nick, role, reason string) error {
	return c.administer(ctx, room, El("", "item").Set("nick", nick, "role", role), reason)
}

// SetAffiliation bans (outcast), frees (none), or makes a member, admin or owner
// of an account.
func (c *Client) SetAffiliation(ctx context.Context, room, account jid.JID, affiliation, reason string) error {
	return c.administer(ctx, room, El("", "item").Set("jid", account.Bare().String(), "affiliation", affiliation), reason)
}

func (c *Client) administer(ctx context.Context, room jid.JID, item *Element, reason string) error {
	if reason != "" {
		item.Add(El("", "reason", reason))
	}
	_, err := c.Ask(ctx, "set", room.Bare(), El(nsMUCAdmin, "query", item))
	return err
}

// Invite invites an account into a room.
func (c *Client) Invite(room, account jid.JID, reason string) {
	invite := El("", "invite").Set("to", account.Bare().String())
	if reason != "" {
		invite.Add(El("", "reason", reason))
	}
	c.Send(El(nsClient, "message", El(nsMUCUser, "x", invite)).Set("to", room.Bare().String(), "id", NewID()), nil)
}
