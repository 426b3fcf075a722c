package stateres

import (
	"encoding/json"
	"maps"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
)

// trial is a state against which events are checked. It implements
// eventauth.State.
type trial struct {
	r        *resolver
	own      map[eventauth.Key]Num // the partially resolved state
	below    map[eventauth.Key]Num // what stands under own
	agreed   bool                  // whether the unconflicted state map stands under both
	fallback bool                  // whether the event's auth events count where the state has none
	e        *digest               // the event that is checked
	err      error                 // why an event could not be read

	levels map[[2]*event.PDU]parsed // by the create and the power levels event
}

// parsed are the power levels that an event gives, or why it gives none.
type parsed struct {
	levels *eventauth.PowerLevels
	err    error
}

// maxParsed is how many power levels a trial keeps. Events that lack any in the
// state bring their own.
const maxParsed = 16

// trial makes the state of v1: the union so far, and the unconflicted state.
func (r *resolver) trial(below map[eventauth.Key]Num) *trial {
	return &trial{r: r, own: map[eventauth.Key]Num{}, below: below, agreed: true}
}

// allows checks an event against the state.
func (t *trial) allows(d *digest) (bool, error) {
	p, err := t.r.pdu(d.num)
	if err != nil {
		return false, err
	}
	t.e = d
	refused := eventauth.Check(p, t)
	return refused == nil, t.err
}

// Event implements eventauth.State.
func (t *trial) Event(typ, stateKey string) *event.PDU {
	if t.err != nil {
		return nil
	}
	var p *event.PDU
	n, err := t.find(eventauth.Key{Type: typ, StateKey: stateKey})
	if err == nil && n != 0 {
		p, err = t.r.pdu(n)
	}
	t.err = err
	return p
}

// PowerLevels is what eventauth asks of a State that keeps them.
func (t *trial) PowerLevels() (*eventauth.PowerLevels, error) {
	of := [2]*event.PDU{t.Event(event.TypeCreate, ""), t.Event(event.TypePowerLevels, "")}
	p, ok := t.levels[of]
	if !ok {
		p.levels, p.err = eventauth.ParsePowerLevels(of[0], of[1])
		if t.levels == nil || len(t.levels) >= maxParsed {
			t.levels = make(map[[2]*event.PDU]parsed, maxParsed)
		}
		t.levels[of] = p
	}
	return p.levels, p.err
}

// find answers which event stands for a key, 0 for none.
func (t *trial) find(k eventauth.Key) (Num, error) {
	if n, ok := t.held(k); ok {
		return n, nil
	}
	if t.agreed {
		found, err := t.r.At([]eventauth.Key{k})
		if err != nil || found[0] != 0 {
			return found[0], err
		}
	}
	return t.named(k)
}

// held looks into the state itself.
func (t *trial) held(k eventauth.Key) (Num, bool) {
	if n := t.own[k]; n != 0 {
		return n, true
	}
	n := t.below[k]
	return n, n != 0
}

// named looks for a key that is required for checking the authorisation rules and
// is not present in the state: then the appropriate state event from the event's
// auth_events is used if the auth event is not rejected.
func (t *trial) named(k eventauth.Key) (Num, error) {
	if !t.fallback {
		return 0, nil
	}
	for _, a := range t.e.auth {
		if ref := t.r.refs[a]; ref.Key == k && !ref.Rejected {
			return a, nil
		}
	}
	if t.r.v.RoomIDFromCreate && k == (eventauth.Key{Type: event.TypeCreate}) { // the room ID names it instead
		return t.r.roomCreate(t.e)
	}
	return 0, nil
}

// roomCreate finds the create event by the ID of the room that d is in.
func (r *resolver) roomCreate(d *digest) (Num, error) {
	p, err := r.pdu(d.num)
	if err != nil || len(p.Room) < 2 {
		return 0, err
	}
	id := matrix.EventID("$" + p.Room[1:])
	if err := r.library.find([]matrix.EventID{id}); err != nil {
		return 0, err
	}
	if ref := r.refs[r.ids[id]]; ref.Rejected || ref.Key != (eventauth.Key{Type: event.TypeCreate}) {
		return 0, nil
	}
	return r.ids[id], nil
}

// apply is the iterative auth checks algorithm: it applies each of events to the
// state if the authorisation rules allow it there.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v12/#state-resolution
func (t *trial) apply(events []*digest) error {
	for part := range slices.Chunk(events, batch) {
		if err := t.prepare(part); err != nil {
			return err
		}
		for _, d := range part {
			ok, err := t.allows(d)
			if err != nil {
				return err
			}
			if ok {
				t.own[d.key] = d.num
			}
		}
	}
	return nil
}

// prepare reads at once what the checks of events will most likely ask for.
func (t *trial) prepare(events []*digest) error {
	nums := make([]Num, len(events))
	for i, d := range events {
		nums[i] = d.num
	}
	if err := t.r.read(nums); err != nil {
		return err
	}
	wanted := map[eventauth.Key]bool{}
	for _, d := range events {
		for _, k := range t.r.needed(d) {
			wanted[k] = true
		}
	}
	if t.agreed {
		if _, err := t.r.At(slices.Collect(maps.Keys(wanted))); err != nil {
			return err
		}
	}
	more := map[Num]bool{}
	for _, d := range events {
		t.e = d
		for _, k := range t.r.needed(d) {
			n, err := t.find(k)
			if err != nil {
				return err
			}
			if n != 0 {
				more[n] = true
			}
		}
	}
	for _, n := range nums {
		more[n] = true
	}
	return t.r.read(slices.Collect(maps.Keys(more)))
}

// needed lists the keys that the authorization rules look at for an event, which
// is in memory.
func (r *resolver) needed(d *digest) []eventauth.Key {
	p := r.pdus[d.num]
	return eventauth.Selection(r.v, event.Draft{Type: p.Type, Sender: p.Sender, StateKey: p.StateKey, Content: json.RawMessage(p.Content)})
}
