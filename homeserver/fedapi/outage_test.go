package fedapi

import (
	"context"
	"fmt"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

	"switchboard/homeserver/clientsync"
	"switchboard/homeserver/event"
	"switchboard/homeserver/fedsender"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// network are servers that send to each other by themselves, whose links can be
// cut, and which can go down.
type network struct {
	*testing.T
	hosts []*host
	stop  map[*host]func() // of those that are up

	mu  sync.Mutex // tier 1; guards all below
	up  map[matrix.ServerName]http.Handler
	in  map[matrix.ServerName]*sync.WaitGroup // requests that are worked on
	cut map[[2]matrix.ServerName]bool         // by who asks and who is asked
	out map[[2]matrix.ServerName]int          // likewise: transactions that were turned away
}

// connected runs f with n servers that send, beside other tests: for the most part
// it waits.
func connected(t *testing.T, n int, f func(n *network)) {
	t.Helper()
	t.Parallel()
	connectedAlone(t, n, f)
}

// connectedAlone is connected with nothing beside it.
func connectedAlone(t *testing.T, n int, f func(n *network)) {
	t.Helper()
	together(t, n, func(t *testing.T, hosts []*host) {
		net := &network{T: t, hosts: hosts, stop: map[*host]func(){}, up: map[matrix.ServerName]http.Handler{},
			in: map[matrix.ServerName]*sync.WaitGroup{}, cut: map[[2]matrix.ServerName]bool{}, out: map[[2]matrix.ServerName]int{}}
		for _, h := range hosts {
			h.front = net.link(h.name)
			net.start(h)
		}
		defer func() {
			for _, stop := range net.stop {
				stop()
			}
		}()
		f(net)
	})
}

var asks = regexp.MustCompile(`origin="([^"]*)"`)

// link is the way to a server.
func (n *network) link(to matrix.ServerName) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var from matrix.ServerName
		if m := asks.FindStringSubmatch(r.Header.Get("Authorization")); m != nil {
			from = matrix.ServerName(m[1])
		}
		n.mu.Lock()
		h, cut := n.up[to], n.cut[[2]matrix.ServerName{from, to}]
		if h == nil || cut {
			if strings.HasPrefix(r.URL.Path, "/_matrix/federation/v1/send/") {
				n.out[[2]matrix.ServerName{from, to}]++
			}
			n.mu.Unlock()
			w.WriteHeader(http.StatusBadGateway)
			return
		}
		in := n.in[to]
		in.Add(1)
		n.mu.Unlock()
		defer in.Done()
		h.ServeHTTP(w, r)
	})
}

// part cuts the link between two servers in both directions, or mends it.
func (n *network) part(a, b *host, cut bool) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.cut[[2]matrix.ServerName{a.name, b.name}] = cut
	n.cut[[2]matrix.ServerName{b.name, a.name}] = cut
}

// isolate does that between one server and all others.
func (n *network) isolate(h *host, cut bool) {
	for _, o := range n.hosts {
		n.part(h, o, cut)
	}
}

// start lets a server send and be asked.
func (n *network) start(h *host) {
	ctx, cancel := context.WithCancel(n.Context())
	sender := &fedsender.Service{Store: h.st, Client: h.client, Bell: h.bell, Keys: h.keys, Ephemeral: h.ephemeral, ServerName: h.name}
	var group errgroup.Group
	group.Go(func() error { return sender.Run(ctx) })
	group.Go(func() error { return h.fed.Run(ctx) })
	n.stop[h] = func() {
		cancel()
		h.ok(group.Wait())
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.in[h.name] = &sync.WaitGroup{}
	n.up[h.name] = h.api.Handler()
}

// fell takes a server down: nothing of its memory stays.
func (n *network) fell(h *host) {
	n.mu.Lock()
	delete(n.up, h.name)
	in := n.in[h.name]
	n.mu.Unlock()
	in.Wait()
	n.stop[h]()
	delete(n.stop, h)
	h.close()
}

// raise starts a server again.
func (n *network) raise(h *host) {
	h.open()
	n.start(h)
}

// mend makes everything whole.
func (n *network) mend() {
	n.mu.Lock()
	clear(n.cut)
	n.mu.Unlock()
	for _, h := range n.hosts {
		if n.stop[h] == nil {
			n.raise(h)
		}
	}
}

// await waits for a condition.
func (n *network) await(what string, ready func() bool) {
	n.Helper()
	for end := time.Now().Add(4 * time.Minute); !ready(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(end) {
			n.Fatalf("%s: did not happen", what)
		}
	}
}

// agree waits until servers have the same state of a room.
func (n *network) agree(id matrix.RoomID, hosts ...*host) {
	n.Helper()
	var states map[string][]matrix.ServerName
	defer func() {
		if n.Failed() {
			for s, names := range states {
				n.Logf("%s have\n%s", names, s)
			}
		}
	}()
	n.await("the same state everywhere", func() bool {
		states = map[string][]matrix.ServerName{}
		for _, h := range hosts {
			s := h.stateOf(id)
			states[s] = append(states[s], h.name)
		}
		return len(states) == 1
	})
}

// reads waits until a server has all of some events, whether they count or not.
func (n *network) reads(h *host, events ...matrix.EventID) {
	n.Helper()
	lost := 0
	defer func() {
		if n.Failed() {
			n.Logf("%s lacks %d of %d events", h.name, lost, len(events))
		}
	}()
	n.await("every event arrived", func() bool {
		found, err := h.st.EventsByID(h.ctx(), events)
		h.ok(err)
		lost = 0
		for _, id := range events {
			if e := found[id]; e == nil || e.Pos == 0 && e.Status == store.Accepted {
				lost++
			}
		}
		return lost == 0
	})
}

// shared makes a room on the first server in which users of all are.
func (n *network) shared(version string, users ...matrix.UserID) matrix.RoomID {
	n.Helper()
	a := n.hosts[0]
	id := a.public(users[0], version)
	for i, h := range n.hosts[1:] {
		h.join(users[i+1], id, a)
	}
	n.agree(id, n.hosts...)
	return id
}

// TestOutage has one side miss what the other says, and both restart.
func TestOutage(t *testing.T) {
	connected(t, 2, func(n *network) {
		a, b := n.hosts[0], n.hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		for i, version := range []string{"10", "12"} {
			id := n.shared(version, alice, bob)
			for _, restart := range []*host{a, b} {
				n.isolate(b, true)
				var said []matrix.EventID
				for k := range 100 {
					if k%10 == 0 {
						said = append(said, a.state(alice, id, "m.room.topic", fmt.Sprintf(`{"topic":"tea %d"}`, k)).ID)
					}
					said = append(said, a.say(alice, id, fmt.Sprint(i, " ", k)).ID)
				}
				n.fell(restart)
				n.mend()
				n.reads(b, said...)
				n.agree(id, a, b)
			}
			n.fell(b) // while it is down, and the other one only sends
			said := []matrix.EventID{a.say(alice, id, "are you there?").ID}
			for k := range 100 {
				said = append(said, a.say(alice, id, fmt.Sprint("down ", k)).ID)
			}
			n.raise(b)
			n.reads(b, said...)
			said = []matrix.EventID{b.say(bob, id, "here I am").ID}
			n.reads(a, said...)
			n.agree(id, a, b)
		}
	})
}

// TestOlderThanGap has two servers go apart and find together again. What was said
// before one of them joined is no part of the gap, though the other gives it: it is
// history, and nothing new.
func TestOlderThanGap(t *testing.T) {
	connected(t, 2, func(n *network) {
		a, b := n.hosts[0], n.hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		id := a.public(alice, "12")
		for k := range 5 {
			a.say(alice, id, fmt.Sprint("old ", k))
		}
		b.join(bob, id, a)
		n.agree(id, a, b)
		n.isolate(b, true)
		b.say(bob, id, "cake")
		a.say(alice, id, "tea")
		a.say(alice, id, "milk")
		n.mend()
		n.reads(b, a.say(alice, id, "sugar").ID)
		n.agree(id, a, b)
		if got := b.texts(id); got != "cake tea milk sugar" {
			t.Errorf("after the outage there is %q", got)
		}
	})
}

// TestLongOutage has a server miss more than it fetches at once: the state is
// asked for, and the history when somebody reads it.
func TestLongOutage(t *testing.T) {
	connected(t, 2, func(n *network) {
		a, b := n.hosts[0], n.hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		a.fed.Config.MaxMissing, b.fed.Config.MaxMissing = 30, 30
		id := n.shared("12", alice, bob)
		a.state(alice, id, "m.room.power_levels", fmt.Sprintf(`{"users":{%q:50}}`, bob))
		n.agree(id, a, b)
		n.isolate(b, true)
		var said []matrix.EventID
		for k := range 90 {
			if k%10 == 0 {
				a.state(alice, id, "m.room.topic", fmt.Sprintf(`{"topic":"tea %d"}`, k))
				b.state(bob, id, "org.example.cake", fmt.Sprintf(`{"cake":%d}`, k))
			}
			said = append(said, a.say(alice, id, fmt.Sprint("tea ", k)).ID, b.say(bob, id, fmt.Sprint("cake ", k)).ID)
		}
		n.mend()
		n.agree(id, a, b)
		for i, h := range n.hosts {
			n.reads(h, said[len(said)-2:]...)
			reader := room.Reader{User: []matrix.UserID{alice, bob}[i]}
			n.await("the history is fetched", func() bool {
				_, err := h.fed.Messages(h.ctx(), reader, room.Page{Room: id, Limit: 1000, Filter: &clientsync.EventFilter{}})
				h.ok(err)
				found, err := h.st.EventsByID(h.ctx(), said)
				h.ok(err)
				return len(found) == len(said)
			})
			n.reads(h, said...)
		}
		n.agree(id, a, b)
	})
}

// TestBannedMeanwhile has a server that was cut off say something for a user whom
// the others banned at the same time.
func TestBannedMeanwhile(t *testing.T) {
	connected(t, 3, func(n *network) {
		a, b, c := n.hosts[0], n.hosts[1], n.hosts[2]
		alice, bob, carol := a.user("alice"), b.user("bob"), c.user("carol")
		ben := b.user("ben")
		for _, version := range []string{"2", "10", "12"} {
			id := n.shared(version, alice, bob, carol)
			b.join(ben, id, a)
			a.state(alice, id, "m.room.power_levels", fmt.Sprintf(`{"users":{%s%q:50,%q:50}}`, creator(version, alice), bob, carol))
			n.agree(id, a, b, c)
			n.isolate(b, true)
			a.ok(a.rooms.Ban(a.ctx(), room.Change{Room: id, Actor: alice, Target: bob}))
			a.state(alice, id, "m.room.topic", `{"topic":"of a"}`)
			n.agree(id, a, c)
			bad := []matrix.EventID{b.state(bob, id, "m.room.topic", `{"topic":"of b"}`).ID, b.say(bob, id, "I am here still").ID}
			good := b.say(ben, id, "and I").ID
			c.say(carol, id, "he is gone")
			n.mend()
			n.agree(id, a, b, c)
			for _, h := range []*host{a, c} {
				n.reads(h, append(bad, good)...)
				if got := h.membership(bob, id); got != event.Ban {
					t.Errorf("version %s: bob is %q", version, got)
				}
			}
			// The last user of a server is banned: it learns of that, too.
			n.isolate(b, true)
			a.ok(a.rooms.Ban(a.ctx(), room.Change{Room: id, Actor: alice, Target: ben}))
			b.say(ben, id, "hello?")
			n.mend()
			n.await("the server learns that it is banned", func() bool { return b.membership(ben, id) == event.Ban })
			n.agree(id, a, c)
		}
	})
}

// creator is the entry of a creator in the power levels, where it has one.
func creator(version string, user matrix.UserID) string {
	if v, _ := matrix.Version(version); v.RoomIDFromCreate {
		return ""
	}
	return fmt.Sprintf("%q:100,", user)
}

// TestJoinMeanwhile has a user come in by a server while another one is away:
// that one learns of it although the user says nothing.
func TestJoinMeanwhile(t *testing.T) {
	connected(t, 3, func(n *network) {
		a, b, c := n.hosts[0], n.hosts[1], n.hosts[2]
		alice, bob, carol := a.user("alice"), b.user("bob"), c.user("carol")
		id := a.public(alice, "12")
		b.join(bob, id, a)
		n.agree(id, a, b)
		for range 2 { // as it is, and after a restart of the server that let the user in
			n.isolate(b, true)
			c.join(carol, id, a)
			n.agree(id, a, c)
			n.fell(a)
			n.mend()
			n.agree(id, a, b, c)
			c.ok(c.fed.Leave(c.ctx(), room.Change{Room: id, Actor: carol}))
			n.agree(id, a, b)
		}
	})
}
