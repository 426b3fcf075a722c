package fedapi

import (
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"switchboard/homeserver/directory"
	"switchboard/homeserver/federation"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/media"
	"switchboard/homeserver/room"
)

func TestKeys(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		raw, err := b.client.ServerKeys(b.ctx(), a.name)
		b.ok(err)
		var keys struct {
			Server matrix.ServerName            `json:"server_name"`
			Keys   map[string]map[string]string `json:"verify_keys"`
			Until  int64                        `json:"valid_until_ts"`
		}
		b.ok(json.Unmarshal(raw, &keys))
		if keys.Server != a.name || keys.Keys[a.key.ID]["key"] == "" || keys.Until < time.Now().UnixMilli() {
			t.Errorf("the keys are %s", raw)
		}
		list, err := b.client.NotaryServerKeys(b.ctx(), a.name, b.name) // a asks b, and vouches for it
		b.ok(err)
		if len(list) != 1 || !strings.Contains(string(list[0]), string(a.name)) || !strings.Contains(string(list[0]), b.key.ID) {
			t.Errorf("the notary says %s", list)
		}
		list, err = b.client.NotaryKeys(b.ctx(), a.name, map[matrix.ServerName]map[string]int64{b.name: {b.key.ID: 0}, "127.0.0.1:1": {}})
		b.ok(err)
		if len(list) != 1 {
			t.Errorf("the notary says %s", list)
		}
		for _, body := range []string{`{"server_keys":17}`, `{"server_keys":{"no server":{}}}`} {
			if status, _ := b.request(a, "POST", "/_matrix/key/v2/query", body, ""); status != 400 {
				t.Errorf("%s: status %d", body, status)
			}
		}
		v, err := b.client.Version(b.ctx(), a.name)
		b.ok(err)
		if v.Name != "Switchboard" {
			t.Errorf("the version is %v", v)
		}
	})
}

func TestQueries(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		a.ok(a.accounts.SetProfile(a.ctx(), alice, "displayname", json.RawMessage(`"Alice"`)))
		p, err := b.client.Profile(b.ctx(), alice, "")
		b.ok(err)
		if string(p["displayname"]) != `"Alice"` {
			t.Errorf("the profile is %s", p)
		}
		if p, err = b.client.Profile(b.ctx(), alice, "avatar_url"); err != nil || len(p) != 0 {
			t.Errorf("the picture is %s, %v", p, err)
		}
		const query = "/_matrix/federation/v1/query/"
		b.want(a, 404, matrix.NotFound, "GET", query+"profile?user_id=@nobody:"+string(a.name), "")
		b.want(a, 400, matrix.InvalidParam, "GET", query+"profile?user_id="+string(bob), "")
		b.want(a, 400, matrix.MissingParam, "GET", query+"profile", "")
		b.want(a, 400, matrix.MissingParam, "GET", query+"directory", "")

		id := a.public(alice, "12")
		alias := matrix.RoomAlias("#tea☕:" + string(a.name))
		caller := directory.Caller{User: alice}
		a.ok(a.directory.SetAlias(a.ctx(), caller, alias, id))
		b.join(bob, id, a)
		got, servers, err := b.client.RoomAlias(b.ctx(), alias)
		b.ok(err)
		if got != id || fmt.Sprint(servers) != fmt.Sprint([]matrix.ServerName{a.name, b.name}) {
			t.Errorf("the alias is of %s, on %v", got, servers)
		}
		b.want(a, 404, matrix.NotFound, "GET", query+"directory?room_alias="+url.QueryEscape("#none:"+string(a.name)), "")
		b.want(a, 400, matrix.InvalidParam, "GET", query+"directory?room_alias="+url.QueryEscape("#none:"+string(b.name)), "")

		a.ok(a.directory.List(a.ctx(), caller, "", id, true))
		for _, tt := range []struct{ method, query, body string }{{"GET", "?limit=5", ""}, {"POST", "", `{"limit":5,"filter":{"generic_search_term":""}}`}} {
			answer := b.want(a, 200, "", tt.method, "/_matrix/federation/v1/publicRooms"+tt.query, tt.body)
			if !strings.Contains(string(answer["chunk"]), string(id)) {
				t.Errorf("%s: %s", tt.method, answer["chunk"])
			}
		}
	})
}

func TestOpenID(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice := a.user("alice")
		token, _, err := a.accounts.NewOpenID(a.ctx(), alice)
		a.ok(err)
		if user, err := b.client.OpenIDUser(b.ctx(), a.name, token); err != nil || user != alice {
			t.Errorf("the token is of %s, %v", user, err)
		}
		_, err = b.client.OpenIDUser(b.ctx(), a.name, token+"x")
		b.refused(err, matrix.UnknownToken)
	})
}

func TestMedia(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice := a.user("alice")
		id, err := a.media.Put(a.ctx(), alice, media.Upload{Type: "text/plain", Name: "tea.txt", Length: 3, Body: strings.NewReader("tea")})
		a.ok(err)
		f, err := b.client.Download(b.ctx(), a.name, id, time.Second, 1<<20)
		b.ok(err)
		defer f.Close()
		content, err := io.ReadAll(f)
		b.ok(err)
		if string(content) != "tea" || !strings.HasPrefix(f.Type, "text/plain") || !strings.Contains(f.Disposition, "tea.txt") {
			t.Errorf("%q of type %q, %q", content, f.Type, f.Disposition)
		}
		const path = "/_matrix/federation/v1/media/"
		b.want(a, 404, matrix.NotFound, "GET", path+"download/nothing", "")
		b.want(a, 400, matrix.InvalidParam, "GET", path+"thumbnail/"+id+"?width=0&height=10", "")
		b.want(a, 400, matrix.InvalidParam, "GET", path+"thumbnail/"+id+"?width=10&height=10&method=melt", "")
		b.want(a, 400, matrix.InvalidParam, "GET", path+"download/"+id+"?timeout_ms=soon", "")
		b.request401(a, path+"download/"+id)
	})
}

func TestHierarchy(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		space := a.public(alice, "12")
		open := a.public(alice, "12")
		shut, err := a.rooms.Create(a.ctx(), room.Creation{Creator: alice, Preset: "private_chat"})
		a.ok(err)
		members := a.public(alice, "12")
		a.state(alice, members, "m.room.join_rules", fmt.Sprintf(`{"join_rule":"restricted","allow":[{"type":"m.room_membership","room_id":%q}]}`, space))
		for i, child := range []matrix.RoomID{open, shut, members, "!elsewhere:x.test"} {
			key := string(child)
			a.send(alice, space, "m.space.child", &key, fmt.Sprintf(`{"via":[%q],"order":"%d","suggested":%v}`, a.name, i, i == 0))
		}
		gone := "!gone:x.test"
		a.send(alice, space, "m.space.child", &gone, `{}`)

		h, err := b.client.Hierarchy(b.ctx(), a.name, space, false)
		b.ok(err)
		if len(h.Room.Children) != 4 || len(h.Children) != 1 || h.Children[0].ID != open || len(h.Inaccessible) != 2 {
			t.Errorf("a stranger sees %+v", h)
		}
		b.join(bob, space, a)
		h, err = b.client.Hierarchy(b.ctx(), a.name, space, false)
		b.ok(err)
		if len(h.Children) != 2 || h.Children[1].ID != members || len(h.Inaccessible) != 1 || h.Inaccessible[0] != shut {
			t.Errorf("a member sees %+v", h)
		}
		h, err = b.client.Hierarchy(b.ctx(), a.name, space, true)
		b.ok(err)
		if len(h.Children) != 1 || len(h.Room.Children) != 1 {
			t.Errorf("suggested are %+v", h)
		}
		b.want(a, 404, matrix.NotFound, "GET", "/_matrix/federation/v1/hierarchy/"+url.PathEscape(string(shut)), "")
	})
}

// TestSpaces is how a user goes through a space that is spread over servers.
func TestSpaces(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		space := func(h *host, user matrix.UserID) matrix.RoomID {
			id, err := h.rooms.Create(h.ctx(), room.Creation{Creator: user, Preset: "public_chat", CreationContent: map[string]json.RawMessage{"type": json.RawMessage(`"m.space"`)}})
			h.ok(err)
			return id
		}
		link := func(h *host, user matrix.UserID, parent, child matrix.RoomID, by *host, order string) {
			key := string(child)
			h.send(user, parent, "m.space.child", &key, fmt.Sprintf(`{"via":[%q],"order":%q,"suggested":%v}`, by.name, order, order == "a"))
		}
		top, sub := space(a, alice), space(b, bob)
		one, two := a.public(alice, "12"), b.public(bob, "12")
		shut, err := b.rooms.Create(b.ctx(), room.Creation{Creator: bob, Preset: "private_chat"})
		b.ok(err)
		link(a, alice, top, sub, b, "a")
		link(a, alice, top, one, a, "b")
		link(b, bob, sub, two, b, "a")
		link(b, bob, sub, shut, b, "b")
		link(b, bob, sub, top, a, "c") // back to the top

		names := map[matrix.RoomID]string{top: "top", sub: "sub", one: "one", two: "two", shut: "shut"}
		for _, tt := range []struct {
			q    federation.SpaceQuery
			want string
		}{
			{federation.SpaceQuery{Depth: -1, Limit: 50}, "top sub two one"},
			{federation.SpaceQuery{Depth: 1, Limit: 50}, "top sub one"},
			{federation.SpaceQuery{Depth: 0, Limit: 50}, "top"},
			{federation.SpaceQuery{Depth: -1, Limit: 50, Suggested: true}, "top sub two"},
		} {
			for _, limit := range []int{tt.q.Limit, 1, 2} { // whole, and page by page
				q := tt.q
				q.Room, q.Limit = top, limit
				var got []string
				for {
					p, err := a.fed.UserHierarchy(a.ctx(), alice, q)
					a.ok(err)
					for _, r := range p.Rooms {
						got = append(got, names[r.ID])
					}
					if q.From = p.Next; q.From == "" || len(p.Rooms) > limit {
						break
					}
				}
				if s := strings.Join(got, " "); s != tt.want {
					t.Errorf("depth %d, limit %d: %s, want %s", tt.q.Depth, limit, s, tt.want)
				}
			}
		}
		_, err = a.fed.UserHierarchy(a.ctx(), alice, federation.SpaceQuery{Room: top, Limit: 1, Depth: 2, From: "h1_1_false"})
		a.refused(err, matrix.InvalidParam)
		_, err = a.fed.UserHierarchy(a.ctx(), alice, federation.SpaceQuery{Room: "!none:x.test", Limit: 1})
		a.refused(err, matrix.Forbidden)
		walk := func(top matrix.RoomID) (got string) {
			p, err := a.fed.UserHierarchy(a.ctx(), alice, federation.SpaceQuery{Room: top, Depth: -1, Limit: 50})
			a.ok(err)
			for _, r := range p.Rooms {
				got += names[r.ID] + " "
			}
			return got
		}

		// A space whose servers are out of reach is what the one above it tells.
		far := space(b, bob)
		names[far] = "far"
		key := string(far)
		b.send(bob, sub, "m.space.child", &key, `{"via":["127.0.0.1:1"],"order":"z"}`)
		if got := walk(top); got != "top sub two far one " {
			t.Errorf("with a space out of reach: %s", got)
		}

		// A closed space can be seen by who is invited, by way of who invited.
		b.state(bob, sub, "m.room.join_rules", `{"join_rule":"invite"}`)
		_, err = a.fed.UserHierarchy(a.ctx(), alice, federation.SpaceQuery{Room: sub, Limit: 1})
		a.refused(err, matrix.Forbidden)
		b.ok(b.fed.Invite(b.ctx(), room.Change{Room: sub, Actor: bob, Target: alice}))
		if got := walk(sub); got != "sub two top one far " {
			t.Errorf("who is invited sees %s", got)
		}
	})
}

// TestSpacePages checks that whoever goes through a space page by page asks each
// server once for each room, that a page can be asked for again, and that a token
// outlives what memory keeps.
func TestSpacePages(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		var asked atomic.Int32
		b.front = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if strings.Contains(r.URL.Path, "/hierarchy/") {
				asked.Add(1)
			}
			b.api.Handler().ServeHTTP(w, r)
		})
		space := func(h *host, user matrix.UserID) matrix.RoomID {
			id, err := h.rooms.Create(h.ctx(), room.Creation{Creator: user, Preset: "public_chat", CreationContent: map[string]json.RawMessage{"type": json.RawMessage(`"m.space"`)}})
			h.ok(err)
			return id
		}
		top := space(a, alice)
		var want []matrix.RoomID
		for i := range 4 { // spaces of b with two rooms each
			sub := space(b, bob)
			key := string(sub)
			a.send(alice, top, "m.space.child", &key, fmt.Sprintf(`{"via":[%q],"order":"%d"}`, b.name, i))
			want = append(want, sub)
			for j := range 2 {
				in := b.public(bob, "12")
				key := string(in)
				b.send(bob, sub, "m.space.child", &key, fmt.Sprintf(`{"via":[%q],"order":"%d"}`, b.name, j))
				want = append(want, in)
			}
		}
		want = append([]matrix.RoomID{top}, want...)
		page := func(from string) (ids []matrix.RoomID, next string) {
			p, err := a.fed.UserHierarchy(a.ctx(), alice, federation.SpaceQuery{Room: top, Depth: -1, Limit: 3, From: from})
			a.ok(err)
			for _, r := range p.Rooms {
				ids = append(ids, r.ID)
			}
			return ids, p.Next
		}
		whole := func(each func(next string)) (got []matrix.RoomID) {
			for next := ""; ; {
				var ids []matrix.RoomID
				ids, next = page(next)
				if got = append(got, ids...); next == "" {
					return got
				}
				each(next)
			}
		}
		if got := whole(func(string) {}); !slices.Equal(got, want) || asked.Swap(0) != 4 {
			t.Errorf("got %v, want %v, with 4 questions", got, want)
		}
		got := whole(func(next string) {
			once, _ := page(next)
			if again, _ := page(next); !slices.Equal(once, again) {
				t.Errorf("a page has %v, and then %v", once, again)
			}
		})
		if !slices.Equal(got, want) {
			t.Errorf("got %v, want %v", got, want)
		}
		got = whole(func(string) { a.wire() }) // as after a restart
		if !slices.Equal(got, want) {
			t.Errorf("with tokens of before a restart: %v, want %v", got, want)
		}
	})
}
