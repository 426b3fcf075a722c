package appservices

import (
	"reflect"
	"strconv"
	"testing"

	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// TestLostCommits loses the connection to PostgreSQL at COMMITs, be they those of
// who speaks or of what notes that the appservice was told: it is told everything
// once.
func TestLostCommits(t *testing.T) {
	p := databasetest.StartProxy(t, databasetest.PostgreSQL(t))
	db, err := database.Open(t.Context(), p.URL, database.Options{Volatile: true})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { db.Close() })
	st, err := store.New(t.Context(), db, storetest.Budget)
	if err != nil {
		t.Fatal(err)
	}
	w := newWorld(t, st)
	reg := register(t, nil)
	b := newBridge(t, reg)
	if err := w.s.Attach(reg, b); err != nil {
		t.Fatal(err)
	}
	portal, alice := w.room(reg.ASToken), w.user("alice")
	w.must(alice, "POST", "/v3/rooms/"+portal+"/join", map[string]any{})
	w.start()
	var want []string
	for i := 0; i < 9 || p.Left() > 0; i++ {
		if i%3 == 0 && p.Left() == 0 {
			p.Next(databasetest.Unheard, databasetest.Cut, databasetest.Stuck)
		}
		want = append(want, "hello "+strconv.Itoa(i))
		w.say(alice, portal, want[i])
	}
	w.say(alice, portal, "last")
	if got := bodies(b.untilSaid("last")); !reflect.DeepEqual(got, append(want, "last")) {
		t.Errorf("told of %q, want %q", got, want)
	}
}
