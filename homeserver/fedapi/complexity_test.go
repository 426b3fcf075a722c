package fedapi

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

func TestComplexity(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		id := a.public(alice, "12")
		path := "/_matrix/federation/unstable/rooms/" + string(id) + "/complexity"
		count := len(strings.Split(a.stateOf(id), "\n"))
		tell := func() {
			t.Helper()
			answer := b.want(a, 200, "", "GET", path, "")
			if want := fmt.Sprint(float64(count) / 500); string(answer["v1"]) != want {
				t.Errorf("a tells %s, want %s", answer["v1"], want)
			}
		}
		tell()
		a.state(alice, id, "m.room.join_rules", `{"join_rule":"invite"}`)
		b.want(a, 404, matrix.NotFound, "GET", path, "")
		b.want(a, 404, matrix.NotFound, "GET", "/_matrix/federation/unstable/rooms/!none/complexity", "")
		a.ok(a.fed.Invite(a.ctx(), room.Change{Room: id, Actor: alice, Target: bob}))
		b.join(bob, id, a)
		count++
		tell()
	})
}

// TestComplexRoom is a room that the administrator finds too large.
func TestComplexRoom(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		b, a := hosts[0], hosts[1]
		alice, bob, root := a.user("alice"), b.user("bob"), b.user("root")
		b.ok(b.accounts.SetAdmin(b.ctx(), root, true))
		b.fed.Config.MaxJoinComplexity = 20.0 / 500
		asked := 0
		told := true
		api := a.front
		a.front = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.HasSuffix(r.URL.Path, "/complexity") {
				if asked++; !told {
					http.Error(w, `{"errcode":"M_UNRECOGNIZED"}`, 404)
					return
				}
			}
			api.ServeHTTP(w, r)
		})
		id := a.public(alice, "12")
		b.join(bob, id, a)
		b.ok(b.fed.Leave(b.ctx(), room.Change{Room: id, Actor: bob}))
		b.tellLeave(a, bob, id)
		for i := range 20 {
			a.send(alice, id, "test", new(fmt.Sprint(i)), `{}`)
		}
		join := func() error {
			return b.fed.Join(b.ctx(), room.Change{Room: id, Actor: bob}, []matrix.ServerName{a.name, "127.0.0.1:1"})
		}
		b.refused(join(), matrix.ResourceLimitExceeded)
		before := a.stateOf(id)
		told = false
		b.refused(join(), matrix.ResourceLimitExceeded)
		if asked != 3 {
			t.Errorf("a was asked %d times", asked)
		}
		if got := a.membership(bob, id); got != event.Leave || a.stateOf(id) == before {
			t.Errorf("to a bob is %q", got)
		}
		if r, err := b.st.Room(b.ctx(), id); err != nil || len(b.st.LocalMembers(r.Num)) > 0 {
			t.Errorf("b is in the room: %v", err)
		}
		b.join(root, id, a) // administrators have no limit
		b.ok(join())        // and the room is here now
	})
}

// tellLeave tells another server that a user has left.
func (h *host) tellLeave(to *host, user matrix.UserID, id matrix.RoomID) {
	h.Helper()
	h.tell(to, h.event(h.memberEvent(user, id)))
}
