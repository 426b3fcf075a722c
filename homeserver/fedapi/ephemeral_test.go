package fedapi

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"math"
	"testing"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
)

// edu makes an ephemeral message.
func (h *host) edu(typ string, content any) fedclient.EDU {
	h.Helper()
	b, err := json.Marshal(content)
	h.ok(err)
	return fedclient.EDU{Type: typ, Content: b}
}

type m map[string]any

func TestTyping(t *testing.T) {
	together(t, 3, func(t *testing.T, hosts []*host) {
		a, b, c := hosts[0], hosts[1], hosts[2]
		alice, bob, carol := a.user("alice"), b.user("bob"), c.user("carol")
		id := a.public(alice, "12")
		b.join(bob, id, a)
		b.push(a, nil, b.edu("m.typing", m{"room_id": id, "user_id": bob, "typing": true}))
		c.push(a, nil, c.edu("m.typing", m{"room_id": id, "user_id": carol, "typing": true})) // is not in the room
		c.push(a, nil, c.edu("m.typing", m{"room_id": id, "user_id": bob, "typing": false}))  // speaks for another
		if users, _ := a.ephemeral.Typing(id, 0, nil); len(users) != 1 || users[0] != bob {
			t.Errorf("%v are typing", users)
		}
		b.push(a, nil, b.edu("m.typing", m{"room_id": id, "user_id": bob, "typing": false}))
		if users, _ := a.ephemeral.Typing(id, 0, nil); len(users) != 0 {
			t.Errorf("%v are typing", users)
		}
		a.state(alice, id, "m.room.server_acl", `{"allow":["*"],"deny":["127.*"]}`)
		b.push(a, nil, b.edu("m.typing", m{"room_id": id, "user_id": bob, "typing": true}))
		if users, _ := a.ephemeral.Typing(id, 0, nil); len(users) != 0 {
			t.Errorf("of a banned server %v are typing", users)
		}
	})
}

func TestReceipts(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		id := a.public(alice, "12")
		b.join(bob, id, a)
		first, second := a.say(alice, id, "1"), a.say(alice, id, "2")
		read := func(user matrix.UserID, e matrix.EventID, thread string) {
			data := m{"ts": 1000}
			if thread != "" {
				data["thread_id"] = thread
			}
			b.push(a, nil, b.edu("m.receipt", m{string(id): m{"m.read": m{string(user): m{"event_ids": []matrix.EventID{e}, "data": data}}}}))
		}
		read(bob, second.ID, "")
		read(bob, first.ID, "") // is older
		read(bob, first.ID, "main")
		read(alice, first.ID, "") // is not theirs
		read(bob, "$unknown", "")
		r, err := a.st.Room(a.ctx(), id)
		a.ok(err)
		list, err := a.st.Receipts(a.ctx(), alice, []store.RoomNum{r.Num}, 0, math.MaxInt64)
		a.ok(err)
		got := map[string]matrix.EventID{}
		for _, r := range list {
			got[string(r.User)+" "+r.Thread] = r.Event
		}
		want := map[string]matrix.EventID{string(bob) + " ": second.ID, string(bob) + " main": first.ID}
		if fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
	})
}

func TestPresence(t *testing.T) {
	together(t, 3, func(t *testing.T, hosts []*host) {
		a, b, c := hosts[0], hosts[1], hosts[2]
		alice, bob, carol := a.user("alice"), b.user("bob"), c.user("carol")
		b.join(bob, a.public(alice, "12"), a)
		b.push(a, nil, b.edu("m.presence", m{"push": []m{{"user_id": bob, "presence": "unavailable", "last_active_ago": 5000, "status_msg": "out"}}}))
		c.push(a, nil, c.edu("m.presence", m{"push": []m{{"user_id": carol, "presence": "online"}}})) // knows nobody here
		c.push(a, nil, c.edu("m.presence", m{"push": []m{{"user_id": bob, "presence": "offline"}}}))  // speaks for another
		b.push(a, nil, b.edu("m.presence", m{"push": []m{{"user_id": bob, "presence": "asleep"}}}))
		got, err := a.ephemeral.Presences(a.ctx(), alice, 0, a.st.Position())
		a.ok(err)
		if p := got[bob]; len(got) != 1 || p.Presence != ephemeral.Unavailable || p.StatusMsg != "out" || p.LastActiveAgo < 5000 {
			t.Errorf("%+v", got)
		}
	})
}

// device logs a user in and gives the device.
func (h *host) device(user matrix.UserID, id matrix.DeviceID) ed25519.PrivateKey {
	h.Helper()
	_, err := h.accounts.SetDevice(h.ctx(), user, id, nil, true)
	h.ok(err)
	public, private, err := ed25519.GenerateKey(nil)
	h.ok(err)
	keys, err := json.Marshal(m{
		"user_id": user, "device_id": id, "algorithms": []string{"m.olm.v1.curve25519-aes-sha2"},
		"keys": m{"ed25519:" + string(id): signing.EncodeBase64(public)},
	})
	h.ok(err)
	canonical, err := canonjson.Canonical(keys)
	h.ok(err)
	signed, err := signing.AddSignature(nil, string(user), "ed25519:"+string(id), signing.EncodeBase64(ed25519.Sign(private, canonical)))
	h.ok(err)
	var all, sigs map[string]json.RawMessage
	h.ok(json.Unmarshal(canonical, &all))
	h.ok(json.Unmarshal([]byte(`{"signatures":`+string(signed)+`}`), &sigs))
	all["signatures"] = sigs["signatures"]
	raw, err := json.Marshal(all)
	h.ok(err)
	_, err = h.keys.Upload(h.ctx(), user, id, e2ee.Upload{DeviceKeys: raw, OneTimeKeys: map[string]json.RawMessage{"curve25519:1": json.RawMessage(`"key1"`)}})
	h.ok(err)
	return private
}

func TestToDevice(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		a.device(alice, "PHONE")
		a.device(alice, "DESK")
		send := func(sender matrix.UserID, id string, to m) {
			b.push(a, nil, b.edu("m.direct_to_device", m{"sender": sender, "type": "m.test", "message_id": id, "messages": to}))
		}
		send(bob, "1", m{string(alice): m{"PHONE": m{"n": 1}, "NONE": m{"n": 0}}, string(bob): m{"*": m{}}, "nonsense": m{"*": m{}}})
		send(bob, "1", m{string(alice): m{"PHONE": m{"n": 1}}}) // repeated
		send(bob, "2", m{string(alice): m{"*": m{"n": 2}}})
		send(alice, "3", m{string(alice): m{"*": m{"n": 3}}}) // is not theirs
		for device, want := range map[matrix.DeviceID]string{"PHONE": `[{"n":1} {"n":2}]`, "DESK": `[{"n":2}]`} {
			list, err := a.keys.Pending(a.ctx(), alice, device, 0, a.st.Position())
			a.ok(err)
			var got []string
			for _, msg := range list {
				got = append(got, string(msg.Content))
				if msg.Sender != bob || msg.Type != "m.test" {
					t.Errorf("%+v", msg)
				}
			}
			if fmt.Sprint(got) != want {
				t.Errorf("%s got %v, want %s", device, got, want)
			}
		}
	})
}

// TestDevices lets a server follow the devices of another one's user.
func TestDevices(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		b.join(bob, a.public(alice, "12"), a)
		b.device(bob, "PHONE")
		known := func() []matrix.DeviceID {
			list, err := a.st.RemoteDevices(a.ctx(), []matrix.UserID{bob})
			a.ok(err)
			var ids []matrix.DeviceID
			for _, d := range list {
				ids = append(ids, d.Device)
			}
			return ids
		}
		update := func(device string, stream int64, prev ...int64) {
			b.push(a, nil, b.edu("m.device_list_update", m{"user_id": bob, "device_id": device, "stream_id": stream, "prev_id": prev}))
		}
		a.ok(a.keys.Resync(a.ctx(), bob)) // somebody asked for bob's keys
		if got := known(); len(got) != 1 || got[0] != "PHONE" {
			t.Fatalf("a knows %v", got)
		}
		list, err := b.keys.DeviceList(b.ctx(), bob)
		b.ok(err)
		update("LAPTOP", list.Stream+1, list.Stream)
		if got := known(); len(got) != 2 {
			t.Errorf("after a change that follows a knows %v", got)
		}
		update("TV", list.Stream+9, list.Stream+8) // others were missed: what b says now counts
		if got := known(); len(got) != 1 || got[0] != "PHONE" {
			t.Errorf("after one that was missed a knows %v", got)
		}
		changed, err := a.st.DeviceListChanges(a.ctx(), alice, 0, a.st.Position())
		a.ok(err)
		if len(changed) == 0 || changed[0] != bob {
			t.Errorf("alice is told of %v", changed)
		}

		keys, err := a.client.QueryKeys(a.ctx(), b.name, map[matrix.UserID][]matrix.DeviceID{bob: nil})
		a.ok(err)
		if len(keys.DeviceKeys[bob]) != 1 {
			t.Errorf("the keys are %v", keys.DeviceKeys)
		}
		for want := range 2 {
			claimed, err := a.client.ClaimKeys(a.ctx(), b.name, map[matrix.UserID]map[matrix.DeviceID]string{bob: {"PHONE": "curve25519"}})
			a.ok(err)
			if got := len(claimed[bob]["PHONE"]); got != 1-want {
				t.Errorf("claim %d got %d keys", want+1, got)
			}
		}
		a.want(b, 404, matrix.NotFound, "GET", "/_matrix/federation/v1/user/devices/@nobody:"+string(b.name), "")
		a.want(b, 400, matrix.InvalidParam, "GET", "/_matrix/federation/v1/user/devices/"+string(alice), "")
	})
}

// TestEphemeralNonsense sends messages of every type that are no good.
func TestEphemeralNonsense(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		id := a.public(alice, "12")
		b.join(bob, id, a)
		var edus []fedclient.EDU
		for _, typ := range []string{"m.typing", "m.receipt", "m.presence", "m.direct_to_device", "m.device_list_update", "m.signing_key_update", "m.unknown"} {
			for _, content := range []string{`null`, `17`, `[]`, `{}`, `{"user_id":"nonsense"}`, `{"push":[{}]}`, `{"x":{"m.read":{"y":17}}}`, fmt.Sprintf(`{"sender":%q}`, bob), fmt.Sprintf(`{"user_id":%q}`, bob)} {
				edus = append(edus, fedclient.EDU{Type: typ, Content: json.RawMessage(content)})
			}
		}
		last := b.say(bob, id, "still there")
		results := b.push(a, []*event.PDU{last}, edus...)
		if len(results) != 0 && results[last.ID] != "" || a.texts(id) != "still there" {
			t.Errorf("results %v, a reads %q", results, a.texts(id))
		}
	})
}
