package stateres

import (
	"fmt"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
)

// digest is what the algorithms need to know of an event to put it into its place.
// The event itself, which may be large, is read again when it is checked.
type digest struct {
	num    Num
	id     matrix.EventID
	key    eventauth.Key
	sender matrix.UserID
	ts     int64
	depth  int64
	power  bool // a power event
	auth   []Num
	levels Num // the power levels among auth; 0: none
	create Num // the create event among auth; 0: none
}

// library reads events, and remembers what it may need again.
type library struct {
	source Source
	known  map[Num]*digest
	ids    map[matrix.EventID]Num
	refs   map[Num]Ref // of auth events

	pdus map[Num]*event.PDU
	size int // bytes of pdus
}

func newLibrary(s Source) library {
	return library{source: s, known: map[Num]*digest{}, ids: map[matrix.EventID]Num{}, refs: map[Num]Ref{}, pdus: map[Num]*event.PDU{}}
}

const (
	batch  = 64       // events that are read at once
	budget = 16 << 20 // bytes of events to keep in memory
)

// digests reads what is to be known of events, in their order.
func (l *library) digests(nums []Num) ([]*digest, error) {
	var unknown []Num
	for _, n := range nums {
		if l.known[n] == nil {
			unknown = append(unknown, n)
		}
	}
	for part := range slices.Chunk(unknown, batch) {
		if err := l.digestPart(part); err != nil {
			return nil, err
		}
	}
	list := make([]*digest, len(nums))
	for i, n := range nums {
		list[i] = l.known[n]
	}
	return list, nil
}

func (l *library) digestPart(nums []Num) error {
	if err := l.read(nums); err != nil {
		return err
	}
	var ids []matrix.EventID
	for _, n := range nums {
		ids = append(ids, l.pdus[n].AuthEvents...)
	}
	if err := l.find(ids); err != nil {
		return err
	}
	for _, n := range nums {
		p := l.pdus[n]
		if !p.IsState() {
			return fmt.Errorf("event %s is in a state and is no state event", p.ID)
		}
		d := &digest{
			num: n, id: p.ID, key: eventauth.Key{Type: p.Type, StateKey: *p.StateKey},
			sender: p.Sender, ts: p.OriginServerTS, depth: p.Depth, power: isPower(p),
			auth: make([]Num, len(p.AuthEvents)),
		}
		for i, id := range p.AuthEvents {
			a := l.ids[id]
			d.auth[i] = a
			switch l.refs[a].Key.Type {
			case event.TypePowerLevels:
				d.levels = a
			case event.TypeCreate:
				d.create = a
			}
		}
		l.known[n] = d
	}
	return nil
}

// isPower tells whether p is a power event.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v2/#state-resolution
func isPower(p *event.PDU) bool {
	switch p.Type {
	case event.TypePowerLevels, event.TypeJoinRules:
		return true
	case event.TypeMember:
		m := p.Membership()
		return (m == event.Leave || m == event.Ban) && *p.StateKey != string(p.Sender)
	}
	return false
}

// find makes sure that l.ids and l.refs have events, and answers a *MissingError
// for those that are not known.
func (l *library) find(ids []matrix.EventID) error {
	var unknown, missing []matrix.EventID
	for _, id := range ids {
		if _, ok := l.ids[id]; !ok {
			unknown = append(unknown, id)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	unknown = slices.Compact(unknown)
	refs, err := l.source.Find(unknown)
	if err != nil {
		return fmt.Errorf("find auth events: %w", err)
	}
	if len(refs) != len(unknown) {
		return fmt.Errorf("find auth events: asked for %d, got %d", len(unknown), len(refs))
	}
	for i, id := range unknown {
		if refs[i].Num == 0 {
			missing = append(missing, id)
			continue
		}
		l.ids[id], l.refs[refs[i].Num] = refs[i].Num, refs[i]
	}
	if len(missing) > 0 {
		return &MissingError{IDs: missing}
	}
	return nil
}

// read makes sure that l.pdus has events. Others may go.
func (l *library) read(nums []Num) error {
	if l.size > budget {
		clear(l.pdus)
		l.size = 0
	}
	var unknown, missing []Num
	for _, n := range nums {
		if l.pdus[n] == nil {
			unknown = append(unknown, n)
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	unknown = slices.Compact(unknown)
	pdus, err := l.source.Events(unknown)
	if err != nil {
		return fmt.Errorf("read events: %w", err)
	}
	if len(pdus) != len(unknown) {
		return fmt.Errorf("read events: asked for %d, got %d", len(unknown), len(pdus))
	}
	for i, p := range pdus {
		if p == nil {
			missing = append(missing, unknown[i])
			continue
		}
		l.pdus[unknown[i]] = p
		l.size += len(p.JSON)
	}
	if len(missing) > 0 {
		return &MissingError{Nums: missing}
	}
	return nil
}

// pdu reads one event.
func (l *library) pdu(n Num) (*event.PDU, error) {
	if p := l.pdus[n]; p != nil {
		return p, nil
	}
	err := l.read([]Num{n})
	return l.pdus[n], err
}
