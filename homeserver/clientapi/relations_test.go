package clientapi

import (
	"fmt"
	"net/url"
	"slices"
	"strings"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestRelations(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob, eve := s.new("bob"), s.new("eve")
		room := s.create(`{"preset":"public_chat"}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		v1 := strings.Replace(room, "/v3/", "/v1/", 1) + "/relations/"
		root := s.said(room, "root", `{"body":"root"}`)
		plain, _ := url.PathUnescape(root)
		relate := func(who *server, txn, rel, to string) string {
			return who.said(room, txn, fmt.Sprintf(`{"body":%q,"m.relates_to":{"rel_type":%q,"event_id":%q}}`, txn, rel, to))
		}
		var last string
		for i := range 4 {
			last = relate(s, fmt.Sprint("t", i), "m.thread", plain)
		}
		relate(bob, "ref", "m.reference", plain)
		lastPlain, _ := url.PathUnescape(last)
		deep := relate(bob, "deep", "m.reference", lastPlain)
		deepPlain, _ := url.PathUnescape(deep)
		relate(bob, "deeper", "m.reference", deepPlain)
		gone := relate(s, "gone", "m.thread", plain)
		s.want(200, "event_id", "PUT", room+"/redact/"+gone+"/1", `{}`)
		s.want(200, "event_id", "PUT", room+"/send/m.sticker/1", fmt.Sprintf(`{"body":"sticker","m.relates_to":{"rel_type":"m.thread","event_id":%q}}`, plain))
		for path, want := range map[string]string{
			"":                                 "sticker ref t3 t2 t1 t0",
			"?dir=f":                           "t0 t1 t2 t3 ref sticker",
			"/m.thread":                        "sticker t3 t2 t1 t0",
			"/m.thread/m.room.message":         "t3 t2 t1 t0",
			"/m.thread/m.sticker":              "sticker",
			"/m.none":                          "",
			"?recurse=true":                    "sticker deeper deep ref t3 t2 t1 t0",
			"?org.matrix.msc3981.recurse=true": "sticker deeper deep ref t3 t2 t1 t0",
			"/m.thread?limit=2":                "sticker t3",
			"/m.thread/m.room.message?limit=1": "t3",
		} {
			a := s.want(200, "chunk", "GET", v1+root+path, "")
			if got := bodies(a.at("chunk")); got != want {
				t.Errorf("%s: got %q, want %q", path, got, want)
			}
			if (a.at("recursion_depth") != nil) != strings.Contains(path, "recurse") {
				t.Errorf("%s: recursion_depth %v", path, a.at("recursion_depth"))
			}
		}
		// Pages, both ways; between the tokens of two pages read the wrong way lies nothing.
		for dir, want := range map[string]string{"b": "t3 t2 t1 t0", "f": "t0 t1 t2 t3"} {
			var got []string
			var tokens []string
			from := ""
			for range 9 {
				a := s.want(200, "chunk", "GET", v1+root+"/m.thread/m.room.message?limit=1&dir="+dir+from, "")
				got = append(got, bodies(a.at("chunk")))
				if a.text("next_batch") == "" {
					break
				}
				tokens = append(tokens, a.text("next_batch"))
				from = "&from=" + a.text("next_batch")
			}
			if strings.TrimSpace(strings.Join(got, " ")) != want {
				t.Errorf("%s: pages %q, want %q", dir, got, want)
			}
			path := v1 + root + "/m.thread/m.room.message?dir=" + dir
			if got := bodies(s.want(200, "chunk", "GET", path+"&from="+tokens[0]+"&to="+tokens[1], "").at("chunk")); got != strings.Fields(want)[1] {
				t.Errorf("%s: between two tokens %q", dir, got)
			}
			if got := bodies(s.want(200, "chunk", "GET", path+"&from="+tokens[1]+"&to="+tokens[0], "").at("chunk")); got != "" {
				t.Errorf("%s: the wrong way between two tokens %q", dir, got)
			}
		}
		for _, bad := range []string{"?dir=x", "?limit=x", "?limit=0", "?limit=-1", "?from=x", "?to=x", "?recurse=x", "?org.matrix.msc3981.recurse=x"} {
			s.want(400, "M_INVALID_PARAM", "GET", v1+root+bad, "")
		}
		s.want(404, "M_NOT_FOUND", "GET", v1+"$no", "")
		s.want(400, "M_INVALID_PARAM", "GET", v1+"no", "")
		eve.want(404, "M_NOT_FOUND", "GET", v1+root, "")
		for _, bad := range []string{"a%00b", "a%ffb"} {
			if w := s.do("GET", v1+root+"/"+bad, ""); w.Code >= 500 {
				t.Errorf("%s: %d %s", bad, w.Code, w.Body)
			}
		}
	})
}

// TestManyRelations reads a thousand relations page by page: each comes once, in
// order, whatever is redacted, ignored or of another type between them.
func TestManyRelations(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob, eve := s.new("bob"), s.new("eve")
		room := s.create(`{"preset":"public_chat"}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		eve.want(200, "room_id", "POST", room+"/join", "{}")
		v1 := strings.Replace(room, "/v3/", "/v1/", 1) + "/relations/"
		target := s.said(room, "root", `{"body":"root"}`)
		direct, deep := map[string][]string{}, []string{} // bodies, the oldest first
		for i := range 1000 {
			who, rel := s, []string{"m.thread", "m.reference"}[i%2]
			if i%10 == 3 {
				who = eve
			}
			plain, _ := url.PathUnescape(target)
			body := fmt.Sprint(i)
			id := who.said(room, body, fmt.Sprintf(`{"body":%q,"m.relates_to":{"rel_type":%q,"event_id":%q}}`, body, rel, plain))
			switch {
			case i%10 == 5:
				who.want(200, "event_id", "PUT", room+"/redact/"+id+"/r"+body, `{}`)
			case who != eve:
				direct[rel], direct[""], deep = append(direct[rel], body), append(direct[""], body), append(deep, body)
			}
			if i%100 == 50 {
				plain, _ = url.PathUnescape(id)
				s.said(room, "deep"+body, fmt.Sprintf(`{"body":"deep%s","m.relates_to":{"rel_type":"m.reference","event_id":%q}}`, body, plain))
				deep = append(deep, "deep"+body)
			}
		}
		s.want(200, "", "PUT", "/_matrix/client/v3/user/"+url.PathEscape(string(s.user))+"/account_data/m.ignored_user_list",
			fmt.Sprintf(`{"ignored_users":{%q:{}}}`, eve.user))
		for _, tt := range []struct {
			path  string
			limit int
			want  []string
		}{
			{"?recurse=false", 37, direct[""]}, {"?recurse=true", 37, deep}, {"/m.thread?recurse=false", 50, direct["m.thread"]},
			{"/m.reference/m.room.message?recurse=false", 7, direct["m.reference"]}, {"?recurse=false", 400, direct[""]}, {"?recurse=false", 500, direct[""]},
			{"/m.thread/m.sticker?recurse=false", 50, nil},
		} {
			for dir, want := range map[string][]string{"f": tt.want, "b": backwards(tt.want)} {
				var got []string
				from, pages := "", 0
				for more := true; more; pages++ {
					a := s.want(200, "chunk", "GET", v1+target+tt.path+fmt.Sprintf("&limit=%d&dir=%s%s", tt.limit, dir, from), "")
					got = append(got, strings.Fields(bodies(a.at("chunk")))...)
					from, more = "&from="+a.text("next_batch"), a.text("next_batch") != ""
				}
				if !slices.Equal(got, want) {
					t.Errorf("%s %s %d: got %q, want %q", tt.path, dir, tt.limit, got, want)
				}
				if least := max(1, (len(want)+tt.limit-1)/tt.limit); pages != least {
					t.Errorf("%s %s: %d pages of %d, want %d", tt.path, dir, pages, tt.limit, least)
				}
			}
		}
	})
}

func backwards(list []string) []string {
	list = slices.Clone(list)
	slices.Reverse(list)
	return list
}
