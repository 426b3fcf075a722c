package stateres

import (
	"encoding/binary"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
)

// choices is a source of numbers that a fuzzer steers: its bytes, and then what
// follows from them.
type choices struct {
	data []byte
	rest *rand.PCG
}

func newChoices(data []byte) *choices {
	return &choices{data: data, rest: rand.NewPCG(uint64(len(data)), 5)}
}

// Uint64 implements rand.Source.
func (c *choices) Uint64() uint64 {
	if len(c.data) == 0 {
		return c.rest.Uint64()
	}
	var b [8]byte
	n := copy(b[:2], c.data)
	c.data = c.data[n:]
	// rand takes high bits or low ones, as it suits it.
	x := uint64(binary.LittleEndian.Uint16(b[:2]))
	return x<<48 | x<<32 | x<<16 | x
}

// FuzzResolve makes rooms of what the fuzzer chooses. Their forks are resolved as
// by the reference.
func FuzzResolve(f *testing.F) {
	for i := range 12 {
		f.Add(uint8(i), []byte("fork"))
		f.Add(uint8(i), []byte{byte(i), 255, 3, 0, 17, 200, 9})
	}
	f.Fuzz(func(t *testing.T, version uint8, data []byte) {
		v := matrix.Versions()[int(version)%len(matrix.Versions())]
		h := newHistory(t, v.ID, 0, compare)
		h.r = rand.New(newChoices(data))
		for range 3 {
			h.grow(2 + len(data)/16%16)
			h.tear()
		}
	})
}

// FuzzCover makes auth DAGs of what the fuzzer chooses.
func FuzzCover(f *testing.F) {
	f.Add([]byte("cover"))
	f.Add([]byte{1, 2, 3, 255, 254, 253, 0, 0, 9})
	f.Fuzz(func(t *testing.T, data []byte) {
		r := rand.New(newChoices(data))
		g := randomGraph(t, r)
		for range 4 {
			g.checkReach(t, r)
			g.checkDifference(t, r)
			g.checkBetween(t, r)
		}
	})
}

// FuzzLawless resolves states of events that no server should have let in: with
// auth events of any kind and any number, and with any content. Nothing may panic,
// and the order of the states is of no account.
func FuzzLawless(f *testing.F) {
	for i := range 12 {
		f.Add(uint8(i), []byte("lawless"))
	}
	f.Fuzz(func(t *testing.T, version uint8, data []byte) {
		v := matrix.Versions()[int(version)%len(matrix.Versions())]
		r := rand.New(newChoices(data))
		w := newWorld(t, v.ID)
		w.add(spec{sender: people[0], typ: event.TypeCreate, content: `{}`})
		for len(w.pdus) < 6+len(data)/4%40 {
			w.lawless(r)
		}
		states := make([]state, 2+r.IntN(3))
		for i := range states {
			states[i] = state{}
			for range r.IntN(len(w.pdus)) {
				n := Num(1 + r.IntN(len(w.pdus)-1))
				states[i][w.key(n)] = n
			}
		}
		got := w.resolve(states...)
		slices.Reverse(states)
		if again := w.resolve(states...); !maps.Equal(got, again) {
			t.Errorf("resolved to\n%s\nin another order to\n%s", w.show(got), w.show(again))
		}
	})
}

// lawless adds an event of any kind.
func (w *world) lawless(r *rand.Rand) {
	s := spec{
		sender: pick(r, people...), ts: int64(r.IntN(3)), depth: int64(r.IntN(3)), key: pick(r, "", people[0], people[1], people[2], "x"),
		typ: pick(r, event.TypeMember, event.TypeMember, event.TypePowerLevels, event.TypeJoinRules, event.TypeThirdPartyInvite, event.TypeCreate, "m.room.topic"),
		content: pick(r, `{}`, `{"users":{"@a:a":100,"@b:b":"50"}}`, `{"users":7}`, `{"users_default":100}`, `{"ban":1e300}`, `{"join_rule":[]}`, `{"join_rule":"public"}`,
			`{"membership":"join"}`, `{"membership":"join"}`, `{"membership":"ban"}`, `{"membership":"leave"}`, `{"membership":{}}`,
			`{"membership":"invite","third_party_invite":{"signed":{"mxid":"x","token":"x"}}}`, `{"join_authorised_via_users_server":1,"membership":"join"}`,
			`{"creator":"@a:a"}`, `{"additional_creators":[1]}`),
	}
	s.id = fmt.Sprintf("%d-%d", r.IntN(9), len(w.pdus))
	for range r.IntN(5) {
		// Leaves are in no chain, and not even a broken server can store an event
		// before its auth events.
		if a := Num(1 + r.IntN(len(w.pdus)-1)); w.places[a] != 0 {
			s.auth = append(s.auth, a)
		}
	}
	room := w.room // a second create event makes no other room
	n := w.add(s)
	w.room = room
	w.rejected[n] = r.IntN(4) == 0
}
