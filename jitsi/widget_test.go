package jitsi

import (
	"encoding/json"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// calls are the contents of the calls in a room, the oldest first.
func (h *host) calls(user matrix.UserID, id matrix.RoomID) (list []string) {
	h.Helper()
	events, err := h.Rooms.StateOfType(h.ctx(), user, id, widgetType)
	h.ok(err)
	for _, e := range events {
		if string(e.PDU.Content) != "{}" {
			list = append(list, string(e.PDU.Content))
		}
	}
	return list
}

// put writes a widget as some client does.
func (h *host) put(user matrix.UserID, id matrix.RoomID, key, content string) {
	h.Helper()
	_, err := h.Rooms.Send(h.ctx(), room.Sending{User: user, Room: id, Type: widgetType, StateKey: &key, Content: json.RawMessage(content)})
	h.ok(err)
}

// TestWidgets puts calls into rooms, and takes away those that nobody can join
// any more.
func TestWidgets(t *testing.T) {
	together(t, 1, func(t *testing.T, hosts []*host) {
		h := hosts[0]
		m := newMeet(t, h)
		alice, bob := h.user("alice"), h.user("bob")
		w := &Widgets{Config: Config{Domain: m.domain, Page: DefaultConfig().Page}, Rooms: h.Rooms, HTTP: m.http}
		id := h.room(alice, "12")
		h.ok(h.Rooms.Join(h.ctx(), room.Change{Room: id, Actor: bob}))
		name := json.RawMessage(`{"name":"Tea & cake"}`)
		_, err := h.Rooms.Send(h.ctx(), room.Sending{User: alice, Room: id, Type: "m.room.name", StateKey: new(string), Content: name})
		h.ok(err)
		did := func(what string, done []string, err error, want ...string) {
			t.Helper()
			h.ok(err)
			if !slices.EqualFunc(done, want, strings.Contains) {
				t.Errorf("%s: %q, want %q", what, done, want)
			}
		}
		add := func(c Call, want ...string) {
			t.Helper()
			c.Room = id
			done, err := w.Add(h.ctx(), c)
			did("add", done, err, want...)
		}
		remove := func(onlyStale bool, want ...string) {
			t.Helper()
			done, err := w.Remove(h.ctx(), id, "", onlyStale)
			did("remove", done, err, want...)
		}

		add(Call{Name: "Call", Audio: true}, "@alice")
		const rest = "conferenceDomain=$domain&conferenceId=$conferenceId&isAudioOnly=$isAudioOnly&startWithAudioMuted=$startWithAudioMuted" +
			"&startWithVideoMuted=$startWithVideoMuted&isVideoChannel=$isVideoChannel&displayName=$matrix_display_name&avatarUrl=$matrix_avatar_url" +
			"&userId=$matrix_user_id&roomId=$matrix_room_id&theme=$theme&roomName=$roomName&supportsScreensharing=true" +
			"&language=$org.matrix.msc2873.client_language&auth=openidtoken-jwt"
		want := fmt.Sprintf(`{"data":{"auth":"openidtoken-jwt","conferenceId":"%[1]s","domain":"%[2]s","isAudioOnly":true,"isVideoChannel":false,"roomName":"Tea & cake"},`+
			`"name":"Call","type":"jitsi","url":"https://app.element.io/jitsi.html?confId=%[1]s#%[3]s"}`, Conference(id), m.domain, rest)
		if got := h.calls(alice, id); len(got) != 1 || got[0] != want {
			t.Errorf("the call is %s\nwant %s", got, want)
		}
		if !m.joins(id, h.credential(bob, id).JWT(m.domain)) {
			t.Error("a member cannot join the call that was put there")
		}
		add(Call{}, "there already")
		remove(true)
		remove(false, "removed the call of @alice")
		if got := h.calls(alice, id); len(got) != 0 {
			t.Errorf("calls are left: %s", got)
		}

		// What is stale goes, what is not stays, and what is no call is not touched.
		h.put(alice, id, "notes", `{"type":"m.etherpad","url":"https://pad.test"}`)
		h.put(alice, id, "odd", `{"type":7}`)
		h.put(alice, id, "elsewhere", `{"type":"m.jitsi","data":{"domain":"meet.element.io"}}`)
		h.put(alice, id, "upgraded", `{"type":"jitsi","data":{"domain":"`+m.domain+`","conferenceId":"EEZG633N","auth":"openidtoken-jwt"}}`)
		remove(true, "that of another room", "meet.element.io")
		add(Call{}, "put a call")
		_, err = h.Rooms.Send(h.ctx(), room.Sending{User: alice, Room: id, Type: "m.room.power_levels", StateKey: new(string),
			Content: json.RawMessage(`{"users":{"` + string(bob) + `":100}}`)})
		h.ok(err)
		h.put(bob, id, "second", `{"type":"jitsi","data":{"domain":"`+m.domain+`","conferenceId":"`+strings.ToLower(Conference(id))+`","auth":"openidtoken-jwt"}}`)
		remove(true)
		add(Call{As: bob}, "there already", "another one")
		h.ok(h.Rooms.Leave(h.ctx(), room.Change{Room: id, Actor: alice}))
		h.put(bob, id, "notes", `{}`)
		if got := h.calls(bob, id); len(got) != 2 || !strings.Contains(got[1], "jitsi") {
			t.Errorf("left are %s", got)
		}
		h.ok(h.Rooms.Join(h.ctx(), room.Change{Room: id, Actor: alice}))
		h.ok(h.Rooms.Leave(h.ctx(), room.Change{Room: id, Actor: bob}))
		remove(true, "who began it has left")

		// A Jitsi server that keeps nobody out gets a name that nobody guesses.
		delete(m.files, WellKnownPath)
		add(Call{}, "put a call")
		got := h.calls(alice, id)
		if open := regexp.MustCompile(`^\{"data":\{"conferenceId":"Jitsi[A-Z2-7]{24}","domain":"[^"]+","isAudioOnly":false,`); !open.MatchString(got[len(got)-1]) {
			t.Errorf("an open call is %s", got)
		}
	})
}

// TestWidgetsRefused tries what cannot be done.
func TestWidgetsRefused(t *testing.T) {
	together(t, 1, func(t *testing.T, hosts []*host) {
		h := hosts[0]
		m := newMeet(t, h)
		alice, bob := h.user("alice"), h.user("bob")
		id := h.room(alice, "11")
		h.ok(h.Rooms.Join(h.ctx(), room.Change{Room: id, Actor: bob}))
		w := &Widgets{Config: Config{Domain: m.domain}, Rooms: h.Rooms, HTTP: m.http}
		refused := func(want string, c Call) {
			t.Helper()
			if _, err := w.Add(h.ctx(), c); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("got %v, want %s", err, want)
			}
		}
		refused("M_FORBIDDEN", Call{Room: id, As: bob})
		refused("M_FORBIDDEN", Call{Room: id, As: "@nobody:" + matrix.UserID(h.name)})
		refused("M_NOT_FOUND", Call{Room: "!nowhere:a.test"})
		m.files[WellKnownPath] = "magic"
		refused("how members prove who they are", Call{Room: id})
		h.ok(h.Rooms.Leave(h.ctx(), room.Change{Room: id, Actor: alice}))
		refused("nobody of this server has the power", Call{Room: id})
		w.Config.Domain = ""
		refused("jitsi.domain", Call{Room: h.room(alice, "11")})
	})
}

// TestConfig reads sections that are right and wrong.
func TestConfig(t *testing.T) {
	for domain, want := range map[string]string{"": "", "meet.example.org": "", "meet.example.org:8443": "", "https://meet.example.org": "jitsi.domain", "meet.example.org/x": "jitsi.domain"} {
		c := DefaultConfig()
		c.Domain = domain
		if err := c.Check(); (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", domain, err, want)
		}
	}
	if err := (Config{Page: "http://app.element.io/jitsi.html"}).Check(); err == nil {
		t.Error("a page without TLS is taken")
	}
	c := Config{Domain: "meet.example.org", OneToOne: true}
	told, err := json.Marshal(c.WellKnown())
	if want := `{"im.vector.riot.jitsi":{"preferredDomain":"meet.example.org","useFor1To1Calls":true},"io.element.jitsi":{"preferredDomain":"meet.example.org","useFor1To1Calls":true}}`; err != nil || string(told) != want {
		t.Errorf("clients are told %s, want %s", told, want)
	}
}
