package calltest

import (
	"context"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/pion/webrtc/v4"
	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/cryptohelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/appservices"
	"switchboard/homeserver"
	"switchboard/homeserver/account"
	"switchboard/registrations"
)

// world is a homeserver with the bot.
type world struct {
	t      *testing.T
	server *homeserver.Server
	wire   *appservices.Wire
	calls  *Service
	bot    *Bot
	stop   func() // stops the bot
}

func newWorld(t *testing.T) *world {
	t.Helper()
	config := homeserver.DefaultConfig()
	config.DataDir = t.TempDir()
	config.RateLimits.Enabled = false
	set := registrations.NewSet("localhost")
	server, err := homeserver.New(t.Context(), config, set)
	if err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(zerolog.New(zerolog.NewTestWriter(t)).WithContext(context.WithoutCancel(t.Context())))
	var running sync.WaitGroup
	running.Go(func() { server.Run(ctx) })
	t.Cleanup(func() {
		server.Drain()
		stop()
		running.Wait()
		server.Close()
	})
	w := &world{t: t, server: server, wire: &appservices.Wire{Handler: server.Handlers().Client}, calls: newService(t, nil)}
	reg, err := registrations.Generate(registrations.Registration{
		ID: "calltest", SenderLocalpart: "calltest", Users: []registrations.Namespace{{Regex: "@calltest:localhost$", Exclusive: true}},
	})
	if err == nil {
		err = set.Replace([]*registrations.Registration{reg})
	}
	if err != nil {
		t.Fatal(err)
	}
	w.bot = &Bot{Calls: w.calls, User: "@calltest:localhost", Token: reg.ASToken, Secret: []byte("a secret of this server"), Wire: w.wire, Page: "https://a.test/calltest"}
	w.start(ctx)
	return w
}

// start runs the bot until stop is called or the test ends.
func (w *world) start(ctx context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		w.bot.Run(ctx)
	}()
	w.stop = sync.OnceFunc(func() { cancel(); <-done })
	w.t.Cleanup(w.stop)
}

// phone is the app of a user.
type phone struct {
	*mautrix.Client
	t      *testing.T
	room   id.RoomID
	state  sync.Mutex        // guards the client's memory of rooms
	events chan *event.Event // what others sent
}

// newPhone logs a user in; encrypted tells whether the app encrypts.
func (w *world) newPhone(name string, encrypted bool) *phone {
	w.t.Helper()
	ctx := w.t.Context()
	if _, err := w.server.Accounts.CreateUser(ctx, account.NewUser{Localpart: name, Password: "a long password"}); err != nil {
		w.t.Fatal(err)
	}
	user := id.NewUserID(name, "localhost")
	client, err := mautrix.NewClient("http://homeserver.invalid", user, "")
	if err != nil {
		w.t.Fatal(err)
	}
	client.Client = &http.Client{Transport: w.wire}
	client.StateStore = mautrix.NewMemoryStateStore()
	if _, err := client.Login(ctx, &mautrix.ReqLogin{
		Type: mautrix.AuthTypePassword, Identifier: mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: name}, Password: "a long password", StoreCredentials: true,
	}); err != nil {
		w.t.Fatal(err)
	}
	p := &phone{Client: client, t: w.t, events: make(chan *event.Event, 1000)}
	syncer := client.Syncer.(*mautrix.DefaultSyncer)
	syncer.OnEvent(func(ctx context.Context, e *event.Event) {
		p.state.Lock()
		defer p.state.Unlock()
		client.StateStoreSyncHandler(ctx, e)
	})
	syncer.OnEvent(func(_ context.Context, e *event.Event) {
		if e.Sender != user {
			p.events <- e
		}
	})
	if encrypted {
		helper, err := cryptohelper.NewCryptoHelper(client, []byte("secret"), crypto.NewMemoryStore(nil))
		if err == nil {
			err = helper.Init(ctx)
		}
		if err != nil {
			w.t.Fatal(err)
		}
		client.Crypto = helper
	}
	syncing, stop := context.WithCancel(ctx)
	done := make(chan struct{})
	go func() {
		defer close(done)
		client.SyncWithContext(syncing)
	}()
	w.t.Cleanup(func() { stop(); <-done })
	return p
}

// invite makes a chat with the bot and waits for it.
func (p *phone) invite(encrypted bool) {
	p.t.Helper()
	req := &mautrix.ReqCreateRoom{Preset: "trusted_private_chat", IsDirect: true, Invite: []id.UserID{"@calltest:localhost"}}
	if encrypted {
		req.InitialState = []*event.Event{{Type: event.StateEncryption, Content: event.Content{Parsed: &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1}}}}
	}
	made, err := p.CreateRoom(p.t.Context(), req)
	if err != nil {
		p.t.Fatal(err)
	}
	p.room = made.RoomID
	p.say(`you hear yourself`)
}

// next waits for an event of the room.
func (p *phone) next(t event.Type) *event.Event {
	p.t.Helper()
	for {
		if e := await(p.t, p.events, t.Type); e.RoomID == p.room && e.Type.Type == t.Type {
			return e
		}
	}
}

// say waits for a message that matches, and returns it.
func (p *phone) say(pattern string) string {
	p.t.Helper()
	for {
		if text := p.next(event.EventMessage).Content.AsMessage().Body; regexp.MustCompile(pattern).MatchString(text) {
			return text
		}
	}
}

// send sends an event of a call, whose party is "phone".
func (p *phone) send(t event.Type, call string, version any, content map[string]any) {
	p.t.Helper()
	content["call_id"], content["version"] = call, version
	if version != 0 {
		content["party_id"] = "phone"
	}
	p.state.Lock()
	defer p.state.Unlock()
	if _, err := p.SendMessageEvent(p.t.Context(), p.room, t, content); err != nil {
		p.t.Fatal(err)
	}
}

// call calls the bot with an offer.
func (p *phone) call(call string, version any, offer string) {
	p.t.Helper()
	p.send(event.CallInvite, call, version, map[string]any{"lifetime": 60000, "offer": map[string]any{"type": "offer", "sdp": offer}})
}

// sdpOf is the SDP in an event.
func sdpOf(e *event.Event, key string) string {
	d, _ := e.Content.Raw[key].(map[string]any)
	sdp, _ := d["sdp"].(string)
	return sdp
}

// TestCall calls the bot in each version of the protocol, with and without
// encryption, and reads its report.
func TestCall(t *testing.T) {
	w := newWorld(t)
	for _, tt := range []struct {
		name      string
		version   any
		encrypted bool
	}{{"zero", 0, false}, {"one", "1", false}, {"encrypted", "1", true}} {
		t.Run(tt.name, func(t *testing.T) {
			w := *w
			w.t = t
			p := w.newPhone(tt.name, tt.encrypted)
			p.invite(tt.encrypted)
			c := newCaller(t, webrtc.Configuration{}, webrtc.MimeTypeOpus)
			if _, err := c.pc.AddTransceiverFromKind(webrtc.RTPCodecTypeVideo, webrtc.RTPTransceiverInit{Direction: webrtc.RTPTransceiverDirectionRecvonly}); err != nil {
				t.Fatal(err)
			}
			var candidates []map[string]any
			offer := regexp.MustCompile(`(?m)^a=(candidate:.*)\r\n`).ReplaceAllStringFunc(c.offer(), func(line string) string {
				candidates = append(candidates, map[string]any{"candidate": strings.TrimSpace(strings.TrimPrefix(line, "a=")), "sdpMid": "0", "sdpMLineIndex": 0})
				return ""
			})
			p.call("c1", tt.version, offer)
			p.send(event.CallCandidates, "c1", tt.version, map[string]any{"candidates": append(candidates, map[string]any{"candidate": ""})})
			answer := p.next(event.CallAnswer)
			if tt.version == 0 && answer.Content.Raw["party_id"] != nil || answer.Content.Raw["call_id"] != "c1" {
				t.Errorf("the answer is %v", answer.Content.Raw)
			}
			if tt.encrypted != (answer.Mautrix.EventSource&event.SourceDecrypted != 0) {
				t.Error("the answer should be encrypted as the room is")
			}
			sdp := sdpOf(answer, "answer")
			if !strings.Contains(sdp, "\r\nm=video 0 ") {
				t.Errorf("video is not refused in\n%s", sdp)
			}
			c.accept(sdp)
			if tt.version == "1" {
				p.send(event.CallSelectAnswer, "c1", tt.version, map[string]any{"selected_party_id": answer.Content.Raw["party_id"]})
			}
			await(t, c.open, "the connection")
			c.talk()
			eventually(t, "the voice comes back", func() bool { return c.markers.Load() > 30 })
			p.send(event.CallHangup, "c1", tt.version, map[string]any{"reason": "user_hangup"})
			report := p.say(`^The call took`)
			for _, want := range []string{"Codec: opus", "Path: you reach the server directly over IPv", "Round trip: ", "Lost on the way here: 0.0 %"} {
				if !strings.Contains(report, want) {
					t.Errorf("%q is missing in the report:\n%s", want, report)
				}
			}
		})
	}
}

// TestCallChanged holds a call, as apps do by another offer.
func TestCallChanged(t *testing.T) {
	w := newWorld(t)
	p := w.newPhone("alice", false)
	p.invite(false)
	c := newCaller(t, webrtc.Configuration{}, webrtc.MimeTypeOpus)
	p.call("c1", "1", c.offer())
	c.accept(sdpOf(p.next(event.CallAnswer), "answer"))
	await(t, c.open, "the connection")
	p.send(event.CallNegotiate, "c1", "1", map[string]any{"lifetime": 60000, "description": map[string]any{
		"type": "offer", "sdp": strings.ReplaceAll(c.offer(), "a=sendrecv", "a=sendonly"),
	}})
	if sdp := sdpOf(p.next(event.CallNegotiate), "description"); !strings.Contains(sdp, "a=recvonly") {
		t.Errorf("held, the answer is\n%s", sdp)
	}
	p.send(event.CallHangup, "c1", "1", map[string]any{})
	p.say(`no sound came from you`)
}

// TestCallRefused makes calls that the bot does not take.
func TestCallRefused(t *testing.T) {
	w := newWorld(t)
	w.calls.Config.Peers = 1
	alice, bob := w.newPhone("alice", false), w.newPhone("bob", false)
	alice.invite(false)
	bob.invite(false)
	offer := newCaller(t, webrtc.Configuration{}, webrtc.MimeTypeOpus).offer()

	alice.call("old", "1", "not meant for the bot")
	alice.next(event.CallHangup)
	alice.say(`could not answer.*cannot be understood`)
	alice.call("huge", "1", offer+strings.Repeat("a=x:yyyyyyyyyyyyyy\r\n", 2000))
	alice.say(`could not answer.*bytes`)

	alice.call("first", "1", offer)
	alice.next(event.CallAnswer)
	alice.call("second", "1", offer)
	if got := alice.next(event.CallReject).Content.Raw; got["call_id"] != "second" {
		t.Errorf("rejected is %v", got)
	}
	bob.call("no place", 0, offer)
	bob.say(`too many call tests`)

	// Another device of alice's answered: the bot lets go without a word.
	alice.send(event.CallSelectAnswer, "first", "1", map[string]any{"selected_party_id": "another"})
	alice.say(`We did not reach each other`)
	bob.call("again", 0, offer)
	bob.next(event.CallAnswer)
	bob.send(event.CallHangup, "another call", 0, map[string]any{})
	bob.call("third", 0, offer)
	if got := bob.next(event.CallHangup).Content.Raw; got["call_id"] != "third" || got["reason"] != "user_busy" {
		t.Errorf("ended is %v", got)
	}
	w.stop() // which ends the calls that there are
	if got := bob.next(event.CallHangup).Content.Raw; got["call_id"] != "again" {
		t.Errorf("ended is %v", got)
	}
}

// TestCallAside makes calls that are not for the bot, and looks that it answers
// what comes after them.
func TestCallAside(t *testing.T) {
	w := newWorld(t)
	alice := w.newPhone("alice", false)
	alice.invite(false)
	offer := newCaller(t, webrtc.Configuration{}, webrtc.MimeTypeOpus).offer()
	alice.send(event.CallInvite, "not for you", "1", map[string]any{"lifetime": 60000, "invitee": "@bob:localhost", "offer": map[string]any{"type": "offer", "sdp": offer}})
	alice.send(event.CallInvite, "", "1", map[string]any{"lifetime": 60000, "offer": map[string]any{"type": "offer", "sdp": offer}})
	alice.send(event.CallCandidates, "unknown", "1", map[string]any{"candidates": []any{map[string]any{"candidate": "x"}}})
	alice.send(event.Type{Type: "org.matrix.msc4075.rtc.notification", Class: event.MessageEventType}, "", "1", map[string]any{"notification_type": "ring"})
	alice.say(`newer kind`)
	alice.call("for you", "1", offer)
	if got := alice.next(event.CallAnswer).Content.Raw["call_id"]; got != "for you" {
		t.Errorf("%v was answered", got)
	}
	if _, err := alice.LeaveRoom(t.Context(), alice.room); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the bot leaves, too", func() bool {
		rooms, err := w.bot.client.JoinedRooms(t.Context())
		return err == nil && len(rooms.JoinedRooms) == 0
	})
}

// TestUnreadable sends something that the bot has no key for.
func TestUnreadable(t *testing.T) {
	w := newWorld(t)
	alice := w.newPhone("alice", true)
	alice.invite(true)
	if _, err := alice.SendMessageEvent(t.Context(), alice.room, event.EventEncrypted, map[string]any{
		"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": "AwgAEnACgAkLmt6qF84IK++J7UDH2Za1YVchHyprqTqsg", "session_id": "unknown", "sender_key": "x", "device_id": "y",
	}); err != nil {
		t.Fatal(err)
	}
	alice.say(`cannot read what you sent`)
}

// TestIdentity starts the bot twice: people see the same identity, and a
// device that it vouches for.
func TestIdentity(t *testing.T) {
	w := newWorld(t)
	alice := w.newPhone("alice", true)
	look := func() (master string, devices int) {
		keys, err := alice.QueryKeys(t.Context(), &mautrix.ReqQueryKeys{DeviceKeys: mautrix.DeviceKeysRequest{"@calltest:localhost": nil}})
		if err != nil {
			t.Fatal(err)
		}
		own, signer := keys.MasterKeys["@calltest:localhost"], keys.SelfSigningKeys["@calltest:localhost"]
		for _, d := range keys.DeviceKeys["@calltest:localhost"] {
			for key := range d.Signatures["@calltest:localhost"] {
				if _, name := key.Parse(); name == string(signer.FirstKey()) {
					devices++
				}
			}
		}
		return string(own.FirstKey()), devices
	}
	ready := func() string {
		var master string
		eventually(t, "the bot has a device with its signature", func() bool {
			var n int
			master, n = look()
			return n == 1
		})
		return master
	}
	first := ready()
	w.stop()
	if _, n := look(); n != 0 {
		t.Errorf("%d devices are left of a bot that has stopped", n)
	}
	w.start(context.WithoutCancel(t.Context()))
	if again := ready(); again != first || first == "" {
		t.Errorf("its master key was %q and is %q", first, again)
	}
}
