package stateres

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
)

// memory is an Index in memory that counts how often it is asked.
type memory struct {
	places  map[Num]Num
	chains  map[Num]*Chain
	members map[Num][]Num  // ascending
	citing  map[Num][]Link // ascending by To, From
	leaves  map[Num][]Leaf // ascending by To, Event
	calls   int
	rows    int
}

func newMemory() *memory {
	return &memory{
		places: map[Num]Num{}, chains: map[Num]*Chain{}, members: map[Num][]Num{},
		citing: map[Num][]Link{}, leaves: map[Num][]Leaf{},
	}
}

func compareLinks(a, b Link) int {
	return cmp.Or(cmp.Compare(a.To.Num, b.To.Num), cmp.Compare(a.From.Num, b.From.Num))
}

func compareLeaves(a, b Leaf) int {
	return cmp.Or(cmp.Compare(a.To.Num, b.To.Num), cmp.Compare(a.Event, b.Event))
}

// put stores what a Builder gave.
func (m *memory) put(key eventauth.Key, e Entry) {
	if n, chain := e.Position.Num, e.Position.Chain; chain != 0 {
		m.places[n] = chain
		m.members[chain] = append(m.members[chain], n)
		next := Chain{Key: key, Last: n}
		if old := m.chains[chain]; old != nil {
			next.Links = old.Links
		}
		next.Links = append(next.Links, e.Links...)
		m.chains[chain] = &next
	}
	for _, l := range e.Links {
		list := m.citing[l.To.Chain]
		i, _ := slices.BinarySearchFunc(list, l, compareLinks)
		m.citing[l.To.Chain] = slices.Insert(list, i, l)
	}
	for _, l := range e.Leaves {
		list := m.leaves[l.To.Chain]
		if i := slices.IndexFunc(list, func(x Leaf) bool { return x.Key == l.Key }); i >= 0 {
			if list[i].To.Num > l.To.Num {
				continue
			}
			list = slices.Delete(list, i, i+1)
		}
		i, _ := slices.BinarySearchFunc(list, l, compareLeaves)
		m.leaves[l.To.Chain] = slices.Insert(list, i, l)
	}
}

func (m *memory) Positions(nums []Num) ([]Num, error) {
	m.calls++
	list := make([]Num, len(nums))
	for i, n := range nums {
		list[i] = m.places[n]
	}
	return list, nil
}

func (m *memory) Chains(chains []Num) ([]*Chain, error) {
	m.calls++
	list := make([]*Chain, len(chains))
	for i, n := range chains {
		if list[i] = m.chains[n]; list[i] != nil {
			m.rows += len(list[i].Links)
		}
	}
	return list, nil
}

func (m *memory) Members(chain, upto Num, limit int) ([]Num, error) {
	m.calls++
	var list []Num
	for _, n := range slices.Backward(m.members[chain]) {
		if n <= upto && len(list) < limit {
			list = append(list, n)
		}
	}
	m.rows += len(list)
	return list, nil
}

func (m *memory) Citing(spans []Span) ([]Citations, error) {
	m.calls++
	list := make([]Citations, len(spans))
	for i, s := range spans {
		links := m.citing[s.Chain]
		if s.AfterLink != (Link{}) {
			end, _ := slices.BinarySearchFunc(links, s.AfterLink, compareLinks)
			links = links[:end]
		}
		for _, l := range slices.Backward(links) {
			if l.To.Num < s.From || len(list[i].Links) == s.Links {
				break
			}
			list[i].Links = append(list[i].Links, l)
		}
		leaves := m.leaves[s.Chain]
		if s.AfterLeaf != (Leaf{}) {
			end, _ := slices.BinarySearchFunc(leaves, s.AfterLeaf, compareLeaves)
			leaves = leaves[:end]
		}
		for _, l := range slices.Backward(leaves) {
			if l.To.Num < s.From || len(list[i].Leaves) == s.Leaves {
				break
			}
			list[i].Leaves = append(list[i].Leaves, l)
		}
		m.rows += len(list[i].Links) + len(list[i].Leaves)
	}
	return list, nil
}

// state is a room's state.
type state map[eventauth.Key]Num

// world is a room with all its state events, and a Source of them.
type world struct {
	testing.TB
	v *matrix.RoomVersion
	*memory
	builder  *Builder
	room     matrix.RoomID
	pdus     []*event.PDU // by Num; none has 0
	auth     [][]Num
	rejected map[Num]bool
	ids      map[matrix.EventID]Num
	reach    []numset // the auth chains
	read     int      // events
}

func newWorld(t testing.TB, version string) *world {
	v, ok := matrix.Version(version)
	if !ok {
		t.Fatalf("no room version %s", version)
	}
	m := newMemory()
	return &world{
		TB: t, v: v, memory: m, builder: NewBuilder(m), room: "!r:a", pdus: []*event.PDU{nil}, auth: [][]Num{nil},
		rejected: map[Num]bool{}, ids: map[matrix.EventID]Num{}, reach: []numset{{}},
	}
}

func (w *world) Find(ids []matrix.EventID) ([]Ref, error) {
	w.calls++
	list := make([]Ref, len(ids))
	for i, id := range ids {
		if n := w.ids[id]; n != 0 {
			list[i] = Ref{Num: n, Key: w.key(n), Rejected: w.rejected[n]}
		}
	}
	return list, nil
}

func (w *world) Events(nums []Num) ([]*event.PDU, error) {
	w.calls++
	w.read += len(nums)
	list := make([]*event.PDU, len(nums))
	for i, n := range nums {
		if n > 0 && int(n) < len(w.pdus) {
			list[i] = w.pdus[n]
		}
	}
	return list, nil
}

func (w *world) key(n Num) eventauth.Key {
	p := w.pdus[n]
	return eventauth.Key{Type: p.Type, StateKey: *p.StateKey}
}

// spec is a state event to be made.
type spec struct {
	id                        string // without sigil and server; made up if empty
	sender, typ, key, content string
	ts, depth                 int64
	prev                      []Num
	auth                      []Num
	signed                    string // another server that signed it
}

func (w *world) refs(nums []Num) string {
	var b strings.Builder
	for i, n := range nums {
		if i > 0 {
			b.WriteByte(',')
		}
		if w.v.EventIDInEvent {
			fmt.Fprintf(&b, `["%s",{"sha256":"x"}]`, w.pdus[n].ID)
		} else {
			fmt.Fprintf(&b, `"%s"`, w.pdus[n].ID)
		}
	}
	return b.String()
}

// make builds a PDU without hashes and real signatures.
func (w *world) make(s spec) *event.PDU {
	w.Helper()
	server := string(matrix.UserID(s.sender).Server())
	if s.id == "" {
		s.id = fmt.Sprintf("e%04d", len(w.pdus))
	}
	id := "$" + s.id
	eventID, room := "", fmt.Sprintf(`"room_id":"%s",`, w.room)
	if w.v.EventIDInEvent {
		id += ":" + server
		eventID = fmt.Sprintf(`"event_id":"%s",`, id)
	}
	if w.v.RoomIDFromCreate && s.typ == event.TypeCreate {
		room = ""
	}
	signatures := fmt.Sprintf(`"%s":{"ed25519:1":"x"}`, server)
	if s.signed != "" && s.signed != server {
		signatures += fmt.Sprintf(`,"%s":{"ed25519:1":"x"}`, s.signed)
	}
	json := fmt.Sprintf(`{"auth_events":[%s],"content":%s,"depth":%d,%s"hashes":{},"origin_server_ts":%d,"prev_events":[%s],%s"sender":"%s","signatures":{%s},"state_key":"%s","type":"%s"}`,
		w.refs(s.auth), s.content, s.depth, eventID, s.ts, w.refs(s.prev), room, s.sender, signatures, s.key, s.typ)
	p, err := event.Load(w.v, matrix.EventID(id), []byte(json))
	if err != nil {
		w.Fatal(err)
	}
	return p
}

// put adds an event to the room, and to the index.
func (w *world) put(p *event.PDU, index bool) Num {
	w.Helper()
	n := Num(len(w.pdus))
	auth := make([]Num, len(p.AuthEvents))
	var reach numset
	for i, id := range p.AuthEvents {
		auth[i] = w.ids[id]
		if n < maxSet {
			reach = reach.union(w.reach[auth[i]]).with(auth[i])
		}
	}
	w.pdus, w.auth, w.ids[p.ID] = append(w.pdus, p), append(w.auth, auth), n
	if n < maxSet {
		w.reach = append(w.reach, reach)
	}
	if p.Type == event.TypeCreate {
		w.room = p.Room
	}
	if !index {
		return n
	}
	e, err := w.builder.Add(n, w.key(n), auth)
	if err != nil {
		w.Fatal(err)
	}
	w.memory.put(w.key(n), e)
	return n
}

func (w *world) add(s spec) Num {
	w.Helper()
	return w.put(w.make(s), true)
}

// selected lists the auth events of an event that would follow a state.
func (w *world) selected(s spec, st state) []Num {
	var list []Num
	for _, k := range eventauth.Selection(w.v, event.Draft{Type: s.typ, Sender: matrix.UserID(s.sender), StateKey: &s.key, Content: []byte(s.content)}) {
		if n := st[k]; n != 0 {
			list = append(list, n)
		}
	}
	return list
}

// input makes the differences of states.
func (w *world) input(states []state) Input {
	conflicts, agreed := differences(states)
	return Input{Source: w, Conflicts: conflicts, Unconflicted: func(keys []eventauth.Key) ([]Num, error) {
		list := make([]Num, len(keys))
		for i, k := range keys {
			list[i] = agreed[k]
			if slices.ContainsFunc(conflicts, func(c Conflict) bool { return c.Key == k }) {
				w.Errorf("the conflicted key %v is asked for", k)
			}
		}
		return list, nil
	}}
}

// differences separates what states agree on.
func differences(states []state) (conflicts []Conflict, agreed state) {
	agreed = state{}
	var keys []eventauth.Key
	for _, st := range states {
		for k := range st {
			keys = append(keys, k)
		}
	}
	slices.SortFunc(keys, compareKeys)
	for _, k := range slices.Compact(keys) {
		events := make([]Num, len(states))
		same := true
		for i, st := range states {
			events[i] = st[k]
			same = same && events[i] == events[0]
		}
		if same {
			agreed[k] = events[0]
		} else {
			conflicts = append(conflicts, Conflict{k, events})
		}
	}
	return conflicts, agreed
}

func compareKeys(a, b eventauth.Key) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.StateKey, b.StateKey))
}

// resolve resolves states by the package and returns the whole resolved state.
func (w *world) resolve(states ...state) state {
	w.Helper()
	in := w.input(states)
	changes, err := Resolve(w.v, in)
	if err != nil {
		w.Fatal(err)
	}
	_, resolved := differences(states)
	for _, c := range changes {
		if c.Event != 0 {
			resolved[c.Key] = c.Event
		}
	}
	return resolved
}

// show writes a state for people.
func (w *world) show(st state) string {
	var lines []string
	for k, n := range st {
		lines = append(lines, fmt.Sprintf("  %s %q: %d %s", k.Type, k.StateKey, n, w.pdus[n].ID))
	}
	slices.Sort(lines)
	return strings.Join(lines, "\n")
}
