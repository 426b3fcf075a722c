package fedapi

import (
	"encoding/json"
	"net/url"
	"strings"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// TestBatch keeps what an appservice brought from servers that come into the room
// later, while everything else of the room reaches them; and while they are in it,
// nothing more may be brought.
func TestBatch(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		id := a.public(alice, "12")
		a.say(alice, id, "first")
		bring := func(name string, forward bool) error {
			_, err := a.rooms.Batch(a.ctx(), room.Batch{
				Room: id, User: alice, Owns: func(u matrix.UserID) bool { return u == alice }, Forward: forward,
				List: []room.BatchEvent{{
					ID: matrix.EventID("$" + name + ":past.test"), Type: "m.room.message", Sender: alice, At: 1000,
					Content: json.RawMessage(`{"msgtype":"m.text","body":"` + name + `"}`),
				}},
			})
			return err
		}
		a.ok(bring("past", false))
		a.ok(bring("forward", true))
		b.join(bob, id, a)
		last := a.say(alice, id, "last")
		b.join(bob, id, a)
		pdus, err := b.client.Backfill(b.ctx(), a.name, id, []matrix.EventID{last.ID, "$past:past.test", "$forward:past.test"}, 100)
		b.ok(err)
		first := false
		for _, raw := range pdus {
			p, err := event.Parse(last.Version, raw)
			b.ok(err)
			body := p.ContentString("body")
			first = first || body == "first"
			if body == "past" || body == "forward" || strings.Contains(string(raw), "past.test") {
				t.Errorf("another server gets %s", raw)
			}
		}
		if !first {
			t.Error("another server does not get the room's first message")
		}
		const of = "/_matrix/federation/v1/"
		for _, name := range []string{"past", "forward"} {
			local := "$" + name + ":past.test"
			b.want(a, 404, matrix.NotFound, "GET", of+"event/"+url.PathEscape(local), "")
			b.want(a, 404, matrix.NotFound, "GET", of+"event_auth/"+url.PathEscape(string(id))+"/"+url.PathEscape(local), "")
			b.want(a, 404, matrix.NotFound, "GET", of+"state_ids/"+url.PathEscape(string(id))+"?event_id="+url.QueryEscape(local), "")
		}
		next := b.want(a, 200, "", "GET", of+"timestamp_to_event/"+url.PathEscape(string(id))+"?dir=f&ts=999", "")["event_id"]
		if text := string(next); len(text) < 40 || strings.Contains(text, "past.test") {
			t.Errorf("the next one of that time is %s, which is not of this server alone", text)
		}
		a.refused(bring("more", false), matrix.Forbidden)
		a.refused(bring("more", true), matrix.Forbidden)
	})
}
