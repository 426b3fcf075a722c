package room

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// only wants the events of some types.
type only struct {
	types []string
	lazy  bool
}

func (o only) Wants(e *store.Event) bool {
	for _, t := range o.types {
		if e.PDU.Type == t {
			return true
		}
	}
	return len(o.types) == 0
}

func (o only) Lazy() bool { return o.lazy }

// words describes events: texts, or types and state keys.
func (w world) words(list []json.RawMessage) string {
	w.Helper()
	var words []string
	for _, raw := range list {
		var e struct {
			Type     string
			StateKey *string `json:"state_key"`
			Content  struct{ Body, Membership string }
		}
		w.ok(json.Unmarshal(raw, &e))
		switch {
		case e.Content.Body != "":
			words = append(words, e.Content.Body)
		case e.Content.Membership != "":
			words = append(words, strings.Split(*e.StateKey, ":")[0]+":"+e.Content.Membership)
		default:
			words = append(words, strings.TrimPrefix(e.Type, "m.room."))
		}
	}
	return strings.Join(words, " ")
}

func (w world) want(what, got, want string) {
	w.Helper()
	if got != want {
		w.Errorf("%s: got %q, want %q", what, got, want)
	}
}

// TestMembersAt checks the members at older places of the timeline.
func TestMembersAt(t *testing.T) {
	each(t, func(w world) {
		ctx := w.ctx()
		id := w.create(Creation{Preset: "public_chat"})
		at := func() string { return Token(w.Store.Position()) }
		members := func(user matrix.UserID, q MembersAsked) string {
			t.Helper()
			list, err := w.Members(ctx, Reader{User: user}, id, q)
			w.ok(err)
			return w.words(list)
		}
		first := at()
		w.ok(w.Join(ctx, Change{Room: id, Actor: bob}))
		second := at()
		w.ok(w.Join(ctx, Change{Room: id, Actor: carol}))
		third := at()
		w.ok(w.Leave(ctx, Change{Room: id, Actor: bob}))
		fourth := at()
		w.ok(w.Leave(ctx, Change{Room: id, Actor: carol}))
		for token, want := range map[string]string{first: "@alice:join", second: "@alice:join @bob:join", third: "@alice:join @bob:join @carol:join",
			fourth: "@alice:join @carol:join @bob:leave", "": "@alice:join @bob:leave @carol:leave"} {
			w.want("at "+token, members(alice, MembersAsked{At: token}), want)
		}
		w.want("bob, to whom it ended", members(bob, MembersAsked{At: at()}), "@alice:join @carol:join @bob:leave")
		w.want("bob, before", members(bob, MembersAsked{At: second}), "@alice:join @bob:join")
		w.want("with a filter", members(alice, MembersAsked{At: third, Not: "join"}), "")
		_, err := w.Members(ctx, Reader{User: alice}, id, MembersAsked{At: "x"})
		w.refused(err, matrix.InvalidParam)
	})
}

func TestMessagesFilterAndMembers(t *testing.T) {
	each(t, func(w world) {
		ctx := w.ctx()
		id := w.create(Creation{Preset: "public_chat"})
		w.ok(w.Join(ctx, Change{Room: id, Actor: bob}))
		w.ok(w.Join(ctx, Change{Room: id, Actor: carol}))
		for i := range 6 {
			w.say(bob, id, fmt.Sprint("b", i))
			w.ok(w.state(alice, id, "m.room.topic", "", fmt.Sprintf(`{"topic":"%d"}`, i)))
		}
		text := only{types: []string{"m.room.message"}, lazy: true}
		p, err := w.Messages(ctx, Reader{User: alice}, Page{Room: id, Limit: 3, Filter: text})
		w.ok(err)
		w.want("newest", w.words(p.Chunk), "b5 b4 b3")
		w.want("their senders", w.words(p.State), "@bob:join")
		p, err = w.Messages(ctx, Reader{User: alice}, Page{Room: id, From: p.End, Limit: 30, Filter: text})
		w.ok(err)
		w.want("the rest", w.words(p.Chunk), "b2 b1 b0")
		w.want("end", p.End, "")
		p, err = w.Messages(ctx, Reader{User: alice}, Page{Room: id, Forward: true, Limit: 30, Filter: only{types: []string{"m.none"}, lazy: true}})
		w.ok(err)
		w.want("nothing", w.words(p.Chunk)+w.words(p.State)+p.End, "")
		p, err = w.Messages(ctx, Reader{User: alice}, Page{Room: id, Limit: 0, Filter: all{}})
		w.ok(err)
		w.want("limit 0", w.words(p.Chunk), "")
		p, err = w.Messages(ctx, Reader{User: alice}, Page{Room: id, Forward: true, From: "t9223372036854775807", Limit: 5, Filter: all{}})
		w.ok(err)
		w.want("behind everything", w.words(p.Chunk), "")
		p, err = w.Messages(ctx, Reader{User: alice}, Page{Room: id, From: "t-9223372036854775808", Limit: 5, Filter: all{}})
		w.ok(err)
		w.want("before everything", w.words(p.Chunk), "")
		for _, bad := range []string{"x", "t", "t1x", "5", "tt5", "t99999999999999999999"} {
			_, err := w.Messages(ctx, Reader{User: alice}, Page{Room: id, From: bad, Limit: 5, Filter: all{}})
			w.refused(err, matrix.InvalidParam)
		}
		// Who changed the name is shown as they were when they spoke.
		w.ok(w.state(bob, id, "m.room.member", string(bob), `{"membership":"join","displayname":"New"}`))
		w.say(bob, id, "new")
		p, err = w.Messages(ctx, Reader{User: alice}, Page{Room: id, Limit: 1, Filter: text})
		w.ok(err)
		if len(p.State) != 1 || !strings.Contains(string(p.State[0]), `"New"`) {
			t.Errorf("the sender is %s", p.State)
		}
	})
}

func TestContext(t *testing.T) {
	each(t, func(w world) {
		ctx := w.ctx()
		id := w.create(Creation{Preset: "public_chat"})
		w.ok(w.Join(ctx, Change{Room: id, Actor: bob}))
		w.ok(w.Join(ctx, Change{Room: id, Actor: carol}))
		var ids []matrix.EventID
		for i := range 7 {
			ids = append(ids, w.say([]matrix.UserID{alice, bob}[i%2], id, fmt.Sprint(i)))
		}
		w.ok(w.state(alice, id, "m.room.topic", "", `{"topic":"late"}`))
		text := only{types: []string{"m.room.message"}}
		for limit, want := range map[int][2]string{0: {"", ""}, 1: {"2", ""}, 2: {"2", "4"}, 5: {"2 1 0", "4 5"}, 100: {"2 1 0", "4 5 6"}} {
			c, err := w.Context(ctx, Reader{User: alice}, id, ids[3], limit, text)
			w.ok(err)
			w.want(fmt.Sprint("before, limit ", limit), w.words(c.Before), want[0])
			w.want(fmt.Sprint("after, limit ", limit), w.words(c.After), want[1])
			w.want("event", w.words([]json.RawMessage{c.Event}), "3")
			older, err := w.Messages(ctx, Reader{User: alice}, Page{Room: id, From: c.Start, Limit: 100, Filter: text})
			w.ok(err)
			newer, err := w.Messages(ctx, Reader{User: alice}, Page{Room: id, From: c.End, Forward: true, Limit: 100, Filter: text})
			w.ok(err)
			got := strings.Fields(w.words(c.Before) + " " + w.words(older.Chunk))
			w.want("backwards", strings.Join(got, " "), "2 1 0")
			got = strings.Fields(w.words(c.After) + " " + w.words(newer.Chunk))
			w.want("forwards", strings.Join(got, " "), "4 5 6")
		}
		c, err := w.Context(ctx, Reader{User: alice}, id, ids[3], 4, all{})
		w.ok(err)
		if got := w.words(c.State); strings.Contains(got, "topic") || !strings.Contains(got, "@carol:join") {
			t.Errorf("state %q", got)
		}
		c, err = w.Context(ctx, Reader{User: alice}, id, ids[3], 4, only{lazy: true})
		w.ok(err)
		if got := w.words(c.State); strings.Contains(got, "@carol") || !strings.Contains(got, "@bob:join") || !strings.Contains(got, "create") {
			t.Errorf("lazy state %q", got)
		}
		_, err = w.Context(ctx, Reader{User: "@eve:a.test"}, id, ids[3], 4, all{})
		w.refused(err, matrix.NotFound)
	})
}

func TestThreadOf(t *testing.T) {
	each(t, func(w world) {
		ctx := w.ctx()
		id := w.create(Creation{})
		other := w.create(Creation{})
		relate := func(room matrix.RoomID, typ string, to matrix.EventID) matrix.EventID {
			e, err := w.Send(ctx, Sending{User: alice, Room: room, Type: "m.room.message", Content: object{"m.relates_to": object{"rel_type": typ, "event_id": to}}.raw()})
			w.ok(err)
			return e
		}
		root := w.say(alice, id, "root")
		inside := relate(id, "m.thread", root)
		one := relate(id, "m.annotation", inside)
		two := relate(id, "m.reference", one)
		three := relate(id, "m.reference", two)
		four := relate(id, "m.reference", three)
		for e, want := range map[matrix.EventID]matrix.EventID{
			root: "", inside: root, one: root, two: root, three: root, four: "",
			relate(id, "m.reference", root): "", relate(id, "m.reference", "$unknown"): "", relate(other, "m.reference", inside): "", relate(id, "m.thread", "$unknown"): "$unknown",
		} {
			stored, err := w.Store.Event(ctx, e)
			w.ok(err)
			got, err := w.Thread(ctx, stored)
			w.ok(err)
			if got != want {
				t.Errorf("%s: thread %q, want %q", stored.PDU.Content, got, want)
			}
		}
	})
}
