package stateres

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
)

const (
	alice = "@alice:a"
	bob   = "@bob:b"
	carol = "@carol:c"
)

var (
	levelsKey = eventauth.Key{Type: event.TypePowerLevels}
	rulesKey  = eventauth.Key{Type: event.TypeJoinRules}
	topicKey  = eventauth.Key{Type: "m.room.topic"}
)

func memberKey(user string) eventauth.Key {
	return eventauth.Key{Type: event.TypeMember, StateKey: user}
}

func member(sender, key, membership string) spec {
	return spec{sender: sender, typ: event.TypeMember, key: key, content: fmt.Sprintf(`{"membership":%q}`, membership)}
}

func levels(sender, users string) spec {
	return spec{sender: sender, typ: event.TypePowerLevels, content: `{"users":{` + users + `}}`}
}

func rules(sender, rule string) spec {
	return spec{sender: sender, typ: event.TypeJoinRules, content: fmt.Sprintf(`{"join_rule":%q}`, rule)}
}

func topic(sender, text string) spec {
	return spec{sender: sender, typ: "m.room.topic", content: fmt.Sprintf(`{"topic":%q}`, text)}
}

// then adds events one after the other behind a state, and answers the state
// behind them. Each follows its own auth events, which must allow it.
func (w *world) then(st state, specs ...spec) state {
	w.Helper()
	st = maps.Clone(st)
	for _, s := range specs {
		s.auth = w.selected(s, st)
		if s.ts == 0 {
			s.ts = int64(len(w.pdus))
		}
		if s.prev == nil && len(w.pdus) > 1 {
			s.prev = []Num{Num(len(w.pdus) - 1)}
		}
		p := w.make(s)
		if err := eventauth.Check(p, lookup(func(k eventauth.Key) *event.PDU { return w.pdus[st[k]] })); err != nil {
			w.Fatalf("%s by %s: %v", s.typ, s.sender, err)
		}
		n := w.put(p, true)
		st[w.key(n)] = n
	}
	return st
}

// newRoom makes a room of alice in which anybody may join and everybody of the
// names has joined. bob has level 50 and carol has 0.
func newRoom(t testing.TB, version string, names ...string) (*world, state) {
	w := newWorld(t, version)
	content := fmt.Sprintf(`{"creator":%q,"room_version":%q}`, alice, version)
	if w.v.CreatorFromSender {
		content = fmt.Sprintf(`{"room_version":%q}`, version)
	}
	st := w.then(state{}, spec{sender: alice, typ: event.TypeCreate, content: content})
	st = w.then(st, member(alice, alice, "join"), levels(alice, w.users(`"@bob:b":50`)), rules(alice, "public"))
	for _, name := range names {
		st = w.then(st, member(name, name, "join"))
	}
	return w, st
}

// users adds alice to the users of power levels, where she must be named.
func (w *world) users(list string) string {
	switch {
	case w.v.CreatorsInfinite:
		return list
	case list == "":
		return `"@alice:a":100`
	}
	return `"@alice:a":100,` + list
}

// each runs a test in every room version whose state resolution is one of kinds.
func each(t *testing.T, f func(t *testing.T, version string), kinds ...matrix.StateRes) {
	for _, v := range matrix.Versions() {
		if slices.Contains(kinds, v.StateRes) {
			t.Run(v.ID, func(t *testing.T) { f(t, v.ID) })
		}
	}
}

var v2AndLater = []matrix.StateRes{matrix.StateResV2, matrix.StateResV21}

// holds checks the resolution of states, which must not depend on their order,
// against the reference and against what it should hold.
func (w *world) holds(want state, states ...state) state {
	w.Helper()
	got := w.resolve(states...)
	for k, n := range want {
		if got[k] != n {
			w.Errorf("%s %q is %d, want %d", k.Type, k.StateKey, got[k], n)
		}
	}
	if ref := w.reference(states...); !maps.Equal(got, ref) {
		w.Errorf("resolved to\n%s\nthe reference to\n%s", w.show(got), w.show(ref))
	}
	turned := slices.Clone(states)
	slices.Reverse(turned)
	if again := w.resolve(append(turned, states[0])...); !maps.Equal(got, again) {
		w.Errorf("resolved to\n%s\nin another order to\n%s", w.show(got), w.show(again))
	}
	return got
}

// TestBanBeatsLevels: bob, whom alice bans, changes the power levels meanwhile.
func TestBanBeatsLevels(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		w, st := newRoom(t, version, bob)
		banned := w.then(st, member(alice, bob, "ban"))
		changed := w.then(st, levels(bob, w.users(`"@bob:b":50,"@carol:c":50`)), topic(bob, "mine"))
		w.holds(state{memberKey(bob): banned[memberKey(bob)], levelsKey: st[levelsKey], topicKey: 0}, banned, changed)
	}, v2AndLater...)
}

// TestJoinRuleEvasion: carol joins while alice makes the room private.
func TestJoinRuleEvasion(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		w, st := newRoom(t, version)
		private := w.then(st, rules(alice, "invite"))
		joined := w.then(st, member(carol, carol, "join"))
		w.holds(state{rulesKey: private[rulesKey], memberKey(carol): 0}, private, joined)
	}, v2AndLater...)
}

// TestTopics: of topics by the same power levels the one with the later time wins,
// whatever branch it is on; one by newer levels beats one by older levels.
func TestTopics(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		w, st := newRoom(t, version, bob)
		early, late := topic(alice, "early"), topic(bob, "late")
		early.ts, late.ts = 100, 200
		a, b := w.then(st, early), w.then(st, late)
		w.holds(state{topicKey: b[topicKey]}, a, b)

		newer := early
		newer.ts = 50
		c := w.then(st, levels(alice, w.users(`"@bob:b":50,"@carol:c":50`)), newer)
		w.holds(state{topicKey: c[topicKey], levelsKey: c[levelsKey]}, b, c)
		w.holds(state{topicKey: c[topicKey], levelsKey: c[levelsKey]}, a, b, c)

		demoted := w.then(st, levels(alice, w.users("")))
		w.holds(state{topicKey: a[topicKey], levelsKey: demoted[levelsKey]}, a, b, demoted)
	}, v2AndLater...)
}

// TestTieBreaks: the reverse topological power ordering compares levels, then
// times, then IDs, but always puts an event behind its auth events.
func TestTieBreaks(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		w, st := newRoom(t, version, bob, carol)
		// What follows differs in nothing but the rules: both memberships are in
		// all auth chains, through other state.
		st = w.then(st, levels(alice, w.users(`"@bob:b":50,"@carol:c":50`)),
			spec{sender: bob, typ: "org.x", key: "b", content: `{}`}, spec{sender: carol, typ: "org.x", key: "c", content: `{}`})
		last := func(s spec, ts int64, id string) spec {
			s.ts, s.id = ts, id
			return s
		}
		// Later ones in the ordering win, as all are allowed.
		byAlice := w.then(st, last(rules(alice, "invite"), 900, "zz"))
		byBob := w.then(st, last(rules(bob, "knock"), 100, "aa"))
		w.holds(state{rulesKey: byBob[rulesKey]}, byAlice, byBob)
		byCarol := w.then(st, last(rules(carol, "private"), 50, "mm"))
		w.holds(state{rulesKey: byBob[rulesKey]}, byAlice, byBob, byCarol)
		same := w.then(st, last(rules(carol, "private"), 100, "ab"))
		w.holds(state{rulesKey: same[rulesKey]}, byAlice, byBob, same)
		// bob's rule is older, but comes behind alice's levels, which it names.
		behind := w.then(st, last(levels(alice, w.users(`"@bob:b":50`)), 950, "l"), last(rules(bob, "x"), 10, "b"))
		w.holds(state{rulesKey: behind[rulesKey]}, byAlice, behind)
		w.holds(state{levelsKey: behind[levelsKey]}, byAlice, behind)
	}, v2AndLater...)
}

// TestResetOfLevels: alice changes the power levels on two branches, and then
// leaves. v2 starts with the state in which she has left, in which both changes
// are forbidden, and loses the power levels; v2.1 does not.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v12/#state-resolution
func TestResetOfLevels(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		w, st := newRoom(t, version, bob, carol)
		first := w.then(st, levels(alice, w.users(`"@bob:b":100`)))
		second := w.then(st, levels(alice, w.users(`"@bob:b":100,"@carol:c":50`)))
		gone := member(alice, alice, "leave")
		first = w.then(first, gone)
		second[memberKey(alice)] = first[memberKey(alice)]
		got := w.holds(nil, first, second)
		if w.v.StateRes == matrix.StateResV2 && got[levelsKey] != 0 {
			t.Errorf("v2 keeps the power levels %d", got[levelsKey])
		}
		if w.v.StateRes == matrix.StateResV21 && got[levelsKey] != second[levelsKey] {
			t.Errorf("v2.1 has the power levels %d, want %d", got[levelsKey], second[levelsKey])
		}
	}, v2AndLater...)
}

// TestResetToOlderLevels: one state has old power levels, as after an earlier
// reset; those between are in all auth chains, through a member who joined later.
// v2 leaves them out, so that carol's levels, which the ones between allow, fail;
// v2.1 has the subgraph.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v12/#state-resolution
func TestResetToOlderLevels(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		w, st := newRoom(t, version, bob, carol)
		old := st[levelsKey]
		st = w.then(st, levels(alice, w.users(`"@bob:b":50,"@carol:c":100`)), member("@d:d", "@d:d", "join"))
		reset := maps.Clone(st)
		reset[levelsKey] = old
		now := w.then(st, levels(carol, w.users(`"@bob:b":100,"@carol:c":100`)))
		got := w.holds(nil, now, reset)
		if w.v.StateRes == matrix.StateResV2 && got[levelsKey] != old {
			t.Errorf("v2 has the power levels %d, want %d", got[levelsKey], old)
		}
		if w.v.StateRes == matrix.StateResV21 && got[levelsKey] != now[levelsKey] {
			t.Errorf("v2.1 has the power levels %d, want %d", got[levelsKey], now[levelsKey])
		}
	}, v2AndLater...)
}

// TestFirstVersion goes through the passes of v1.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v1/#state-resolution
func TestFirstVersion(t *testing.T) {
	w, st := newRoom(t, "1", bob, carol)
	at := func(depth int64, s spec) spec {
		s.depth = depth
		return s
	}
	// Where only some states have a key there is no conflict.
	only := w.then(st, topic(alice, "only"))
	w.holds(state{topicKey: only[topicKey]}, st, only)

	// The first power levels stay unless they allow the next ones.
	low := w.then(st, at(10, levels(bob, w.users(`"@bob:b":49`))))
	high := w.then(st, at(11, levels(bob, w.users(`"@bob:b":50,"@carol:c":50`))))
	w.holds(state{levelsKey: low[levelsKey]}, low, high)
	low2 := w.then(st, at(12, levels(bob, w.users(`"@bob:b":49,"@carol:c":50`))))
	w.holds(state{levelsKey: low2[levelsKey]}, low2, high)

	// Members are resolved behind join rules: carol cannot come back.
	left := w.then(st, at(10, rules(alice, "invite")), at(11, member(carol, carol, "leave")))
	renamed := w.then(st, at(12, renamed(carol)))
	w.holds(state{rulesKey: left[rulesKey], memberKey(carol): left[memberKey(carol)]}, left, renamed)
	open := maps.Clone(left)
	open[rulesKey] = st[rulesKey]
	w.holds(state{memberKey(carol): renamed[memberKey(carol)]}, open, renamed)

	// The deepest topic that is allowed, or else the one that is not deep.
	t1, t2 := w.then(st, at(20, topic(alice, "1"))), w.then(st, at(21, topic(bob, "2")))
	w.holds(state{topicKey: t2[topicKey]}, t1, t2)
	kicked := w.then(t2, at(22, member(alice, bob, "leave")))
	t1[memberKey(bob)] = kicked[memberKey(bob)]
	w.holds(state{topicKey: t1[topicKey]}, t1, kicked)
	t3 := w.then(st, at(19, topic(bob, "3")))
	t3[memberKey(bob)] = kicked[memberKey(bob)]
	w.holds(state{topicKey: t3[topicKey]}, t3, kicked)
}

// TestLadder: two power levels events on each of many layers, each naming both of
// the layer below. The paths double with every layer, the work must not.
func TestLadder(t *testing.T) {
	cost := func(t *testing.T, version string, layers int) (calls, rows, read int) {
		w, top, other := ladder(t, version, layers)
		w.calls, w.rows, w.read = 0, 0, 0
		w.resolve(top, other)
		top[levelsKey] = 3 // all layers lie between
		w.resolve(top, other)
		return w.calls, w.rows, w.read
	}
	each(t, func(t *testing.T, version string) {
		calls, rows, read := cost(t, version, 100)
		calls2, rows2, read2 := cost(t, version, 400)
		if calls2 > 10*calls || rows2 > 10*rows || read2 > 10*read { // four times the layers; the order of maps makes it vary a little, and a square would be 16
			t.Errorf("100 layers: %d calls, %d rows, %d events; 400 layers: %d, %d, %d", calls, rows, read, calls2, rows2, read2)
		}
	}, v2AndLater...)
}

// TestDepth: a long line of users, each invited by the one before, is no deep
// recursion.
func TestDepth(t *testing.T) {
	const users = 3000
	w, st := newRoom(t, "12", bob)
	before := st
	inviter := bob
	for i := range users {
		user := fmt.Sprintf("@u%d:u", i)
		st = w.then(st, member(inviter, user, "invite"), member(user, user, "join"))
		inviter = user
	}
	end := w.then(st, renamed(inviter))
	banned := w.then(st, member(alice, bob, "ban"))
	w.calls = 0
	got := w.resolve(end, banned, before)
	if got[memberKey(bob)] != banned[memberKey(bob)] {
		t.Error("bob is not banned")
	}
}

// renamed is a member's new name.
func renamed(user string) spec {
	return spec{sender: user, typ: event.TypeMember, key: user, content: `{"displayname":"x","membership":"join"}`}
}

// TestRejectedAuthEvents: an auth event stands in for missing state only if it was
// not rejected.
func TestRejectedAuthEvents(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		w, st := newRoom(t, version, bob)
		st = w.then(st, spec{sender: bob, typ: "org.x", content: `{}`}) // all auth chains have bob
		named := w.then(st, topic(bob, "x"))
		without := maps.Clone(named)
		delete(without, memberKey(bob))
		delete(without, topicKey)
		// bob's membership is in no state, and the topic only in one.
		delete(named, memberKey(bob))
		w.holds(state{topicKey: named[topicKey]}, named, without)
		w.rejected[st[memberKey(bob)]] = true
		w.holds(state{topicKey: 0}, named, without)
	}, v2AndLater...)
}

// TestMainlineOfRejected: power levels that were rejected by the state before them
// stand in no chain, but another server's state may have them.
func TestMainlineOfRejected(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		w, st := newRoom(t, version, bob)
		older, newer := topic(alice, "older"), topic(bob, "newer")
		older.ts, newer.ts = 200, 100
		a := w.then(st, older)
		b := w.then(st, levels(alice, w.users(`"@bob:b":51`)), newer)
		s := levels(alice, w.users(`"@bob:b":52`))
		s.auth, s.prev, s.ts = w.selected(s, b), []Num{b[topicKey]}, 1 // older than the levels that it names
		odd := w.put(w.make(s), false)
		w.rejected[odd] = true
		c := maps.Clone(b)
		c[levelsKey] = odd
		w.holds(state{levelsKey: odd, topicKey: b[topicKey]}, a, c)
	}, v2AndLater...)
}

// TestMissing names events that are missing.
func TestMissing(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		w, st := newRoom(t, version, bob)
		a, b := w.then(st, topic(alice, "a")), w.then(st, topic(bob, "b"))
		lost := w.pdus[st[memberKey(bob)]].ID
		delete(w.ids, lost)
		_, err := Resolve(w.v, w.input([]state{a, b}))
		var missing *MissingError
		switch {
		case w.v.StateRes != matrix.StateResV1 && (!errors.As(err, &missing) || !slices.Equal(missing.IDs, []matrix.EventID{lost})):
			t.Errorf("without an auth event: %v", err)
		case missing != nil && !strings.Contains(err.Error(), string(lost)):
			t.Errorf("%v does not name the event", err)
		}
		w.ids[lost] = st[memberKey(bob)]
		p := w.pdus[a[topicKey]]
		w.pdus[a[topicKey]] = nil
		_, err = Resolve(w.v, inputOf(w, a, b))
		if missing = nil; !errors.As(err, &missing) || !slices.Equal(missing.Nums, []Num{a[topicKey]}) {
			t.Errorf("without an event: %v", err)
		}
		w.pdus[a[topicKey]] = p
	}, matrix.StateResV1, matrix.StateResV2, matrix.StateResV21)
}

// inputOf is the input of states whose events need not be there.
func inputOf(w *world, states ...state) Input {
	conflicts, agreed := differences(states)
	return Input{Source: w, Conflicts: conflicts, Unconflicted: func(keys []eventauth.Key) ([]Num, error) {
		list := make([]Num, len(keys))
		for i, k := range keys {
			list[i] = agreed[k]
		}
		return list, nil
	}}
}

// TestInput: what is wrong with the input is an error, and what is of no account
// is not.
func TestInput(t *testing.T) {
	w, st := newRoom(t, "12", bob)
	a, b := w.then(st, topic(alice, "a")), w.then(st, topic(bob, "b"))
	good := w.input([]state{a, b})
	change := func(f func(i *Input)) error {
		i := good
		i.Conflicts = slices.Clone(good.Conflicts)
		f(&i)
		_, err := Resolve(w.v, i)
		return err
	}
	if err := change(func(i *Input) { i.Conflicts = append(i.Conflicts, i.Conflicts[0]) }); err == nil {
		t.Error("a key that is given twice is taken")
	}
	if err := change(func(i *Input) { i.Conflicts = append(i.Conflicts, Conflict{rulesKey, []Num{1}}) }); err == nil {
		t.Error("conflicts of different numbers of states are taken")
	}
	if err := change(func(i *Input) { i.Conflicts = []Conflict{{topicKey, nil}} }); err == nil {
		t.Error("a conflict of no states is taken")
	}
	broken := errors.New("broken")
	if err := change(func(i *Input) {
		i.Unconflicted = func([]eventauth.Key) ([]Num, error) { return nil, broken }
	}); !errors.Is(err, broken) {
		t.Errorf("with a broken state: %v", err)
	}
	if changes, err := Resolve(w.v, Input{Source: w}); err != nil || len(changes) != 0 {
		t.Errorf("no conflicts: %v, %v", changes, err)
	}

	// Keys on which the states agree may be given.
	many := good
	many.Conflicts = append(slices.Clone(good.Conflicts), Conflict{rulesKey, []Num{st[rulesKey], st[rulesKey]}},
		Conflict{eventauth.Key{Type: "org.none"}, []Num{0, 0}})
	changes, err := Resolve(w.v, many)
	if err != nil || len(changes) != 3 || changes[1].Event != st[rulesKey] || changes[2].Event != 0 {
		t.Errorf("with keys without conflict: %v, %v", changes, err)
	}
	want, err := Resolve(w.v, good)
	if err != nil || want[0] != changes[0] {
		t.Errorf("without them: %v, %v", want, err)
	}

	// Many branches with the same state are one, but not too many different ones.
	var same, others []state
	for i := range MaxStates + 1 {
		same = append(same, a, b)
		others = append(others, w.then(st, topic(alice, fmt.Sprint(i))))
	}
	if got := w.resolve(same...); got[topicKey] != want[0].Event {
		t.Errorf("of many branches topic %d, want %d", got[topicKey], want[0].Event)
	}
	if _, err := Resolve(w.v, inputOf(w, others...)); err == nil {
		t.Error("too many states are taken")
	}
	w.resolve(others[1:]...)
}

// TestUnreadableLevels: power levels that break the rules of the room version, which
// no state should hold, do no harm.
func TestUnreadableLevels(t *testing.T) {
	w, st := newRoom(t, "12", bob)
	s := levels(alice, "")
	s.content, s.auth = `{"users":"x"}`, w.selected(s, st)
	broken := maps.Clone(st)
	broken[levelsKey] = w.add(s)
	s = rules(alice, "invite")
	s.auth = w.selected(s, broken)
	other := maps.Clone(broken)
	other[rulesKey] = w.add(s)
	in := inputOf(w, st, broken, other)
	if _, err := Resolve(w.v, in); err != nil {
		t.Error(err)
	}
}

// TestLimit: a conflict that is too large is an error before it is in memory.
func TestLimit(t *testing.T) {
	each(t, func(t *testing.T, version string) {
		w, top, other := ladder(t, version, 50)
		in := inputOf(w, top, other)
		in.Limit = 1
		var limit *LimitError
		if _, err := Resolve(w.v, in); !errors.As(err, &limit) || limit.Limit != 1 {
			t.Errorf("two events in conflict: %v", err)
		}
		top[levelsKey] = 3
		in = inputOf(w, top, other)
		in.Limit = 20
		if _, err := Resolve(w.v, in); !errors.As(err, &limit) {
			t.Errorf("a hundred events between: %v", err)
		}
		in.Limit = 300
		if _, err := Resolve(w.v, in); err != nil {
			t.Error(err)
		}
	}, v2AndLater...)
}
