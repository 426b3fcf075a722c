package room

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

const ghost = matrix.UserID("@irc_bot:a.test")

// owned tells the users of the tests' appservice.
func owned(u matrix.UserID) bool { return strings.HasPrefix(string(u), "@irc_") }

// portal makes a room of an appservice in which alice is.
func (w world) portal() matrix.RoomID {
	w.Helper()
	id, err := w.Create(w.ctx(), Creation{Creator: ghost, Invite: []matrix.UserID{alice}, Past: true})
	w.ok(err)
	w.ok(w.state(alice, id, "m.room.member", string(alice), `{"membership":"join"}`))
	return id
}

// past is a batch of texts of ghosts, called name0, name1 …
func past(room matrix.RoomID, name string, n int) Batch {
	b := Batch{Room: room, User: ghost, Owns: owned}
	for i := range n {
		text := fmt.Sprint(name, i)
		b.List = append(b.List, BatchEvent{
			ID: matrix.EventID("$" + text + ":irc.test"), Type: "m.room.message", Sender: "@irc_someone:a.test",
			Content: object{"msgtype": "m.text", "body": text}.raw(), At: 1_000_000 + int64(i),
		})
	}
	return b
}

// timeline gives what alice sees of a room by pages, oldest first: the texts, and
// the types of everything else.
func (w world) timeline(room matrix.RoomID) []string {
	w.Helper()
	var list []string
	p := Page{Room: room, Limit: 7, Filter: all{}}
	for {
		a, err := w.Messages(w.ctx(), Reader{User: alice}, p)
		w.ok(err)
		for _, raw := range a.Chunk {
			var e struct {
				Type    string `json:"type"`
				Content struct {
					Body string `json:"body"`
				} `json:"content"`
			}
			w.ok(json.Unmarshal(raw, &e))
			if e.Content.Body != "" {
				e.Type = e.Content.Body
			}
			list = append(list, e.Type)
		}
		if p.From = a.End; a.End == "" {
			break
		}
	}
	slices.Reverse(list)
	return list
}

// wantTimeline compares what stands behind the events that made the room.
func (w world) wantTimeline(room matrix.RoomID, want string) {
	w.Helper()
	list := w.timeline(room)
	if list[0] != "m.room.create" {
		w.Errorf("the timeline begins with %s", list[0])
	}
	list = slices.DeleteFunc(list, func(s string) bool { return strings.HasPrefix(s, "m.room.") && s != "m.room.member" })
	if got := strings.Join(list, " "); got != want {
		w.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestBatchOrder(t *testing.T) {
	each(t, func(w world) {
		room := w.portal()
		w.say(alice, room, "now")
		for _, name := range []string{"young", "old"} {
			ids, err := w.Batch(w.ctx(), past(room, name, 3))
			w.ok(err)
			if len(ids) != 3 || ids[0] != matrix.EventID("$"+name+"0:irc.test") {
				t.Errorf("got %q", ids)
			}
		}
		forward := past(room, "new", 2)
		forward.Forward = true
		_, err := w.Batch(w.ctx(), forward)
		w.ok(err)
		w.say(alice, room, "last")
		w.wantTimeline(room, "m.room.member m.room.member old0 old1 old2 young0 young1 young2 m.room.member now new0 new1 last")

		// Once more, with one that is new: as after an answer that was lost.
		again := past(room, "old", 3)
		again.List = append(again.List, past(room, "older", 1).List...)
		_, err = w.Batch(w.ctx(), again)
		w.ok(err)
		w.wantTimeline(room, "m.room.member m.room.member older0 old0 old1 old2 young0 young1 young2 m.room.member now new0 new1 last")

		r, err := w.Store.Room(w.ctx(), room)
		w.ok(err)
		heads, err := w.Store.EventsByNum(w.ctx(), r.Heads)
		w.ok(err)
		for _, h := range heads {
			if h.PDU.Local || len(h.PDU.PrevEvents) != 1 {
				t.Errorf("the head is %s", h.PDU.JSON)
			}
			prev, err := w.Store.Event(w.ctx(), h.PDU.PrevEvents[0])
			w.ok(err)
			if prev.PDU.Local {
				t.Error("an event that other servers may get follows on a local one")
			}
		}
		e, err := w.ByTime(w.ctx(), r, 1_000_001, false, func(list []*store.Event) ([]*store.Event, error) { return list, nil })
		w.ok(err)
		if e == nil || e.PDU.OriginServerTS != 1_000_001 {
			t.Errorf("the event at that time is %v", e)
		}
	})
}

// Where nobody kept places free, the past stands before everything.
func TestBatchBeforeAll(t *testing.T) {
	each(t, func(w world) {
		room := w.create(Creation{Invite: []matrix.UserID{ghost}, PowerLevels: map[string]json.RawMessage{"users": json.RawMessage(`{"@irc_bot:a.test":50}`)}})
		w.ok(w.state(ghost, room, "m.room.member", string(ghost), `{"membership":"join"}`))
		w.say(alice, room, "now")
		for _, name := range []string{"young", "old"} {
			_, err := w.Batch(w.ctx(), past(room, name, 2))
			w.ok(err)
		}
		list := w.timeline(room)
		if got := strings.Join(list[:5], " "); got != "old0 old1 young0 young1 m.room.create" {
			t.Errorf("got %s", got)
		}
	})
}

func TestBatchForwardIfEmpty(t *testing.T) {
	each(t, func(w world) {
		room := w.portal()
		for _, name := range []string{"first", "before"} {
			b := past(room, name, 2)
			b.ForwardIfEmpty, b.ReadBy = true, alice
			_, err := w.Batch(w.ctx(), b)
			w.ok(err)
		}
		w.wantTimeline(room, "m.room.member m.room.member before0 before1 m.room.member first0 first1")
		r, err := w.Store.Room(w.ctx(), room)
		w.ok(err)
		receipts, err := w.Store.UserReceipts(w.ctx(), alice, r.Num)
		w.ok(err)
		if len(receipts) != 1 || receipts[0].Event != "$first1:irc.test" {
			t.Errorf("alice has read %v", receipts)
		}
	})
}

func TestBatchRefused(t *testing.T) {
	each(t, func(w world) {
		room, other := w.portal(), w.create(Creation{Invite: []matrix.UserID{ghost}})
		w.ok(w.state(ghost, other, "m.room.member", string(ghost), `{"membership":"join"}`))
		_, err := w.Batch(w.ctx(), past(room, "here", 1))
		w.ok(err)
		said := w.say(alice, room, "hello")
		before := len(w.timeline(room))
		for name, tt := range map[string]struct {
			change func(*Batch)
			code   matrix.Code
		}{
			"a stranger":             {func(b *Batch) { b.List[2].Sender = bob }, matrix.Forbidden},
			"a user elsewhere":       {func(b *Batch) { b.List[2].Sender = "@irc_x:b.test" }, matrix.Forbidden},
			"no sender":              {func(b *Batch) { b.List[2].Sender = "" }, matrix.InvalidParam},
			"state":                  {func(b *Batch) { b.List[2].StateKey = new(string) }, matrix.InvalidParam},
			"a redaction":            {func(b *Batch) { b.List[2].Type = "m.room.redaction" }, matrix.InvalidParam},
			"no type":                {func(b *Batch) { b.List[2].Type = "" }, matrix.InvalidParam},
			"an ID twice":            {func(b *Batch) { b.List[2].ID = b.List[1].ID }, matrix.InvalidParam},
			"an ID like a hash":      {func(b *Batch) { b.List[2].ID = "$abcdefghijklmnopqrstuvwxyzabcdefghijklmnopq" }, matrix.InvalidParam},
			"the ID of another one":  {func(b *Batch) { b.List[2].ID = said }, matrix.InvalidParam},
			"another one's local ID": {func(b *Batch) { b.List[2].ID, b.List[2].Sender = "$here0:irc.test", ghost }, matrix.InvalidParam},
			"a time before time":     {func(b *Batch) { b.List[2].At = -1 }, matrix.InvalidParam},
			"no object":              {func(b *Batch) { b.List[2].Content = json.RawMessage(`[]`) }, matrix.BadJSON},
			"too large":              {func(b *Batch) { b.List[2].Content = object{"body": strings.Repeat("x", 66_000)}.raw() }, matrix.TooLarge},
			"too many":               {func(b *Batch) { b.List = make([]BatchEvent, MostBatch+1) }, matrix.TooLarge},
			"read by a stranger":     {func(b *Batch) { b.ReadBy = bob }, matrix.Forbidden},
			"an unknown room":        {func(b *Batch) { b.Room = "!unknown:a.test" }, matrix.Forbidden},
			"no power":               {func(b *Batch) { b.Room = other }, matrix.Forbidden},
			"alice in her own room":  {func(b *Batch) { b.Room, b.Forward, b.List[2].Sender = other, true, alice }, matrix.Forbidden},
		} {
			b := past(room, "x", 4)
			tt.change(&b)
			_, err := w.Batch(w.ctx(), b)
			t.Log(name, err)
			w.refused(err, tt.code)
		}
		if n := len(w.timeline(room)); n != before {
			t.Errorf("%d events came of what was refused", n-before)
		}
		b := past(room, "hers", 1)
		b.List[0].Sender = alice
		_, err = w.Batch(w.ctx(), b)
		w.ok(err)
		old, err := w.Create(w.ctx(), Creation{Creator: ghost, Version: "1"})
		w.ok(err)
		_, err = w.Batch(w.ctx(), past(old, "old", 1))
		w.refused(err, matrix.Forbidden)
	})
}
