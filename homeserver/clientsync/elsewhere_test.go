package clientsync

import (
	"encoding/json"
	"testing"
	"time"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/room"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

const dave = matrix.UserID("@dave:b.test")

// elsewhere is another server, b.test.
type elsewhere struct {
	*world
	rooms *room.Service
}

func eachElsewhere(t *testing.T, f func(w *world, b elsewhere)) {
	each(t, func(w *world) {
		storetest.Each(w.TB.(*testing.T), func(t *testing.T, st *store.Store) {
			key, err := signing.Generate()
			w.ok(err)
			f(w, elsewhere{w, &room.Service{Store: st, Bell: &notify.Bell{}, ServerName: "b.test", Key: key}})
		})
	})
}

// join lets alice join a room of b.test.
func (b elsewhere) join(id matrix.RoomID) {
	b.Helper()
	tpl, err := b.rooms.Template(b.ctx(), id, alice, "join", nil)
	b.ok(err)
	var draft struct {
		Depth int64
		Prev  []matrix.EventID `json:"prev_events"`
		Auth  []matrix.EventID `json:"auth_events"`
	}
	b.ok(json.Unmarshal(tpl.Event, &draft))
	user := string(alice)
	e, err := b.Rooms.Complete(b.ctx(), tpl.Version, event.Draft{Room: id, Type: event.TypeMember, Sender: alice, StateKey: &user,
		Content: json.RawMessage(`{"membership":"join"}`), Depth: draft.Depth, PrevEvents: draft.Prev, AuthEvents: draft.Auth,
		OriginServerTS: time.Now().UnixMilli()}, room.Change{Room: id, Actor: alice, Membership: "join"})
	b.ok(err)
	_, err = b.rooms.Receive(b.ctx(), e)
	b.ok(err)
	state, auth := b.before(e)
	b.ok(b.Rooms.Import(b.ctx(), room.Joined{Event: e, State: state, Auth: auth}))
}

// before is the state before an event, and what authorizes it.
func (b elsewhere) before(p *event.PDU) (state, auth []*event.PDU) {
	b.Helper()
	e, err := b.rooms.Store.Event(b.ctx(), p.ID)
	b.ok(err)
	root, err := b.rooms.StateBefore(b.ctx(), e)
	b.ok(err)
	events, err := b.rooms.StateEvents(b.ctx(), root)
	b.ok(err)
	state = plainPDUs(events)
	chain, err := b.rooms.AuthChain(b.ctx(), append([]*event.PDU{p}, state...))
	b.ok(err)
	return state, plainPDUs(chain)
}

func plainPDUs(list []*store.Event) []*event.PDU {
	var pdus []*event.PDU
	for _, e := range list {
		pdus = append(pdus, e.PDU)
	}
	return pdus
}

// send makes dave send an event, and gives it.
func (b elsewhere) send(id matrix.RoomID, typ string, key *string, content string) *event.PDU {
	b.Helper()
	sent, err := b.rooms.Send(b.ctx(), room.Sending{User: dave, Room: id, Type: typ, StateKey: key, Content: json.RawMessage(content)})
	b.ok(err)
	e, err := b.rooms.Store.Event(b.ctx(), sent)
	b.ok(err)
	return e.PDU
}

// TestMissing checks that a timeline begins behind a gap, with the state that came
// to be in it: when the server joins a room, and when it missed events that
// nobody gives it.
func TestMissing(t *testing.T) {
	eachElsewhere(t, func(w *world, b elsewhere) {
		none := ""
		id, err := b.rooms.Create(b.ctx(), room.Creation{Creator: dave, Preset: "public_chat"})
		w.ok(err)
		b.send(id, "m.room.topic", &none, `{"topic":"before"}`)
		c, late := w.client(alice, ""), w.client(alice, "")
		c.sync()
		b.join(id)
		j := c.sync().in(id)
		w.want("joined", w.timeline(j), "… @alice:join")
		w.want("state", w.stated(j.State), "@dave:join create history_visibility join_rules power_levels topic:before")

		late.sync()
		w.say(alice, id, "hi")
		b.send(id, "m.room.topic", &none, `{"topic":"missed"}`)
		b.send(id, "m.room.message", nil, `{"body":"missed"}`)
		p := b.send(id, "m.room.message", nil, `{"body":"end"}`)
		state, auth := b.before(p)
		w.ok(w.Rooms.Keep(w.ctx(), id, append(auth, state...)))
		var ids []matrix.EventID
		for _, s := range state {
			ids = append(ids, s.ID)
		}
		_, err = w.Rooms.ReceiveAt(w.ctx(), p, ids)
		w.ok(err)
		w.say(alice, id, "you")
		for name, c := range map[string]*client{"incremental": c, "from before the join": late} {
			j = c.sync().in(id)
			w.want(name, w.timeline(j), "… end you")
			w.want(name+" state", w.stated(j.State), "topic:missed")
		}
		w.want("behind", w.timeline(c.sync().in(id)), "(none)")
	})
}
