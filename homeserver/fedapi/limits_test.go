package fedapi

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"switchboard/homeserver/matrix"
)

// counted serves what a host serves, and counts the requests whose paths have a part.
func (h *host) counted() (count func(part string) int) {
	var mu sync.Mutex // tier 1; guards asked
	var asked []string
	api := h.front
	h.front = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		asked = append(asked, r.URL.String())
		mu.Unlock()
		api.ServeHTTP(w, r)
	})
	return func(part string) (n int) {
		mu.Lock()
		defer mu.Unlock()
		for _, url := range asked {
			if strings.Contains(url, part) {
				n++
			}
		}
		return n
	}
}

// TestMaxBackfill reads history in pieces of the sizes that the operators chose.
func TestMaxBackfill(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		b, a := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		id := a.public(alice, "12")
		for i := range 50 {
			a.say(alice, id, fmt.Sprint(i))
		}
		b.join(bob, id, a)
		a.fed.Config.MaxBackfill, b.fed.Config.MaxBackfill = 12, 17
		r, err := a.st.Room(a.ctx(), id)
		a.ok(err)
		newest, err := a.st.Newest(a.ctx(), r.Num, 0, r.Last, 1)
		a.ok(err)
		given, err := b.client.Backfill(b.ctx(), a.name, id, []matrix.EventID{newest[0].PDU.ID}, 100)
		b.ok(err)
		if len(given) != 12 {
			t.Errorf("a gives %d events", len(given))
		}
		count := a.counted()
		got, err := b.pages(bob, id, false, 30)
		b.ok(err)
		slices.Reverse(got)
		if !slices.Equal(got, numbers(50)) {
			t.Errorf("b reads %v", got)
		}
		if all, sized := count("/backfill/"), count("limit=17"); all < 5 || sized != all {
			t.Errorf("b asked %d times, %d times for 17 events", all, sized)
		}
	})
}

// TestMaxSingle bridges a gap in which much of the state changed.
func TestMaxSingle(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		b, a := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		a.fed.Config.MaxMissing, b.fed.Config.MaxMissing = 10, 10
		for i, most := range []int{100, 3, 100} {
			id := a.public(alice, []string{"12", "12", "10"}[i])
			b.join(bob, id, a)
			for i := range 5 {
				a.state(alice, id, fmt.Sprint("test.", i), `{}`)
			}
			for i := range 40 {
				a.say(alice, id, fmt.Sprint(i))
			}
			b.fed.Config.MaxSingle = most
			api, count := a.front, a.counted()
			a.tell(b, a.say(alice, id, "last"))
			if x, y := a.stateOf(id), b.stateOf(id); x != y {
				t.Errorf("with at most %d single events a has\n%s\nand b\n%s", most, x, y)
			}
			if single, whole := count("/v1/event/"), count("/v1/state/"); (single == 5) != (most > 5) || (whole == 0) != (most > 5) {
				t.Errorf("with at most %d single events, b asked for %d and %d times for the whole state", most, single, whole)
			}
			a.front = api
		}
	})
}
