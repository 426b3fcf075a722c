package fedclient

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// TestImpersonation has a server that publishes its key under the name of
// another. Whoever believes that lets it pass as the other.
func TestImpersonation(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		n := newInternet(t)
		evil := n.peer("evil.test", "5.5.5.1")
		victim := n.peer("victim.test", "5.5.5.2")
		c := n.client(st, n.config())
		ring := NewKeyRing(c)
		as := func(name matrix.ServerName) error {
			_, err := ring.Authenticate(inbound(t, evil.key, name, us, "GET", "/_matrix/federation/v1/x", ""), nil)
			return err
		}
		evil.answers(func() []byte {
			return keyAnswerOf(t, "victim.test", time.Now().Add(time.Hour), nil, evil.key)
		})
		if err := as("evil.test"); err == nil {
			t.Error("an answer for another server is taken for its own")
		}
		if err := as("victim.test"); err == nil {
			t.Error("evil.test passes as victim.test")
		}
		if keys, err := st.ServerKeys(t.Context(), "victim.test"); err != nil || len(keys) != 1 || keys[0].ID != victim.key.ID {
			t.Errorf("keys of victim.test: %v, %v", keys, err)
		}

		// The victim's own answer, replayed by evil.test under either name.
		evil.answers(func() []byte {
			return keyAnswerOf(t, "victim.test", time.Now().Add(time.Hour), nil, victim.key)
		})
		if err := ring.fetch(t.Context(), "evil.test", need{}); err == nil {
			t.Error("the keys of victim.test are taken for those of evil.test")
		}
	})
}

func TestParseKeyAnswer(t *testing.T) {
	now := time.Now()
	a, b, old := newKey(t), newKey(t), newKey(t)
	tomorrow := now.Add(24 * time.Hour)
	good := keyAnswerOf(t, "b.test", tomorrow, oldKey(old, now.Add(-time.Hour)), a)
	change := func(f func(m map[string]any)) []byte {
		var m map[string]any
		if err := json.Unmarshal(good, &m); err != nil {
			t.Fatal(err)
		}
		delete(m, "signatures")
		f(m)
		raw, err := json.Marshal(m)
		if err != nil {
			t.Fatal(err)
		}
		if raw, err = signing.SignJSON(raw, "b.test", a); err != nil {
			t.Fatal(err)
		}
		return raw
	}
	keys := func(m map[string]any, name string) map[string]any { return m[name].(map[string]any) }
	tests := []struct {
		name string
		body []byte
		want string // key IDs, old ones in brackets; "" for refused
	}{
		{"good", good, "a (old)"},
		{"two keys that sign", keyAnswerOf(t, "b.test", tomorrow, nil, a, b), "a b"},
		{"another server", keyAnswerOf(t, "c.test", tomorrow, nil, a), ""},
		{"another case", change(func(m map[string]any) { m["SERVER_NAME"] = "c.test" }), "a (old)"},
		{"no server", change(func(m map[string]any) { delete(m, "server_name") }), ""},
		{"not signed", []byte(strings.Replace(string(good), `"signatures"`, `"signature"`, 1)), ""},
		{"changed", []byte(strings.Replace(string(good), `"valid_until_ts":`, `"valid_until_ts":1`, 1)), ""},
		{"a key that did not sign", change(func(m map[string]any) {
			keys(m, "verify_keys")[b.ID] = map[string]any{"key": signing.EncodeBase64(b.Public())}
		}), "a (old)"},
		{"only keys that did not sign", change(func(m map[string]any) {
			m["verify_keys"] = map[string]any{b.ID: map[string]any{"key": signing.EncodeBase64(b.Public())}}
		}), ""},
		{"no keys", change(func(m map[string]any) { m["verify_keys"] = map[string]any{} }), ""},
		{"keys of another type", change(func(m map[string]any) { m["verify_keys"] = []any{} }), ""},
		{"a short key", change(func(m map[string]any) { keys(m, "verify_keys")[a.ID] = map[string]any{"key": "AAAA"} }), ""},
		{"another algorithm beside it", change(func(m map[string]any) { keys(m, "verify_keys")["rsa:1"] = map[string]any{"key": "AAAA"} }), "a (old)"},
		{"no valid_until_ts", change(func(m map[string]any) { delete(m, "valid_until_ts") }), ""},
		{"valid_until_ts is text", change(func(m map[string]any) { m["valid_until_ts"] = "1" }), ""},
		{"valid_until_ts is 0", change(func(m map[string]any) { m["valid_until_ts"] = 0 }), ""},
		{"an old key without a time", change(func(m map[string]any) {
			m["old_verify_keys"] = map[string]any{old.ID: map[string]any{"key": signing.EncodeBase64(old.Public())}}
		}), "a"},
		{"a key that is both", change(func(m map[string]any) { m["old_verify_keys"] = oldKey(a, now) }), "(a)"},
		{"twice the same name", []byte(strings.Replace(string(good), `{`, `{"server_name":"b.test",`, 1)), ""},
		{"no JSON", []byte("hello"), ""},
		{"an array", []byte("[]"), ""},
		{"too large", append(good, make([]byte, maxKeyAnswer)...), ""},
	}
	names := map[string]string{a.ID: "a", b.ID: "b", old.ID: "old"}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			answer, err := parseKeyAnswer("b.test", tt.body, now)
			got := map[string]bool{}
			if err == nil {
				for _, k := range answer.keys {
					name := names[k.ID]
					if k.ExpiredTS != 0 {
						name = "(" + name + ")"
					}
					got[name] = true
				}
			}
			want := strings.Fields(tt.want)
			if len(got) != len(want) {
				t.Errorf("%v, %v; want %v", got, err, want)
			}
			for _, name := range want {
				if !got[name] {
					t.Errorf("%v, %v; want %v", got, err, want)
				}
			}
		})
	}

	// A server may be believed for seven days, whatever it says.
	for _, years := range []int{1, 200} {
		answer, err := parseKeyAnswer("b.test", keyAnswerOf(t, "b.test", now.AddDate(years, 0, 0), nil, a), now)
		if err != nil || answer.keys[0].ValidUntilTS != now.Add(longestValidity).UnixMilli() {
			t.Errorf("%d years: %v, %v", years, answer, err)
		}
	}
	many := map[string]any{}
	for i := range 500 {
		k := old
		k.ID = fmt.Sprintf("ed25519:%d", i)
		for id, v := range oldKey(k, now) {
			many[id] = v
		}
	}
	if answer, err := parseKeyAnswer("b.test", keyAnswerOf(t, "b.test", tomorrow, many, a), now); err != nil || len(answer.keys) != 1+maxOldKeys {
		t.Errorf("many keys: %v, %v", answer, err)
	}
}

// FuzzKeyAnswer checks that all that is accepted is for the asked server, and
// that each current key has signed it.
func FuzzKeyAnswer(f *testing.F) {
	now := time.Now()
	a, b := newKey(f), newKey(f)
	f.Add(keyAnswerOf(f, "b.test", now.Add(time.Hour), oldKey(b, now), a))
	f.Add(keyAnswerOf(f, "c.test", now.Add(time.Hour), nil, a))
	f.Add([]byte(`{"server_name":"b.test","verify_keys":{"ed25519:1":{"key":"AA"}},"valid_until_ts":1,"signatures":{"b.test":{"ed25519:1":"AA"}}}`))
	f.Fuzz(func(t *testing.T, body []byte) {
		answer, err := parseKeyAnswer("b.test", body, now)
		if err != nil {
			return
		}
		if name, _ := serverNameOf(answer.json); name != "b.test" {
			t.Errorf("%q is for %q", body, name)
		}
		for _, k := range answer.keys {
			if k.ExpiredTS == 0 && signing.VerifyJSON(answer.json, "b.test", k.ID, k.Public) != nil {
				t.Errorf("%q: %s has not signed", body, k.ID)
			}
			if k.ValidUntilTS > now.Add(longestValidity).UnixMilli() && k.ExpiredTS == 0 {
				t.Errorf("%q: %s is valid too long", body, k.ID)
			}
		}
	})
}

// message builds an event of a server's user, sent at a time.
func message(t testing.TB, version string, server matrix.ServerName, key signing.Key, at time.Time) *event.PDU {
	t.Helper()
	return built(t, version, event.Draft{
		Room: "!room:" + matrix.RoomID(server), Type: "m.room.message", Sender: matrix.NewUserID("alice", server), OriginServerTS: at.UnixMilli(),
		Content: json.RawMessage(`{"body":"hello"}`), Depth: 5,
	}, server, key)
}

func built(t testing.TB, version string, d event.Draft, server matrix.ServerName, key signing.Key) *event.PDU {
	t.Helper()
	v, _ := matrix.Version(version)
	e, err := event.Build(v, d, server, key)
	if err != nil {
		t.Fatal(err)
	}
	return e
}

// wantVerified checks one event.
func wantVerified(t *testing.T, ring *KeyRing, e *event.PDU, want error) {
	t.Helper()
	err := ring.VerifyEvents(t.Context(), []*event.PDU{e})[0]
	if want == nil && err == nil {
		return
	}
	var s *SignatureError
	if want == nil || !errors.Is(err, want) || !errors.As(err, &s) || s.Event != e.ID {
		t.Errorf("%v, want %v", err, want)
	}
}

func TestVerifyEvents(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		n := newInternet(t)
		b := n.peer("b.test", "5.5.5.1")
		other := n.peer("other.test", "5.5.5.2")
		c := n.client(st, n.config())
		ring := NewKeyRing(c)
		now := time.Now()
		member := func(membership, content string) event.Draft {
			key := "@alice:b.test"
			return event.Draft{
				Room: "!r:b.test", Type: event.TypeMember, Sender: "@alice:b.test", StateKey: &key, OriginServerTS: now.UnixMilli(),
				Content: json.RawMessage(`{"membership":"` + membership + `"` + content + `}`),
			}
		}
		v11, _ := matrix.Version("11")
		tampered, err := event.Parse(v11, []byte(strings.Replace(string(message(t, "11", "b.test", b.key, now).JSON), `"depth":5`, `"depth":6`, 1)))
		if err != nil {
			t.Fatal(err)
		}
		via := `,"join_authorised_via_users_server":"@bob:other.test"`
		unsigned := built(t, "11", member("join", via), "b.test", b.key)
		signed, err := unsigned.Sign("other.test", other.key)
		if err != nil {
			t.Fatal(err)
		}
		policy := b.key
		policy.ID = signing.PolicyKeyID
		withPolicy, err := message(t, "11", "b.test", policy, now).Sign("b.test", b.key)
		if err != nil {
			t.Fatal(err)
		}
		wrongID := newKey(t)
		wrongID.ID = b.key.ID

		tests := []struct {
			name string
			e    *event.PDU
			want error
		}{
			{"good", message(t, "11", "b.test", b.key, now), nil},
			{"version 1", message(t, "1", "b.test", b.key, now), nil},
			{"version 12", message(t, "12", "b.test", b.key, now), nil},
			{"signed by another server", message(t, "11", "b.test", other.key, now), ErrNoKey},
			{"signed by another key", message(t, "11", "b.test", wrongID, now), signing.ErrWrong},
			{"changed", tampered, signing.ErrWrong},
			{"by a server that is not the sender's", built(t, "11", event.Draft{
				Room: "!r:b.test", Type: "m.x", Sender: "@alice:b.test", OriginServerTS: 1,
			}, "other.test", other.key), signing.ErrUnsigned},
			{"restricted join, signed by both", signed, nil},
			{"restricted join, signed by one", unsigned, signing.ErrUnsigned},
			{"a version without restricted joins", built(t, "7", member("join", via), "b.test", b.key), nil},
			{"a leave that names an authorizing user", built(t, "11", member("leave", via), "b.test", b.key), nil},
			{"with a policy server's key", withPolicy, nil},
			{"third-party invite", built(t, "11", member("invite", `,"third_party_invite":{}`), "other.test", other.key), nil},
			{"a join is no third-party invite", built(t, "11", member("join", `,"third_party_invite":{}`), "other.test", other.key), signing.ErrUnsigned},
			{"version 1: event ID of another server", fromOther(t, b, other), signing.ErrUnsigned},
			{"from the future", message(t, "11", "b.test", b.key, now.Add(30*24*time.Hour)), ErrNoKey},
			{"from the future, where that is no matter", message(t, "4", "b.test", b.key, now.Add(30*24*time.Hour)), nil},
			{"ours", message(t, "11", us, c.key, now), nil},
			{"a server that is not there", message(t, "11", "gone.test", newKey(t), now), ErrNoKey},
		}
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) { wantVerified(t, ring, tt.e, tt.want) })
		}
		var all []*event.PDU
		for range 20 {
			for _, tt := range tests {
				all = append(all, tt.e)
			}
		}
		for i, err := range ring.VerifyEvents(t.Context(), all) {
			if tt := tests[i%len(tests)]; !errors.Is(err, tt.want) || (err == nil) != (tt.want == nil) {
				t.Errorf("%s together with others: %v", tt.name, err)
			}
		}
		if errs := ring.VerifyEvents(t.Context(), nil); len(errs) != 0 {
			t.Errorf("of no events: %v", errs)
		}
	})
}

// fromOther is an event of b whose ID is of other, without other's signature.
func fromOther(t *testing.T, b, other *peer) *event.PDU {
	e := built(t, "1", event.Draft{Room: "!r:b.test", Type: "m.x", Sender: "@alice:b.test", OriginServerTS: 1}, other.name, other.key)
	signed, err := e.Sign(b.name, b.key)
	if err != nil {
		t.Fatal(err)
	}
	members, err := canonjson.Members(nil, signed.JSON, canonjson.Any)
	if err != nil {
		t.Fatal(err)
	}
	for i, m := range members {
		if string(m.Key) == "signatures" {
			members[i].Value = []byte(strings.Replace(string(m.Value), string(other.name), "third.test", 1))
		}
	}
	parsed, err := event.Parse(e.Version, canonjson.Object(nil, members, nil))
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

// TestKeyValidity checks what was signed when, with keys that end.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v5/#signing-key-validity-period
func TestKeyValidity(t *testing.T) {
	n := newInternet(t)
	b := n.peer("b.test", "5.5.5.1")
	old := newKey(t)
	c := n.client(sqlite(t), n.config())
	ring := NewKeyRing(c)
	clock := newClock().rule(c, ring)
	start := clock.time()
	b.answers(func() []byte {
		return keyAnswerOf(t, "b.test", clock.time().Add(time.Hour), oldKey(old, start.Add(-24*time.Hour)), b.key)
	})
	check := func(name, version string, key signing.Key, at time.Time, want error) {
		t.Helper()
		t.Run(name, func(t *testing.T) { wantVerified(t, ring, message(t, version, "b.test", key, at), want) })
	}
	check("an old key before its end", "11", old, start.Add(-25*time.Hour), nil)
	check("at its end", "11", old, start.Add(-24*time.Hour), nil)
	check("behind its end", "11", old, start.Add(-23*time.Hour), ErrNoKey)
	check("behind its end in an old version", "4", old, start.Add(-23*time.Hour), ErrNoKey)
	check("a current key", "11", b.key, start, nil)
	asked := b.timesAsked()
	check("behind its end, where it is asked again", "11", b.key, start.Add(2*time.Hour), ErrNoKey)
	if b.timesAsked() != asked {
		t.Error("asked again within a minute")
	}
	check("behind its end in an old version", "4", b.key, start.Add(2*time.Hour), nil)
	clock.forward(90 * time.Minute)
	check("after it was renewed", "11", b.key, start.Add(2*time.Hour), nil)
	if b.timesAsked() != asked+1 {
		t.Errorf("asked %d times", b.timesAsked()-asked)
	}

	// The server is gone: what it signed before can still be verified.
	b.answers(nil)
	clock.forward(30 * 24 * time.Hour)
	fresh := NewKeyRing(c)
	clock.rule(c, fresh)
	ring = fresh
	check("from the store", "11", b.key, start, nil)
	check("what it cannot have renewed", "11", b.key, clock.time(), ErrNoKey)
}

// TestKeysAreAskedOnce has many callers at once, and then a server that fails.
func TestKeysAreAskedOnce(t *testing.T) {
	n := newInternet(t)
	b := n.peer("b.test", "5.5.5.1")
	c := n.client(sqlite(t), n.config())
	ring := NewKeyRing(c)
	clock := newClock().rule(c, ring)
	e := message(t, "11", "b.test", b.key, clock.time())
	var group sync.WaitGroup
	for range 50 {
		group.Go(func() {
			if err := ring.VerifyEvents(t.Context(), []*event.PDU{e})[0]; err != nil {
				t.Error(err)
			}
		})
	}
	group.Wait()
	if n := b.timesAsked(); n != 1 {
		t.Errorf("asked %d times", n)
	}
	d := n.peer("d.test", "5.5.5.2")
	d.answers(nil)
	e = message(t, "11", "d.test", d.key, clock.time())
	for range 600 { // minutes
		wantVerified(t, ring, e, ErrNoKey)
		clock.forward(time.Minute)
	}
	if n := d.timesAsked(); n < 8 || n > 20 {
		t.Errorf("asked %d times in ten hours", n)
	}
}

// notary makes a peer that answers questions for the keys of others.
func (n *internet) notary(p *peer, answers map[matrix.ServerName]func() []byte) {
	p.mux.HandleFunc("POST /_matrix/key/v2/query", func(w http.ResponseWriter, r *http.Request) {
		var query struct {
			Keys map[matrix.ServerName]map[string]struct {
				Until int64 `json:"minimum_valid_until_ts"`
			} `json:"server_keys"`
		}
		if err := json.NewDecoder(r.Body).Decode(&query); err != nil {
			n.t.Error(err)
		}
		list := []json.RawMessage{}
		for name, keys := range query.Keys {
			for _, k := range keys {
				if k.Until == 0 {
					n.t.Errorf("no minimum_valid_until_ts for %s", name)
				}
			}
			if f := answers[name]; f != nil {
				list = append(list, f())
			}
		}
		if f := answers["always"]; f != nil {
			list = append(list, f())
		}
		_ = json.NewEncoder(w).Encode(map[string]any{"server_keys": list})
	})
}

func TestNotaries(t *testing.T) {
	for _, tt := range []struct {
		name  string
		gone  func(t *testing.T, key signing.Key) []byte // what gone.test once said
		trust func(notary signing.Key) map[string]string
		sign  bool
		want  error
	}{
		{"good", func(t *testing.T, k signing.Key) []byte {
			return keyAnswerOf(t, "gone.test", time.Now().Add(time.Hour), nil, k)
		}, nil, true, nil},
		{"with a key from the configuration", func(t *testing.T, k signing.Key) []byte {
			return keyAnswerOf(t, "gone.test", time.Now().Add(time.Hour), nil, k)
		}, func(notary signing.Key) map[string]string {
			return map[string]string{notary.ID: signing.EncodeBase64(notary.Public())}
		}, true, nil},
		{"with another key from the configuration", func(t *testing.T, k signing.Key) []byte {
			return keyAnswerOf(t, "gone.test", time.Now().Add(time.Hour), nil, k)
		}, func(notary signing.Key) map[string]string {
			return map[string]string{notary.ID: signing.EncodeBase64(make([]byte, 32))}
		}, true, ErrNoKey},
		{"not signed by the notary", func(t *testing.T, k signing.Key) []byte {
			return keyAnswerOf(t, "gone.test", time.Now().Add(time.Hour), nil, k)
		}, nil, false, ErrNoKey},
		{"not signed by the server", func(t *testing.T, k signing.Key) []byte {
			raw, err := json.Marshal(map[string]any{
				"server_name": "gone.test", "valid_until_ts": time.Now().Add(time.Hour).UnixMilli(),
				"verify_keys": map[string]any{k.ID: map[string]string{"key": signing.EncodeBase64(k.Public())}},
			})
			if err != nil {
				t.Fatal(err)
			}
			return raw
		}, nil, true, ErrNoKey},
		{"for another server", func(t *testing.T, k signing.Key) []byte {
			return keyAnswerOf(t, "other.test", time.Now().Add(time.Hour), nil, k)
		}, nil, true, ErrNoKey},
	} {
		t.Run(tt.name, func(t *testing.T) {
			n := newInternet(t)
			notary := n.peer("notary.test", "5.5.5.1")
			key := newKey(t)
			answer := func() []byte {
				raw := tt.gone(t, key)
				if tt.sign {
					var err error
					if raw, err = signing.SignJSON(raw, "notary.test", notary.key); err != nil {
						t.Fatal(err)
					}
				}
				return raw
			}
			n.notary(notary, map[matrix.ServerName]func() []byte{"gone.test": answer})
			config := n.config()
			config.Notaries = []NotaryConfig{{Server: "down.test"}, {Server: "notary.test"}}
			if tt.trust != nil {
				config.Notaries[1].Keys = tt.trust(notary.key)
			}
			st := sqlite(t)
			ring := NewKeyRing(n.client(st, config))
			wantVerified(t, ring, message(t, "11", "gone.test", key, time.Now()), tt.want)
			if keys, err := st.ServerKeys(t.Context(), "other.test"); err != nil || len(keys) != 0 {
				t.Errorf("keys that nobody asked for: %v, %v", keys, err)
			}
		})
	}
}

// TestNotaryFirst verifies events of more servers than are asked one by one.
func TestNotaryFirst(t *testing.T) {
	n := newInternet(t)
	notary := n.peer("notary.test", "5.5.5.1")
	answers := map[matrix.ServerName]func() []byte{}
	var events []*event.PDU
	alive := n.peer("alive.test", "5.5.5.2")
	for i := range 3 * notaryBatch {
		name, key := matrix.ServerName(fmt.Sprintf("s%d.test", i)), newKey(t)
		events = append(events, message(t, "11", name, key, time.Now()))
		answers[name] = func() []byte {
			raw, err := signing.SignJSON(keyAnswerOf(t, name, time.Now().Add(time.Hour), nil, key), "notary.test", notary.key)
			if err != nil {
				t.Error(err)
			}
			return raw
		}
	}
	events = append(events, message(t, "11", "alive.test", alive.key, time.Now()), message(t, "11", "dead.test", newKey(t), time.Now()))
	n.notary(notary, answers)
	config := n.config()
	config.Notaries = []NotaryConfig{{Server: "notary.test"}}
	ring := NewKeyRing(n.client(sqlite(t), config))
	errs := ring.VerifyEvents(t.Context(), events)
	for i, err := range errs[:len(errs)-1] {
		if err != nil {
			t.Errorf("%s: %v", events[i].Sender, err)
		}
	}
	if !errors.Is(errs[len(errs)-1], ErrNoKey) {
		t.Errorf("dead.test: %v", errs[len(errs)-1])
	}
	if n.looked("s1.test") > 0 {
		t.Error("a server was asked whose keys the notary had")
	}
}

// TestSecondHand checks that what a notary says can add to what a server said
// itself, and take nothing back.
func TestSecondHand(t *testing.T) {
	const now = 1000
	public, other := newKey(t).Public(), newKey(t).Public()
	known := store.ServerKey{ID: "k", Public: public, ValidUntilTS: 2000}
	stale := store.ServerKey{ID: "k", Public: public, ValidUntilTS: 500}
	expired := store.ServerKey{ID: "k", Public: public, ValidUntilTS: 500, ExpiredTS: 500}
	tests := []struct {
		name        string
		known, told store.ServerKey
		taken       bool
	}{
		{"new", store.ServerKey{}, known, true},
		{"longer", known, store.ServerKey{ID: "k", Public: public, ValidUntilTS: 3000}, true},
		{"shorter", known, stale, false},
		{"ends", known, expired, true},
		{"lives again", expired, store.ServerKey{ID: "k", Public: public, ValidUntilTS: 3000}, false},
		{"another key of that name", known, store.ServerKey{ID: "k", Public: other, ValidUntilTS: 3000}, false},
		{"another key in place of one that has run out", stale, store.ServerKey{ID: "k", Public: other, ValidUntilTS: 3000}, true},
	}
	for _, tt := range tests {
		s := &serverKeys{map[string]store.ServerKey{}}
		if tt.known.ID != "" {
			s.keys["k"] = tt.known
		}
		next, changed := s.with([]store.ServerKey{tt.told}, true, now)
		if (len(changed) == 1) != tt.taken || tt.taken && next.keys["k"].ValidUntilTS != tt.told.ValidUntilTS {
			t.Errorf("%s: %v", tt.name, changed)
		}
		if _, changed := s.with([]store.ServerKey{tt.told}, false, now); len(changed) != 1 {
			t.Errorf("%s: the server itself is not believed", tt.name)
		}
	}
}

func TestPublished(t *testing.T) {
	n := newInternet(t)
	old := newKey(t)
	config := n.config()
	config.OldKeys = []OldKeyConfig{{ID: old.ID, Public: signing.EncodeBase64(old.Public()), ExpiredTS: 1000}}
	c := n.client(sqlite(t), config)
	ring := NewKeyRing(c)
	clock := newClock().rule(c, ring) // the hour does not change
	body, err := ring.Published()
	if err != nil {
		t.Fatal(err)
	}
	answer, err := parseKeyAnswer(us, body, clock.time())
	if err != nil || len(answer.keys) != 2 {
		t.Fatalf("%s: %v", body, err)
	}
	for _, k := range answer.keys {
		switch {
		case k.ID == c.key.ID && k.ExpiredTS == 0 && k.Public.Equal(c.key.Public()):
		case k.ID == old.ID && k.ExpiredTS == 1000 && k.Public.Equal(old.Public()):
		default:
			t.Errorf("key %+v", k)
		}
	}
	if left := time.UnixMilli(answer.validUntil).Sub(clock.time()); left < publishLife || left > publishLife+publishStep {
		t.Errorf("valid for %s", left)
	}
	if again, err := ring.Published(); err != nil || string(again) != string(body) {
		t.Errorf("the next answer differs: %v", err)
	}
	wantVerified(t, ring, message(t, "11", us, old, time.UnixMilli(900)), nil)
	wantVerified(t, ring, message(t, "11", us, old, time.UnixMilli(1100)), ErrNoKey)
}

// TestNotary is a notary of ours that another server of ours asks.
func TestNotary(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		n := newInternet(t)
		b := n.peer("b.test", "5.5.5.1")
		c := n.client(st, n.config())
		ring := NewKeyRing(c)
		clock := newClock().rule(c, ring)
		ask := func(id string, until int64) []json.RawMessage {
			t.Helper()
			keys := map[string]int64{}
			if id != "" {
				keys[id] = until
			}
			list, err := ring.Notary(t.Context(), map[matrix.ServerName]map[string]int64{"b.test": keys, "gone.test": {}, us: {}, "bad name": {}})
			if err != nil {
				t.Fatal(err)
			}
			for _, body := range list {
				if err := signing.VerifyJSON(body, string(us), c.key.ID, c.key.Public()); err != nil {
					t.Errorf("%s: %v", body, err)
				}
			}
			return list
		}
		list := ask("", 0)
		if len(list) != 2 { // b.test and we
			t.Fatalf("%s", list)
		}
		answer, err := parseKeyAnswer("b.test", list[0], clock.time())
		if err != nil || answer.keys[0].ID != b.key.ID {
			t.Fatalf("%s: %v", list[0], err)
		}
		ask(b.key.ID, 0)
		if b.timesAsked() != 1 {
			t.Errorf("asked %d times", b.timesAsked())
		}
		clock.forward(13 * time.Hour) // more than half of its life
		ask("", 0)
		if b.timesAsked() != 2 {
			t.Errorf("asked %d times, not again after half of its life", b.timesAsked())
		}
		clock.forward(2 * time.Minute)
		ask(b.key.ID, clock.time().Add(100*24*time.Hour).UnixMilli())
		if b.timesAsked() != 3 {
			t.Errorf("asked %d times, not again for a longer life", b.timesAsked())
		}

		// The key changes: the old answer is still there for who asks for it.
		first := b.key
		next := newKey(t)
		b.answers(func() []byte { return keyAnswerOf(t, "b.test", clock.time().Add(24*time.Hour), nil, next) })
		clock.forward(13 * time.Hour)
		if list = ask(first.ID, 0); len(list) != 3 {
			t.Errorf("%d answers, not the new one, the old one and ours", len(list))
		}
		if list = ask("", 0); len(list) != 2 {
			t.Errorf("%d answers, not the new one and ours", len(list))
		}
		b.answers(nil)
		clock.forward(30 * 24 * time.Hour)
		if list = ask("", 0); len(list) != 2 {
			t.Errorf("%d answers when the server is down", len(list))
		}

		tooMany := map[matrix.ServerName]map[string]int64{}
		for i := range MaxNotaryServers + 1 {
			tooMany[matrix.ServerName(fmt.Sprintf("s%d.test", i))] = nil
		}
		_, err = ring.Notary(t.Context(), tooMany)
		wantCode(t, err, matrix.InvalidParam, 400)
		many := map[string]int64{}
		for i := range maxNeeds + 1 {
			many[fmt.Sprintf("ed25519:%d", i)] = 0
		}
		_, err = ring.Notary(t.Context(), map[matrix.ServerName]map[string]int64{"b.test": many})
		wantCode(t, err, matrix.InvalidParam, 400)
	})
}

func TestVerifyJSON(t *testing.T) {
	n := newInternet(t)
	b := n.peer("b.test", "5.5.5.1")
	ring := NewKeyRing(n.client(sqlite(t), n.config()))
	obj, err := signing.SignJSON([]byte(`{"a":1}`), "b.test", b.key)
	if err != nil {
		t.Fatal(err)
	}
	now := time.Now().UnixMilli()
	if err := ring.VerifyJSON(t.Context(), "b.test", obj, now); err != nil {
		t.Error(err)
	}
	changed := []byte(strings.Replace(string(obj), `"a":1`, `"a":2`, 1))
	if err := ring.VerifyJSON(t.Context(), "b.test", changed, now); !errors.Is(err, signing.ErrWrong) {
		t.Errorf("changed: %v", err)
	}
	if err := ring.VerifyJSON(t.Context(), "c.test", obj, now); !errors.Is(err, signing.ErrUnsigned) {
		t.Errorf("another server: %v", err)
	}
	if err := ring.VerifyJSON(t.Context(), "b.test", obj, now+longestValidity.Milliseconds()); !errors.Is(err, ErrNoKey) {
		t.Errorf("later: %v", err)
	}
	if _, err := ring.Key(t.Context(), "b.test", b.key.ID, now); err != nil {
		t.Error(err)
	}
}

// BenchmarkVerifyEvents is the time of one event of a batch, next to which the
// bare signature is to be compared.
func BenchmarkVerifyEvents(b *testing.B) {
	key := newKey(b)
	ring := &KeyRing{client: &Client{server: "b.test", key: key}, own: &serverKeys{map[string]store.ServerKey{
		key.ID: {ID: key.ID, Public: key.Public(), ValidUntilTS: time.Now().Add(time.Hour).UnixMilli()},
	}}}
	events := make([]*event.PDU, 1000)
	for i := range events {
		events[i] = message(b, "11", "b.test", key, time.Now().Add(-time.Duration(i)*time.Second))
	}
	b.Run("events", func(b *testing.B) {
		for i := 0; i < b.N; i += len(events) {
			for _, err := range ring.VerifyEvents(b.Context(), events[:min(len(events), b.N-i)]) {
				if err != nil {
					b.Fatal(err)
				}
			}
		}
	})
	b.Run("signatures on one core", func(b *testing.B) {
		msg := []byte(strings.Repeat("x", 500))
		sig := key.Sign(msg)
		for b.Loop() {
			if err := signing.Verify(msg, sig, key.Public()); err != nil {
				b.Fatal(err)
			}
		}
	})
}
