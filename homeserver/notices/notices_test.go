package notices_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"

	"switchboard/homeserver/account"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notices"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/room"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

const (
	server = matrix.UserID("@_server:a.test")
	alice  = matrix.UserID("@alice:a.test")
)

// world is the notices of a server with alice, and everything below.
type world struct {
	*testing.T
	*notices.Service
}

func each(t *testing.T, f func(w *world)) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		key, err := signing.Generate()
		if err != nil {
			t.Fatal(err)
		}
		bell := &notify.Bell{}
		config := account.DefaultConfig()
		config.Hash = account.Argon2{Memory: 64, Time: 1, Threads: 1}
		w := &world{t, &notices.Service{
			Store: st, ServerName: "a.test", Config: notices.DefaultConfig(),
			Rooms:    &room.Service{Store: st, Bell: bell, ServerName: "a.test", Key: key},
			Accounts: &account.Service{Store: st, Bell: bell, ServerName: "a.test", Config: config},
		}}
		w.Rooms.NoticesUser = w.User()
		w.user("alice")
		f(w)
	})
}

func (w *world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w *world) user(name string) {
	w.Helper()
	_, err := w.Accounts.CreateUser(w.Context(), account.NewUser{Localpart: name, Password: "correct horse"})
	w.ok(err)
}

func (w *world) code(want matrix.Code, err error) {
	w.Helper()
	var e *matrix.Error
	if !errors.As(err, &e) || e.Code != want {
		w.Errorf("error %v, want %s", err, want)
	}
}

// roomOf is the only room of a user, and what the user is there.
func (w *world) roomOf(user matrix.UserID) (*store.Room, string) {
	w.Helper()
	list := w.Store.Memberships(user)
	if len(list) != 1 {
		w.Fatalf("%s has the memberships %v, want one", user, list)
	}
	r, err := w.Store.RoomByNum(w.Context(), list[0].Room)
	w.ok(err)
	return r, list[0].Membership
}

func (w *world) state(r *store.Room, typ string) string {
	w.Helper()
	r, err := w.Store.Room(w.Context(), r.ID)
	w.ok(err)
	e, err := w.Rooms.StateEvent(w.Context(), r.Current, typ, "")
	w.ok(err)
	if e == nil {
		return ""
	}
	return string(e.PDU.Content)
}

func TestSend(t *testing.T) {
	each(t, func(w *world) {
		ctx := w.Context()
		w.ok(w.Accounts.SetData(ctx, alice, "", "m.invite_permission_config", json.RawMessage(`{"default_action":"block"}`)))
		first, err := w.Send(ctx, alice, notices.Text("maintenance at noon"))
		w.ok(err)
		r, is := w.roomOf(alice)
		if is != "invite" {
			w.Errorf("alice is %q in the room", is)
		}
		if hidden, err := w.Rooms.HidesInvite(ctx, alice, server); hidden || err != nil {
			w.Errorf("the invitation is hidden: %v (%v)", hidden, err)
		}
		if tags, err := w.Accounts.Tags(ctx, alice, r.ID); err != nil || tags["m.server_notice"] == nil {
			w.Errorf("tags %v (%v)", tags, err)
		}
		if name, create := w.state(r, "m.room.name"), w.state(r, "m.room.create"); name != `{"name":"Server notices"}` || !strings.Contains(create, `"m.federate":false`) {
			w.Errorf("the room has %s and %s", name, create)
		}
		w.code(matrix.CannotLeaveServerNoticeRoom, w.Rooms.Leave(ctx, room.Change{Room: r.ID, Actor: alice}))
		w.ok(w.Rooms.Join(ctx, room.Change{Room: r.ID, Actor: alice}))
		if seen, err := w.Rooms.Event(ctx, room.Reader{User: alice}, r.ID, first); err != nil || !strings.Contains(string(seen), "maintenance at noon") {
			w.Errorf("the notice is %s (%v)", seen, err)
		}
		for _, typ := range []string{"m.room.message", "m.room.encrypted", "m.reaction"} {
			_, err = w.Rooms.Send(ctx, room.Sending{User: alice, Room: r.ID, Type: typ, Content: json.RawMessage(`{"body":"no"}`)})
			w.code(matrix.Forbidden, err)
		}
		w.ok(w.Rooms.Leave(ctx, room.Change{Room: r.ID, Actor: alice}))
		w.ok(w.Accounts.SetTag(ctx, alice, r.ID, "m.server_notice", nil))
		_, err = w.Send(ctx, alice, notices.Text("again"))
		w.ok(err)
		if same, is := w.roomOf(alice); same.ID != r.ID || is != "invite" {
			w.Errorf("after leaving, alice is %q in %s, which was %s", is, same.ID, r.ID)
		}
		if tags, err := w.Accounts.Tags(ctx, alice, r.ID); err != nil || tags["m.server_notice"] == nil {
			w.Errorf("tags %v after the second invitation (%v)", tags, err)
		}
		w.ok(w.Rooms.LeaveAll(ctx, alice)) // as when the account ends
		if _, is := w.roomOf(alice); is != "leave" {
			w.Errorf("alice is %q after her end", is)
		}
	})
}

// TestFull: who has stored all that they may is told something all the same, and so
// are those whose turn comes after them.
func TestFull(t *testing.T) {
	each(t, func(w *world) {
		ctx := w.Context()
		_, err := w.Send(ctx, alice, notices.Text("one"))
		w.ok(err)
		r, _ := w.roomOf(alice)
		w.ok(w.Rooms.Join(ctx, room.Change{Room: r.ID, Actor: alice}))
		w.ok(w.Rooms.Leave(ctx, room.Change{Room: r.ID, Actor: alice}))
		w.ok(w.Accounts.SetTag(ctx, alice, r.ID, "m.server_notice", nil))
		for i := range 200 {
			w.ok(w.Accounts.SetTag(ctx, alice, r.ID, fmt.Sprint("u.", i), json.RawMessage(`{}`)))
		}
		w.code(matrix.InvalidParam, w.Accounts.SetTag(ctx, alice, r.ID, "u.more", json.RawMessage(`{}`)))
		_, err = w.Send(ctx, alice, notices.Text("two"))
		w.ok(err)
		if _, is := w.roomOf(alice); is != "invite" {
			w.Errorf("alice is %q in the room", is)
		}
	})
}

// TestUsageLimit: what goes on is pinned until it is over.
func TestUsageLimit(t *testing.T) {
	each(t, func(w *world) {
		w.code(matrix.NotFound, w.Unpin(w.Context(), "@nobody:a.test"))
		w.ok(w.Unpin(w.Context(), alice)) // nothing to do
		id, err := w.Send(w.Context(), alice, notices.UsageLimit("full", "monthly_active_user", "mailto:admin@a.test"))
		w.ok(err)
		r, _ := w.roomOf(alice)
		if got := w.state(r, "m.room.pinned_events"); got != `{"pinned":["`+string(id)+`"]}` {
			w.Errorf("pinned: %s", got)
		}
		e, err := w.Store.Event(w.Context(), id)
		w.ok(err)
		for _, want := range []string{`"msgtype":"m.server_notice"`, `"server_notice_type":"m.server_notice.usage_limit_reached"`, `"limit_type":"monthly_active_user"`, `"admin_contact":"mailto:admin@a.test"`} {
			if !strings.Contains(string(e.PDU.Content), want) {
				w.Errorf("the notice lacks %s: %s", want, e.PDU.Content)
			}
		}
		w.ok(w.Unpin(w.Context(), alice))
		if got := w.state(r, "m.room.pinned_events"); got != `{"pinned":[]}` {
			w.Errorf("pinned when it is over: %s", got)
		}
	})
}

// TestOneRoom: notices at the same time make one room.
func TestOneRoom(t *testing.T) {
	each(t, func(w *world) {
		var group sync.WaitGroup
		for range 8 {
			group.Go(func() {
				if _, err := w.Send(w.Context(), alice, notices.Text("hello")); err != nil {
					w.Error(err)
				}
			})
		}
		group.Wait()
		w.roomOf(alice)
	})
}

func TestTxn(t *testing.T) {
	each(t, func(w *world) {
		n := notices.Text("once")
		n.Txn = "1"
		first, err := w.Send(w.Context(), alice, n)
		w.ok(err)
		if again, err := w.Send(w.Context(), alice, n); err != nil || again != first {
			w.Errorf("a repeated notice is %s, the first was %s (%v)", again, first, err)
		}
	})
}

// TestName: the server's user has the configured name, also a later one, and is
// nobody else's.
func TestName(t *testing.T) {
	each(t, func(w *world) {
		ctx := w.Context()
		for _, name := range []string{"Server", "Operator"} {
			w.Config.DisplayName = name
			_, err := w.Send(ctx, alice, notices.Text("hello"))
			w.ok(err)
			r, _ := w.roomOf(server)
			e, err := w.Rooms.StateEvent(ctx, r.Current, "m.room.member", string(server))
			w.ok(err)
			if got := e.PDU.ContentString("displayname"); got != name {
				w.Errorf("the sender is %q, want %q", got, name)
			}
		}
		_, err := w.Send(ctx, server, notices.Text("hello"))
		w.code(matrix.InvalidParam, err)
		_, err = w.Send(ctx, "@nobody:a.test", notices.Text("hello"))
		w.code(matrix.NotFound, err)
		w.user("bob")
		w.Config.Localpart = "bob"
		if _, err := w.Send(ctx, alice, notices.Text("hello")); err == nil || !strings.Contains(err.Error(), "somebody's account") {
			w.Errorf("as bob: %v", err)
		}
	})
}

func TestEverybody(t *testing.T) {
	each(t, func(w *world) {
		_, err := w.Send(w.Context(), alice, notices.Text("hello"))
		w.ok(err)
		for _, name := range []string{"bob", "carol", "dave"} {
			w.user(name)
		}
		w.ok(w.Accounts.Deactivate(w.Context(), "@carol:a.test", false))
		var told []matrix.UserID
		failing := errors.New("failing")
		last, err := w.Everybody(w.Context(), "", func(u matrix.UserID) error {
			if u == "@dave:a.test" {
				return failing
			}
			told = append(told, u)
			return nil
		})
		if !errors.Is(err, failing) || last != "@bob:a.test" || len(told) != 2 || told[0] != alice {
			w.Errorf("told %v up to %s (%v)", told, last, err)
		}
		told = nil
		if last, err := w.Everybody(w.Context(), last, func(u matrix.UserID) error { told = append(told, u); return nil }); err != nil || last != "@dave:a.test" || len(told) != 1 {
			w.Errorf("then told %v up to %s (%v)", told, last, err)
		}
	})
}

func TestCheck(t *testing.T) {
	good := notices.DefaultConfig()
	if err := good.Check("a.test"); err != nil {
		t.Error(err)
	}
	bad := notices.Config{Localpart: "No Name", Avatar: "https://a.test/x.png"}
	err := bad.Check("a.test")
	for _, key := range []string{"localpart", "avatar", "room_name"} {
		if err == nil || !strings.Contains(err.Error(), "server_notices."+key+": ") {
			t.Errorf("%s: %v", key, err)
		}
	}
}
