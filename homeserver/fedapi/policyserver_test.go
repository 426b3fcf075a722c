package fedapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
)

// policyHost is a homeserver that is a policy server too: it signs what does not
// hold the word spam.
type policyHost struct {
	*host
	key    signing.Key
	status int    // of all answers, if not 0
	answer string // with it

	mu    sync.Mutex // tier 1; guards asked
	asked []string   // types of the events
}

func newPolicyHost(h *host) *policyHost {
	h.Helper()
	key, err := signing.Generate()
	h.ok(err)
	key.ID = signing.PolicyKeyID
	p := &policyHost{host: h, key: key}
	api := h.front
	h.front = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method != "POST" || r.URL.Path != "/_matrix/policy/v1/sign" {
			api.ServeHTTP(w, r)
			return
		}
		body, err := io.ReadAll(r.Body)
		if _, refused := h.api.KeyRing.Authenticate(r, body); err != nil || refused != nil {
			http.Error(w, `{"errcode":"M_UNAUTHORIZED"}`, http.StatusUnauthorized)
			return
		}
		p.sign(w, body)
	})
	return p
}

func (p *policyHost) sign(w http.ResponseWriter, body []byte) {
	e, err := event.Parse(must(matrix.Version("12")), body)
	if err != nil {
		http.Error(w, `{"errcode":"M_BAD_JSON"}`, 400)
		return
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	p.asked = append(p.asked, e.Type)
	switch {
	case p.status != 0:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(p.status)
		fmt.Fprint(w, p.answer)
		return
	case strings.Contains(string(e.Content), "spam"):
		w.WriteHeader(400)
		fmt.Fprint(w, `{"errcode":"M_FORBIDDEN","error":"the message is spam"}`)
		return
	}
	signed, err := e.Sign(p.name, p.key)
	if err != nil {
		http.Error(w, err.Error(), 500)
		return
	}
	for id, sig := range signing.Signatures(signed.Signatures(), string(p.name)) {
		if id == signing.PolicyKeyID {
			json.NewEncoder(w).Encode(map[matrix.ServerName]map[string]string{p.name: {id: sig}})
		}
	}
}

func must[T any](v T, ok bool) T {
	if !ok {
		panic("missing")
	}
	return v
}

// answers makes all further questions get an answer; 0 makes it judge again.
func (p *policyHost) answers(status int, answer string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.status, p.answer = status, answer
}

// questions are the types of the events that it was asked about since the last
// call.
func (p *policyHost) questions() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	defer func() { p.asked = nil }()
	return strings.Join(p.asked, " ")
}

// guard makes it the policy server of a room.
func (p *policyHost) guard(by *host, admin matrix.UserID, id matrix.RoomID, key string) {
	p.Helper()
	by.state(admin, id, event.TypePolicy, fmt.Sprintf(`{"via":%q,"public_keys":{"ed25519":%q}}`, p.name, key))
}

// publicKey is the key that the room is to have.
func (p *policyHost) publicKey() string {
	return signing.EncodeBase64(p.key.Public())
}

// status is what became of an event on this server.
func (h *host) status(id matrix.EventID) store.Status {
	h.Helper()
	e, err := h.st.Event(h.ctx(), id)
	h.ok(err)
	return e.Status
}

func (h *host) trySay(user matrix.UserID, id matrix.RoomID, text string) error {
	h.Helper()
	_, err := h.rooms.Send(h.ctx(), room.Sending{User: user, Room: id, Type: "m.room.message", Content: json.RawMessage(fmt.Sprintf(`{"body":%q}`, text)), Txn: text})
	return err
}

// TestPolicyServer is a room of three servers, the last of which is the room's
// policy server.
func TestPolicyServer(t *testing.T) {
	together(t, 3, func(t *testing.T, hosts []*host) {
		a, b, p := hosts[0], hosts[1], newPolicyHost(hosts[2])
		alice, bob, police := a.user("alice"), b.user("bob"), p.user("police")
		id := a.public(alice, "12")
		p.guard(a, alice, id, p.publicKey())
		a.say(alice, id, "spam") // nobody of the policy server is in the room yet
		if got := p.questions(); got != "" {
			t.Fatalf("before it was in the room it was asked about %s", got)
		}
		p.join(police, id, a)
		b.join(bob, id, a)
		if got := p.questions(); got != "m.room.member" {
			t.Errorf("asked about %q, want bob's join", got)
		}
		join := a.event(b.memberEvent(bob, id))
		key, err := signing.ParsePublicKey(p.publicKey())
		a.ok(err)
		a.ok(join.VerifySignature(p.name, signing.PolicyKeyID, key))

		hello := a.say(alice, id, "hello")
		a.ok(hello.VerifySignature(p.name, signing.PolicyKeyID, key))
		p.questions()
		a.tell(b, hello)
		if got := p.questions(); got != "" || b.status(hello.ID) != store.Accepted {
			t.Errorf("b asked about %q, and the event is %d", got, b.status(hello.ID))
		}

		a.refused(a.trySay(alice, id, "spam"), matrix.Forbidden)
		if err := a.trySay(alice, id, "spam"); !strings.Contains(err.Error(), "the message is spam") {
			t.Errorf("the client is told %v", err)
		}
		if got := a.texts(id); got != "spam hello" {
			t.Errorf("a has %q", got)
		}
		a.state(alice, id, "m.room.topic", `{"topic":"tea"}`)
		a.refused(a.rooms.Ban(a.ctx(), room.Change{Room: id, Actor: alice, Target: bob, Reason: new("spam")}), matrix.Forbidden)
		p.questions()
		a.state(alice, id, event.TypePolicy, fmt.Sprintf(`{"via":%q,"public_keys":{"ed25519":%q},"n":1}`, p.name, p.publicKey()))
		if got := p.questions(); got != "" {
			t.Errorf("it was asked about %s, which is about itself", got)
		}
		a.send(alice, id, event.TypePolicy, new("other"), `{}`)
		a.send(alice, id, event.TypePolicy, nil, `{}`)
		if got := p.questions(); got != event.TypePolicy+" "+event.TypePolicy {
			t.Errorf("asked about %q", got)
		}

		p.ok(p.fed.Leave(p.ctx(), room.Change{Room: id, Actor: police}))
		p.tellLeave(a, police, id)
		a.say(alice, id, "spam, which nobody looks at now")
	})
}

// TestUnvettedEvents are those of a server that does not ask.
func TestUnvettedEvents(t *testing.T) {
	together(t, 3, func(t *testing.T, hosts []*host) {
		a, b, p := hosts[0], hosts[1], newPolicyHost(hosts[2])
		alice, bob, police := a.user("alice"), b.user("bob"), p.user("police")
		id := a.public(alice, "12")
		b.join(bob, id, a)
		p.join(police, id, a)
		key := p.publicKey()
		guard := func(key string) { p.guard(a, alice, id, key) } // b does not hear of it
		guard(key)
		careless := func(text string, want store.Status) *event.PDU {
			t.Helper()
			e := b.say(bob, id, text)
			b.tell(a, e)
			if got := a.status(e.ID); got != want {
				t.Errorf("%s: the event is %d, want %d", text, got, want)
			}
			return a.event(e.ID)
		}
		good := careless("hello", store.Accepted)
		public, err := signing.ParsePublicKey(key)
		a.ok(err)
		a.ok(good.VerifySignature(p.name, signing.PolicyKeyID, public)) // a asked, and keeps the signature
		careless("spam", store.SoftFailed)
		careless("again", store.Accepted) // what is soft-failed is no end of the room

		guard(b.keyText()) // another key: what p says is worth nothing now
		careless("wrong key", store.SoftFailed)
		a.refused(a.trySay(alice, id, "wrong key"), matrix.Forbidden)
		guard("no key at all")
		careless("no key", store.SoftFailed)
		guard(key)

		p.answers(404, `{"errcode":"M_NOT_FOUND","error":"unknown room"}`)
		careless("not known", store.SoftFailed)
		a.refused(a.trySay(alice, id, "not known"), matrix.NotFound)
		p.answers(200, `{}`)
		careless("no signature", store.SoftFailed)
		a.refused(a.trySay(alice, id, "no signature"), matrix.Unknown)
		p.answers(0, "")

		a.state(alice, id, event.TypePolicy, `{}`)
		careless("spam, which anybody may send now", store.Accepted)
		guard(key)
		careless("more spam", store.SoftFailed)
		r, err := a.st.Room(a.ctx(), id)
		a.ok(err)
		policy, err := a.rooms.StateEvent(a.ctx(), r.Current, event.TypePolicy, "")
		a.ok(err)
		_, err = a.rooms.Redact(a.ctx(), room.Sending{User: alice, Room: id, Redacts: policy.PDU.ID}, nil)
		a.ok(err)
		careless("spam after the redaction", store.Accepted)

		guard(key)
		p.answers(500, `{}`)
		p.questions()
		for rested := false; !rested; { // longer each time
			began := time.Now()
			var e *matrix.Error
			if err := a.trySay(alice, id, "no answer"); !errors.As(err, &e) || e.HTTPStatus() != 502 || !strings.Contains(e.Text, "gives no answer") {
				t.Fatalf("the client is told %v", err)
			}
			careless("no answer", store.SoftFailed)
			got := p.questions()
			if rested = time.Since(began) < e.RetryAfter; rested && strings.Contains(got, " ") {
				t.Errorf("a server that does not answer was asked about %q", got)
			}
		}
	})
}

// keyText is the public key of a server.
func (h *host) keyText() string { return signing.EncodeBase64(h.key.Public()) }

// TestBusyPolicyServer has more to do than it can.
func TestBusyPolicyServer(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, p := hosts[0], newPolicyHost(hosts[1])
		alice, police := a.user("alice"), p.user("police")
		id := a.public(alice, "12")
		p.join(police, id, a)
		p.guard(a, alice, id, p.publicKey())
		p.answers(429, `{"errcode":"M_LIMIT_EXCEEDED","error":"slowly","retry_after_ms":60000}`)
		for range 2 {
			var e *matrix.Error
			if err := a.trySay(alice, id, "hello"); !errors.As(err, &e) || e.Code != matrix.LimitExceeded || e.RetryAfter <= 0 {
				t.Errorf("the client is told %v", err)
			}
		}
		if got := p.questions(); got != "m.room.message" {
			t.Errorf("asked about %q", got)
		}
	})
}

// TestManySendersAndAPolicyServer lets users speak at the same time, each while
// the policy server thinks about what the others say.
func TestManySendersAndAPolicyServer(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, p := hosts[0], newPolicyHost(hosts[1])
		alice, police := a.user("alice"), p.user("police")
		id := a.public(alice, "12")
		p.join(police, id, a)
		p.guard(a, alice, id, p.publicKey())
		var group sync.WaitGroup
		for i := range 20 {
			group.Go(func() {
				if err := a.trySay(alice, id, fmt.Sprint("hello", i/2)); err != nil { // each is sent twice
					t.Error(err)
				}
			})
		}
		group.Wait()
		if got := strings.Fields(a.texts(id)); len(got) != 10 {
			t.Errorf("a has %q", got)
		}
		target := a.say(alice, id, "wrong")
		_, err := a.rooms.Redact(a.ctx(), room.Sending{User: alice, Room: id, Redacts: target.ID}, nil)
		a.ok(err)
		if got := string(a.event(target.ID).Content); got != "{}" {
			t.Errorf("after its redaction the event holds %s", got)
		}
	})
}
