package store_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestInbox(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		most := store.InboxBounds{Server: 3, Room: 4, Total: 6}
		put := func(room matrix.RoomID, origin matrix.ServerName, id, ts int64) (dropped int64) {
			t.Helper()
			commit(t, st, func(tx *store.Tx) (err error) {
				dropped, err = tx.PutIncoming(t.Context(), store.Incoming{
					Room: room, ID: matrix.EventID(fmt.Sprint("$", id)), Origin: origin, JSON: json.RawMessage(`{"a":"é"}`), ReceivedTS: ts,
				}, most)
				return err
			})
			return dropped
		}
		wait := func(room matrix.RoomID, ids ...string) {
			t.Helper()
			list, err := st.Inbox(t.Context(), room, 10)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for _, in := range list {
				got = append(got, string(in.ID))
				if string(in.JSON) != `{"a":"é"}` || in.Room != room || in.ReceivedTS == 0 || in.Origin == "" {
					t.Errorf("got %+v", in)
				}
			}
			if !slices.Equal(got, ids) {
				t.Errorf("for %s wait %v, want %v", room, got, ids)
			}
		}
		for i := range int64(3) {
			put("!a", "a.test", i, 10+i)
		}
		if n := put("!a", "a.test", 1, 99); n != 0 {
			t.Errorf("a repeated event dropped %d", n)
		}
		wait("!a", "$0", "$1", "$2")
		if n := put("!a", "a.test", 3, 13); n != 1 { // too many of the server
			t.Errorf("dropped %d", n)
		}
		put("!a", "b.test", 1, 14) // of another server, too
		if n := put("!a", "b.test", 4, 15); n != 1 {
			t.Errorf("dropped %d", n)
		}
		wait("!a", "$2", "$3", "$1", "$4")
		put("!b", "c.test", 5, 16)
		put("!b", "c.test", 6, 17)
		if n := put("!b", "d.test", 7, 18); n != 1 {
			t.Errorf("dropped %d", n)
		}
		wait("!a", "$3", "$1", "$4")

		rooms, err := st.InboxRooms(t.Context())
		slices.Sort(rooms)
		if want := []matrix.RoomID{"!a", "!b"}; err != nil || !slices.Equal(rooms, want) {
			t.Errorf("got %v, %v; want %v", rooms, err, want)
		}
		list, _ := st.Inbox(t.Context(), "!a", 2)
		commit(t, st, func(tx *store.Tx) error {
			if n, err := tx.DropOldIncoming(t.Context(), 17); err != nil || n != 4 {
				t.Errorf("dropped %d: %v", n, err)
			}
			return tx.DropIncoming(t.Context(), []int64{list[0].Num, list[1].Num})
		})
		wait("!a")
		wait("!b", "$6", "$7")
	})
}
