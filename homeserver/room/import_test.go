package room

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// answer is what a server gets whose user dave joins a room of a.test.
func (p pair) answer(id matrix.RoomID) Joined {
	p.Helper()
	ctx := p.ctx()
	tpl, err := p.Template(ctx, id, dave, "join", nil)
	p.ok(err)
	e, err := p.b.Complete(ctx, tpl.Version, p.drafted(tpl), Change{Room: id, Actor: dave, Membership: "join"})
	p.ok(err)
	_, err = p.Receive(ctx, e)
	p.ok(err)
	stored, err := p.Store.Event(ctx, e.ID)
	p.ok(err)
	before, err := p.StateBefore(ctx, stored)
	p.ok(err)
	r, err := p.Store.Room(ctx, id)
	p.ok(err)
	snap, err := p.Snapshot(ctx, r, before, e)
	p.ok(err)
	j := Joined{Version: tpl.Version, Event: e}
	into := func(list *[]*event.PDU) func(raw json.RawMessage) error {
		return func(raw json.RawMessage) error {
			p, err := event.Parse(tpl.Version, raw)
			*list = append(*list, p)
			return err
		}
	}
	p.ok(snap.State(ctx, into(&j.State)))
	p.ok(snap.Auth(ctx, into(&j.Auth)))
	if !slices.ContainsFunc(j.Auth, func(e *event.PDU) bool { return e.Type == event.TypeCreate }) {
		p.Errorf("no create event authorizes the state of %s", id)
	}
	return j
}

// TestImportForged joins a room some of whose state is forged: it is left out,
// with what it authorizes, but a genuine copy of it counts.
func TestImportForged(t *testing.T) {
	twoServers(t, func(p pair) {
		for _, version := range []string{"2", "11", "12"} {
			id := p.create(Creation{Creator: alice, Version: version, Preset: "public_chat"})
			p.ok(p.state(alice, id, "m.room.topic", "", `{"topic":"x"}`))
			p.ok(p.state(alice, id, "org.example.forged", "", `{}`))
			j := p.answer(id)
			forged := map[*event.PDU]bool{}
			for _, e := range slices.Clone(j.State) {
				switch e.Type {
				case "org.example.forged":
					forged[e] = true
				case event.TypePowerLevels: // the first of two copies
					double, err := event.Parse(e.Version, e.JSON)
					p.ok(err)
					j.Auth = append([]*event.PDU{double}, j.Auth...)
					forged[double] = true
				}
			}
			asked := 0
			j.Verified = func(_ context.Context, events []*event.PDU) []error {
				asked += len(events)
				errs := make([]error, len(events))
				for i, e := range events {
					if forged[e] {
						errs[i] = errors.New("forged")
					}
				}
				return errs
			}
			p.ok(p.b.Import(p.ctx(), j))
			if asked < len(j.State) {
				t.Errorf("version %s: %d events were verified, want at least %d", version, asked, len(j.State))
			}
			r, err := p.b.Store.Room(p.ctx(), id)
			p.ok(err)
			state, err := p.b.StateEvents(p.ctx(), r.Current)
			p.ok(err)
			var types []string
			for _, e := range state {
				types = append(types, e.PDU.Type)
			}
			if len(state) != len(j.State) || slices.Contains(types, "org.example.forged") { // less one, and the join
				t.Errorf("version %s: the state has %v", version, types)
			}
			if r.Joined != 2 || p.b.Store.Membership(dave, r.Num).Membership != event.Join {
				t.Errorf("version %s: %d members, dave is %+v", version, r.Joined, p.b.Store.Membership(dave, r.Num))
			}
			if servers, err := p.b.Store.Servers(p.ctx(), r.Num); len(servers) != 2 || err != nil {
				t.Errorf("version %s: servers %v, %v", version, servers, err)
			}
		}
	})
}

// TestImportAll leaves a server out of a room whose state it could not verify to
// the end, or does not let the user in; then it joins after all.
func TestImportAll(t *testing.T) {
	twoServers(t, func(p pair) {
		id := p.create(Creation{Creator: alice, Version: "11", Preset: "public_chat"})
		whole := p.answer(id)
		broken := whole
		ctx, cancel := context.WithCancel(p.ctx())
		broken.Verified = func(_ context.Context, events []*event.PDU) []error {
			cancel()
			return make([]error, len(events))
		}
		if err := p.b.Import(ctx, broken); !errors.Is(err, context.Canceled) {
			t.Errorf("a join that was given up: %v", err)
		}
		lies := whole
		lies.State = slices.DeleteFunc(slices.Clone(whole.State), func(e *event.PDU) bool { return e.Type == event.TypeJoinRules })
		if err := p.b.Import(p.ctx(), lies); err == nil {
			t.Error("a state without join rules let the user in")
		}
		r, err := p.b.Store.Room(p.ctx(), id)
		p.ok(err)
		if in, err := p.b.Resident(p.ctx(), id); in || err != nil || r.Current != 0 || p.b.Store.Membership(dave, r.Num) != (store.Membership{}) {
			t.Errorf("the server is in the room: %v, %v, %+v", in, err, r)
		}
		if members, err := p.b.Store.Members(p.ctx(), r.Num, event.Join, 10); len(members) > 0 || err != nil {
			t.Errorf("members %v, %v", members, err)
		}
		p.ok(p.b.Import(p.ctx(), whole))
		if in, err := p.b.Resident(p.ctx(), id); !in || err != nil {
			t.Errorf("the server is not in the room: %v", err)
		}
	})
}

// TestByAuth puts events into order, and finds a circle.
func TestByAuth(t *testing.T) {
	e := func(id matrix.EventID, depth int64, auth ...matrix.EventID) *event.PDU {
		return &event.PDU{ID: id, Depth: depth, AuthEvents: auth}
	}
	a, b, c, d := e("$a", 1), e("$b", 2, "$a"), e("$c", 3, "$b", "$a", "$outside"), e("$d", 0, "$elsewhere")
	double := e("$a", 9)
	got, err := byAuth([]*event.PDU{c, b, a, d, a, double})
	if want := []*event.PDU{d, a, double, b, c}; err != nil || !slices.Equal(got, want) {
		t.Errorf("got %v, %v, want %v", got, err, want)
	}
	for _, circle := range [][]*event.PDU{{e("$a", 1, "$a")}, {e("$a", 1, "$b"), e("$b", 1, "$a"), d}} {
		if got, err := byAuth(circle); err == nil {
			t.Errorf("a circle became %v", got)
		}
	}
}
