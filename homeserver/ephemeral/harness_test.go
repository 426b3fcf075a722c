package ephemeral

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

const (
	alice = matrix.UserID("@alice:a.test")
	bob   = matrix.UserID("@bob:a.test")
	carol = matrix.UserID("@carol:a.test") // in no room
	home  = matrix.RoomID("!home:a.test")  // of alice and bob
	other = matrix.RoomID("!other:a.test") // of bob
)

// world is a service on a store with two rooms.
type world struct {
	*Service
	t     *testing.T
	rooms map[matrix.RoomID]*store.Room
}

// each runs f on both databases.
func each(t *testing.T, f func(t *testing.T, w *world)) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := &world{&Service{Store: st, Bell: &notify.Bell{}}, t, map[matrix.RoomID]*store.Room{}}
		w.room(home, alice, bob)
		w.room(other, bob)
		f(t, w)
	})
}

func (w *world) write(f func(ctx context.Context, tx *store.Tx) error) {
	w.t.Helper()
	ctx := context.WithoutCancel(w.t.Context())
	if err := w.Store.Update(ctx, func(tx *store.Tx) error { return f(ctx, tx) }); err != nil {
		w.t.Fatal(err)
	}
}

// room makes a room with members.
func (w *world) room(id matrix.RoomID, members ...matrix.UserID) {
	w.t.Helper()
	v, _ := matrix.Version("11")
	w.write(func(ctx context.Context, tx *store.Tx) error {
		num, err := tx.NextNumber(ctx, "rooms")
		if err != nil {
			return err
		}
		r := &store.Room{Num: store.RoomNum(num), ID: id, Version: v}
		w.rooms[id] = r
		if err := tx.PutRoom(ctx, r); err != nil {
			return err
		}
		for _, u := range members {
			if err := tx.PutMembership(ctx, store.Membership{User: u, Room: r.Num, Membership: "join", Event: 1, Local: true}); err != nil {
				return err
			}
		}
		return nil
	})
}

// say appends a message with a content to a room.
func (w *world) say(room matrix.RoomID, id matrix.EventID, content string) {
	w.t.Helper()
	r := w.rooms[room]
	p, err := event.Load(r.Version, id, fmt.Appendf(nil,
		`{"auth_events":[],"content":%s,"depth":1,"hashes":{},"origin_server_ts":1,"prev_events":[],"room_id":%q,"sender":%q,"signatures":{},"type":"m.room.message"}`,
		content, room, bob))
	if err != nil {
		w.t.Fatal(err)
	}
	w.write(func(ctx context.Context, tx *store.Tx) error {
		pos, err := tx.NextPosition(ctx)
		if err != nil {
			return err
		}
		return tx.AppendEvent(ctx, &store.Event{PDU: p, Num: store.EventNum(pos), Pos: pos, Room: r.Num})
	})
}

// code is the errcode of an error that a client may see, "" for none.
func code(t *testing.T, err error) matrix.Code {
	t.Helper()
	var e *matrix.Error
	switch {
	case err == nil:
		return ""
	case !errors.As(err, &e):
		t.Fatalf("%v is no answer for a client", err)
	}
	return e.Code
}

func rung(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}
