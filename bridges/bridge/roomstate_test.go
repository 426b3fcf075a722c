package bridge

import (
	"encoding/json"
	"errors"
	"testing"
	"time"

	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
	"maunium.net/go/mautrix/sqlstatestore"

	"switchboard/homeserver/database/databasetest"
)

// TestRoomState gives the store what the bridge did, and the same again later.
func TestRoomState(t *testing.T) {
	databasetest.EachURL(t, testRoomState)
}

func testRoomState(t *testing.T, address string) {
	ctx := t.Context()
	db, done, err := openDatabase(ctx, address, "test")
	if err != nil {
		t.Fatal(err)
	}
	defer done()
	store := sqlstatestore.NewSQLStateStore(db, dbutil.NoopLogger, false)
	if err := store.Upgrade(ctx); err != nil {
		t.Fatal(err)
	}
	const room, ghost, alice = id.RoomID("!a"), id.UserID("@irc_bob:a.test"), id.UserID("@alice:a.test")
	h := &Host{place: Place{ID: "irc", ServerName: "a.test"}}
	if h.regs, err = h.registrations(); err != nil {
		t.Fatal(err)
	}
	s := newRoomState(store, h.own)
	do := func(m event.Membership) {
		t.Helper()
		if err := s.SetMembership(ctx, room, ghost, m); err != nil {
			t.Fatal(err)
		}
	}
	sent := func(number string, from id.UserID, kind event.Type, key, content string) {
		t.Helper()
		e := &event.Event{ID: id.EventID(number), Sender: from, RoomID: room, Type: kind, StateKey: &key}
		if err := errors.Join(json.Unmarshal([]byte(content), &e.Content), e.Content.ParseRaw(kind)); err != nil {
			t.Fatal(err)
		}
		mautrix.UpdateStateStore(ctx, s, e)
	}
	back := func(from id.UserID, m event.Membership) {
		t.Helper()
		sent("$1", from, event.StateMember, string(ghost), `{"membership": "`+string(m)+`"}`)
	}
	is := func(want event.Membership) {
		t.Helper()
		m, err := s.GetMember(ctx, room, ghost)
		if err != nil || m.Membership != want {
			t.Errorf("the ghost is %v (%v), want %s", m, err, want)
		}
	}
	do(event.MembershipInvite)
	do(event.MembershipJoin)
	do(event.MembershipJoin) // said twice of one
	back("@ircbot:a.test", event.MembershipInvite)
	is(event.MembershipJoin)
	back(ghost, event.MembershipJoin)
	do(event.MembershipLeave)
	do(event.MembershipJoin)
	back(ghost, event.MembershipLeave)
	is(event.MembershipJoin)
	back(alice, event.MembershipLeave) // a kick that nobody else knows of
	is(event.MembershipLeave)
	back(ghost, event.MembershipJoin)
	is(event.MembershipJoin)
	do(event.MembershipJoin) // never comes back
	back("@ircbot:a.test", event.MembershipBan)
	is(event.MembershipBan)
	do(event.MembershipLeave)
	back(ghost, event.MembershipLeave)
	is(event.MembershipLeave)

	// What comes back before it is noted leaves nothing behind.
	back(ghost, event.MembershipJoin)
	do(event.MembershipJoin)
	back(ghost, event.MembershipLeave)
	do(event.MembershipLeave)
	do(event.MembershipJoin)
	sent("$1", ghost, event.StateMember, string(ghost), `{"membership": "join", "displayname": "Bob"}`)
	if m, err := s.GetMember(ctx, room, ghost); err != nil || m.Displayname != "Bob" {
		t.Errorf("the ghost that joined again is %v (%v)", m, err)
	}

	// A local user for whom the bridge acts.
	puppet := func(number string, m event.Membership) {
		t.Helper()
		sent(number, alice, event.StateMember, string(alice), `{"membership": "`+string(m)+`", "fi.mau.double_puppet_source": "switchboard-irc"}`)
	}
	puppet("", event.MembershipJoin)
	puppet("", event.MembershipLeave)
	puppet("$4", event.MembershipJoin)
	if m, err := s.GetMember(ctx, room, alice); err != nil || m.Membership != event.MembershipLeave {
		t.Errorf("the local user is %v (%v)", m, err)
	}
	puppet("$5", event.MembershipLeave)

	// The first levels were read from the homeserver, in mautrix' words.
	levels := func(number, content string) {
		t.Helper()
		sent(number, "@ircbot:a.test", event.StatePowerLevels, "", content)
	}
	levels("", `{"users_default": 1}`)
	levels("", `{"users_default": 2}`)
	levels("$2", `{"users_default": 1, "events_default": 0}`)
	if l, err := s.GetPowerLevels(ctx, room); err != nil || l.UsersDefault != 2 {
		t.Errorf("the levels are %v (%v)", l, err)
	}
	levels("$3", `{"users_default": 2}`)
	levels("", `{"users_default": 2}`) // no change
	sent("", "@ircbot:a.test", event.StateTopic, "", `{"topic": "tea"}`)
	if len(s.ahead) != 0 {
		t.Errorf("what has come back, or is never asked for, is kept: %v", s.ahead)
	}
	now := time.Now()
	for i := range 1000 {
		s.did(ctx, stateKey{room: room, key: string(rune(i))}, "join", now.Add(time.Duration(i)*time.Minute))
	}
	if len(s.ahead) > 250 {
		t.Errorf("of 1000 changes that never come back %d are kept", len(s.ahead))
	}
}
