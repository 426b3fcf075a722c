package federate

import (
	"bytes"
	"encoding/json"
	"errors"
	"image"
	imagepng "image/png"
	"slices"
	"testing"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// conversation is what people in a room do besides messages.
var conversation = []scenario{
	{"ephemeral", ephemeral},
	{"devices", devices},
	{"encryption", encryption},
}

// awaitTyping waits until somebody types.
func (u *user) awaitTyping(room string, whom *user) {
	u.t.Helper()
	u.awaitEphemeral(room, "m.typing", func(content value) bool {
		return slices.Contains(content.at("user_ids").texts(), whom.id)
	})
}

// meet makes a user on either side and a room for them, in which they have heard
// each other: Dendrite shows a member before it sends to their server what is not
// an event.
func (p pair) meet() (alice, bob *user, room string) {
	p.Helper()
	alice, bob = p.users()
	room = alice.createRoom(p.version, public)
	bob.join(room, p.host)
	alice.awaitMembership(room, bob.id, "join")
	bob.awaitEvent(room, alice.send(room, "hello"))
	alice.awaitEvent(room, bob.send(room, "hello yourself"))
	return alice, bob, room
}

// ephemeral is typing, receipts and presence, both ways.
func ephemeral(p pair) {
	alice, bob, room := p.meet()
	for _, way := range [][2]*user{{alice, bob}, {bob, alice}} {
		from, to := way[0], way[1]
		to.sync()
		from.must("PUT", client("rooms", room, "typing", from.id), object{"typing": true, "timeout": 120000})
		to.awaitTyping(room, from)

		message := to.send(room, "read this")
		from.awaitEvent(room, message)
		from.must("POST", client("rooms", room, "receipt", "m.read", message), object{})
		to.awaitEphemeral(room, "m.receipt", func(content value) bool {
			return content.at(message, "m.read", from.id).exists()
		})

		from.must("PUT", client("presence", from.id, "status"), object{"presence": "unavailable", "status_msg": "in " + room})
		to.find("presence", func(sync value) value {
			for _, e := range sync.at("presence", "events").list() {
				if e.at("sender").text() == from.id && e.at("content", "status_msg").text() == "in "+room {
					return e
				}
			}
			return value{}
		})
	}
}

// devices tells of a new login, a new name and a logout, both ways.
func devices(p pair) {
	alice, bob, _ := p.meet()
	for _, way := range [][2]*user{{alice, bob}, {bob, alice}} {
		from, to := way[0], way[1]
		awaitChange := func(what string) {
			to.find(what, func(sync value) value {
				if slices.Contains(sync.at("device_lists", "changed").texts(), from.id) {
					return sync
				}
				return value{}
			})
			to.seen = nil
		}
		to.sync()
		to.keysOf(from) // from now on they follow
		to.seen = nil
		from.machine() // uploads keys
		awaitChange("the first keys")
		to.awaitKeys(from)

		other := from.login()
		other.machine()
		awaitChange("a new device")
		to.awaitKeys(other)
		other.must("PUT", client("devices", other.device), object{"display_name": "Phone of " + from.id})
		to.eventually("the device's name", func() bool {
			return to.keysOf(other).at("unsigned", "device_display_name").text() == "Phone of "+from.id
		})
		awaitChange("the device's name")

		other.must("POST", client("logout"), nil)
		if to.server.program != "dendrite" { // it must be told which one, and we say only that some did
			awaitChange("the end of a device")
		}
		to.eventually("no keys of a device that is gone", func() bool { return !to.keysOf(other).exists() })
		to.awaitKeys(from)
	}
}

// keysOf asks for the keys of another user's device.
func (u *user) keysOf(whom *user) value {
	u.t.Helper()
	all := u.must("POST", client("keys", "query"), object{"device_keys": object{whom.id: []string{}}})
	return all.at("device_keys", whom.id, whom.device)
}

// awaitKeys waits for them.
func (u *user) awaitKeys(whom *user) {
	u.t.Helper()
	u.eventually("the keys of "+whom.device, func() bool { return u.keysOf(whom).at("keys").exists() })
}

// machine is the end-to-end encryption of a user's device, whose keys it
// uploads.
func (u *user) machine() *encrypted {
	u.t.Helper()
	c, err := mautrix.NewClient(u.server.URL, id.UserID(u.id), u.token)
	if err != nil {
		u.t.Fatal(err)
	}
	c.DeviceID = id.DeviceID(u.device)
	store := mautrix.NewMemoryStateStore().(*mautrix.MemoryStateStore)
	c.StateStore = store
	log := zerolog.Nop()
	m := &encrypted{user: u, OlmMachine: crypto.NewOlmMachine(c, &log, crypto.NewMemoryStore(nil), store)}
	if err := m.Load(u.t.Context()); err != nil {
		u.t.Fatal(err)
	}
	if err := m.ShareKeys(u.t.Context(), 0); err != nil {
		u.t.Fatalf("%s on %s uploads keys: %v", u.id, u.server.program, err)
	}
	u.synced = func(sync value) {
		var resp mautrix.RespSync
		if err := json.Unmarshal([]byte(sync.String()), &resp); err != nil {
			u.t.Fatal(err)
		}
		m.ProcessSyncResponse(u.t.Context(), &resp, u.since)
	}
	return m
}

// encrypted is a user's device that speaks Olm and Megolm.
type encrypted struct {
	*user
	*crypto.OlmMachine
}

// whisper sends an encrypted message to users of a room.
func (m *encrypted) whisper(room, text string, to ...*encrypted) string {
	m.t.Helper()
	ctx := m.t.Context()
	var users []id.UserID
	for _, u := range to {
		users = append(users, id.UserID(u.id))
	}
	if err := m.ShareGroupSession(ctx, id.RoomID(room), users); err != nil {
		m.t.Fatalf("%s on %s shares a session: %v", m.id, m.server.program, err)
	}
	content, err := m.EncryptMegolmEvent(ctx, id.RoomID(room), event.EventMessage, &event.MessageEventContent{MsgType: event.MsgText, Body: text})
	if err != nil {
		m.t.Fatal(err)
	}
	return m.must("PUT", client("rooms", room, "send", "m.room.encrypted", m.transaction()), content).at("event_id").text()
}

// hear waits for an encrypted message and decrypts it.
func (m *encrypted) hear(room, message, want string) {
	m.t.Helper()
	sealed := m.awaitEvent(room, message)
	var e event.Event
	if err := json.Unmarshal([]byte(sealed.String()), &e); err != nil {
		m.t.Fatal(err)
	}
	if err := e.Content.ParseRaw(e.Type); err != nil {
		m.t.Fatal(err)
	}
	e.RoomID = id.RoomID(room) // which a sync does not repeat
	m.eventually("the key of a message", func() bool {
		opened, err := m.DecryptMegolmEvent(m.t.Context(), &e)
		if errors.Is(err, crypto.ErrNoSessionFound) {
			m.sync()
			return false
		}
		if err != nil {
			m.t.Fatalf("%s on %s decrypts: %v", m.id, m.server.program, err)
		}
		if got := opened.Content.AsMessage().Body; got != want {
			m.t.Errorf("%s heard %q, want %q", m.id, got, want)
		}
		return true
	})
}

// encryption is a conversation with Olm and Megolm: keys are uploaded, queried
// and claimed, and room keys sent to devices, across the servers.
func encryption(p pair) {
	alice, bob := p.users()
	room := alice.createRoom(p.version, object{"preset": "private_chat", "is_direct": true, "invite": []string{bob.id}, "initial_state": []object{
		{"type": "m.room.encryption", "state_key": "", "content": object{"algorithm": "m.megolm.v1.aes-sha2"}},
	}})
	bob.awaitInvite(room)
	bob.join(room, p.host)
	alice.awaitMembership(room, bob.id, "join")
	a, b := alice.machine(), bob.machine()
	alice.awaitKeys(bob)
	bob.awaitKeys(alice)
	b.hear(room, a.whisper(room, "psst", a, b), "psst")
	a.hear(room, b.whisper(room, "what?", a, b), "what?")
	equal(room, alice, bob)
}

// png is a small picture.
func png(t *testing.T) []byte {
	var b bytes.Buffer
	if err := imagepng.Encode(&b, image.NewRGBA(image.Rect(0, 0, 64, 64))); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}
