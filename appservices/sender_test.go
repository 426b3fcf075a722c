package appservices

import (
	"encoding/json"
	"net/http"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
	"switchboard/registrations"
)

func TestTransactions(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := newWorld(t, st)
		reg := register(t, nil)
		b := newBridge(t, reg)
		alice := w.user("alice")
		before := w.room(alice)
		w.say(alice, before, "before the appservice was there")
		if err := w.s.Attach(reg, b); err != nil {
			t.Fatal(err)
		}
		w.start()
		w.ghost(reg, "irc_bob")
		other := w.room(alice)
		w.say(alice, other, "in another room")
		portal := w.room(alice)
		w.must(alice, "POST", "/v3/rooms/"+portal+"/invite", map[string]any{"user_id": "@irc_bob:a.test"})
		b.until("the invitation", func(txns []txn) bool {
			for _, x := range txns {
				for _, e := range x.Events {
					if e["type"] == "m.room.member" && e["state_key"] == "@irc_bob:a.test" {
						state, _ := e["unsigned"].(map[string]any)["invite_room_state"].([]any)
						if len(state) == 0 || e["room_id"] == nil || e["event_id"] == nil {
							t.Errorf("incomplete invitation: %v", e)
						}
						return true
					}
				}
			}
			return false
		})
		w.say(alice, portal, "not for who is only invited")
		w.must(reg.ASToken, "POST", as("/v3/rooms/"+portal+"/join", "irc_bob"), map[string]any{})
		for i := range 5 {
			w.say(alice, portal, "hello "+strconv.Itoa(i))
		}
		w.say(alice, other, "again in another room")
		w.say(alice, portal, "last")
		txns := b.untilSaid("last")
		if got, want := bodies(txns), []string{"hello 0", "hello 1", "hello 2", "hello 3", "hello 4", "last"}; !reflect.DeepEqual(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
		for i, x := range txns {
			if x.id != strconv.Itoa(i+1) {
				t.Errorf("transaction %d has the ID %s", i+1, x.id)
			}
			if !strings.HasPrefix(x.raw, `{"events":[`) || strings.Contains(x.raw, "ephemeral") {
				t.Errorf("wrong shape: %s", x.raw)
			}
		}
	})
}

// An appservice is not told of what it brought, which it would take for something
// that its users want to say.
func TestBatchIsNotTold(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := newWorld(t, st)
		reg := register(t, nil)
		b := newBridge(t, reg)
		if err := w.s.Attach(reg, b); err != nil {
			t.Fatal(err)
		}
		w.start()
		alice := w.user("alice")
		portal := w.must(reg.ASToken, "POST", "/v3/createRoom", map[string]any{"invite": []string{"@alice:a.test"}})["room_id"].(string)
		w.must(alice, "POST", "/v3/rooms/"+portal+"/join", map[string]any{})
		brought := func(sender string) map[string]any {
			return map[string]any{"type": "m.room.message", "sender": sender, "content": map[string]any{"msgtype": "m.text", "body": "past of " + sender}}
		}
		w.must(reg.ASToken, "POST", "/unstable/com.beeper.backfill/rooms/"+portal+"/batch_send", map[string]any{
			"forward": true, "events": []any{brought("@irc_bob:a.test"), brought("@alice:a.test")},
		})
		w.say(alice, portal, "now")
		if got := bodies(b.untilSaid("now")); !reflect.DeepEqual(got, []string{"now"}) {
			t.Errorf("told of %q", got)
		}
	})
}

// A transaction that was refused comes again, the same to the byte, also after
// a restart, and nothing comes before it.
func TestRetriesAndRestart(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := newWorld(t, st)
		reg := register(t, nil)
		b := newBridge(t, reg)
		if err := w.s.Attach(reg, b); err != nil {
			t.Fatal(err)
		}
		portal := w.room(reg.ASToken)
		stop := w.start()
		w.say(reg.ASToken, portal, "zero")
		b.untilSaid("zero")

		b.refuse(3)
		w.say(reg.ASToken, portal, "one")
		b.until("a refused transaction", func(txns []txn) bool { return slices.ContainsFunc(txns, func(x txn) bool { return x.refused }) })
		w.say(reg.ASToken, portal, "two")
		stop()
		w.say(reg.ASToken, portal, "three")

		again := newWorld(t, st)
		again.s.Bell = w.s.Bell
		if err := again.s.Attach(reg, b); err != nil {
			t.Fatal(err)
		}
		again.start()
		b.until("a second refusal", func(txns []txn) bool {
			n := 0
			for _, x := range txns {
				if x.refused {
					n++
				}
			}
			return n >= 2
		})
		b.refuse(0)
		again.must(reg.ASToken, "POST", "/v1/appservice/irc/ping", map[string]any{"transaction_id": "x"}) // ends the back-off
		txns := b.untilSaid("three")
		if got, want := bodies(txns), []string{"zero", "one", "two", "three"}; !reflect.DeepEqual(got[len(got)-4:], want) {
			t.Errorf("got %q, want %q", got, want)
		}
		byID := map[string]string{}
		for _, x := range txns {
			if first, ok := byID[x.id]; ok && first != x.raw {
				t.Errorf("transaction %s was\n%s\nand then\n%s", x.id, first, x.raw)
			}
			byID[x.id] = x.raw
		}
	})
}

// Who was in a room when something was said is told of it, also when the
// appservice's user has left before the log was read, and only then.
func TestLogReadLate(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := newWorld(t, st)
		reg := register(t, nil)
		b := newBridge(t, reg)
		if err := w.s.Attach(reg, b); err != nil {
			t.Fatal(err)
		}
		alice := w.user("alice")
		portal := w.room(alice)
		w.ghost(reg, "irc_bob")
		stop := w.start()
		direct := w.room(reg.ASToken)
		w.say(reg.ASToken, direct, "begin")
		b.untilSaid("begin")
		stop()

		w.say(alice, portal, "before")
		w.must(reg.ASToken, "POST", as("/v3/rooms/"+portal+"/join", "irc_bob"), map[string]any{})
		w.say(alice, portal, "while there")
		w.must(reg.ASToken, "PUT", as("/v3/profile/@irc_bob:a.test/displayname", "irc_bob"), map[string]any{"displayname": "Bob"})
		w.say(alice, portal, "under another name")
		w.must(reg.ASToken, "POST", as("/v3/rooms/"+portal+"/leave", "irc_bob"), map[string]any{})
		w.say(alice, portal, "after")
		w.say(reg.ASToken, direct, "end")

		w.start()
		txns := b.untilSaid("end")
		if got, want := bodies(txns), []string{"begin", "while there", "under another name", "end"}; !reflect.DeepEqual(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	})
}

// More than one transaction can hold comes in several, in order.
func TestLongBacklog(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := newWorld(t, st)
		reg := register(t, nil)
		b := newBridge(t, reg)
		if err := w.s.Attach(reg, b); err != nil {
			t.Fatal(err)
		}
		alice := w.user("alice")
		portal, other := w.room(alice), w.room(alice)
		stop := w.start()
		w.must(reg.ASToken, "POST", "/v3/rooms/"+portal+"/join", map[string]any{})
		w.say(alice, portal, "begin")
		b.untilSaid("begin")
		stop()
		want := []string{"begin"}
		for i := range 2*mostEvents + 20 {
			text := "line " + strconv.Itoa(i)
			want = append(want, text)
			w.say(alice, portal, text)
			w.say(alice, other, "elsewhere "+text)
		}
		w.start()
		txns := b.untilSaid(want[len(want)-1])
		if got := bodies(txns); !reflect.DeepEqual(got, want) {
			t.Errorf("got %d messages, want %d: %q", len(got), len(want), got)
		}
		for _, x := range txns {
			if len(x.Events) > mostEvents {
				t.Errorf("%d events in one transaction", len(x.Events))
			}
		}
	})
}

func TestNamespaces(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := newWorld(t, st)
		alice := w.user("alice")
		named, plain := w.room(alice), w.room(alice)
		all := register(t, func(r *registrations.Registration) {
			r.ID, r.SenderLocalpart, r.Rooms = "all", "allbot", []registrations.Namespace{{Regex: ".*"}}
		})
		aliased := register(t, func(r *registrations.Registration) {
			r.ID, r.SenderLocalpart, r.Users = "aliased", "aliasbot", nil
			r.Aliases = []registrations.Namespace{{Regex: "#irc_.*", Exclusive: false}}
		})
		silent := register(t, func(r *registrations.Registration) { r.ID, r.SenderLocalpart, r.Users = "silent", "silentbot", nil })
		ba, bb := newBridge(t, all), newBridge(t, aliased)
		w.must(alice, "PUT", "/v3/directory/room/%23irc_x:a.test", map[string]any{"room_id": unescape(t, named)})
		for reg, h := range map[*registrations.Registration]http.Handler{all: ba, aliased: bb, silent: nil} {
			if err := w.s.Attach(reg, h); err != nil {
				t.Fatal(err)
			}
		}
		w.start()
		w.say(alice, plain, "plain")
		w.say(alice, named, "named")
		if got := bodies(ba.untilSaid("named")); !reflect.DeepEqual(got, []string{"plain", "named"}) {
			t.Errorf("by rooms: %q", got)
		}
		if got := bodies(bb.untilSaid("named")); !reflect.DeepEqual(got, []string{"named"}) {
			t.Errorf("by alias: %q", got)
		}
	})
}

func TestEphemeral(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := newWorld(t, st)
		reg := register(t, func(r *registrations.Registration) { r.ReceiveEphemeral = true })
		b := newBridge(t, reg)
		if err := w.s.Attach(reg, b); err != nil {
			t.Fatal(err)
		}
		alice := w.user("alice")
		portal, other := w.room(alice), w.room(alice)
		w.ghost(reg, "irc_bob")
		w.must(reg.ASToken, "POST", as("/v3/rooms/"+portal+"/join", "irc_bob"), map[string]any{})
		w.start()
		for _, room := range []string{other, portal} {
			v := w.must(alice, "PUT", "/v3/rooms/"+room+"/send/m.room.message/1", map[string]any{"msgtype": "m.text", "body": "read me"})
			id := v["event_id"].(string)
			w.must(alice, "PUT", "/v3/rooms/"+room+"/typing/@alice:a.test", map[string]any{"typing": true, "timeout": patience.Milliseconds()})
			w.must(alice, "POST", "/v3/rooms/"+room+"/receipt/m.read/"+id, map[string]any{})
			w.must(alice, "POST", "/v3/rooms/"+room+"/receipt/m.read.private/"+id, map[string]any{})
			if room == portal {
				w.must(reg.ASToken, "POST", as("/v3/rooms/"+room+"/receipt/m.read.private/"+id, "irc_bob"), map[string]any{})
			}
		}
		w.must(alice, "PUT", "/v3/presence/@alice:a.test/status", map[string]any{"presence": "online", "status_msg": "here"})
		found := map[string]bool{}
		b.until("all that is ephemeral", func(txns []txn) bool {
			for _, x := range txns {
				if len(x.Ephemeral) != len(x.OldEphemeral) {
					t.Error("the old name has other events")
				}
				for _, raw := range x.Ephemeral {
					e := raw.(map[string]any)
					if e["type"] != "m.presence" && e["room_id"] != unescape(t, portal) {
						t.Errorf("of another room: %v", e)
					}
					text, err := json.Marshal(e["content"])
					if err != nil {
						t.Fatal(err)
					}
					found[e["type"].(string)] = true
					if strings.Contains(string(text), `"m.read.private":{"@alice:a.test"`) {
						t.Error("a private receipt of another's user was told")
					}
					found["private"] = found["private"] || strings.Contains(string(text), `"m.read.private":{"@irc_bob:a.test"`)
					found["public"] = found["public"] || strings.Contains(string(text), `"m.read":{"@alice:a.test"`)
				}
			}
			return found["m.typing"] && found["m.receipt"] && found["m.presence"] && found["private"] && found["public"]
		})
	})
}

func unescape(t *testing.T, room string) string {
	t.Helper()
	return strings.ReplaceAll(strings.ReplaceAll(room, "%21", "!"), "%3A", ":")
}

func TestKeys(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		w := newWorld(t, st)
		reg := register(t, func(r *registrations.Registration) { r.MSC3202, r.ReceiveEphemeral = true, true })
		b := newBridge(t, reg)
		if err := w.s.Attach(reg, b); err != nil {
			t.Fatal(err)
		}
		alice := w.user("alice")
		portal := w.room(alice)
		w.must(reg.ASToken, "POST", "/v3/rooms/"+portal+"/join", map[string]any{})
		status, v := w.ask(reg.ASToken, "PUT", "/v3/devices/BOT", map[string]any{"display_name": "bot"})
		if status != http.StatusCreated {
			t.Fatalf("no device: %d %v", status, v)
		}
		w.start()
		w.must(alice, "PUT", "/v3/sendToDevice/m.test/1", map[string]any{"messages": map[string]any{
			"@ircbot:a.test": map[string]any{"BOT": map[string]any{"secret": 1}},
			"@alice:a.test":  map[string]any{"Dalice": map[string]any{"not": "for the bridge"}},
		}})
		told := func(x txn) bool { return len(x.ToDevice) > 0 }
		txns := b.until("the message", func(txns []txn) bool { return slices.ContainsFunc(txns, told) })
		last := txns[slices.IndexFunc(txns, told)]
		m := last.ToDevice[0]
		if len(last.ToDevice) != 1 || m.User != "@ircbot:a.test" || m.Device != "BOT" || m.Sender != "@alice:a.test" || string(m.Content) != `{"secret":1}` {
			t.Errorf("wrong message: %s", last.raw)
		}
		for _, name := range []string{
			`"de.sorunome.msc2409.to_device":[`, `"device_one_time_keys_count":{"@ircbot:a.test":{"BOT":`, `"org.matrix.msc3202.device_one_time_keys_count":`,
			`"org.matrix.msc3202.device_one_time_key_counts":`, `"device_unused_fallback_key_types":`, `"org.matrix.msc3202.device_unused_fallback_key_types":`,
		} {
			if !strings.Contains(last.raw, name) {
				t.Errorf("%s is missing in %s", name, last.raw)
			}
		}
		// What was delivered is gone, what is not for the bridge stays.
		b.until("its end", func([]txn) bool {
			waiting, err := st.ToDeviceLog(t.Context(), 0, 100)
			if err != nil {
				t.Fatal(err)
			}
			return len(waiting) == 1 && waiting[0].User == "@alice:a.test" || ring(w)
		})
	})
}

// ring wakes the senders, who tidy up when they look again. It gives false.
func ring(w *world) bool {
	w.s.Bell.Ring(store.LogBell)
	return false
}
