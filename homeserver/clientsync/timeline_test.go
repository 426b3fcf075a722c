package clientsync

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// basics is the state of a public_chat with its creator alone.
const basics = "@alice:join create history_visibility join_rules power_levels"

func TestInitialAndIncremental(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{})
		w.say(alice, id, "one")
		c := w.client(alice, "")
		a := c.sync()
		w.want("initial timeline", w.timeline(a.in(id)), "create @alice:join power_levels join_rules history_visibility one")
		w.want("initial state", w.stated(a.in(id).State), "")
		w.want("empty", text(t, c.sync().Rooms), "null")

		w.say(alice, id, "two")
		a = c.sync()
		w.want("timeline", w.timeline(a.in(id)), "two")
		w.want("state", w.stated(a.in(id).State), "")
		for _, raw := range a.in(id).Timeline.Events {
			if strings.Contains(string(raw), `"room_id"`) {
				t.Errorf("an event of a sync bears its room: %s", raw)
			}
		}
		w.topic(id, "tea")
		w.join(bob, id)
		a = c.sync()
		w.want("timeline", w.timeline(a.in(id)), "topic:tea @bob:join")
		w.want("state", w.stated(a.in(id).State), "")
		w.want("summary", text(t, a.in(id).Summary), `{"m.heroes":["@bob:a.test"],"m.joined_member_count":2,"m.invited_member_count":0}`)
	})
}

func TestLimitedInitialSync(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{})
		w.topic(id, "old")
		w.say(alice, id, "one")
		w.topic(id, "new")
		w.say(alice, id, "two")
		a := w.client(alice, `{"room":{"timeline":{"limit":2}}}`).sync()
		w.want("timeline", w.timeline(a.in(id)), "… topic:new two")
		w.want("state at its start", w.stated(a.in(id).State), basics+" topic:old")
	})
}

// TestGap checks that what is left out of a limited timeline is found by
// /messages from prev_batch, nothing twice and nothing lost.
func TestGap(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{})
		for _, limit := range []int{0, 1, 3, 7} {
			c := w.client(alice, fmt.Sprintf(`{"room":{"timeline":{"limit":%d}}}`, limit))
			before := c.sync().NextBatch
			w.topic(id, fmt.Sprint("a", limit))
			var want []string
			for i := range 9 {
				text := fmt.Sprint(limit, "-", i)
				w.say(alice, id, text)
				want = append(want, text)
			}
			want = append([]string{fmt.Sprint("topic:a", limit)}, want...)
			a := c.sync()
			j := a.in(id)
			got := strings.TrimPrefix(strings.TrimPrefix(w.timeline(j), "…"), " ")
			if !j.Timeline.Limited || len(strings.Fields(got)) != limit {
				t.Errorf("limit %d: timeline %q", limit, w.timeline(j))
			}
			w.want("state", w.stated(j.State), fmt.Sprint("topic:a", limit))
			p, err := w.Rooms.Messages(w.ctx(), room.Reader{User: alice}, room.Page{
				Room: id, From: j.Timeline.PrevBatch, To: before, Limit: 100, Filter: &EventFilter{}})
			w.ok(err)
			older := strings.Fields(w.words(p.Chunk))
			for _, word := range older {
				got = word + " " + got
			}
			w.want(fmt.Sprintf("limit %d", limit), strings.TrimSpace(got), strings.Join(want, " "))
		}
	})
}

// TestVeryLongGap checks that a filter which finds little in a long gap does not
// make the gap look like the whole of it.
func TestVeryLongGap(t *testing.T) {
	if testing.Short() {
		t.Skip("sends thousands of events")
	}
	each(t, func(w *world) {
		id := w.create(room.Creation{})
		c := w.client(alice, `{"room":{"timeline":{"types":["m.room.message"]}}}`)
		c.sync()
		w.say(alice, id, "lost")
		for i := range 2100 {
			_, err := w.Rooms.Send(w.ctx(), room.Sending{User: alice, Room: id, Type: "m.noise", Content: json.RawMessage(fmt.Sprintf(`{"n":%d}`, i))})
			w.ok(err)
		}
		w.say(alice, id, "found")
		j := c.sync().in(id)
		w.want("timeline", w.timeline(j), "… found")
		f, err := ParseEventFilter([]byte(`{"types":["m.room.message"]}`))
		w.ok(err)
		from := j.Timeline.PrevBatch
		for range 5 {
			p, err := w.Rooms.Messages(w.ctx(), room.Reader{User: alice}, room.Page{Room: id, From: from, Limit: 10, Filter: f})
			w.ok(err)
			if words := w.words(p.Chunk); words != "" {
				w.want("behind the gap", words, "lost")
				return
			}
			if from = p.End; from == "" {
				break
			}
		}
		t.Error("the message of before the gap is lost")
	})
}

func TestFullState(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		c := w.client(alice, "")
		c.sync()
		c.full = true
		a := c.sync()
		w.want("state", w.stated(a.in(id).State), "@alice:join @bob:join create history_visibility join_rules power_levels")
		w.want("timeline", w.timeline(a.in(id)), "")
		w.say(bob, id, "hi")
		a = c.sync()
		w.want("timeline", w.timeline(a.in(id)), "hi")
		if a.in(id).Summary == nil {
			t.Error("no summary with the full state")
		}
	})
}

func TestStateAfter(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{})
		c := w.client(alice, "")
		c.after = true
		a := c.sync()
		w.want("initial", w.stated(a.in(id).StateAfter), basics)
		w.say(alice, id, "one")
		a = c.sync()
		w.want("no change", text(t, a.in(id).StateAfter), `{"events":[]}`)
		w.topic(id, "a")
		w.topic(id, "b")
		w.say(alice, id, "two")
		a = c.sync()
		w.want("timeline", w.timeline(a.in(id)), "topic:a topic:b two")
		w.want("state after", w.stated(a.in(id).StateAfter), "topic:b")
		if a.in(id).State != nil {
			t.Error("there is a state beside state_after")
		}
		w.ok(w.Ephemeral.SetTyping(w.ctx(), alice, id, true, 0))
		w.want("with nothing but typing", text(t, c.sync().in(id).StateAfter), `{"events":[]}`)
	})
}

func TestHeroes(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{Preset: "private_chat"})
		c, b := w.client(alice, ""), w.client(bob, "")
		w.want("alone", text(t, c.sync().in(id).Summary), `{"m.joined_member_count":1,"m.invited_member_count":0}`)
		w.invite(bob, id)
		w.want("invited", text(t, c.sync().in(id).Summary), `{"m.heroes":["@bob:a.test"],"m.joined_member_count":1,"m.invited_member_count":1}`)
		w.join(bob, id)
		w.want("joined", text(t, c.sync().in(id).Summary), `{"m.heroes":["@bob:a.test"],"m.joined_member_count":2,"m.invited_member_count":0}`)
		w.want("the other's", text(t, b.sync().in(id).Summary), `{"m.heroes":["@alice:a.test"],"m.joined_member_count":2,"m.invited_member_count":0}`)
		w.say(bob, id, "hi")
		w.want("no change", text(t, c.sync().in(id).Summary), `null`)
		w.state(alice, id, "m.room.name", "", `{"name":"Tea"}`)
		w.want("named", text(t, c.sync().in(id).Summary), `{"m.joined_member_count":2,"m.invited_member_count":0}`)
		w.state(alice, id, "m.room.name", "", `{}`)
		w.want("name taken away", text(t, c.sync().in(id).Summary), `{"m.heroes":["@bob:a.test"],"m.joined_member_count":2,"m.invited_member_count":0}`)
		e, err := w.Rooms.Send(w.ctx(), room.Sending{User: alice, Room: id, Type: "m.room.name", StateKey: new(string), Content: json.RawMessage(`{"name":"Secret"}`)})
		w.ok(err)
		c.sync()
		_, err = w.Rooms.Redact(w.ctx(), room.Sending{User: alice, Room: id, Redacts: e}, nil)
		w.ok(err)
		w.want("name redacted", text(t, c.sync().in(id).Summary), `{"m.heroes":["@bob:a.test"],"m.joined_member_count":2,"m.invited_member_count":0}`)
		w.leave(bob, id)
		w.want("left", text(t, c.sync().in(id).Summary), `{"m.heroes":["@bob:a.test"],"m.joined_member_count":1,"m.invited_member_count":0}`)
		for i := range 8 {
			u := fmt.Sprintf("user%d", i)
			w.newUser(u)
			w.invite(matrix.UserID("@"+u+":a.test"), id)
		}
		w.want("five of many", text(t, c.sync().in(id).Summary.Heroes), `["@user0:a.test","@user1:a.test","@user2:a.test","@user3:a.test","@user4:a.test"]`)
	})
}

func TestTokens(t *testing.T) {
	each(t, func(w *world) {
		c := w.client(alice, "")
		c.sync()
		for _, since := range []string{"x", "s", "s_", "5", "t5", "s-1_2", "sabc", "s5_x", "s99999999999999999999", "\x00", "s1_2_3"} {
			c.since = since
			_, err := c.Sync(w.ctx(), c.request())
			w.refused(err, matrix.InvalidParam)
		}
	})
}

func TestRedactedInSync(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{})
		c := w.client(alice, "")
		c.sync()
		e := w.say(alice, id, "secret")
		_, err := w.Rooms.Redact(w.ctx(), room.Sending{User: alice, Room: id, Redacts: e}, nil)
		w.ok(err)
		j := c.sync().in(id)
		w.want("timeline", w.timeline(j), "(redacted) redaction")
		if strings.Contains(text(t, j), "secret") {
			t.Error("what was redacted is told")
		}
		if read(t, j.Timeline.Events)[0].Unsigned["redacted_because"] == nil {
			t.Error("it is not told why")
		}
	})
}

func TestTransactionID(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		c, other, b := w.client(alice, ""), w.client(alice, ""), w.client(bob, "")
		for _, cl := range []*client{c, other, b} {
			cl.sync()
		}
		_, err := w.Rooms.Send(w.ctx(), room.Sending{User: alice, Device: c.device, Room: id, Type: "m.room.message", Content: json.RawMessage(`{"body":"x"}`), Txn: "txn1"})
		w.ok(err)
		since := c.since
		for _, again := range []bool{false, true} {
			if again { // from the database
				c.since = since
				w.restart()
			}
			w.want("the device's own", fmt.Sprint(read(t, c.sync().in(id).Timeline.Events)[0].Unsigned["transaction_id"]), "txn1")
		}
		for _, cl := range []*client{other, b} {
			cl.world = w
			if got := read(t, cl.sync().in(id).Timeline.Events)[0].Unsigned["transaction_id"]; got != nil {
				t.Errorf("%s %s gets %v", cl.user, cl.device, got)
			}
		}
	})
}
