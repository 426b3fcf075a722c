package room

import (
	"context"
	"errors"
	"testing"

	"switchboard/homeserver/database"
	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// TestUnreadableState has the time for an event be up while its room's state is
// read: that is no judgement of the event, in any version.
func TestUnreadableState(t *testing.T) {
	databasetest.Each(t, func(t *testing.T, db *database.DB) {
		open := func() world { // which remembers nothing
			return newWorld(t, "a.test", must(store.New(t.Context(), db, storetest.Budget)))
		}
		w := open()
		for _, v := range matrix.Versions() {
			id := w.create(Creation{Version: v.ID, Preset: "public_chat"})
			said := must(w.Store.Event(w.ctx(), w.say(alice, id, "tea")))
			found := must(w.Store.EventsByID(w.ctx(), said.PDU.AuthEvents))
			var auth []*store.Event
			for _, e := range found {
				auth = append(auth, e)
			}
			again := open()
			room := must(again.Store.Room(w.ctx(), id))
			ctx, late := context.WithCancel(w.ctx())
			late()
			a := &arrival{s: again.Service, ctx: ctx, room: room, pdu: said.PDU, before: again.tree(said.State)}
			if err := a.judge(auth); !errors.Is(err, context.Canceled) || a.status != store.Accepted {
				t.Errorf("version %s: status %d, %v", v.ID, a.status, err)
			}
		}
	})
}
