package toybridge

import (
	"context"
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/cmd/dev/peers"
)

// person is a user with a client that encrypts. It syncs where it waits.
type person struct {
	*mautrix.Client
	t     *testing.T
	mach  *crypto.OlmMachine
	since string
	rooms []id.RoomID           // joined after an invitation, in order
	read  map[id.EventID]string // what was decrypted
	said  []id.EventID          // the person's messages
}

// newPerson registers a user with a device and its keys.
func newPerson(t *testing.T, server *peers.Server, name string) *person {
	t.Helper()
	c, err := mautrix.NewClient(server.URL, "", "")
	if err != nil {
		t.Fatal(err)
	}
	login, err := c.RegisterDummy(t.Context(), &mautrix.ReqRegister[any]{Username: name, Password: "correct horse battery"})
	if err != nil {
		t.Fatal(err)
	}
	c.UserID, c.AccessToken, c.DeviceID = login.UserID, login.AccessToken, login.DeviceID
	store := mautrix.NewMemoryStateStore().(*mautrix.MemoryStateStore)
	c.StateStore = store
	log := zerolog.Nop()
	p := &person{Client: c, t: t, mach: crypto.NewOlmMachine(c, &log, crypto.NewMemoryStore(nil), store), read: map[id.EventID]string{}}
	err = p.mach.Load(t.Context())
	if err == nil {
		err = p.mach.ShareKeys(t.Context(), 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// sync takes what is new, and every invitation.
func (p *person) sync() {
	p.t.Helper()
	ctx := p.t.Context()
	resp, err := p.FullSyncRequest(ctx, mautrix.ReqSync{Since: p.since, Timeout: 500})
	if err != nil {
		p.t.Logf("sync: %v", err) // the server is down for a moment
		time.Sleep(100 * time.Millisecond)
		return
	}
	p.mach.ProcessSyncResponse(ctx, resp, p.since)
	p.since = resp.NextBatch
	for room := range resp.Rooms.Invite {
		if _, err := p.JoinRoomByID(ctx, room); err != nil {
			p.t.Fatalf("join: %v", err)
		}
	}
	for room := range resp.Rooms.Join {
		if !slices.Contains(p.rooms, room) {
			p.rooms = append(p.rooms, room)
		}
	}
}

// until syncs until cond is true.
func (p *person) until(what string, cond func() bool) {
	p.t.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); p.sync() {
		if cond() {
			return
		}
	}
	p.t.Fatalf("waited in vain: %s", what)
}

// named finds a room that the person is in by its name.
func (p *person) named(name string) id.RoomID {
	for _, room := range p.rooms {
		var c event.RoomNameEventContent
		if p.StateEvent(p.t.Context(), room, event.StateRoomName, "", &c) == nil && c.Name == name {
			return room
		}
	}
	return ""
}

// line is one message as the person reads it.
type line struct {
	event *event.Event
	text  string
}

// timeline reads all messages of a room, the oldest first, by pages from the end.
// With sealed all of them must be encrypted.
func (p *person) timeline(room id.RoomID, sealed bool) []line {
	p.t.Helper()
	var list []line
	for from := ""; ; {
		page, err := p.Messages(p.t.Context(), room, from, "", mautrix.DirectionBackward, nil, 100)
		if err != nil {
			p.t.Fatal(err)
		}
		for _, e := range page.Chunk {
			switch {
			case e.StateKey != nil:
			case e.Type == event.EventEncrypted && sealed:
				list = append(list, line{e, p.open(room, e)})
			case e.Type == event.EventMessage && !sealed:
				list = append(list, line{e, e.Content.Raw["body"].(string)})
			case e.Type == event.EventMessage:
				p.t.Errorf("not encrypted: %s", e.Content.VeryRaw)
			}
		}
		if from = page.End; from == "" {
			slices.Reverse(list)
			return list
		}
	}
}

// open decrypts an event. The keys may still be under way.
func (p *person) open(room id.RoomID, e *event.Event) string {
	p.t.Helper()
	if text, ok := p.read[e.ID]; ok {
		return text
	}
	_ = e.Content.ParseRaw(e.Type) // it may have been parsed
	e.RoomID = room
	var text string
	p.until("the key of a message", func() bool {
		opened, err := p.mach.DecryptMegolmEvent(p.t.Context(), e)
		if errors.Is(err, crypto.ErrNoSessionFound) {
			return false
		}
		if err != nil {
			p.t.Fatalf("decrypt %s: %v", e.ID, err)
		}
		text = opened.Content.AsMessage().Body
		return true
	})
	p.read[e.ID] = text
	return text
}

// say sends a text, encrypted where asked.
func (p *person) say(room id.RoomID, text string, sealed bool) {
	p.t.Helper()
	ctx := p.t.Context()
	content := any(&event.MessageEventContent{MsgType: event.MsgText, Body: text})
	typ := event.EventMessage
	if sealed {
		typ, content = event.EventEncrypted, p.seal(ctx, room, content)
	}
	sent, err := p.SendMessageEvent(ctx, room, typ, content)
	if err != nil {
		p.t.Fatal(err)
	}
	p.said = append(p.said, sent.EventID)
}

// seal encrypts for all who are in the room.
func (p *person) seal(ctx context.Context, room id.RoomID, content any) any {
	p.t.Helper()
	members, err := p.JoinedMembers(ctx, room)
	if err != nil {
		p.t.Fatal(err)
	}
	var users []id.UserID
	for user := range members.Joined {
		users = append(users, user)
	}
	if err := p.mach.ShareGroupSession(ctx, room, users); err != nil {
		p.t.Fatal(err)
	}
	sealed, err := p.mach.EncryptMegolmEvent(ctx, room, event.EventMessage, content)
	if err != nil {
		p.t.Fatal(err)
	}
	return sealed
}
