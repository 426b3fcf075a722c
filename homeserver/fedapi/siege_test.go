package fedapi

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// siege is a server that sends whatever it likes, and answers likewise.
type siege struct {
	*host
	id   matrix.RoomID
	eve  matrix.UserID
	good *event.PDU // one that could be
	over <-chan struct{}
	n    atomic.Int64
}

// mostHeap is what the three servers of the test may take together, in bytes.
// Each of the bombs is larger, unpacked.
const mostHeap = 1 << 30

// TestSiege has a hostile server do everything at once to a room and to the
// server, while an honest one is in that room and in another: nothing honest is
// lost or held up, and nothing hostile counts.
func TestSiege(t *testing.T) {
	connectedAlone(t, 3, func(n *network) { // it looks at the memory of the process
		a, b, m := n.hosts[0], n.hosts[1], n.hosts[2]
		alice, bob, eve := a.user("alice"), b.user("bob"), m.user("eve")
		id, other := n.shared("10", alice, bob, eve), a.public(alice, "12")
		b.join(bob, other, a)
		a.state(alice, id, "m.room.power_levels", fmt.Sprintf(`{"users":{%q:100,%q:50}}`, alice, bob))
		n.agree(id, a, b, m)
		n.stop[m]()
		delete(n.stop, m)
		before, good := a.stateOf(id), m.say(eve, id, "good")

		ctx, stop := context.WithCancel(t.Context())
		defer stop()
		s := &siege{host: m, id: id, eve: eve, good: good, over: ctx.Done()}
		n.mu.Lock()
		n.up[m.name] = s.answers(n.up[m.name])
		n.mu.Unlock()
		var group sync.WaitGroup
		for _, attack := range s.attacks(a, bob, alice, other) {
			group.Go(func() {
				for ctx.Err() == nil {
					attack(ctx)
				}
			})
		}
		heap := uint64(0)
		for i := range 30 {
			said := []matrix.EventID{
				b.say(bob, id, fmt.Sprint("tea ", i)).ID, b.say(bob, other, fmt.Sprint("cake ", i)).ID,
			}
			answered := []matrix.EventID{a.say(alice, id, fmt.Sprint("more tea ", i)).ID, a.say(alice, other, fmt.Sprint("more cake ", i)).ID}
			n.reads(a, said...)
			n.reads(b, answered...)
			var mem runtime.MemStats
			runtime.ReadMemStats(&mem)
			heap = max(heap, mem.HeapInuse)
		}
		for s.n.Load() < 300 { // the siege has begun in earnest
			time.Sleep(10 * time.Millisecond)
		}
		n.agree(id, a, b)
		stop()
		group.Wait()
		if heap > mostHeap {
			t.Errorf("the heap grew to %d MB", heap>>20)
		}
		if after := a.stateOf(id); after != before {
			t.Errorf("the state was\n%s\nand is\n%s", before, after)
		}
		if got := a.texts(id) + a.texts(other); strings.Contains(got, "forged") {
			t.Errorf("a reads %q", got)
		}
		if got := a.membership(eve, id); got != event.Join {
			t.Errorf("eve is %q", got)
		}
	})
}

// attacks are what is done again and again, all at once.
func (s *siege) attacks(to *host, bob, alice matrix.UserID, other matrix.RoomID) []func(context.Context) {
	send := func(ctx context.Context, body string) {
		s.shoot(ctx, to, http.MethodPut, fmt.Sprintf("/_matrix/federation/v1/send/%d", s.n.Load()%50), body)
	}
	pdus := func(change func(d *event.Draft)) func(context.Context) {
		return func(ctx context.Context) {
			var list []string
			for range 10 {
				list = append(list, string(s.forge(s.good, change).JSON))
			}
			send(ctx, `{"pdus":[`+strings.Join(list, ",")+`]}`)
		}
	}
	says := func(d *event.Draft) {
		d.Content = json.RawMessage(fmt.Sprintf(`{"body":"forged","n":%d}`, s.n.Add(1)))
	}
	power := func(d *event.Draft) {
		d.Type, d.StateKey, d.Content = event.TypePowerLevels, new(string), json.RawMessage(fmt.Sprintf(`{"users":{%q:100},"forged":%d}`, s.eve, s.n.Add(1)))
	}
	fictive := func() matrix.EventID { return matrix.EventID(fmt.Sprintf("$%043d", s.n.Add(1))) }
	deep := strings.Repeat(`{"a":[`, 20_000) + strings.Repeat(`]}`, 20_000)
	raw := func(body func() string) func(context.Context) {
		return func(ctx context.Context) { send(ctx, body()) }
	}
	return []func(context.Context){
		pdus(func(d *event.Draft) { says(d); d.Sender = bob }),
		pdus(func(d *event.Draft) { says(d); d.Room = other }),
		pdus(power),
		pdus(func(d *event.Draft) { power(d); d.PrevEvents = []matrix.EventID{fictive()} }),
		pdus(func(d *event.Draft) { says(d); d.PrevEvents = []matrix.EventID{fictive(), fictive()} }),
		pdus(func(d *event.Draft) { says(d); d.AuthEvents = append(d.AuthEvents, fictive()) }),
		pdus(func(d *event.Draft) { says(d); d.Depth = 1<<53 - 1; d.PrevEvents = []matrix.EventID{fictive()} }),
		raw(func() string {
			return `{"pdus":[` + strings.Replace(string(s.good.JSON), `"good"`, fmt.Sprintf(`"forged %d"`, s.n.Add(1)), 1) + `]}`
		}),
		raw(func() string { return `{"pdus":[` + string(s.good.JSON[:len(s.good.JSON)/2]) }),
		raw(func() string { return `{"pdus":[` + strings.TrimSuffix(strings.Repeat(`{},`, 51), ",") + `]}` }),
		raw(func() string {
			return fmt.Sprintf(`{"pdus":[{"room_id":%q,"content":{"body":%q}}]}`, s.id, strings.Repeat("x", 1<<20))
		}),
		raw(func() string { return `{"pdus":[` + deep + `]}` }),
		raw(func() string { return `{"edus":[{"edu_type":"m.receipt","content":` + deep + `}]}` }),
		raw(func() string {
			e := fmt.Sprintf(`{"edu_type":"m.typing","content":{"room_id":%q,"user_id":%q,"typing":true}}`, s.id, s.eve)
			return `{"edus":[` + strings.TrimSuffix(strings.Repeat(e+",", 100), ",") + `]}`
		}),
		raw(func() string {
			return fmt.Sprintf(`{"edus":[{"edu_type":"m.device_list_update","content":{"user_id":%q,"device_id":"D","stream_id":%d,"prev_id":[1]}}]}`, s.eve, s.n.Add(1))
		}),
		func(ctx context.Context) { s.invite(ctx, to, alice) },
		func(ctx context.Context) { s.lure(ctx, to, alice) },
	}
}

// shoot makes a signed request. What comes of it does not matter.
func (s *siege) shoot(ctx context.Context, to *host, method, path, body string) {
	s.n.Add(1)
	header := s.header(to, method, path, body)
	r, err := http.NewRequestWithContext(ctx, method, "https://"+string(to.name)+path, strings.NewReader(body))
	if err != nil {
		return
	}
	r.Header.Set("Authorization", header)
	if resp, err := to.http.Do(r); err == nil {
		io.Copy(io.Discard, resp.Body)
		resp.Body.Close()
	}
}

// invite invites a user into rooms that nobody has heard of.
func (s *siege) invite(ctx context.Context, to *host, user matrix.UserID) {
	p := s.forge(s.good, func(d *event.Draft) {
		key := string(user)
		d.Room = matrix.RoomID(fmt.Sprintf("!%d:%s", s.n.Add(1), s.name))
		d.Type, d.StateKey, d.Content = event.TypeMember, &key, json.RawMessage(`{"membership":"invite"}`)
	})
	path := "/_matrix/federation/v2/invite/" + url.PathEscape(string(p.Room)) + "/" + url.PathEscape(string(p.ID))
	s.shoot(ctx, to, http.MethodPut, path, fmt.Sprintf(`{"room_version":%q,"event":%s}`, []string{"10", "99"}[s.n.Load()%2], p.JSON))
}

// lure has a user join a room of which nothing true is told.
func (s *siege) lure(ctx context.Context, to *host, user matrix.UserID) {
	s.n.Add(1)
	id := matrix.RoomID(fmt.Sprintf("!lure%d:%s", s.n.Load(), s.name))
	to.fed.Join(ctx, room.Change{Room: id, Actor: user}, []matrix.ServerName{s.name})
}

// answers are the hostile ones, beside those without which nobody would ask.
func (s *siege) answers(honest http.Handler) http.Handler {
	mux := http.NewServeMux()
	mux.Handle("/_matrix/key/", honest)
	mux.HandleFunc("/_matrix/federation/v1/make_join/{room}/{user}", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"room_version":"10","event":{"type":"m.room.member","room_id":%q,"sender":%q,"state_key":%q,"content":{"membership":"join"},"depth":5,"prev_events":[%q],"auth_events":[%q]}}`,
			r.PathValue("room"), r.PathValue("user"), r.PathValue("user"), s.good.ID, s.good.ID)
	})
	mux.HandleFunc("/_matrix/federation/v2/send_join/", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprintf(w, `{"auth_chain":[%s],"state":[17,{},%s,`, s.good.JSON, s.good.JSON)
		s.endless(w, r, fmt.Sprintf(`{"x":%q},`, strings.Repeat("x", 1<<16)))
	})
	// A chain that goes back for ever: what is given follows on more that is not here.
	mux.HandleFunc("/_matrix/federation/v1/get_missing_events/", func(w http.ResponseWriter, r *http.Request) {
		var list []string
		for range 50 {
			p := s.forge(s.good, func(d *event.Draft) {
				d.Content = json.RawMessage(`{"body":"forged"}`)
				d.PrevEvents = []matrix.EventID{matrix.EventID(fmt.Sprintf("$%043d", s.n.Add(1)))}
			})
			list = append(list, string(p.JSON))
		}
		fmt.Fprintf(w, `{"events":[%s]}`, strings.Join(list, ","))
	})
	mux.HandleFunc("/_matrix/federation/v1/state_ids/", func(w http.ResponseWriter, r *http.Request) {
		if s.n.Add(1)%2 == 0 {
			s.drip(w, r)
			return
		}
		io.WriteString(w, `{"pdu_ids":[`)
		s.endless(w, r, fmt.Sprintf("%q,", s.good.ID))
	})
	mux.HandleFunc("/_matrix/federation/v1/event_auth/", s.bomb)
	mux.HandleFunc("/_matrix/federation/v1/state/", s.bomb)
	mux.HandleFunc("/_matrix/federation/v1/event/", func(w http.ResponseWriter, r *http.Request) {
		switch s.n.Add(1) % 3 {
		case 0:
			http.Redirect(w, r, "http://169.254.169.254/latest/meta-data", http.StatusFound)
		case 1:
			w.Header().Set("Content-Type", "text/html")
			io.WriteString(w, "<html>")
		default:
			s.endless(w, r, " ")
		}
	})
	mux.HandleFunc("/_matrix/federation/v1/user/devices/", s.drip)
	return mux
}

// endless writes the same again and again.
func (s *siege) endless(w http.ResponseWriter, r *http.Request, piece string) {
	block := strings.Repeat(piece, 1+(64<<10)/len(piece))
	for r.Context().Err() == nil {
		select {
		case <-s.over:
			return
		default:
		}
		if _, err := io.WriteString(w, block); err != nil {
			return
		}
	}
}

// drip never comes to an end either, and takes its time.
func (s *siege) drip(w http.ResponseWriter, r *http.Request) {
	io.WriteString(w, "{")
	for {
		select {
		case <-s.over:
			return
		case <-r.Context().Done():
			return
		case <-time.After(20 * time.Millisecond):
		}
		io.WriteString(w, " ")
		http.NewResponseController(w).Flush()
	}
}

// bomb is small on the wire and very large unpacked.
func (s *siege) bomb(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Encoding", "gzip")
	w.Write(packed())
}

// packed is a JSON array of 4 GB of events in a few MB.
var packed = sync.OnceValue(func() []byte {
	var b bytes.Buffer
	z, _ := gzip.NewWriterLevel(&b, gzip.BestSpeed)
	io.WriteString(z, `{"auth_chain":[`)
	block := []byte(strings.Repeat(`{"type":"x"},`, 100_000))
	for range 400 {
		z.Write(block)
	}
	z.Close()
	return b.Bytes()
})
