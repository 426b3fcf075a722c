package room

import (
	"context"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"slices"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// joining is the join of a user of the other server, before a.test gets it.
func (p pair) joining(id matrix.RoomID, user matrix.UserID) *event.PDU {
	p.Helper()
	tpl, err := p.Template(p.ctx(), id, user, "join", nil)
	p.ok(err)
	e, err := p.b.Complete(p.ctx(), tpl.Version, p.drafted(tpl), Change{Room: id, Actor: user, Membership: "join"})
	p.ok(err)
	return e
}

// answer is what the other server gets when a.test lets a user of it in.
func (p pair) answer(e *event.PDU) Joined {
	p.Helper()
	ctx := p.ctx()
	_, err := p.Receive(ctx, e)
	p.ok(err)
	stored, err := p.Store.Event(ctx, e.ID)
	p.ok(err)
	before, err := p.StateBefore(ctx, stored)
	p.ok(err)
	r, err := p.Store.Room(ctx, e.Room)
	p.ok(err)
	snap, err := p.Snapshot(ctx, r, before, e)
	p.ok(err)
	j := Joined{Event: e}
	into := func(list *[]*event.PDU) func(raw json.RawMessage) error {
		return func(raw json.RawMessage) error {
			p, err := event.Parse(r.Version, raw)
			*list = append(*list, p)
			return err
		}
	}
	p.ok(snap.State(ctx, into(&j.State)))
	p.ok(snap.Auth(ctx, into(&j.Auth)))
	if !slices.ContainsFunc(j.Auth, func(e *event.PDU) bool { return e.Type == event.TypeCreate }) {
		p.Errorf("no create event authorizes the state of %s", e.Room)
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
			j := p.answer(p.joining(id, dave))
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
			good := slices.DeleteFunc(slices.Concat(j.State, j.Auth), func(e *event.PDU) bool { return forged[e] })
			rand.Shuffle(len(good), func(i, k int) { good[i], good[k] = good[k], good[i] })
			var err error
			j.Intake, err = p.b.Intake(p.ctx(), id, j.Event.Version)
			p.ok(err)
			for part := range slices.Chunk(good, 3) {
				p.ok(j.Intake.Take(p.ctx(), part))
			}
			p.ok(p.b.Import(p.ctx(), j))
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
		whole := p.answer(p.joining(id, dave))
		broken := whole
		ctx, cancel := context.WithCancel(p.ctx())
		var err error
		broken.Intake, err = p.b.Intake(ctx, id, whole.Event.Version)
		p.ok(err)
		p.ok(broken.Intake.Take(ctx, whole.State[:3]))
		cancel()
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

// TestImportAgain joins a room again whose state is here, though it cannot be
// verified now.
func TestImportAgain(t *testing.T) {
	twoServers(t, func(p pair) {
		id := p.create(Creation{Creator: alice, Version: "11", Preset: "public_chat"})
		p.ok(p.b.Import(p.ctx(), p.answer(p.joining(id, dave))))
		p.ok(p.b.Leave(p.ctx(), Change{Room: id, Actor: dave}))
		r, err := p.b.Store.Room(p.ctx(), id)
		p.ok(err)
		p.b.told(p.world, must(p.b.StateEvent(p.ctx(), r.Current, event.TypeMember, string(dave))).PDU.ID)
		j := p.answer(p.joining(id, dave))
		j.Intake, err = p.b.Intake(p.ctx(), id, j.Event.Version)
		p.ok(err)
		p.ok(j.Intake.Take(p.ctx(), slices.DeleteFunc(slices.Clone(j.State), func(e *event.PDU) bool { return e.Type == event.TypeHistoryVisibility })))
		p.ok(p.b.Import(p.ctx(), j))
		if ours, theirs := p.b.stateOf(id), p.stateOf(id); ours != theirs {
			t.Errorf("state %s, want %s", ours, theirs)
		}
	})
}

// TestImportBeside lets two users of one server join a room at once, by answers of
// which neither knows of the other join.
func TestImportBeside(t *testing.T) {
	twoServers(t, func(p pair) {
		for _, version := range []string{"2", "11", "12"} {
			id := p.create(Creation{Creator: alice, Version: version, Preset: "public_chat"})
			one, other := p.joining(id, dave), p.joining(id, erin)
			first, second := p.answer(one), p.answer(other)
			for _, j := range []*Joined{&first, &second} {
				var err error
				j.Intake, err = p.b.Intake(p.ctx(), id, j.Event.Version)
				p.ok(err)
				p.ok(j.Intake.Take(p.ctx(), slices.Concat(j.State, j.Auth)))
			}
			p.ok(p.b.Import(p.ctx(), first))
			p.ok(p.b.Import(p.ctx(), second))
			r, err := p.b.Store.Room(p.ctx(), id)
			p.ok(err)
			for _, u := range []matrix.UserID{dave, erin} {
				if m := p.b.Store.Membership(u, r.Num); m.Membership != event.Join {
					t.Errorf("version %s: %s is %+v", version, u, m)
				}
			}
			if r.Joined != 3 {
				t.Errorf("version %s: %d members", version, r.Joined)
			}
			if ours, theirs := p.b.stateOf(id), p.stateOf(id); ours != theirs {
				t.Errorf("version %s: state %s, want %s", version, ours, theirs)
			}
		}
	})
}

// TestIntakeOrder stores events behind what authorizes them, in whatever order they
// come, and finds a circle.
func TestIntakeOrder(t *testing.T) {
	twoServers(t, func(p pair) {
		id := p.create(Creation{Creator: alice, Version: "2", Preset: "public_chat"})
		j := p.answer(p.joining(id, dave))
		slices.SortStableFunc(j.State, func(a, b *event.PDU) int { return byDepth(b, a) })
		p.ok(p.b.Import(p.ctx(), j))
		for _, e := range j.State {
			own, err := p.b.Store.Event(p.ctx(), e.ID)
			p.ok(err)
			before, err := p.b.Store.EventsByID(p.ctx(), e.AuthEvents)
			p.ok(err)
			for id, a := range before {
				if a.Num >= own.Num {
					t.Errorf("%s has the number %d, and %s which it authorizes %d", id, a.Num, e.ID, own.Num)
				}
			}
		}
		v := j.Event.Version
		fake := func(name matrix.EventID, auth ...matrix.EventID) *event.PDU {
			return &event.PDU{Version: v, ID: name, Room: id, AuthEvents: auth}
		}
		for _, circle := range [][]*event.PDU{{fake("$a:x", "$a:x")}, {fake("$a:x", "$b:x"), fake("$b:x", "$a:x")}} {
			if err := p.b.Keep(p.ctx(), id, circle); err == nil {
				t.Errorf("a circle of %d was kept", len(circle))
			}
		}
	})
}
