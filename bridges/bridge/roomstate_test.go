package bridge

import (
	"path/filepath"
	"strings"
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
	t.Run("sqlite", func(t *testing.T) { testRoomState(t, "sqlite:"+filepath.Join(t.TempDir(), "bridge.db")) })
	t.Run("postgres", func(t *testing.T) { testRoomState(t, databasetest.PostgreSQL(t)) })
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
	s := newRoomState(store, func(user id.UserID) bool { return strings.HasPrefix(string(user), "@irc") })
	do := func(m event.Membership) {
		t.Helper()
		if err := s.SetMembership(ctx, room, ghost, m); err != nil {
			t.Fatal(err)
		}
	}
	sent := func(number string, from id.UserID, kind event.Type, key string, content any) {
		mautrix.UpdateStateStore(ctx, s, &event.Event{ID: id.EventID(number), Sender: from, RoomID: room, Type: kind, StateKey: &key, Content: event.Content{
			Parsed: content, Raw: map[string]any{"is": content},
		}})
	}
	back := func(from id.UserID, m event.Membership) {
		sent("$1", from, event.StateMember, string(ghost), &event.MemberEventContent{Membership: m})
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

	levels := func(number string, of int) {
		sent(number, "@ircbot:a.test", event.StatePowerLevels, "", &event.PowerLevelsEventContent{UsersDefault: of})
	}
	levels("", 1)
	levels("", 2)
	levels("$2", 1)
	if l, err := s.GetPowerLevels(ctx, room); err != nil || l.UsersDefault != 2 {
		t.Errorf("the levels are %v (%v)", l, err)
	}
	levels("$3", 2)
	if len(s.ahead) != 0 {
		t.Errorf("what has come back is kept: %v", s.ahead)
	}
	now := time.Now()
	for i := range 1000 {
		s.did(stateKey{room: room, key: string(rune(i))}, "join", now.Add(time.Duration(i)*time.Minute))
	}
	if len(s.ahead) > 250 {
		t.Errorf("of 1000 changes that never come back %d are kept", len(s.ahead))
	}
}
