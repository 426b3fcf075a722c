package fedapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"switchboard/homeserver/clientsync"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// pages reads a room page by page as a client does, until there is no end or an
// error, and gives the bodies of the messages in the order in which they came.
func (h *host) pages(user matrix.UserID, id matrix.RoomID, forward bool, limit int) (texts []string, err error) {
	h.Helper()
	p := room.Page{Room: id, Forward: forward, Limit: limit, Filter: &clientsync.EventFilter{}}
	for n := 0; ; n++ {
		if n > 1000 {
			h.Fatal("the pages have no end")
		}
		answer, err := h.fed.Messages(h.ctx(), room.Reader{User: user}, p)
		if err != nil {
			return texts, err
		}
		for _, raw := range answer.Chunk {
			var e struct{ Content struct{ Body string } }
			h.ok(json.Unmarshal(raw, &e))
			if e.Content.Body != "" {
				texts = append(texts, e.Content.Body)
			}
		}
		if answer.End == "" {
			return texts, nil
		}
		p.From = answer.End
	}
}

// numbers are the texts "0" to "n-1".
func numbers(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprint(i)
	}
	return list
}

// TestPages reads history that another server has, with a gap in the middle, in
// both directions.
func TestPages(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		id := a.public(alice, "12")
		for i := range 250 {
			a.say(alice, id, fmt.Sprint(i))
		}
		b.join(bob, id, a)
		got, err := b.pages(bob, id, false, 30)
		b.ok(err)
		slices.Reverse(got)
		if !slices.Equal(got, numbers(250)) {
			t.Errorf("from the end: %v", got)
		}
		got, err = b.pages(bob, id, true, 30)
		b.ok(err)
		if !slices.Equal(got, numbers(250)) {
			t.Errorf("from the beginning: %v", got)
		}
		a.fed.Config.MaxMissing, b.fed.Config.MaxMissing = 20, 20
		for i := 250; i < 400; i++ {
			a.say(alice, id, fmt.Sprint(i))
		}
		a.tell(b, a.say(alice, id, "400"))
		got, err = b.pages(bob, id, true, 30)
		b.ok(err)
		if !slices.Equal(got, numbers(401)) {
			t.Errorf("across the gap, from the beginning, %d messages: %v", len(got), got)
		}
		for i := 401; i < 600; i++ {
			a.say(alice, id, fmt.Sprint(i))
		}
		a.tell(b, a.say(alice, id, "600"))
		for range 2 { // the gap is fetched, and then it is here
			got, err = b.pages(bob, id, false, 30)
			b.ok(err)
			slices.Reverse(got)
			if !slices.Equal(got, numbers(601)) {
				t.Errorf("across the gap %d messages: %v", len(got), got)
			}
		}
	})
}

// TestPagesOutOfReach reads on when the server that has the rest is away, is back,
// and when it does not give it.
func TestPagesOutOfReach(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		id := a.public(alice, "12")
		for i := range 30 {
			a.say(alice, id, fmt.Sprint(i))
		}
		b.join(bob, id, a)
		b.say(bob, id, "here")
		api := a.front
		var asked atomic.Int64
		answering := func(status int) {
			a.front = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if strings.Contains(r.URL.Path, "/backfill/") {
					asked.Add(1)
				}
				w.Header().Set("Content-Type", "application/json")
				w.WriteHeader(status)
				fmt.Fprint(w, `{"errcode":"M_FORBIDDEN","error":"no"}`)
			})
		}
		answering(503)
		for range 2 {
			got, err := b.pages(bob, id, false, 100)
			var e *matrix.Error
			if !errors.As(err, &e) || e.HTTPStatus() != 502 || !slices.Equal(got, []string{"here"}) {
				t.Errorf("while the other server is away: %v, %v", got, err)
			}
		}
		answering(403)
		b.client.Heard(b.ctx(), a.name)
		got, err := b.pages(bob, id, false, 100)
		if err != nil || !slices.Equal(got, []string{"here"}) {
			t.Errorf("a server that refuses: %v, %v", got, err)
		}
		if n := asked.Load(); n > 10 {
			t.Errorf("%d requests were made", n)
		}
		a.front = api
		b.client.Heard(b.ctx(), a.name)
		got, err = b.pages(bob, id, false, 100)
		b.ok(err)
		if len(got) != 31 {
			t.Errorf("when it is back: %v", got)
		}
	})
}
