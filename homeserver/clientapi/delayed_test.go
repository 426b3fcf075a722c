package clientapi

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/url"
	"strings"
	"testing"
	"time"

	"switchboard/homeserver/delayed"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

const unstable4140 = "/_matrix/client/unstable/org.matrix.msc4140/delayed_events"

// sending runs the delayed events of a server.
func (s *server) sending() (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(s.t.Context()))
	done := make(chan struct{})
	service := s.api.Delayed
	go func() {
		defer close(done)
		_ = service.Run(ctx) // ends with ctx
	}()
	return func() { cancel(); <-done }
}

// waiting are the IDs of the user's events that are still to be sent.
func (s *server) waiting() []any {
	s.t.Helper()
	list, _ := s.want(200, "delayed_events", "GET", unstable4140, "").at("delayed_events").([]any)
	return list
}

// eventually waits until something is so.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(3 * time.Minute); !ok(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestDelayedEvents(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		room := s.create(`{"preset":"public_chat","power_level_content_override":{"events":{"m.x":0}}}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		defer s.sending()()
		texts := func() string {
			return bodies(s.want(200, "chunk", "GET", room+"/messages?dir=f&limit=100", "").at("chunk"))
		}

		// Messages, in order; a repeated request schedules nothing new.
		path := room + "/send/m.room.message/"
		began := time.Now()
		one := s.want(200, "delay_id", "PUT", path+"1?org.matrix.msc4140.delay=1000", `{"body":"one"}`).text("delay_id")
		s.want(200, one, "PUT", path+"1?org.matrix.msc4140.delay=1000", "")
		s.want(200, "delay_id", "PUT", room+"/delayed_event/m.room.message/2", `{"delay":30,"content":{"body":"zero"}}`)
		late := time.Since(began) > 900*time.Millisecond // then the other order is right, too
		eventually(t, "both are sent", func() bool { return texts() == "zero one" || late && texts() == "one zero" })
		if n := len(s.waiting()); n != 0 {
			t.Errorf("%d still wait", n)
		}
		eventually(t, "what became of it", func() bool {
			return s.want(200, one, "GET", "/_matrix/client/v1/delayed_events/"+one, "").text("event_id") != ""
		})
		bob.want(404, "M_NOT_FOUND", "GET", "/_matrix/client/v1/delayed_events/"+one, "")

		// Whose answer was lost asks again, and sends nothing twice.
		s.want(200, one, "PUT", path+"1?org.matrix.msc4140.delay=1000", `{"body":"one"}`)
		s.want(200, one, "PUT", room+"/delayed_event/m.room.message/1", `{"delay":30,"content":{"body":"one"}}`)
		if n := len(s.waiting()); n != 0 {
			t.Errorf("a repeated request makes %d more wait", n)
		}

		// What is done to one that waits. Who knows the ID needs no token.
		later := func(key string) string {
			return s.want(200, "delay_id", "PUT", room+"/state/m.x/"+key+"?org.matrix.msc4140.delay=3600000", `{"by":"delay"}`).text("delay_id")
		}
		a, b, c := later("a"), later("b"), later("c")
		if len(s.waiting()) != 3 || len(bob.waiting()) != 0 {
			t.Errorf("waiting: %v, and of bob: %v", s.waiting(), bob.waiting())
		}
		s.nobody().want(200, "{}", "POST", unstable4140+"/"+a+"/send", "{}")
		s.want(200, `{"by":"delay"}`, "GET", room+"/state/m.x/a", "")
		s.nobody().want(200, "{}", "POST", "/_matrix/client/v1/delayed_events/"+a+"/send", "{}")
		s.want(409, "M_UNKNOWN", "POST", unstable4140+"/"+a+"/cancel", "{}")
		s.want(200, "{}", "POST", unstable4140+"/"+b, `{"action":"cancel"}`)
		s.want(200, "{}", "POST", unstable4140+"/"+b, `{"action":"cancel"}`)
		s.want(409, "M_UNKNOWN", "POST", unstable4140+"/"+b, `{"action":"restart"}`)
		before := s.want(200, c, "GET", "/_matrix/client/v1/delayed_events/"+c, "").at("running_since").(float64)
		time.Sleep(2 * time.Millisecond)
		s.want(200, "{}", "POST", unstable4140+"/"+c, `{"action":"restart"}`)
		if after := s.want(200, c, "GET", "/_matrix/client/v1/delayed_events/"+c, "").at("running_since").(float64); after <= before {
			t.Errorf("restarted at %v, before at %v", after, before)
		}

		// The own newer event does not cancel it, another user's does.
		s.want(200, "event_id", "PUT", room+"/state/m.x/c", `{"by":"alice"}`)
		if n := len(s.waiting()); n != 1 {
			t.Errorf("after an own event %d wait, want 1", n)
		}
		bob.want(200, "event_id", "PUT", room+"/state/m.x/c", `{"by":"bob"}`)
		eventually(t, "the newer event cancels it", func() bool { return len(s.waiting()) == 0 })
		s.want(200, `{"by":"bob"}`, "GET", room+"/state/m.x/c", "")

		// What the room refuses when its time has come.
		refused := bob.want(200, "delay_id", "PUT", room+"/delayed_event/m.room.name/3", `{"delay":10,"state_key":"","content":{"name":"x"}}`).text("delay_id")
		eventually(t, "the refusal", func() bool {
			return bob.want(200, refused, "GET", "/_matrix/client/v1/delayed_events/"+refused, "").text("error", "errcode") == "M_FORBIDDEN"
		})
		if n := len(bob.want(200, "delayed_events", "GET", "/_matrix/client/v1/delayed_events?status=finalised", "").at("delayed_events").([]any)); n != 1 {
			t.Errorf("%d of bob's are settled, want 1", n)
		}
	})
}

// TestDelayID: the sender learns which event a delayed one became, on each
// device; nobody else does.
func TestDelayID(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		room := s.create(`{"preset":"public_chat"}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		other := s.as("alice")
		for _, more := range []string{"", `,"state_key":"x"`} {
			id := s.want(200, "delay_id", "PUT", room+"/delayed_event/m.x/1"+url.QueryEscape(more), `{"delay_ms":3600000,"content":{"a":1}`+more+`}`).text("delay_id")
			s.want(200, `"delay_ms":3600000`, "GET", unstable4140+"/"+id, "")
			s.want(200, "{}", "POST", unstable4140+"/"+id+"/send", "{}")
			answer := s.want(200, "finalised_ts", "GET", "/_matrix/client/v1/delayed_events/"+id, "")
			event := answer.text("finalised", "event_id")
			for who, c := range map[string]*server{"the sender": s, "another device": other} {
				if got := c.want(200, event, "GET", room+"/event/"+event, "").at("unsigned").(map[string]any); got["delay_id"] != id || got["org.matrix.msc4140.delay_id"] != id || got["transaction_id"] != nil {
					t.Errorf("%s sees %v, want %s", who, got, id)
				}
				c.want(200, `"delay_id":"`+id, "GET", "/_matrix/client/v3/sync", "")
			}
			if got := bob.want(200, event, "GET", room+"/event/"+event, "").at("unsigned").(map[string]any); got["delay_id"] != nil || got["org.matrix.msc4140.delay_id"] != nil {
				t.Errorf("bob sees %v", got)
			}
		}
		s.want(200, `"m.delayed_events":{"max_delay_ms":86400000,"max_scheduled":100}`, "GET", "/_matrix/client/v3/capabilities", "")
	})
}

// TestDelayedRestart: what waits is sent after a restart, once.
func TestDelayedRestart(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		room := s.create(`{}`)
		s.want(200, "delay_id", "PUT", room+"/delayed_event/m.room.message/1", `{"delay":1,"content":{"body":"one"}}`)
		later := s.want(200, "delay_id", "PUT", room+"/delayed_event/m.room.message/2", `{"delay":3600000,"content":{"body":"two"}}`).text("delay_id")
		was := s.api.Delayed
		s.api.Delayed = &delayed.Service{Store: was.Store, Rooms: was.Rooms, Bell: was.Bell}
		defer s.sending()()
		eventually(t, "it is sent", func() bool {
			return bodies(s.want(200, "chunk", "GET", room+"/messages?dir=b&limit=100", "").at("chunk")) == "one"
		})
		eventually(t, "one waits", func() bool { return len(s.waiting()) == 1 })
		s.want(200, "{}", "POST", unstable4140+"/"+later+"/send", "{}")
		if got := bodies(s.want(200, "chunk", "GET", room+"/messages?dir=f&limit=100", "").at("chunk")); got != "one two" {
			t.Errorf("messages %q", got)
		}
	})
}

// TestDelayedOvertaken: what another user put in the place of a state event just
// before the server ended cancels it afterwards.
func TestDelayedOvertaken(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob := s.new("bob")
		room := s.create(`{"preset":"public_chat","power_level_content_override":{"events":{"m.x":0}}}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		ids := map[string]string{}
		for _, key := range []string{"overtaken", "own", "none"} {
			ids[key] = s.want(200, "delay_id", "PUT", room+"/delayed_event/m.x/"+key, `{"delay":3600000,"state_key":"`+key+`","content":{}}`).text("delay_id")
		}
		bob.want(200, "event_id", "PUT", room+"/state/m.x/overtaken", `{"by":"bob"}`)
		s.want(200, "event_id", "PUT", room+"/state/m.x/own", `{"by":"alice"}`)
		was := s.api.Delayed
		s.api.Delayed = &delayed.Service{Store: was.Store, Rooms: was.Rooms, Bell: was.Bell}
		waiting := fmt.Sprint(s.waiting())
		for key, id := range ids {
			if strings.Contains(waiting, id) != (key != "overtaken") {
				t.Errorf("%s waits: %v", key, key == "overtaken")
			}
		}
		s.want(200, "finalised_ts", "GET", "/_matrix/client/v1/delayed_events/"+ids["overtaken"], "")

		// And what came when they were read already, but nobody followed the log yet.
		bob.want(200, "event_id", "PUT", room+"/state/m.x/none", `{"by":"bob"}`)
		defer s.sending()()
		eventually(t, "the newer event cancels it", func() bool { return !strings.Contains(fmt.Sprint(s.waiting()), ids["none"]) })
	})
}

func TestDelayedRefuses(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		room := s.create(`{}`)
		path := room + "/delayed_event/m.room.message/"
		s.want(400, "M_MAX_DELAY_EXCEEDED", "PUT", path+"1", `{"delay":86400001,"content":{}}`)
		for _, body := range []string{`{"delay":0,"content":{}}`, `{"delay":-5,"content":{}}`, `{"delay":"x","content":{}}`, `{"delay":5,"content":[]}`, `{"delay":5}`, `[]`} {
			s.want(400, `"errcode":"M_`, "PUT", path+"2", body)
		}
		s.want(413, "M_TOO_LARGE", "PUT", path+"2", `{"delay":5,"content":{"body":"`+strings.Repeat("x", 1<<16)+`"}}`)
		s.want(400, "M_INVALID_PARAM", "PUT", room+"/send/m.room.message/3?org.matrix.msc4140.delay=0", `{}`)
		s.want(400, "M_INVALID_PARAM", "PUT", room+"/send/m.room.message/3?org.matrix.msc4140.delay=x", `{}`)
		s.want(400, "M_NOT_JSON", "POST", unstable4140+"/abc", ``)
		s.want(400, "M_MISSING_PARAM", "POST", unstable4140+"/abc", `{}`)
		s.want(400, "M_INVALID_PARAM", "POST", unstable4140+"/abc", `{"action":"oops"}`)
		s.want(404, "M_NOT_FOUND", "POST", unstable4140+"/abc/send", `{}`)
		s.want(400, "M_INVALID_PARAM", "GET", "/_matrix/client/v1/delayed_events?status=x", "")
		s.nobody().want(401, "M_MISSING_TOKEN", "GET", unstable4140, "")
		for i := range 100 {
			s.want(200, "delay_id", "PUT", path+fmt.Sprint("many", i), `{"delay":3600000,"content":{}}`)
		}
		w := s.do("PUT", path+url.PathEscape("one more"), `{"delay":3600000,"content":{}}`)
		if w.Code != 429 || !strings.Contains(w.Body.String(), "M_LIMIT_EXCEEDED") || w.Header().Get("Retry-After") == "" {
			t.Errorf("one too many: %d %s %v", w.Code, w.Body, w.Header())
		}
	})
}

// TestDelayedGuest: a guest cannot join later where guests may not join.
func TestDelayedGuest(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st, func(a *API) { a.Accounts.Config.Guests = true })
		guest, room := s.guest(), s.create(`{"preset":"public_chat"}`)
		member := room + "/state/m.room.member/" + url.PathEscape(string(guest.user))
		id := guest.want(200, "delay_id", "PUT", member+"?org.matrix.msc4140.delay=3600000", `{"membership":"join"}`).text("delay_id")
		s.nobody().want(403, "M_GUEST_ACCESS_FORBIDDEN", "POST", unstable4140+"/"+id+"/send", "{}")
		s.want(200, "event_id", "PUT", room+"/state/m.room.guest_access", `{"guest_access":"can_join"}`)
		s.nobody().want(200, "{}", "POST", unstable4140+"/"+id+"/send", "{}")
		s.want(200, `{"membership":"join"}`, "GET", member, "")
	})
}

// TestDelayedSuspended: who is suspended says nothing by what they scheduled before.
func TestDelayedSuspended(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		room := s.create(`{}`)
		for _, change := range []func(bool) error{
			func(is bool) error { return s.api.Accounts.SetSuspended(t.Context(), s.user, is) },
			func(is bool) error { return s.api.Accounts.SetLocked(t.Context(), s.user, is) },
		} {
			id := s.want(200, "delay_id", "PUT", room+"/delayed_event/m.room.message/"+rand.Text(), `{"delay":3600000,"content":{"body":"spam"}}`).text("delay_id")
			if err := change(true); err != nil {
				t.Fatal(err)
			}
			s.nobody().want(403, "M_USER_SUSPENDED", "POST", unstable4140+"/"+id+"/send", "{}")
			if err := change(false); err != nil {
				t.Fatal(err)
			}
			s.nobody().want(200, "{}", "POST", unstable4140+"/"+id+"/send", "{}")
		}
	})
}
