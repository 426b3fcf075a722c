package clientapi

import (
	"fmt"
	"net/url"
	"strings"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// life is what somebody is in the room when each of the four messages is sent,
// and when all of them are read.
type life struct {
	name string
	at   [4]string
	now  string
}

// lives are all ways through a room that differ in what they let see.
var lives = []life{
	{"member", [4]string{"join", "join", "join", "join"}, "join"},
	{"leaver", [4]string{"join", "join", "leave", "leave"}, "leave"},
	{"banned", [4]string{"join", "join", "ban", "ban"}, "ban"},
	{"returned", [4]string{"join", "leave", "leave", "join"}, "join"},
	{"newcomer", [4]string{"leave", "leave", "join", "join"}, "join"},
	{"invited", [4]string{"leave", "invite", "join", "join"}, "join"},
	{"invitee", [4]string{"leave", "invite", "invite", "invite"}, "invite"},
	{"rejecter", [4]string{"leave", "invite", "leave", "leave"}, "leave"},
	{"knocker", [4]string{"leave", "knock", "knock", "knock"}, "knock"},
	{"stranger", [4]string{"leave", "leave", "leave", "leave"}, "leave"},
}

// visible is the rule of the specification, word by word.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#room-history-visibility
func (l life) visible(i int, history string) bool {
	joinedLater := l.now == "join"
	for _, m := range l.at[i+1:] {
		joinedLater = joinedLater || m == "join"
	}
	switch {
	case history == "world_readable": // 1
		return true
	case l.at[i] == "join": // 2
		return true
	case history == "shared" && joinedLater: // 3
		return true
	case history == "invited" && l.at[i] == "invite": // 4
		return true
	}
	return false // 5
}

// wasIn tells whether the user has ever been a member.
func (l life) wasIn() bool { return strings.Contains(strings.Join(l.at[:], " "), "join") }

// story is a room with four messages, between which people come and go; the
// history visibility changes in the middle.
type story struct {
	*server
	before, after string
	room          string
	people        map[string]*server
	texts         [4]string // event IDs
	reactions     [4]string // to the first one
	change        string    // of the visibility
	tokens        [4]string // sync tokens at the messages
}

// tell makes the story happen.
func tell(s *server, people map[string]*server, before, after string) *story {
	st := &story{server: s, before: before, after: after, people: people}
	state := func(typ, content string) string {
		return s.want(200, "event_id", "PUT", st.room+"/state/"+typ, content).text("event_id")
	}
	say := func(i int) {
		st.texts[i] = s.want(200, "event_id", "PUT", fmt.Sprintf("%s/send/m.room.message/%d", st.room, i), fmt.Sprintf(`{"msgtype":"m.text","body":"text %d"}`, i)).text("event_id")
		st.reactions[i] = s.want(200, "event_id", "PUT", fmt.Sprintf("%s/send/m.reaction/r%d", st.room, i),
			fmt.Sprintf(`{"m.relates_to":{"rel_type":"m.annotation","event_id":%q,"key":"%d"}}`, st.texts[0], i)).text("event_id")
		st.tokens[i] = s.want(200, "next_batch", "GET", "/_matrix/client/v3/sync", "").text("next_batch")
	}
	do := func(what string, names ...string) {
		for _, name := range names {
			people[name].want(200, "", "POST", st.room+"/"+what, "")
		}
	}
	to := func(what string, names ...string) {
		for _, name := range names {
			s.want(200, "", "POST", st.room+"/"+what, fmt.Sprintf(`{"user_id":%q}`, people[name].user))
		}
	}
	st.room = s.create(fmt.Sprintf(`{"preset":"public_chat","initial_state":[{"type":"m.room.history_visibility","content":{"history_visibility":%q}}]}`, before))
	do("join", "member", "leaver", "banned", "returned")
	say(0)
	do("leave", "returned")
	to("invite", "invited", "invitee", "rejecter")
	state("m.room.join_rules", `{"join_rule":"knock"}`)
	people["knocker"].want(200, "", "POST", "/_matrix/client/v3/knock/"+strings.TrimPrefix(st.room, "/_matrix/client/v3/rooms/"), "")
	state("m.room.join_rules", `{"join_rule":"public"}`)
	say(1)
	do("leave", "leaver", "rejecter")
	to("ban", "banned")
	do("join", "newcomer", "invited")
	st.change = state("m.room.history_visibility", fmt.Sprintf(`{"history_visibility":%q,"again":true}`, after))
	say(2)
	do("join", "returned")
	say(3)
	return st
}

// history is the visibility at a message.
func (st *story) history(i int) string {
	if i < 2 {
		return st.before
	}
	return st.after
}

func TestHistoryVisibility(t *testing.T) {
	storetest.Each(t, func(t *testing.T, db *store.Store) {
		s := start(t, db, func(a *API) { a.Accounts.Config.Guests = true })
		people := map[string]*server{}
		for _, l := range lives {
			people[l.name] = s.new(l.name)
		}
		people["guest"] = s.guest()
		all := []string{"world_readable", "shared", "invited", "joined"}
		for _, before := range all {
			for _, after := range all {
				t.Run(before+" "+after, func(t *testing.T) {
					own := *s
					own.t = t
					st := tell(&own, people, before, after)
					for _, l := range lives {
						t.Run(l.name, func(t *testing.T) { st.check(t, l) })
					}
					t.Run("guest", func(t *testing.T) {
						st.check(t, life{"guest", lives[len(lives)-1].at, "leave"})
					})
				})
			}
		}
	})
}

// check asks for everything that shows events, on behalf of one person.
func (st *story) check(t *testing.T, l life) {
	as := *st.people[l.name]
	as.t = t
	open := st.after == "world_readable"
	may := l.wasIn() || open // read the room at all
	var seen []string
	for i, id := range st.texts {
		want := 404
		if l.visible(i, st.history(i)) {
			want = 200
			seen = append(seen, fmt.Sprint(i))
		}
		if got := as.do("GET", st.room+"/event/"+url.PathEscape(id), "").Code; got != want {
			t.Errorf("/event of message %d: %d, want %d", i, got, want)
		}
		w := as.do("GET", st.room+"/context/"+url.PathEscape(id)+"?limit=100", "")
		if w.Code != want {
			t.Errorf("/context of message %d: %d, want %d", i, w.Code, want)
		}
		if want == 200 {
			st.leaks(t, l, "/context", w.Body.String())
		}
	}
	want := strings.Join(seen, " ")
	w := as.do("GET", strings.Replace(st.room, "/v3/", "/v1/", 1)+"/relations/"+url.PathEscape(st.texts[0]), "")
	if !l.visible(0, st.before) {
		if w.Code != 404 {
			t.Errorf("/relations of an event that one may not see: %d", w.Code)
		}
	} else if got := st.found(w.Body.String(), st.reactions); got != want {
		t.Errorf("/relations: reactions %q, want %q", got, want)
	}
	for _, dir := range []string{"b", "f"} {
		w := as.do("GET", st.room+"/messages?limit=100&dir="+dir, "")
		switch got := st.found(w.Body.String(), st.texts); {
		case !may && w.Code != 403:
			t.Errorf("/messages dir=%s: %d, want 403", dir, w.Code)
		case may && got != want:
			t.Errorf("/messages dir=%s: %q, want %q", dir, got, want)
		}
		st.leaks(t, l, "/messages", w.Body.String())
	}
	w = as.do("POST", v3+"search", fmt.Sprintf(`{"search_categories":{"room_events":{"search_term":"text","filter":{"rooms":[%q]},"event_context":{}}}}`, id(st.room)))
	st.leaks(t, l, "/search", w.Body.String())
	switch got := st.found(w.Body.String(), st.texts); { // who never was in the room finds nothing there
	case as.user != st.people["guest"].user && (l.wasIn() || l.name == "invitee" || l.name == "rejecter" || l.name == "knocker") && got != want:
		t.Errorf("/search: %q, want %q", got, want)
	case l.name == "stranger" && got != "":
		t.Errorf("/search: %q", got)
	}
	filter := url.QueryEscape(`{"room":{"include_leave":true,"timeline":{"limit":100}}}`)
	w = as.do("GET", "/_matrix/client/v3/sync?filter="+filter, "")
	st.leaks(t, l, "/sync", w.Body.String())
	if got := st.found(w.Body.String(), st.texts); l.now == "join" && !strings.HasSuffix(want, got) {
		t.Errorf("/sync: %q is no end of %q", got, want)
	}
	st.checkState(t, &as, l, may)
}

// checkState asks for the state and the members, now and in the past.
func (st *story) checkState(t *testing.T, as *server, l life, may bool) {
	open := st.after == "world_readable"
	code := map[bool]int{true: 200, false: 403}[may]
	for _, path := range []string{"/state", "/members", "/members?at=" + st.tokens[3], "/state/m.room.history_visibility"} {
		if got := as.do("GET", st.room+path, "").Code; got != code {
			t.Errorf("%s: %d, want %d", path, got, code)
		}
	}
	if code == 200 {
		// Who is out and may not look in sees the room as they left it.
		want := st.after
		if l.now != "join" && !open {
			want = st.before
		}
		if got := as.want(200, "history_visibility", "GET", st.room+"/state/m.room.history_visibility", "").text("history_visibility"); got != want {
			t.Errorf("/state: the visibility is %q, want %q", got, want)
		}
		got := as.do("GET", st.room+"/members?at="+st.tokens[3], "").Body.String()
		if left := l.now != "join" && !open; left == strings.Contains(got, "@newcomer:a.test") {
			t.Errorf("/members?at=: %s", got)
		}
		if got := as.do("GET", st.room+"/members?at="+st.tokens[0], "").Body.String(); strings.Contains(got, "@newcomer:a.test") {
			t.Errorf("/members?at= of the first message knows the newcomer: %s", got)
		}
	}
	for path, want := range map[string]bool{"/joined_members": l.now == "join", "/aliases": l.now == "join" || open} {
		if got := as.do("GET", st.room+path, "").Code; got != map[bool]int{true: 200, false: 403}[want] {
			t.Errorf("%s: %d", path, got)
		}
	}
	// The change itself is seen by whom either visibility lets see it.
	want := 404
	if l.visible(2, st.before) || l.visible(2, st.after) {
		want = 200
	}
	if got := as.do("GET", st.room+"/event/"+url.PathEscape(st.change), "").Code; got != want {
		t.Errorf("/event of the change: %d, want %d", got, want)
	}
}

// found are the numbers of those of the events that stand in an answer.
func (st *story) found(body string, events [4]string) string {
	var list []string
	for i, id := range events {
		if strings.Contains(body, `"event_id":"`+id+`","origin`) || strings.Contains(body, `"event_id":"`+id+`","room_id`) {
			list = append(list, fmt.Sprint(i))
		}
	}
	return strings.Join(list, " ")
}

// leaks reports events in an answer that the person may not see.
func (st *story) leaks(t *testing.T, l life, where, body string) {
	t.Helper()
	for _, events := range [][4]string{st.texts, st.reactions} {
		for i, id := range events {
			if strings.Contains(body, `"event_id":"`+id+`","o`) && !l.visible(i, st.history(i)) {
				t.Errorf("%s shows message %d", where, i)
			}
		}
	}
}
