package fedapi

import (
	"fmt"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// TestHistoryForServers is what a server that is in the room now gets of what
// happened before: all of it, from the invitation or from the join of its user on.
// What it may not see comes redacted.
func TestHistoryForServers(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		all := []string{"world_readable", "shared", "invited", "joined"}
		for _, before := range all {
			for _, after := range all {
				id := a.public(alice, "12")
				a.state(alice, id, "m.room.history_visibility", fmt.Sprintf(`{"history_visibility":%q}`, before))
				stranger := a.say(alice, id, "stranger")
				a.ok(a.fed.Invite(a.ctx(), room.Change{Room: id, Actor: alice, Target: bob}))
				invited := a.say(alice, id, "invited")
				change := a.state(alice, id, "m.room.history_visibility", fmt.Sprintf(`{"history_visibility":%q,"again":true}`, after))
				changed := a.say(alice, id, "changed")
				b.join(bob, id, a)
				joined := a.say(alice, id, "joined")
				shared := func(history string) bool { return history == "world_readable" || history == "shared" }
				whole := map[*event.PDU]bool{
					stranger: shared(before), invited: shared(before) || before == "invited",
					change: before != "joined" || after != "joined", changed: shared(after) || after == "invited", joined: true,
				}
				pdus, err := b.client.Backfill(b.ctx(), a.name, id, []matrix.EventID{joined.ID}, 100)
				b.ok(err)
				got := map[matrix.EventID]*event.PDU{}
				for _, raw := range pdus {
					p, err := event.Parse(joined.Version, raw)
					b.ok(err)
					got[p.ID] = p
				}
				for p, want := range whole {
					is := got[p.ID] != nil && string(got[p.ID].Content) == string(p.Content)
					if got[p.ID] == nil || is != want {
						t.Errorf("%s, then %s: %s %s is whole: %v, want %v", before, after, p.Type, p.Content, is, want)
					}
				}
				raw, err := b.client.Event(b.ctx(), a.name, stranger.ID)
				b.ok(err)
				one, err := event.Parse(stranger.Version, raw)
				b.ok(err)
				if is := string(one.Content) == string(stranger.Content); is != shared(before) {
					t.Errorf("%s, then %s: /event gives the first message whole: %v", before, after, is)
				}
			}
		}
	})
}
