package bridgetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/appservices"
)

// User is a Matrix user with a client that syncs.
type User struct {
	*mautrix.Client
	T *testing.T

	mu     sync.Mutex // tier 1; guards what follows
	events []*event.Event
	seen   map[id.EventID]bool
}

// User registers a user and syncs until the test ends.
func (s *Server) User(name string) *User {
	s.T.Helper()
	c, err := mautrix.NewClient("http://homeserver.invalid", "", "")
	if err != nil {
		s.T.Fatal(err)
	}
	c.Client.Transport = &appservices.Wire{Handler: s}
	resp, err := c.RegisterDummy(context.Background(), &mautrix.ReqRegister[any]{Username: name, Password: "correct horse battery"})
	if err != nil {
		s.T.Fatalf("register %s: %v", name, err)
	}
	c.UserID, c.AccessToken, c.DeviceID = resp.UserID, resp.AccessToken, resp.DeviceID
	return Sync(s.T, c)
}

// Sync makes a user of any homeserver of a client that is logged in, which syncs
// until the test ends.
func Sync(t *testing.T, c *mautrix.Client) *User {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	u := &User{Client: c, T: t, seen: make(map[id.EventID]bool)}
	syncer := impatient{mautrix.NewDefaultSyncer()}
	syncer.OnSync(u.fillGaps)
	syncer.OnEvent(func(_ context.Context, e *event.Event) { u.keep(e) })
	c.Syncer = syncer
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			// An error means that the server is down for a moment.
			_ = c.SyncWithContext(ctx)
		}
	}()
	t.Cleanup(func() { cancel(); <-done })
	return u
}

// impatient is a syncer that tries again soon.
type impatient struct{ *mautrix.DefaultSyncer }

// OnFailedSync implements mautrix.Syncer.
func (impatient) OnFailedSync(*mautrix.RespSync, error) (time.Duration, error) {
	return impatience, nil
}

// impatience is when a client tries again.
const impatience = 50 * time.Millisecond

// fillGaps fetches what the limit of the timeline left out of an answer, as
// clients do: backwards to the first event that has been seen. A server that is
// down for a moment is asked again.
func (u *User) fillGaps(ctx context.Context, resp *mautrix.RespSync, since string) bool {
	for room, joined := range resp.Rooms.Join {
		known := u.Events(func(e *event.Event) bool { return e.RoomID == room })
		if since == "" || !joined.Timeline.Limited || len(known) == 0 {
			continue
		}
		for from, met := joined.Timeline.PrevBatch, false; from != "" && !met; {
			page, err := u.Messages(ctx, room, from, "", mautrix.DirectionBackward, nil, 100)
			if errors.Is(err, mautrix.MForbidden) {
				break // the user was put out meanwhile
			}
			if err != nil {
				if ctx.Err() != nil {
					return false
				}
				time.Sleep(impatience)
				continue
			}
			for _, e := range page.Chunk {
				if met = slices.ContainsFunc(known, func(k *event.Event) bool { return k.ID == e.ID }); met {
					break
				}
				joined.Timeline.Events = slices.Insert(joined.Timeline.Events, 0, e)
			}
			from = page.End
		}
	}
	return true
}

func (u *User) keep(e *event.Event) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if e.RoomID != "" && (e.ID == "" || !u.seen[e.ID]) {
		u.seen[e.ID] = true
		u.events = append(u.events, e)
	}
}

// Events returns all events so far that match.
func (u *User) Events(match func(*event.Event) bool) []*event.Event {
	u.mu.Lock()
	defer u.mu.Unlock()
	var out []*event.Event
	for _, e := range u.events {
		if match(e) {
			out = append(out, e)
		}
	}
	return out
}

// Await waits for an event that matches.
func (u *User) Await(what string, match func(*event.Event) bool) *event.Event {
	u.T.Helper()
	var found *event.Event
	Eventually(u.T, fmt.Sprintf("%s sees: %s", u.UserID, what), func() bool {
		if all := u.Events(match); len(all) > 0 {
			found = all[0]
		}
		return found != nil
	})
	return found
}

// Message matches a message in a room whose body contains a text.
func Message(room id.RoomID, text string) func(*event.Event) bool {
	return func(e *event.Event) bool {
		return e.RoomID == room && e.Type == event.EventMessage && strings.Contains(e.Content.AsMessage().Body, text)
	}
}

// Member matches a membership of a user in a room.
func Member(room id.RoomID, user id.UserID, m event.Membership) func(*event.Event) bool {
	return func(e *event.Event) bool {
		return e.RoomID == room && e.Type == event.StateMember && e.GetStateKey() == string(user) && e.Content.AsMember().Membership == m
	}
}

// Status matches the status of a message that the bridge tells.
func Status(of id.EventID, status event.MessageStatus) func(*event.Event) bool {
	return func(e *event.Event) bool {
		c, ok := e.Content.Parsed.(*event.BeeperMessageStatusEventContent)
		return ok && c.RelatesTo.EventID == of && c.Status == status
	}
}

// Say sends a text and returns the event's ID.
func (u *User) Say(room id.RoomID, text string) id.EventID {
	u.T.Helper()
	return u.Send(room, &event.MessageEventContent{MsgType: event.MsgText, Body: text})
}

// Send sends a message and returns the event's ID.
func (u *User) Send(room id.RoomID, content any) id.EventID {
	u.T.Helper()
	resp, err := u.SendMessageEvent(context.Background(), room, event.EventMessage, content)
	if err != nil {
		u.T.Fatalf("%s sends: %v", u.UserID, err)
	}
	return resp.EventID
}

// Bot is the bot of a bridge.
func Bot(bridge string) id.UserID { return id.UserID("@" + bridge + "bot:" + ServerName) }

// Ghost is the Matrix user of somebody on a bridge's network.
func Ghost(bridge, user string) id.UserID {
	return id.UserID("@" + bridge + "_" + user + ":" + ServerName)
}

// Invite makes a private room and invites somebody.
func (u *User) Invite(whom id.UserID) id.RoomID {
	u.T.Helper()
	resp, err := u.CreateRoom(context.Background(), &mautrix.ReqCreateRoom{
		Preset: "trusted_private_chat", Invite: []id.UserID{whom}, IsDirect: true,
	})
	if err != nil {
		u.T.Fatal(err)
	}
	return resp.RoomID
}

// Manage opens the management room with the bot.
func (u *User) Manage(bot id.UserID) id.RoomID {
	u.T.Helper()
	room := u.Invite(bot)
	u.Await("the bot's greeting", Message(room, "management room"))
	return room
}

// Ask says something in a room and waits for an answer with the given text
// that comes after it.
func (u *User) Ask(room id.RoomID, text, answer string) string {
	u.T.Helper()
	before := len(u.Events(Message(room, answer)))
	u.Say(room, text)
	defer u.logOnFailure(room)()
	var found string
	Eventually(u.T, fmt.Sprintf("%q is answered by %q", text, answer), func() bool {
		all := u.Events(Message(room, answer))
		if len(all) > before {
			found = all[len(all)-1].Content.AsMessage().Body
		}
		return found != ""
	})
	return found
}

// logOnFailure returns a function that shows what was said in a room if the
// test is about to end.
func (u *User) logOnFailure(room id.RoomID) func() {
	done := false
	u.T.Cleanup(func() {
		if done {
			return
		}
		for _, e := range u.Events(Message(room, "")) {
			u.T.Logf("%s: %s", e.Sender, e.Content.AsMessage().Body)
		}
	})
	return func() { done = !u.T.Failed() }
}

// Room waits until the user is in a room of the given name.
func (u *User) Room(name string) id.RoomID {
	u.T.Helper()
	var room id.RoomID
	Eventually(u.T, fmt.Sprintf("%s is in a room named %s", u.UserID, name), func() bool {
		rooms, err := u.JoinedRooms(context.Background())
		if err != nil {
			return false
		}
		for _, r := range rooms.JoinedRooms {
			var content event.RoomNameEventContent
			if u.StateEvent(context.Background(), r, event.StateRoomName, "", &content) == nil && content.Name == name {
				room = r
				return true
			}
		}
		return false
	})
	return room
}

// DirectRoom waits until the user is in a room with just one other of the given
// ID, and the bot.
func (u *User) DirectRoom(other id.UserID) id.RoomID {
	u.T.Helper()
	var room id.RoomID
	Eventually(u.T, fmt.Sprintf("%s is in a direct room with %s", u.UserID, other), func() bool {
		rooms, err := u.JoinedRooms(context.Background())
		if err != nil {
			return false
		}
		for _, r := range rooms.JoinedRooms {
			if m := u.Members(r); len(m) == 3 && slices.Contains(m, other) {
				room = r
				return true
			}
		}
		return false
	})
	return room
}

// Members are the users in a room, sorted.
func (u *User) Members(room id.RoomID) []id.UserID {
	resp, err := u.JoinedMembers(context.Background(), room)
	if err != nil {
		return nil
	}
	var out []id.UserID
	for user := range resp.Joined {
		out = append(out, user)
	}
	slices.Sort(out)
	return out
}

// AwaitMembers waits until exactly these users are in a room.
func (u *User) AwaitMembers(room id.RoomID, want ...id.UserID) {
	u.T.Helper()
	want = slices.Sorted(slices.Values(want))
	var got []id.UserID
	u.T.Cleanup(func() {
		if u.T.Failed() && !slices.Equal(got, want) {
			u.T.Logf("members were %v, wanted were %v", got, want)
		}
	})
	Eventually(u.T, fmt.Sprintf("the members are %v", want), func() bool {
		got = u.Members(room)
		return slices.Equal(got, want)
	})
}
