package stateres

import (
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
)

var (
	forks = flag.Int("forks", 400, "how many random forks of each room version are resolved")
	seed  = flag.Uint64("seed", 1, "of the first random room")
)

var people = []string{"@a:a", "@b:b", "@c:c", "@d:a", "@e:b"}

// history is a random room.
type history struct {
	*world
	r      *rand.Rand
	after  []state // by Num: the state after the event
	seen   []Num   // events that later ones may follow
	odd    []Num   // events that are rejected here, which other servers may have accepted
	merges int
	seed   uint64
	check  func(h *history, states []state) state
}

// newHistory makes a room with one member, power levels and a join rule.
func newHistory(t testing.TB, version string, seed uint64, check func(*history, []state) state) *history {
	h := &history{world: newWorld(t, version), r: rand.New(rand.NewPCG(seed, 7)), after: []state{nil}, check: check, seed: seed}
	content := fmt.Sprintf(`{"room_version":"%s"}`, version)
	if !h.v.CreatorFromSender {
		content = fmt.Sprintf(`{"creator":"%s","room_version":"%s"}`, people[0], version)
	}
	if h.v.CreatorsInfinite && h.r.IntN(4) == 0 {
		content = fmt.Sprintf(`{"additional_creators":["%s"],"room_version":"%s"}`, people[3], version)
	}
	h.follow(spec{sender: people[0], typ: event.TypeCreate, content: content}, nil, state{}, nil)
	h.follow(spec{sender: people[0], typ: event.TypeMember, key: people[0], content: `{"membership":"join"}`}, []Num{1}, h.after[1], nil)
	if h.r.IntN(4) > 0 {
		h.follow(h.levels(people[0]), []Num{2}, h.after[2], nil)
	}
	if h.r.IntN(4) > 0 {
		last := Num(len(h.pdus) - 1)
		h.follow(spec{sender: people[0], typ: event.TypeJoinRules, content: `{"join_rule":"public"}`}, []Num{last}, h.after[last], nil)
	}
	return h
}

// follow adds an event to the room if it may follow the state before. Its auth
// events are those that it would have in another state, if one is given.
func (h *history) follow(s spec, prev []Num, before, claimed state) bool {
	h.Helper()
	auth := before
	if claimed != nil {
		auth = claimed
	}
	s.id = fmt.Sprintf("%04x%d", h.r.IntN(1<<16), len(h.pdus))
	s.prev, s.auth = prev, h.selected(s, auth)
	if h.r.IntN(4) == 0 {
		h.mislead(s.auth)
	}
	s.ts, s.depth = int64(len(h.pdus)), int64(len(h.pdus)/2)
	if h.r.IntN(2) == 0 {
		s.ts = int64(h.r.IntN(3))
	}
	if h.r.IntN(3) == 0 {
		s.depth = int64(h.r.IntN(6))
	}
	p := h.make(s)
	events := make([]*event.PDU, len(s.auth))
	for i, a := range s.auth {
		events[i] = h.pdus[a]
	}
	set := eventauth.NewSet(events...)
	if h.v.RoomIDFromCreate && len(h.pdus) > 1 {
		set[eventauth.Key{Type: event.TypeCreate}] = h.pdus[1]
	}
	if eventauth.CheckSelection(p, events) != nil || eventauth.Check(p, set) != nil {
		return false
	}
	rejected := slices.ContainsFunc(s.auth, func(a Num) bool { return h.rejected[a] }) ||
		eventauth.Check(p, lookup(func(k eventauth.Key) *event.PDU { return h.pdus[before[k]] })) != nil
	if rejected && h.r.IntN(2) == 0 {
		return false
	}
	n := h.put(p, true)
	after := maps.Clone(before)
	if rejected {
		h.rejected[n] = true // no state of ours has it, but another server may claim it
		h.odd = append(h.odd, n)
	} else {
		after[h.key(n)] = n
		h.seen = append(h.seen, n)
	}
	h.after = append(h.after, after)
	return true
}

// mislead puts rejected events in the place of others that authorize an event, as a
// server does that accepted them.
func (h *history) mislead(auth []Num) {
	for i, a := range auth {
		if len(h.odd) == 0 {
			return
		}
		if n := pick(h.r, h.odd...); h.key(n) == h.key(a) {
			auth[i] = n
		}
	}
}

func pick[T any](r *rand.Rand, list ...T) T { return list[r.IntN(len(list))] }

// levels makes a power levels event.
func (h *history) levels(sender string) spec {
	var users []string
	for i, u := range people {
		if i == 0 && !h.v.CreatorsInfinite && h.r.IntN(8) > 0 {
			users = append(users, fmt.Sprintf(`"%s":100`, u))
		} else if i > 0 && h.r.IntN(2) == 0 {
			users = append(users, fmt.Sprintf(`"%s":%d`, u, pick(h.r, 0, 50, 50, 100)))
		}
	}
	content := fmt.Sprintf(`{"events":{"m.room.topic":%d},"invite":%d,"users":{%s},"users_default":%d}`,
		pick(h.r, 0, 50), pick(h.r, 0, 50), strings.Join(users, ","), pick(h.r, 0, 0, 0, 50))
	return spec{sender: sender, typ: event.TypePowerLevels, content: content}
}

// act makes some event.
func (h *history) act() spec {
	who, whom := pick(h.r, people...), pick(h.r, people...)
	if h.r.IntN(3) == 0 {
		who = people[0]
	}
	member := func(key, membership string) spec {
		return spec{sender: who, typ: event.TypeMember, key: key, content: fmt.Sprintf(`{"membership":"%s"}`, membership)}
	}
	switch h.r.IntN(16) {
	case 0, 1:
		return h.levels(who)
	case 2, 3:
		return spec{sender: who, typ: event.TypeJoinRules, content: fmt.Sprintf(`{"join_rule":"%s"}`,
			pick(h.r, "public", "public", "invite", "knock", "restricted", "knock_restricted"))}
	case 4, 5, 6, 7:
		return member(who, "join")
	case 8:
		return member(whom, "invite")
	case 9:
		return member(whom, "ban")
	case 10:
		return member(whom, "leave")
	case 11:
		return member(who, pick(h.r, "leave", "knock"))
	case 12:
		s := member(who, "join")
		s.content = fmt.Sprintf(`{"join_authorised_via_users_server":"%s","membership":"join"}`, whom)
		s.signed = string(matrix.UserID(whom).Server())
		return s
	case 13:
		return spec{sender: who, typ: event.TypeThirdPartyInvite, key: pick(h.r, "t", "u"), content: `{"public_key":"x"}`}
	case 14:
		return spec{sender: who, typ: "m.room.topic", content: fmt.Sprintf(`{"topic":"%d"}`, h.r.IntN(1000))}
	}
	return spec{sender: who, typ: "org.x", key: pick(h.r, "", who, "k"), content: `{}`}
}

// grow adds up to n events, each behind one or more others.
func (h *history) grow(n int) {
	for range 4 * n {
		if n == 0 || len(h.pdus) >= maxSet {
			return
		}
		var prev []Num
		for range pick(h.r, 1, 1, 1, 2, 2, 3, 4) {
			last := len(h.seen) - 1
			if p := h.seen[max(0, last-h.r.IntN(2+h.r.IntN(12)))]; !slices.Contains(prev, p) {
				prev = append(prev, p)
			}
		}
		before := h.after[prev[0]]
		if len(prev) > 1 {
			before = h.merge(prev)
		}
		var claimed state
		if h.r.IntN(6) == 0 {
			claimed = h.after[pick(h.r, h.seen...)]
		}
		if h.follow(h.act(), prev, before, claimed) {
			n--
		}
	}
}

func (h *history) merge(prev []Num) state {
	states := make([]state, len(prev))
	for i, p := range prev {
		states[i] = h.after[p]
	}
	h.merges++
	return h.check(h, states)
}

// tear resolves states as only a broken or hostile server could claim them: with
// events of other times, and without some.
func (h *history) tear() {
	if h.r.IntN(4) == 0 { // another server may also have let an event pass that names a rejected one
		if n := Num(2 + h.r.IntN(len(h.pdus)-2)); h.places[n] != 0 {
			h.rejected[n] = true
		}
	}
	byKey := map[eventauth.Key][]Num{}
	var keys []eventauth.Key
	for n := 2; n < len(h.pdus); n++ {
		k := h.key(Num(n))
		if byKey[k] == nil {
			keys = append(keys, k)
		}
		byKey[k] = append(byKey[k], Num(n))
	}
	var states []state
	base := h.after[pick(h.r, h.seen...)]
	for range pick(h.r, 2, 2, 2, 3, 4) {
		if h.r.IntN(3) == 0 {
			base = h.after[pick(h.r, h.seen...)]
		}
		st := maps.Clone(base)
		for range h.r.IntN(5) {
			if k := pick(h.r, keys...); h.r.IntN(5) == 0 {
				delete(st, k)
			} else {
				st[k] = pick(h.r, byKey[k]...)
			}
		}
		states = append(states, st)
	}
	h.merges++
	h.check(h, states)
}

// compare resolves states by the reference and by the package.
func compare(h *history, states []state) state {
	h.Helper()
	want := h.reference(states...)
	if got := h.resolve(states...); !maps.Equal(got, want) {
		var b strings.Builder
		for i, st := range states {
			fmt.Fprintf(&b, "state %d\n%s\n", i, h.show(st))
		}
		for n := 1; n < len(h.pdus); n++ {
			fmt.Fprintf(&b, "%d %s\n", n, h.pdus[n].JSON)
		}
		h.Fatalf("seed %d: resolved to\n%s\nwant\n%s\n%s", h.seed, h.show(got), h.show(want), b.String())
	}
	return want
}

// TestRandomForks compares the package with the reference in random rooms. For
// many of them: go test -run RandomForks -forks 100000 -timeout 0
func TestRandomForks(t *testing.T) {
	for _, v := range matrix.Versions() {
		t.Run(v.ID, func(t *testing.T) {
			for n, s := 0, *seed; n < *forks; s++ {
				h := newHistory(t, v.ID, s, compare)
				for range 1 + h.r.IntN(4) {
					h.grow(4 + h.r.IntN(12))
					for range h.r.IntN(4) {
						h.tear()
					}
				}
				n += h.merges
			}
		})
	}
}
