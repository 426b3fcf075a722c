package clientapi

import (
	"fmt"
	"strings"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
	"switchboard/registrations"
)

func TestAliases(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob, eve := s.new("bob"), s.new("eve")
		room := s.create(`{"preset":"public_chat"}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		const dir = v3 + "directory/room/"
		body := fmt.Sprintf(`{"room_id":%q}`, id(room))
		tea := dir + "%23tea:a.test"
		for _, bad := range []struct {
			path, body string
			code       int
			want       string
		}{
			{dir + "tea", body, 400, "M_INVALID_PARAM"},
			{dir + "%23tea", body, 400, "M_INVALID_PARAM"},
			{dir + "%23:a.test", body, 400, "M_INVALID_PARAM"},
			{dir + "%23a%00b:a.test", body, 400, "M_INVALID_PARAM"},
			{dir + "%23tea:b.test", body, 400, "M_INVALID_PARAM"},
			{tea, ``, 400, "M_MISSING_PARAM"},
			{tea, `{}`, 400, "M_MISSING_PARAM"},
			{tea, `{`, 400, "M_NOT_JSON"},
			{tea, `{"room_id":5}`, 400, "M_BAD_JSON"},
			{tea, `{"room_id":"x"}`, 400, "M_INVALID_PARAM"},
			{tea, `{"room_id":"!no:a.test"}`, 404, "M_NOT_FOUND"},
		} {
			s.want(bad.code, bad.want, "PUT", bad.path, bad.body)
		}
		s.nobody().want(404, "M_NOT_FOUND", "GET", tea, "")
		s.want(404, "M_NOT_FOUND", "DELETE", tea, "")
		eve.want(403, "M_FORBIDDEN", "PUT", tea, body)
		bob.want(200, `{}`, "PUT", tea, body)
		s.want(409, "M_UNKNOWN", "PUT", tea, body)
		s.nobody().want(200, fmt.Sprintf(`{"room_id":%q,"servers":["a.test"]}`, id(room)), "GET", tea, "")
		s.want(200, `{}`, "PUT", dir+"%23caf%C3%A9%2Fx:a.test", body)
		s.want(200, `{"aliases":["#café/x:a.test","#tea:a.test"]}`, "GET", room+"/aliases", "")
		eve.want(403, "M_FORBIDDEN", "GET", room+"/aliases", "")
		eve.want(200, "room_id", "POST", room+"/join", "{}")
		eve.want(200, "#tea:a.test", "GET", room+"/aliases", "")
		eve.want(200, "{}", "POST", room+"/leave", "{}") // nothing of the state changes behind it
		eve.want(403, "M_FORBIDDEN", "GET", room+"/aliases", "")
		s.want(404, "M_NOT_FOUND", "GET", dir+"%23tea:b.test", "")

		// Only who gave the name and moderators take it away, also out of the room.
		s.want(400, "M_BAD_ALIAS", "PUT", room+"/state/m.room.canonical_alias", `{"alias":"#no:a.test"}`)
		s.want(400, "M_INVALID_PARAM", "PUT", room+"/state/m.room.canonical_alias", `{"alias":"no"}`)
		s.want(400, "M_INVALID_PARAM", "PUT", room+"/state/m.room.canonical_alias", `{"alias":5}`)
		s.want(400, "M_BAD_ALIAS", "PUT", room+"/state/m.room.canonical_alias", `{"alt_aliases":["#tea:a.test","#no:a.test"]}`)
		s.want(200, "event_id", "PUT", room+"/state/m.room.canonical_alias", `{"alias":"#tea:a.test","alt_aliases":["#tea:a.test","#café/x:a.test"],"x":1}`)
		eve.want(403, "M_FORBIDDEN", "DELETE", tea, "")
		bob.want(403, "M_FORBIDDEN", "DELETE", dir+"%23caf%C3%A9%2Fx:a.test", "")
		bob.want(200, `{}`, "DELETE", tea, "") // bob's own; but the room's state is beyond bob
		s.want(200, `"alias":"#tea:a.test"`, "GET", room+"/state/m.room.canonical_alias", "")
		s.want(200, `{}`, "DELETE", dir+"%23caf%C3%A9%2Fx:a.test", "")
		s.want(200, `{"alias":"#tea:a.test","alt_aliases":["#tea:a.test"],"x":1}`, "GET", room+"/state/m.room.canonical_alias", "")
		bob.want(200, `{}`, "PUT", tea, body)
		s.want(200, `{}`, "DELETE", tea, "") // the moderator
		s.want(200, `{"alt_aliases":[],"x":1}`, "GET", room+"/state/m.room.canonical_alias", "")
		s.want(404, "M_NOT_FOUND", "GET", tea, "")
	})
}

// bridge puts an appservice in force that owns #irc_… and @irc_….
func (s *server) bridge() *server {
	s.t.Helper()
	reg, err := registrations.Generate(registrations.Registration{
		ID: "irc", SenderLocalpart: "ircbot",
		Users:   []registrations.Namespace{{Regex: "@irc_.*", Exclusive: true}},
		Aliases: []registrations.Namespace{{Regex: "#irc_.*", Exclusive: true}, {Regex: "#shared_.*"}},
	})
	if err != nil {
		s.t.Fatal(err)
	}
	if err := s.api.Accounts.Appservices.Replace([]*registrations.Registration{reg}); err != nil {
		s.t.Fatal(err)
	}
	return s.with("@ircbot:a.test", reg.ASToken, "")
}

func TestAliasNamespaces(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		as := s.bridge()
		room := s.create(`{"preset":"public_chat"}`)
		body := fmt.Sprintf(`{"room_id":%q}`, id(room))
		const dir = v3 + "directory/room/"
		s.want(400, "M_EXCLUSIVE", "PUT", dir+"%23irc_x:a.test", body)
		s.want(400, "M_EXCLUSIVE", "POST", v3+"createRoom", `{"room_alias_name":"irc_x"}`)
		s.want(200, `{}`, "PUT", dir+"%23shared_x:a.test", body)
		as.want(200, `{}`, "PUT", dir+"%23irc_x:a.test", body)
		as.want(400, "M_EXCLUSIVE", "PUT", dir+"%23tea:a.test", body)
		s.want(400, "M_EXCLUSIVE", "DELETE", dir+"%23irc_x:a.test", "")
		as.want(200, `{}`, "DELETE", dir+"%23irc_x:a.test", "")
		as.want(200, "room_id", "POST", v3+"createRoom", `{"room_alias_name":"irc_y"}`)
	})
}

// listed are the names of the rooms in a part of the public list.
func listed(a answer) string {
	var names []string
	chunk, _ := a.at("chunk").([]any)
	for _, r := range chunk {
		names = append(names, answer(r.(map[string]any)).text("name"))
	}
	return strings.Join(names, " ")
}

func TestPublicRooms(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		as := s.bridge()
		bob := s.new("bob")
		rooms := map[string]string{}
		for _, name := range []string{"Alpha", "Beta", "Gamma", "Delta"} {
			rooms[name] = s.create(fmt.Sprintf(`{"preset":"public_chat","visibility":"public","name":%q,"topic":"on %s"}`, name, strings.ToLower(name)))
		}
		space := s.create(`{"preset":"public_chat","visibility":"public","name":"Space","room_alias_name":"universe","creation_content":{"type":"m.space"}}`)
		s.create(`{"preset":"public_chat","name":"Unlisted"}`)
		bob.want(200, "room_id", "POST", rooms["Gamma"]+"/join", "{}")
		bob.want(200, "room_id", "POST", space+"/join", "{}")
		const list = v3 + "publicRooms"

		// Pages, forth and back, largest rooms first.
		all := listed(s.nobody().want(200, `"total_room_count_estimate":5`, "GET", list, ""))
		if all != "Gamma Space Alpha Beta Delta" {
			t.Errorf("all: %q", all)
		}
		var got []string
		since := ""
		var last answer
		for range 5 {
			last = s.want(200, "chunk", "POST", list, fmt.Sprintf(`{"limit":2,"since":%q}`, since))
			got = append(got, listed(last))
			if since = last.text("next_batch"); since == "" {
				break
			}
		}
		if pages := strings.Join(got, ", "); pages != "Gamma Space, Alpha Beta, Delta" {
			t.Errorf("pages %q", pages)
		}
		if back := listed(s.want(200, "chunk", "GET", list+"?limit=2&since="+last.text("prev_batch"), "")); back != "Alpha Beta" {
			t.Errorf("back: %q", back)
		}
		for search, want := range map[string]string{
			`{}`:              all,
			`{"filter":{}}`:   all,
			`{"filter":null}`: all,
			`{"filter":{"generic_search_term":"BET"}}`:                  "Beta",
			`{"filter":{"generic_search_term":"on g"}}`:                 "Gamma",
			`{"filter":{"generic_search_term":"universe"}}`:             "Space",
			`{"filter":{"generic_search_term":"%"}}`:                    "",
			`{"filter":{"room_types":["m.space"]}}`:                     "Space",
			`{"filter":{"room_types":[null]}}`:                          "Gamma Alpha Beta Delta",
			`{"filter":{"room_types":[null,"m.space"]}}`:                all,
			`{"filter":{"room_types":[]}}`:                              "",
			`{"filter":{"room_types":["x"],"generic_search_term":"a"}}`: "",
			`{"limit":1,"filter":{"generic_search_term":"a"}}`:          "Gamma",
			`{"limit":0}`:                    all,
			`{"third_party_instance_id":""}`: all,
		} {
			if got := listed(s.want(200, "chunk", "POST", list, search)); got != want {
				t.Errorf("%s: got %q, want %q", search, got, want)
			}
		}
		for _, bad := range []string{`{"limit":"x"}`, `{"limit":-1}`, `{"since":"x"}`, `{"since":"-1"}`, `{"filter":5}`, `{"filter":{"room_types":"m.space"}}`,
			`{"include_all_networks":true,"third_party_instance_id":"irc|libera"}`, `{`, `[]`} {
			s.want(400, "M_", "POST", list, bad)
		}
		for _, bad := range []string{"?limit=x", "?limit=-1", "?since=x"} {
			s.want(400, "M_INVALID_PARAM", "GET", list+bad, "")
		}
		s.want(200, "chunk", "GET", list+"?server=a.test", "")
		s.want(404, "M_NOT_FOUND", "GET", list+"?server=b.test", "")
		s.nobody().want(401, "M_MISSING_TOKEN", "POST", list, `{}`)

		// Who may change the list, and the lists of appservices.
		const dir = v3 + "directory/list/room/"
		s.want(404, "M_NOT_FOUND", "GET", dir+"!no:a.test", "")
		s.want(404, "M_NOT_FOUND", "PUT", dir+"!no:a.test", `{}`)
		s.want(400, "M_INVALID_PARAM", "PUT", dir+id(space), `{"visibility":"x"}`)
		s.want(400, "M_BAD_JSON", "PUT", dir+id(space), `{"visibility":5}`)
		bob.want(403, "M_FORBIDDEN", "PUT", dir+id(space), `{"visibility":"private"}`)
		s.want(200, `{}`, "PUT", dir+id(space), `{"visibility":"private"}`)
		s.nobody().want(200, `{"visibility":"private"}`, "GET", dir+id(space), "")
		s.want(200, `{}`, "PUT", dir+id(space), `{}`)
		s.want(200, `{"visibility":"public"}`, "GET", dir+id(space), "")
		network := v3 + "directory/list/appservice/libera/"
		hidden := s.create(`{"preset":"public_chat","name":"Bridged"}`)
		s.want(403, "M_FORBIDDEN", "PUT", network+id(hidden), `{"visibility":"public"}`)
		as.want(200, `{}`, "PUT", network+id(hidden), `{"visibility":"public"}`)
		for search, want := range map[string]string{
			`{}`: all, `{"third_party_instance_id":"irc|libera"}`: "Bridged", `{"third_party_instance_id":"irc|other"}`: "",
			`{"include_all_networks":true}`: "Gamma Space Alpha Beta Delta Bridged",
		} {
			if got := listed(s.want(200, "chunk", "POST", list, search)); got != want {
				t.Errorf("%s: got %q, want %q", search, got, want)
			}
		}
		as.want(200, `{}`, "PUT", network+id(hidden), `{"visibility":"private"}`)
		if got := listed(s.want(200, "chunk", "POST", list, `{"third_party_instance_id":"irc|libera"}`)); got != "" {
			t.Errorf("still listed: %q", got)
		}
	})
}

func TestUserSearch(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		names := map[string]string{"bob": `Émile "B" Łąka`, "carol": `100% _sure_ \n`, "dave": "Dave", "eve": "Eve", "frank": ""}
		users := map[string]*server{}
		for _, u := range []string{"bob", "carol", "dave", "eve", "frank"} {
			users[u] = s.new(u)
			if names[u] != "" {
				users[u].want(200, `{}`, "PUT", v3+"profile/@"+u+":a.test/displayname", fmt.Sprintf(`{"displayname":%q}`, names[u]))
			}
		}
		users["bob"].want(200, `{}`, "PUT", v3+"profile/@bob:a.test/avatar_url", `{"avatar_url":"mxc://a.test/b"}`)
		shared := s.create(`{"preset":"private_chat","invite":["@bob:a.test","@carol:a.test"]}`)
		users["bob"].want(200, "room_id", "POST", shared+"/join", "{}")
		users["carol"].want(200, "room_id", "POST", shared+"/join", "{}")
		// A public room that nobody listed; a world readable one; a private one.
		users["dave"].create(`{"preset":"public_chat"}`)
		users["frank"].create(`{"initial_state":[{"type":"m.room.history_visibility","content":{"history_visibility":"world_readable"}}]}`)
		users["eve"].create(`{"preset":"private_chat"}`)
		search := func(who *server, term string) string {
			t.Helper()
			a := who.want(200, `"limited":false`, "POST", v3+"user_directory/search", fmt.Sprintf(`{"search_term":%q}`, term))
			var found []string
			list, _ := a.at("results").([]any)
			for _, r := range list {
				found = append(found, answer(r.(map[string]any)).text("user_id"))
			}
			return strings.ReplaceAll(strings.Join(found, " "), ":a.test", "")
		}
		for term, want := range map[string]string{
			"bob": "@bob", "BOB": "@bob", "émile": "@bob", "emile": "@bob", "laka": "@bob", "ＢＯＢ": "@bob", "ÉMILE": "@bob", "łąka": "@bob", `"b"`: "@bob", `"`: "@bob",
			"%": "@carol", "_": "@carol", `\`: "@carol", "!": "", "dave": "@dave", "frank": "@frank",
			"eve": "", "alice": "", "nobody": "", ":a.test": "@bob @carol @dave @frank", "@bob:a.test": "@bob",
		} {
			if got := search(s, term); got != want {
				t.Errorf("%q finds %q, want %q", term, got, want)
			}
		}
		if got := search(users["eve"], ":a.test"); got != "@dave @frank" {
			t.Errorf("eve finds %q", got)
		}
		s.want(200, `{"results":[{"user_id":"@bob:a.test","display_name":"Émile \"B\" Łąka","avatar_url":"mxc://a.test/b"}],"limited":false}`, "POST", v3+"user_directory/search", `{"search_term":"bob"}`)
		s.want(200, `{"results":[{"user_id":"@frank:a.test","display_name":"frank"}],"limited":false}`, "POST", v3+"user_directory/search", `{"search_term":"frank"}`)
		s.want(200, `"limited":true`, "POST", v3+"user_directory/search", `{"search_term":"a.test","limit":2}`)
		for body, want := range map[string]string{`{}`: "M_MISSING_PARAM", `{`: "M_NOT_JSON", `{"search_term":5}`: "M_BAD_JSON", `{"search_term":"x","limit":"x"}`: "M_BAD_JSON"} {
			s.want(400, want, "POST", v3+"user_directory/search", body)
		}
		if w := s.do("POST", v3+"user_directory/search", `{"search_term":"a\u0000"}`); w.Code >= 500 {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		// Names of scripts without spaces are found by any part; who is called so comes first.
		users["carol"].want(200, `{}`, "PUT", v3+"profile/@carol:a.test/displayname", `{"displayname":"東京太郎 of Bob"}`)
		for term, want := range map[string]string{"太郎": "@carol", "東": "@carol", "bob": "@bob @carol", "of b": "@carol"} {
			if got := search(s, term); got != want {
				t.Errorf("%q finds %q, want %q", term, got, want)
			}
		}
		// Who has left for good is not found, whatever room they were in.
		gone := s.new("gone")
		gone.want(200, `{}`, "PUT", v3+"profile/@gone:a.test/displayname", `{"displayname":"Gone"}`)
		gone.create(`{"preset":"public_chat"}`)
		if got := search(s, "gone"); got != "@gone" {
			t.Errorf("found %q", got)
		}
		gone.want(200, `"id_server_unbind_result"`, "POST", v3+"account/deactivate", fmt.Sprintf(`{"erase":true,%s}`, pass("gone", password)))
		if got := search(s, "gone"); got != "" {
			t.Errorf("found %q", got)
		}
		// When the room closes, its members are out of sight.
		dave := users["dave"]
		rooms := dave.want(200, "joined_rooms", "GET", v3+"joined_rooms", "").at("joined_rooms").([]any)
		dave.want(200, "event_id", "PUT", v3+"rooms/"+rooms[0].(string)+"/state/m.room.join_rules", `{"join_rule":"invite"}`)
		if got := search(s, "dave"); got != "" {
			t.Errorf("found %q", got)
		}
	})
}
