package clientsync

import (
	"crypto/ed25519"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// settings describes account data as type=content.
func (w *world) settings(e *events) string {
	w.Helper()
	var words []string
	for _, raw := range list(e) {
		var d struct {
			Type    string
			Content json.RawMessage
		}
		w.ok(json.Unmarshal(raw, &d))
		if d.Type != "m.push_rules" {
			words = append(words, d.Type+"="+string(d.Content))
		} else {
			words = append(words, d.Type)
		}
	}
	return strings.Join(words, " ")
}

func (w *world) set(u matrix.UserID, id matrix.RoomID, typ, content string) {
	w.Helper()
	w.ok(w.accounts.SetData(w.ctx(), u, id, typ, json.RawMessage(content)))
}

func TestAccountData(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		c := w.client(bob, "")
		a := c.sync()
		w.want("push rules from the start", w.settings(a.AccountData), "m.push_rules")
		w.set(bob, "", "x", `{"a":1}`)
		w.set(bob, "", "x", `{"a":2}`)
		w.set(bob, id, "y", `{"b":1}`)
		w.set(alice, "", "x", `{"a":3}`)
		w.set(alice, id, "y", `{"b":3}`)
		a = c.sync()
		w.want("global", w.settings(a.AccountData), `x={"a":2}`)
		w.want("of the room", w.settings(a.in(id).AccountData), `y={"b":1}`)
		if a.in(id).Timeline != nil {
			t.Error("account data brought a timeline")
		}
		w.ok(w.accounts.SetTag(w.ctx(), bob, id, "m.favourite", json.RawMessage(`{"order":0.5}`)))
		w.want("tag", w.settings(c.sync().in(id).AccountData), `m.tag={"tags":{"m.favourite":{"order":0.5}}}`)
		w.want("nothing new", text(t, c.sync().Rooms), "null")

		a = w.client(bob, "").sync()
		w.want("all", w.settings(a.AccountData), `m.push_rules x={"a":2}`)
		w.want("all of the room", w.settings(a.in(id).AccountData), `y={"b":1} m.tag={"tags":{"m.favourite":{"order":0.5}}}`)
		for filter, want := range map[string]string{
			`{"types":["x"]}`:       `x={"a":2}`,
			`{"not_types":["m.*"]}`: `x={"a":2}`,
			`{"types":[]}`:          ``,
		} {
			w.want(filter, w.settings(w.client(bob, `{"account_data":`+filter+`}`).sync().AccountData), want)
		}
		for filter, want := range map[string]string{
			`{"types":["y"]}`:                     `y={"b":1}`,
			`{"not_types":["y","m.tag"]}`:         ``,
			fmt.Sprintf(`{"not_rooms":[%q]}`, id): ``,
		} {
			w.want(filter, w.settings(w.client(bob, `{"room":{"account_data":`+filter+`}}`).sync().in(id).AccountData), want)
		}
	})
}

// TestAccountDataOfNewRoom checks that a room which comes into view brings all
// of its settings, not only the latest.
func TestAccountDataOfNewRoom(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		w.set(bob, id, "y", `{"b":1}`)
		w.leave(bob, id)
		c := w.client(bob, "")
		c.sync()
		w.set(bob, id, "z", `{"c":1}`)
		w.join(bob, id)
		w.want("settings", w.settings(c.sync().in(id).AccountData), `y={"b":1} z={"c":1}`)
	})
}

// receipts describes receipts as user@text, with the thread.
func (w *world) receipts(j *joined, names map[matrix.EventID]string) string {
	w.Helper()
	found := map[string]bool{}
	for _, raw := range list(j.Ephemeral) {
		var e struct {
			Type    string
			Content map[matrix.EventID]map[string]map[matrix.UserID]struct {
				TS     int64  `json:"ts"`
				Thread string `json:"thread_id"`
			}
		}
		if json.Unmarshal(raw, &e) != nil || e.Type != "m.receipt" {
			continue
		}
		for id, types := range e.Content {
			for typ, users := range types {
				for u, r := range users {
					if r.TS == 0 {
						w.Errorf("a receipt without a time: %s", raw)
					}
					word := strings.Split(string(u), ":")[0] + "@" + names[id]
					if typ == ephemeral.ReadPrivate {
						word += "(private)"
					}
					if r.Thread != "" {
						word += "[" + strings.ReplaceAll(r.Thread, "$", "")[:4] + "]"
					}
					found[word] = true
				}
			}
		}
	}
	return strings.Join(sorted(found), " ")
}

func TestReceipts(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		one, two := w.say(alice, id, "one"), w.say(alice, id, "two")
		names := map[matrix.EventID]string{one: "one", two: "two"}
		a, b := w.client(alice, ""), w.client(bob, "")
		a.sync()
		b.sync()
		w.mark(bob, id, ephemeral.Read, one)
		w.mark(bob, id, ephemeral.ReadPrivate, two)
		w.mark(alice, id, ephemeral.Read, two, "main")
		w.want("alice", w.receipts(a.sync().in(id), names), "@alice@two[main] @bob@one")
		j := b.sync().in(id)
		w.want("bob", w.receipts(j, names), "@alice@two[main] @bob@one @bob@two(private)")
		if j.Timeline != nil {
			t.Error("a receipt brought a timeline")
		}
		w.want("nothing new", text(t, a.sync().Rooms), "null")
		w.mark(bob, id, ephemeral.Read, two)
		w.want("moved", w.receipts(a.sync().in(id), names), "@bob@two")
		w.want("initial", w.receipts(w.client(alice, "").sync().in(id), names), "@alice@two[main] @bob@two")
		none := w.client(alice, `{"room":{"ephemeral":{"not_types":["m.receipt"]}}}`)
		w.want("filtered", w.receipts(none.sync().in(id), names), "")

		// Who comes in is told of all receipts, but of no private ones.
		c := w.client(carol, "")
		c.sync()
		w.join(carol, id)
		w.want("newcomer", w.receipts(c.sync().in(id), names), "@alice@two[main] @bob@two")
	})
}

func TestTyping(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		other := w.create(room.Creation{})
		c := w.client(alice, "")
		w.want("nobody", text(t, c.sync().in(id).Ephemeral), "null")
		typing := func(on bool) { w.ok(w.Ephemeral.SetTyping(w.ctx(), bob, id, on, 0)) }
		typing(true)
		a := c.sync()
		w.want("bob", text(t, a.in(id).Ephemeral), `{"events":[{"content":{"user_ids":["@bob:a.test"]},"type":"m.typing"}]}`)
		if a.in(other).Ephemeral != nil || a.in(id).Timeline != nil {
			t.Errorf("too much: %s", text(t, a))
		}
		w.want("no change", text(t, c.sync().Rooms), "null")
		w.want("initial", text(t, w.client(bob, "").sync().in(id).Ephemeral), `{"events":[{"content":{"user_ids":["@bob:a.test"]},"type":"m.typing"}]}`)
		typing(false)
		w.want("nobody again", text(t, c.sync().in(id).Ephemeral), `{"events":[{"content":{"user_ids":[]},"type":"m.typing"}]}`)
		typing(true)
		w.want("filtered", text(t, w.client(alice, `{"room":{"ephemeral":{"types":["m.receipt"]}}}`).sync().in(id).Ephemeral), "null")
		c.sync()
		w.ok(w.accounts.SetData(w.ctx(), alice, "", "m.ignored_user_list", json.RawMessage(`{"ignored_users":{"@bob:a.test":{}}}`)))
		c.sync()
		typing(false)
		if a := c.sync(); !a.empty() {
			t.Errorf("of an ignored user: %s", text(t, a))
		}
		s := w.client(carol, "")
		s.sync()
		w.want("a stranger", text(t, s.sync().Rooms), "null")
	})
}

func TestToDevice(t *testing.T) {
	each(t, func(w *world) {
		one, two, other := w.client(bob, ""), w.client(bob, ""), w.client(alice, "")
		clients := []*client{one, two, other}
		for _, c := range clients {
			c.sync()
		}
		send := func(typ string, devices map[matrix.DeviceID]json.RawMessage) {
			w.ok(w.Keys.SendToDevice(w.ctx(), alice, "A", typ, typ, e2ee.Messages{bob: devices}))
		}
		send("first", map[matrix.DeviceID]json.RawMessage{one.device: json.RawMessage(`{"n":1}`)})
		send("all", map[matrix.DeviceID]json.RawMessage{"*": json.RawMessage(`{"n":2}`)})
		since := one.since
		const want = `{"events":[{"type":"first","sender":"@alice:a.test","content":{"n":1}},{"type":"all","sender":"@alice:a.test","content":{"n":2}}]}`
		w.want("one", text(t, one.sync().ToDevice), want)
		w.want("two", text(t, two.sync().ToDevice), `{"events":[{"type":"all","sender":"@alice:a.test","content":{"n":2}}]}`)
		w.want("another's", text(t, other.sync().ToDevice), "null")

		// Until the client comes with the new token, it may not have got them; a
		// token of the future acknowledges nothing and is as good as none.
		id := w.create(room.Creation{}, bob)
		one.since = "s99999999_0"
		a := one.sync()
		w.want("from the future", text(t, a.ToDevice), want)
		if a.in(id).Timeline == nil {
			t.Errorf("a token from the future brings %s", text(t, a))
		}
		one.since = since
		w.want("again", text(t, one.sync().ToDevice), want)
		w.want("acknowledged", text(t, one.sync().ToDevice), "null")
		one.since = since
		w.want("gone", text(t, one.sync().ToDevice), "null")
	})
}

func TestManyToDevice(t *testing.T) {
	each(t, func(w *world) {
		c := w.client(bob, "")
		c.sync()
		for i := range 230 {
			w.ok(w.Keys.SendToDevice(w.ctx(), alice, "A", "t", fmt.Sprint(i), e2ee.Messages{bob: {c.device: json.RawMessage(fmt.Sprintf(`{"n":%d}`, i))}}))
		}
		next := 0
		for range 10 {
			for _, raw := range list(c.sync().ToDevice) {
				if want := fmt.Sprintf(`{"n":%d}`, next); !contains(string(raw), want) {
					t.Fatalf("got %s, want %s", raw, want)
				}
				next++
			}
		}
		if next != 230 {
			t.Errorf("got %d of 230 messages", next)
		}
	})
}

func TestDeviceLists(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob)
		a, b, c := w.client(alice, ""), w.client(bob, ""), w.client(carol, "")
		for _, cl := range []*client{a, b, c} {
			first := cl.sync()
			w.want("first", text(t, first.DeviceLists), "null")
			w.want("counts", text(t, first.OneTimeKeys), `{"signed_curve25519":0}`)
		}
		w.upload(b)
		w.want("who shares a room", text(t, a.sync().DeviceLists), `{"changed":["@bob:a.test"]}`)
		w.want("oneself", text(t, b.sync().DeviceLists), `{"changed":["@bob:a.test"]}`)
		w.want("a stranger", text(t, c.sync().DeviceLists), "null")
		w.join(carol, id)
		w.want("a newcomer", text(t, a.sync().DeviceLists), `{"changed":["@carol:a.test"]}`)
		w.want("the newcomer's", text(t, c.sync().DeviceLists), `{"changed":["@alice:a.test","@bob:a.test"]}`)
		w.leave(carol, id)
		w.want("parted", text(t, a.sync().DeviceLists), `{"left":["@carol:a.test"]}`)
		w.want("who parted", text(t, c.sync().DeviceLists), `{"left":["@alice:a.test","@bob:a.test"]}`)
	})
}

// upload gives a device its identity keys.
func (w *world) upload(c *client) {
	w.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	w.ok(err)
	encode := base64.RawStdEncoding.EncodeToString
	keys := fmt.Sprintf(`{"algorithms":["m.olm.v1.curve25519-aes-sha2"],"device_id":%[2]q,"keys":{"curve25519:%[2]s":%[3]q,"ed25519:%[2]s":%[3]q},"user_id":%[1]q}`,
		c.user, c.device, encode(public))
	signed := fmt.Sprintf(`%s,"signatures":{%q:{"ed25519:%s":%q}}}`, strings.TrimSuffix(keys, "}"), c.user, c.device, encode(ed25519.Sign(private, []byte(keys))))
	_, err = w.Keys.Upload(w.ctx(), c.user, c.device, e2ee.Upload{DeviceKeys: json.RawMessage(signed)})
	w.ok(err)
}

// presences describes who is told to be what.
func (w *world) presences(a *Answer) string {
	w.Helper()
	found := map[string]bool{}
	for _, raw := range list(a.Presence) {
		var e struct {
			Type    string
			Sender  string
			Content struct{ Presence string }
		}
		w.ok(json.Unmarshal(raw, &e))
		if e.Type != "m.presence" {
			w.Errorf("%s", raw)
		}
		found[strings.Split(e.Sender, ":")[0]+"="+e.Content.Presence] = true
	}
	return strings.Join(sorted(found), " ")
}

func TestPresence(t *testing.T) {
	each(t, func(w *world) {
		w.Ephemeral.NoPresence = false
		id := w.create(room.Creation{}, bob)
		a, c := w.client(alice, ""), w.client(carol, "")
		a.sync()
		c.sync()
		be := func(u matrix.UserID, state string) { w.ok(w.Ephemeral.SetPresence(w.ctx(), u, "D", state, nil)) }
		be(bob, "online")
		w.want("who shares a room", w.presences(a.sync()), "@bob=online")
		w.want("a stranger", w.presences(c.sync()), "")
		w.want("nothing new", w.presences(a.sync()), "")
		w.want("initial", w.presences(w.client(alice, "").sync()), "@bob=online")
		w.want("filtered", w.presences(w.client(alice, `{"presence":{"not_types":["m.presence"]}}`).sync()), "")
		w.want("filtered by sender", w.presences(w.client(alice, `{"presence":{"not_senders":["@bob:a.test"]}}`).sync()), "")
		w.join(carol, id)
		w.want("a newcomer is told", w.presences(c.sync()), "@bob=online")
		be(carol, "online")
		w.want("of the newcomer", w.presences(a.sync()), "@carol=online")
		w.leave(carol, id)
		be(bob, "unavailable")
		w.want("who left", w.presences(c.sync()), "@carol=online") // only their own
		w.want("who stayed", w.presences(a.sync()), "@bob=unavailable")
	})
}
