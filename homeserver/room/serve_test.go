package room

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// history writes states of a room straight into a store.
type history struct {
	testing.TB
	*Service
	tree statetree.Tree
}

// change makes a state in which users have other memberships, and gives its root.
func (h *history) change(memberships map[matrix.UserID]string) statetree.ID {
	h.Helper()
	ctx := h.TB.Context()
	v, _ := matrix.Version("11")
	var list []*store.Event
	for user, m := range memberships {
		key := string(user)
		p, err := event.Build(v, event.Draft{Room: "!r:a.test", Type: event.TypeMember, Sender: user, StateKey: &key, PrevEvents: []matrix.EventID{"$p"},
			Content: json.RawMessage(fmt.Sprintf(`{"membership":%q,"n":%d}`, m, rand.Int64N(1<<50)))}, user.Server(), h.Key)
		if err != nil {
			h.Fatal(err)
		}
		list = append(list, &store.Event{PDU: p, Room: 1})
	}
	tree := h.tree
	err := h.Store.Update(ctx, func(tx *store.Tx) error {
		for _, e := range list {
			pos, err := tx.NextPosition(ctx)
			if err != nil {
				return err
			}
			e.Num = store.EventNum(pos)
		}
		if err := tx.AppendAside(ctx, list); err != nil {
			return err
		}
		entries := make([]statetree.Entry, len(list))
		for i, e := range list {
			entries[i] = statetree.Entry{Key: e.Key, Value: statetree.Value(e.Num)}
		}
		var nodes []statetree.Node
		var err error
		if tree, nodes, err = h.tree.Put(h.Store.Nodes(ctx), entries...); err != nil {
			return err
		}
		return tx.PutNodes(ctx, nodes)
	})
	if err != nil {
		h.Fatal(err)
	}
	h.tree = tree
	return tree.ID()
}

func newHistory(t testing.TB, st *store.Store) *history {
	t.Helper()
	key, err := signing.Generate()
	if err != nil {
		t.Fatal(err)
	}
	v, _ := matrix.Version("11")
	err = st.Update(t.Context(), func(tx *store.Tx) error {
		return tx.PutRoom(t.Context(), &store.Room{Num: 1, ID: "!r:a.test", Version: v})
	})
	if err != nil {
		t.Fatal(err)
	}
	return &history{TB: t, Service: &Service{Store: st, Bell: &notify.Bell{}, ServerName: "a.test", Key: key}}
}

// walked is serverIn by a walk of the whole state.
func (h *history) walked(server matrix.ServerName, root statetree.ID, invited bool) bool {
	h.Helper()
	events, err := h.StateEvents(h.TB.Context(), root)
	if err != nil {
		h.Fatal(err)
	}
	return slices.ContainsFunc(events, func(e *store.Event) bool {
		m := e.PDU.Membership()
		return matrix.UserID(*e.PDU.StateKey).Server() == server && (m == event.Join || invited && m == event.Invite)
	})
}

// TestServerIn asks about states in any order.
func TestServerIn(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		h := newHistory(t, st)
		r := rand.New(rand.NewPCG(1, 2))
		servers := []matrix.ServerName{"b.test", "B.test", "c.test", "sub.b.test", "b-test", "none.test"}
		roots := []statetree.ID{0}
		for range 60 {
			changed := map[matrix.UserID]string{}
			for range 1 + r.IntN(3) {
				user := matrix.NewUserID(fmt.Sprint("user", r.IntN(2)), servers[r.IntN(len(servers)-1)])
				changed[user] = []string{event.Join, event.Invite, event.Leave, event.Ban, event.Leave}[r.IntN(5)]
			}
			roots = append(roots, h.change(changed))
			if r.IntN(10) == 0 { // and as if the room forked here
				h.tree = statetree.Open(roots[r.IntN(len(roots))])
			}
		}
		answers := map[bool]int{}
		for range 500 {
			root, server, invited := roots[r.IntN(len(roots))], servers[r.IntN(len(servers))], r.IntN(2) == 0
			got, err := h.serverIn(t.Context(), 1, server, root, invited)
			if err != nil {
				t.Fatal(err)
			}
			if want := h.walked(server, root, invited); got != want {
				t.Fatalf("%s in state %d, invited %v: %v, want %v", server, root, invited, got, want)
			}
			answers[got]++
		}
		if answers[true] < 50 || answers[false] < 50 {
			t.Errorf("%v", answers)
		}
	})
}

// BenchmarkServerIn asks about a hundred states of a room of 20,000 members, one
// after the other, as a backfill does.
func BenchmarkServerIn(b *testing.B) { storetest.Bench(b, benchmarkServerIn) }

func benchmarkServerIn(b *testing.B, st *store.Store) {
	h := newHistory(b, st)
	for part := range 20 {
		members := map[matrix.UserID]string{}
		for i := range 1000 {
			members[matrix.NewUserID(fmt.Sprint("user", part*1000+i), matrix.ServerName(fmt.Sprintf("server%d.test", i%500)))] = event.Join
		}
		h.change(members)
	}
	var roots []statetree.ID
	for i := range 100 {
		roots = append(roots, h.change(map[matrix.UserID]string{matrix.NewUserID(fmt.Sprint("user", i), "server0.test"): []string{event.Join, event.Leave}[i%2]}))
	}
	const server = "absent.test"
	b.Run("differences", func(b *testing.B) {
		for b.Loop() {
			h.attendances = store.Recent[attendanceKey, attendance]{}
			for _, root := range roots {
				if in, err := h.serverIn(b.Context(), 1, server, root, true); err != nil || in {
					b.Fatal(in, err)
				}
			}
		}
	})
	b.Run("walks", func(b *testing.B) {
		for b.Loop() {
			for _, root := range roots {
				if h.walked(server, root, true) {
					b.Fatal("in")
				}
			}
		}
	})
}
