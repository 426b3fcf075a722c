package fedapi

import (
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/federation"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

func TestRoomsInEveryVersion(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		for _, v := range matrix.Versions() {
			id := a.public(alice, v.ID)
			a.say(alice, id, "before")
			b.join(bob, id, a)
			a.tell(b, a.say(alice, id, "hello"))
			b.tell(a, b.say(bob, id, "hi"))
			a.tell(b, a.state(alice, id, "m.room.topic", `{"topic":"tea"}`))
			if x, y := a.stateOf(id), b.stateOf(id); x != y {
				t.Errorf("version %s: a has\n%s\nand b\n%s", v.ID, x, y)
			}
			if got := a.texts(id); got != "before hello hi" {
				t.Errorf("version %s: a reads %q", v.ID, got)
			}
			if got := b.texts(id); got != "hello hi" {
				t.Errorf("version %s: b reads %q", v.ID, got)
			}
			b.ok(b.fed.Leave(b.ctx(), room.Change{Room: id, Actor: bob}))
			left := b.event(b.memberEvent(bob, id))
			b.tell(a, left)
			if got := a.membership(bob, id); got != event.Leave {
				t.Errorf("version %s: to a bob is %q", v.ID, got)
			}
		}
	})
}

// memberEvent is the ID of a user's membership.
func (h *host) memberEvent(user matrix.UserID, id matrix.RoomID) matrix.EventID {
	h.Helper()
	r, err := h.st.Room(h.ctx(), id)
	h.ok(err)
	e, err := h.st.EventByNum(h.ctx(), h.st.Membership(user, r.Num).Event)
	h.ok(err)
	return e.PDU.ID
}

func TestInvitations(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		for _, version := range []string{"1", "2", "10", "12"} {
			id, err := a.rooms.Create(a.ctx(), room.Creation{Creator: alice, Version: version, Preset: "private_chat"})
			a.ok(err)
			invite := room.Change{Room: id, Actor: alice, Target: bob}
			a.ok(a.fed.Invite(a.ctx(), invite))
			r, err := b.st.Room(b.ctx(), id)
			b.ok(err)
			if m := b.st.Membership(bob, r.Num); m.Membership != event.Invite {
				t.Fatalf("version %s: bob is %q", version, m.Membership)
			}
			b.ok(b.fed.Leave(b.ctx(), room.Change{Room: id, Actor: bob})) // rejects
			if got := a.membership(bob, id); got != event.Leave {
				t.Errorf("version %s: to a bob is %q", version, got)
			}
			a.ok(a.fed.Invite(a.ctx(), invite))
			b.join(bob, id, a)
			if got := a.membership(bob, id); got != event.Join {
				t.Errorf("version %s: to a bob is %q", version, got)
			}
		}
		a.refused(a.fed.Invite(a.ctx(), room.Change{Room: a.public(alice, "12"), Actor: alice, Target: "@nobody:" + matrix.UserID(b.name)}), matrix.NotFound)
		b.fed.Config.InvitesPerServer = 1
		a.refused(a.fed.Invite(a.ctx(), room.Change{Room: a.public(alice, "12"), Actor: alice, Target: bob}), matrix.LimitExceeded)
	})
}

func TestKnocking(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		id := a.public(alice, "10")
		a.state(alice, id, "m.room.join_rules", `{"join_rule":"knock"}`)
		b.ok(b.fed.Knock(b.ctx(), room.Change{Room: id, Actor: bob}, []matrix.ServerName{a.name}))
		if got := a.membership(bob, id); got != event.Knock {
			t.Errorf("to a bob is %q", got)
		}
		b.want(a, 403, matrix.Forbidden, "GET", "/_matrix/federation/v1/make_join/"+url.PathEscape(string(id))+"/"+url.PathEscape(string(bob))+"?ver=10", "")
		old := a.public(alice, "6")
		b.want(a, 403, matrix.Forbidden, "GET", "/_matrix/federation/v1/make_knock/"+url.PathEscape(string(old))+"/"+url.PathEscape(string(bob))+"?ver=6", "")
	})
}

func TestRestrictedRooms(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		for _, version := range []string{"8", "10", "12"} {
			space, id := a.public(alice, version), a.public(alice, version)
			a.state(alice, id, "m.room.join_rules", fmt.Sprintf(`{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":%q}]}`, space))
			if err := b.fed.Join(b.ctx(), room.Change{Room: id, Actor: bob}, []matrix.ServerName{a.name}); err == nil {
				t.Fatalf("version %s: bob came in without being in the space", version)
			}
			b.join(bob, space, a)
			b.join(bob, id, a)
			join := a.event(b.memberEvent(bob, id))
			if join.ContentString("join_authorised_via_users_server") != string(alice) || !join.SignedBy(a.name) || !join.SignedBy(b.name) {
				t.Errorf("version %s: the join is %s", version, join.JSON)
			}
		}
	})
}

// TestPartialState joins and takes the state without the members.
func TestPartialState(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		id := a.public(alice, "10")
		for i := range 10 {
			carol := a.user(fmt.Sprint("carol", i))
			a.ok(a.rooms.Join(a.ctx(), room.Change{Room: id, Actor: carol}))
		}
		tpl, err := b.client.MakeJoin(b.ctx(), a.name, id, bob, []string{"10"})
		b.ok(err)
		join, err := b.rooms.Complete(b.ctx(), tpl.Version, tpl.Draft, room.Change{Room: id, Actor: bob, Membership: event.Join})
		b.ok(err)
		members := 0
		joined, err := b.client.SendJoin(b.ctx(), a.name, join, true, func(part fedclient.Part, raw json.RawMessage) error {
			p, err := event.Parse(join.Version, raw)
			if err == nil && part == fedclient.State && p.Type == event.TypeMember {
				members++
			}
			return err
		})
		b.ok(err)
		if !joined.MembersOmitted || members != 5 || len(joined.Servers) != 1 || joined.Servers[0] != a.name {
			t.Errorf("omitted %v, %d members, servers %v", joined.MembersOmitted, members, joined.Servers)
		}
	})
}

// TestGap lets a server miss events and then hear of the last one.
func TestGap(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		for _, most := range []int{200, 30} { // all of the gap, and only the end of it
			id := a.public(alice, "12")
			b.join(bob, id, a)
			a.fed.Config.MaxMissing, b.fed.Config.MaxMissing = most, most
			for i := range 100 {
				if i%10 == 0 {
					a.state(alice, id, "m.room.topic", fmt.Sprintf(`{"topic":"tea %d"}`, i))
				}
				a.say(alice, id, fmt.Sprint(i))
			}
			a.tell(b, a.say(alice, id, "last"))
			if x, y := a.stateOf(id), b.stateOf(id); x != y {
				t.Errorf("a has\n%s\nand b\n%s", x, y)
			}
			got := strings.Fields(b.texts(id))
			if most > 100 && len(got) != 101 || most < 100 && (len(got) < 20 || len(got) > most+1) || got[len(got)-1] != "last" {
				t.Errorf("with at most %d events of the gap, b reads %v", most, got)
			}
		}
	})
}

// TestHistory is what a server may ask of rooms, and who may not.
func TestHistory(t *testing.T) {
	together(t, 3, func(t *testing.T, hosts []*host) {
		a, b, c := hosts[0], hosts[1], hosts[2]
		alice, bob := a.user("alice"), b.user("bob")
		c.user("carol")
		id := a.public(alice, "10")
		a.state(alice, id, "m.room.history_visibility", `{"history_visibility":"joined"}`)
		secret := a.say(alice, id, "secret")
		b.join(bob, id, a)
		shown := a.say(alice, id, "shown")
		roomPath, shownPath := url.PathEscape(string(id)), url.PathEscape(string(shown.ID))
		fed := "/_matrix/federation/v1/"
		paths := []string{
			fed + "state/" + roomPath + "?event_id=" + shownPath,
			fed + "state_ids/" + roomPath + "?event_id=" + shownPath,
			fed + "event_auth/" + roomPath + "/" + shownPath,
			fed + "event/" + shownPath,
			fed + "backfill/" + roomPath + "?limit=100&v=" + shownPath,
			fed + "timestamp_to_event/" + roomPath + fmt.Sprintf("?dir=f&ts=%d", shown.OriginServerTS),
		}
		for _, p := range paths {
			b.want(a, 200, "", "GET", p, "")
			c.want(a, 403, matrix.Forbidden, "GET", p, "")
			b.request401(a, p)
		}
		pdus, err := b.client.Backfill(b.ctx(), a.name, id, []matrix.EventID{shown.ID}, 100)
		b.ok(err)
		bodies := map[matrix.EventID]string{}
		for _, raw := range pdus {
			p, err := event.Parse(shown.Version, raw)
			b.ok(err)
			bodies[p.ID] = p.ContentString("body")
		}
		if body, there := bodies[secret.ID]; !there || body != "" {
			t.Errorf("the secret is there: %v, and says %q", there, body)
		}
		if bodies[shown.ID] != "shown" {
			t.Errorf("b is shown %v", bodies)
		}
		b.want(a, 404, matrix.NotFound, "GET", fed+"event/$nothing", "")
		b.want(a, 404, matrix.NotFound, "GET", fed+"state/"+roomPath+"?event_id=$nothing", "")
		b.want(a, 404, matrix.NotFound, "GET", fed+"state/!nothing?event_id="+shownPath, "")
		b.want(a, 400, matrix.MissingParam, "GET", fed+"state/"+roomPath, "")

		a.state(alice, id, "m.room.server_acl", `{"allow":["*"],"deny":["127.*"],"allow_ip_literals":true}`)
		for _, p := range paths {
			b.want(a, 403, matrix.Forbidden, "GET", p, "")
		}
		b.want(a, 403, matrix.Forbidden, "GET", fed+"make_join/"+roomPath+"/"+url.PathEscape(string(bob))+"?ver=10", "")
		results := b.push(a, []*event.PDU{b.say(bob, id, "banned")})
		if len(results) != 1 || strings.Contains(a.texts(id), "banned") {
			t.Errorf("a banned server's event: %v", results)
		}
	})
}

// request401 makes a request without a signature, and with a wrong one.
func (h *host) request401(to *host, path string) {
	h.Helper()
	for _, header := range []string{"", "Bearer x", fmt.Sprintf(`X-Matrix origin="%s",key="%s",sig="AAAA"`, h.name, h.key.ID)} {
		if status, answer := h.request(to, "GET", path, "", header); status != 401 || string(answer["errcode"]) != `"M_UNAUTHORIZED"` {
			h.Errorf("%s: %d %s", path, status, answer["errcode"])
		}
	}
}

func TestByTime(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		id := a.public(alice, "12")
		b.join(bob, id, a)
		var list []*event.PDU
		for i := range 300 {
			content := json.RawMessage(`{"body":"x"}`)
			e, err := a.rooms.Send(a.ctx(), room.Sending{User: alice, Room: id, Type: "m.room.message", Content: content, At: int64(4_000_000_000_000 + 1000*i)})
			a.ok(err)
			list = append(list, a.event(e))
		}
		for _, i := range []int{0, 1, 150, 299} {
			for _, tt := range []struct {
				more int64
				back bool
				want int
			}{{0, false, i}, {0, true, i}, {500, true, i}, {500, false, i + 1}, {-500, false, i}} {
				got, _, err := b.client.EventByTimestamp(b.ctx(), a.name, id, list[i].OriginServerTS+tt.more, tt.back)
				if tt.want == len(list) {
					b.refused(err, matrix.NotFound)
					continue
				}
				b.ok(err)
				if got != list[tt.want].ID {
					t.Errorf("event %d, %+d, backwards %v: got another event", i, tt.more, tt.back)
				}
			}
		}
	})
}

// TestUserByTime looks for events that a user may see, also in history that is
// not here yet.
func TestUserByTime(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob, carol := a.user("alice"), b.user("bob"), a.user("carol")
		id := a.public(alice, "12")
		a.state(alice, id, "m.room.history_visibility", `{"history_visibility":"shared"}`)
		const first, apart = 1_500_000_000_000, 1000
		var list []*event.PDU
		for i := range 300 {
			e, err := a.rooms.Send(a.ctx(), room.Sending{User: alice, Room: id, Type: "m.room.message", Content: json.RawMessage(`{"body":"x"}`), At: int64(first + apart*i)})
			a.ok(err)
			list = append(list, a.event(e))
		}
		b.join(bob, id, a)
		here := func(at federation.Moment) bool {
			e, err := b.st.Event(b.ctx(), at.Event)
			return err == nil && e.Pos != 0 && e.PDU.OriginServerTS == at.TS
		}

		// So much history is more than one question is worth.
		most := b.fed.Config.MaxBackfill
		b.fed.Config.MaxBackfill = 5
		at, err := b.fed.UserByTime(b.ctx(), bob, id, first+apart*10-1, false)
		b.ok(err)
		if at.TS <= first+apart*10 || !here(at) {
			t.Errorf("got an event of %d, which is here: %v", at.TS, here(at))
		}
		b.fed.Config.MaxBackfill = most
		for _, tt := range []struct {
			more      int64
			backwards bool
			want      int
		}{{0, false, 100}, {0, true, 100}, {500, true, 100}, {500, false, 101}} {
			at, err := b.fed.UserByTime(b.ctx(), bob, id, list[100].OriginServerTS+tt.more, tt.backwards)
			b.ok(err)
			if at.Event != list[tt.want].ID || !here(at) {
				t.Errorf("%+v: got an event of %d, which is here: %v", tt, at.TS, here(at))
			}
		}
		_, err = b.fed.UserByTime(b.ctx(), bob, id, first-1, true)
		b.refused(err, matrix.NotFound)

		// Who may see little is shown the next of that.
		closed := a.state(alice, id, "m.room.history_visibility", `{"history_visibility":"joined"}`)
		for range 120 { // more than is looked at at once
			a.say(alice, id, "not for carol")
		}
		a.ok(a.rooms.Join(a.ctx(), room.Change{Room: id, Actor: carol}))
		at, err = a.fed.UserByTime(a.ctx(), carol, id, closed.OriginServerTS+1, false)
		a.ok(err)
		if e := a.event(at.Event); !e.Is(event.TypeMember, string(carol)) {
			t.Errorf("carol was shown %s", e.JSON)
		}
	})
}
