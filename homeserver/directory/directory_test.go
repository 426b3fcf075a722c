package directory

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/room"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
	"switchboard/registrations"
)

const (
	alice = matrix.UserID("@alice:a.test")
	bob   = matrix.UserID("@bob:a.test")
	eve   = matrix.UserID("@eve:a.test")
)

// world is a directory on a real store.
type world struct {
	*testing.T
	*Service
}

func each(t *testing.T, f func(w world)) {
	t.Helper()
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		key, err := signing.Generate()
		if err != nil {
			t.Fatal(err)
		}
		rooms := &room.Service{Store: st, Bell: &notify.Bell{}, ServerName: "a.test", Key: key}
		f(world{t, &Service{Store: st, Rooms: rooms, ServerName: "a.test", Registrations: registrations.NewSet("a.test")}})
	})
}

func (w world) ok(err error) {
	w.Helper()
	if err != nil {
		w.Fatal(err)
	}
}

func (w world) refused(err error, code matrix.Code) {
	w.Helper()
	var e *matrix.Error
	if !errors.As(err, &e) || e.Code != code {
		w.Errorf("got %v, want %s", err, code)
	}
}

// create makes a room of alice, with bob in it.
func (w world) create(c room.Creation) matrix.RoomID {
	w.Helper()
	c.Creator, c.Preset = alice, "public_chat"
	id, err := w.Rooms.Create(w.Context(), c)
	w.ok(err)
	w.ok(w.Rooms.Join(w.Context(), room.Change{Room: id, Actor: bob}))
	return id
}

func TestResolveAsksAppservices(t *testing.T) {
	each(t, func(w world) {
		id := w.create(room.Creation{})
		asked := 0
		broken := errors.New("no answer")
		w.AskAlias = func(ctx context.Context, alias matrix.RoomAlias) (bool, error) {
			asked++
			switch alias {
			case "#made:a.test":
				return true, w.SetAlias(ctx, Caller{User: alice}, alias, id)
			case "#lie:a.test":
				return true, nil
			case "#broken:a.test":
				return false, broken
			}
			return false, nil
		}
		got, servers, err := w.Resolve(w.Context(), "#made:a.test")
		if err != nil || got != id || len(servers) != 1 || servers[0] != "a.test" {
			t.Errorf("got %s, %v, %v", got, servers, err)
		}
		if _, _, err := w.Resolve(w.Context(), "#made:a.test"); err != nil || asked != 1 {
			t.Errorf("asked %d times, %v", asked, err)
		}
		for _, alias := range []matrix.RoomAlias{"#none:a.test", "#lie:a.test"} {
			_, _, err := w.Resolve(w.Context(), alias)
			w.refused(err, matrix.NotFound)
		}
		if _, _, err := w.Resolve(w.Context(), "#broken:a.test"); !errors.Is(err, broken) {
			t.Errorf("got %v", err)
		}
	})
}

func TestAliasRights(t *testing.T) {
	each(t, func(w world) {
		ctx := w.Context()
		id := w.create(room.Creation{})
		set := func(c Caller, alias matrix.RoomAlias) error { return w.SetAlias(ctx, c, alias, id) }
		w.refused(set(Caller{User: eve}, "#a:a.test"), matrix.Forbidden)
		w.ok(set(Caller{User: eve, Admin: true}, "#a:a.test"))
		w.refused(set(Caller{User: bob}, "#a:a.test"), matrix.Unknown) // taken
		w.refused(set(Caller{User: bob}, "#a:b.test"), matrix.InvalidParam)
		w.ok(set(Caller{User: bob}, "#b:a.test"))
		w.refused(w.DeleteAlias(ctx, Caller{User: eve}, "#b:a.test"), matrix.Forbidden)
		w.ok(w.DeleteAlias(ctx, Caller{User: eve, Admin: true}, "#b:a.test"))
		w.ok(set(Caller{User: bob}, "#b:a.test"))
		w.ok(w.DeleteAlias(ctx, Caller{User: alice}, "#b:a.test")) // moderates the room
		w.refused(w.DeleteAlias(ctx, Caller{User: bob}, "#b:a.test"), matrix.NotFound)
		w.ok(set(Caller{User: bob}, "#b:a.test"))
		w.ok(w.Rooms.Leave(ctx, room.Change{Room: id, Actor: bob}))
		w.ok(w.DeleteAlias(ctx, Caller{User: bob}, "#b:a.test")) // bob's own all the same
	})
}

func TestListRights(t *testing.T) {
	each(t, func(w world) {
		ctx := w.Context()
		id := w.create(room.Creation{})
		listed := func(want bool) {
			t.Helper()
			if got, err := w.Listed(ctx, id); err != nil || got != want {
				t.Errorf("listed %v, %v", got, err)
			}
		}
		listed(false)
		w.refused(w.List(ctx, Caller{User: bob}, "", id, true), matrix.Forbidden)
		w.refused(w.List(ctx, Caller{User: eve}, "", id, true), matrix.Forbidden)
		w.ok(w.List(ctx, Caller{User: alice}, "", id, true))
		w.ok(w.List(ctx, Caller{User: alice}, "", id, true))
		listed(true)
		w.ok(w.List(ctx, Caller{User: eve, Admin: true}, "", id, false))
		listed(false)
		w.refused(w.List(ctx, Caller{User: alice}, "irc", id, true), matrix.Forbidden)
		w.refused(w.List(ctx, Caller{User: alice}, "", "!no:a.test", true), matrix.NotFound)
		as := &registrations.Registration{ID: "irc"}
		w.ok(w.List(ctx, Caller{User: eve, Appservice: as}, "libera", id, true))
		closed, err := w.Rooms.Create(ctx, room.Creation{Creator: alice, Preset: "private_chat"})
		w.ok(err)
		w.refused(w.List(ctx, Caller{User: eve, Appservice: as}, "libera", closed, true), matrix.Forbidden) // nobody of theirs is there
		w.ok(w.List(ctx, Caller{User: eve, Appservice: as}, "libera", closed, false))
		w.ok(w.List(ctx, Caller{User: alice, Appservice: as}, "libera", closed, true))
		listed(false)
		_, err = w.Listed(ctx, "!no:a.test")
		w.refused(err, matrix.NotFound)
	})
}

func TestPages(t *testing.T) {
	each(t, func(w world) {
		ctx := w.Context()
		for i := range 7 {
			name := fmt.Sprint("room ", i)
			w.create(room.Creation{Name: &name, Visibility: "public"})
		}
		for _, limit := range []int{1, 2, 3, 7, 50} {
			seen := map[string]bool{}
			var since string
			for page := 0; ; page++ {
				a, err := w.PublicRooms(ctx, Query{Limit: limit, Since: since})
				w.ok(err)
				if a.Total != 7 || len(a.Chunk) > limit || (page == 0) != (a.Prev == "") {
					t.Fatalf("limit %d, page %d: %d rooms of %d, prev %q", limit, page, len(a.Chunk), a.Total, a.Prev)
				}
				for _, r := range a.Chunk {
					if seen[r.Name] {
						t.Errorf("limit %d: %s twice", limit, r.Name)
					}
					seen[r.Name] = true
				}
				if since = a.Next; since == "" {
					break
				}
			}
			if len(seen) != 7 {
				t.Errorf("limit %d: %d rooms", limit, len(seen))
			}
		}
		a, err := w.PublicRooms(ctx, Query{Since: "100"})
		if err != nil || len(a.Chunk) != 0 || a.Next != "" {
			t.Errorf("behind the end: %+v, %v", a, err)
		}
		for _, bad := range []Query{{Since: "x"}, {Since: "-1"}, {Limit: -1}, {AllNetworks: true, Network: "x"}} {
			_, err := w.PublicRooms(ctx, bad)
			w.refused(err, matrix.InvalidParam)
		}
	})
}
