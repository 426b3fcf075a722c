package client_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"sync"
	"testing"

	"mellium.im/xmpp/jid"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/xmpp/client"
	"switchboard/bridges/xmpp/xmpptest"
	"switchboard/cmd/dev/leaktest"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { leaktest.Main(m) }

// recorder is a client with what it has told.
type recorder struct {
	*client.Client
	t *testing.T

	mu     sync.Mutex
	events []client.Event
}

func config(t *testing.T, s *xmpptest.Server, address, name, password string) client.Config {
	t.Helper()
	text, err := os.ReadFile(s.CAFile)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(text)
	return client.Config{
		JID: jid.MustParse(s.Account(name)), Password: password, Address: address, TLS: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
	}
}

func run(t *testing.T, c client.Config) *recorder {
	t.Helper()
	r := &recorder{t: t}
	r.Client = client.New(c, func(e client.Event) {
		r.mu.Lock()
		defer r.mu.Unlock()
		r.events = append(r.events, e)
	})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Errorf("run: %v", err)
		}
	})
	bridgetest.Eventually(t, "connected", r.Online)
	if err := r.Begin(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := r.Roster(ctx); err != nil { // by then the server knows that we are here
		t.Fatal(err)
	}
	return r
}

func all[E client.Event](r *recorder) []E {
	r.mu.Lock()
	defer r.mu.Unlock()
	var out []E
	for _, e := range r.events {
		if e, ok := e.(E); ok {
			out = append(out, e)
		}
	}
	return out
}

func await[E client.Event](r *recorder, what string, match func(E) bool) E {
	r.t.Helper()
	var found E
	bridgetest.Eventually(r.t, what, func() bool {
		i := slices.IndexFunc(all[E](r), match)
		if i >= 0 {
			found = all[E](r)[i]
		}
		return i >= 0
	})
	return found
}

func TestLogin(t *testing.T) {
	s := xmpptest.Start(t)
	good := config(t, s, s.Address, "alice", xmpptest.Password)
	if err := client.New(good, func(client.Event) {}).Try(t.Context()); err != nil {
		t.Errorf("the right password: %v", err)
	}
	var refused *client.AuthError
	wrong := config(t, s, s.Address, "alice", "wrong")
	if err := client.New(wrong, func(client.Event) {}).Try(t.Context()); !errors.As(err, &refused) {
		t.Errorf("the wrong password: %v", err)
	}
	foreign := good
	foreign.TLS = nil
	if err := client.New(foreign, func(client.Event) {}).Try(t.Context()); err == nil || errors.As(err, &refused) {
		t.Errorf("a certificate of an unknown authority: %v", err)
	}
	nowhere := good
	nowhere.Dial = func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("not allowed") }
	if err := client.New(nowhere, func(client.Event) {}).Try(t.Context()); err == nil || errors.As(err, &refused) {
		t.Errorf("a dialer that refuses: %v", err)
	}
}

func post(to jid.JID, group bool, id, body string) *client.Element {
	return client.Post{To: to, Group: group, ID: id, Body: body}.Element()
}

func TestRoom(t *testing.T) {
	s := xmpptest.Start(t)
	room := jid.MustParse("den@" + xmpptest.Rooms)
	bob := s.Person("bob")
	bob.Enter(room.String(), "bob")
	carol := s.Person("carol")
	carol.Enter(room.String(), "alice")
	alice := run(t, config(t, s, s.Address, "alice", xmpptest.Password))
	nick, err := alice.Enter(t.Context(), client.Enter{Room: room, Nick: "alice"})
	if err != nil || nick != "alice_" {
		t.Fatalf("the nick is %q: %v", nick, err)
	}
	in, ok := alice.Room(room)
	if !ok || len(in.Occupants) != 3 || in.Occupants["bob"].JID.String() != bob.JID || in.Occupants["bob"].Affiliation != "owner" {
		t.Fatalf("the room is %+v", in)
	}
	info, err := alice.Info(t.Context(), room)
	if err != nil || !info.Archived || info.Anonymous {
		t.Errorf("the room says of itself %+v: %v", info, err)
	}

	alice.Send(post(room, true, "x1", "hello"), nil)
	echo := await(alice, "the echo", func(m *client.Message) bool { return m.ID == "x1" })
	if echo.Archive == "" || echo.From.Resourcepart() != "alice_" {
		t.Errorf("the echo is %+v", echo)
	}
	bob.Await("hello", func(m xmpptest.Stanza) bool { return m.Body == "hello" && m.StanzaID.ID == echo.Archive })

	carol.Send(`<presence to="%s/%s"/>`, room.String(), "kate")
	await(alice, "a new nick", func(e client.OccupantRenamed) bool { return e.From.Nick == "alice" && e.To == "kate" && !e.Self })
	carol.Send(`<presence to="%s/%s" type="unavailable"><status>bye</status></presence>`, room.String(), "kate")
	await(alice, "that somebody left", func(e client.OccupantGone) bool {
		return e.Nick == "kate" && e.How == client.Left && e.Reason == "bye" && !e.Self
	})
	bob.Send(`<iq type="set" id="k" to="%s"><query xmlns="http://jabber.org/protocol/muc#admin"><item nick="alice_" role="none"><reason>enough</reason></item></query></iq>`, room.String())
	await(alice, "to be kicked", func(e client.OccupantGone) bool {
		return e.Self && e.How == client.Kicked && e.Reason == "enough" && e.Actor == "bob"
	})
	if _, ok := alice.Room(room); ok {
		t.Error("alice is still in the room")
	}
	bob.Send(`<iq type="set" id="k2" to="%s"><query xmlns="http://jabber.org/protocol/muc#admin"><item jid="alice@xmpp.test" affiliation="outcast"/></query></iq>`, room.String())
	bob.Await("that the ban is done", func(m xmpptest.Stanza) bool { return m.ID == "k2" && m.Type == "result" })
	var refused *client.StanzaError
	if _, err := alice.Enter(t.Context(), client.Enter{Room: room, Nick: "alice"}); !errors.As(err, &refused) || refused.Condition != "forbidden" {
		t.Errorf("entering when banned: %v", err)
	}
}

func TestArchive(t *testing.T) {
	s := xmpptest.Start(t)
	bob := s.Person("bob")
	alice := run(t, config(t, s, s.Address, "alice", xmpptest.Password))
	if ok, err := alice.HasArchive(t.Context()); !ok || err != nil {
		t.Fatalf("there is no archive: %v", err)
	}
	for i := range 5 {
		bob.Send(`<message to="%s" type="chat" id="%s"><body>%s</body></message>`, "alice@"+xmpptest.Domain, fmt.Sprintf("b%d", i), fmt.Sprint(i))
	}
	first := await(alice, "the first message", func(m *client.Message) bool { return m.Body == "0" })
	await(alice, "the last message", func(m *client.Message) bool { return m.Body == "4" })
	page, err := alice.Archive(t.Context(), client.Query{After: first.Archive, Max: 2})
	if err != nil || len(page.Messages) != 2 || page.Messages[0].Body != "1" || page.Complete {
		t.Fatalf("the page is %+v: %v", page, err)
	}
	page, err = alice.Archive(t.Context(), client.Query{After: page.Last, Max: 10})
	if err != nil || len(page.Messages) != 2 || page.Messages[1].Body != "4" || !page.Complete {
		t.Fatalf("the next page is %+v: %v", page, err)
	}
	page, err = alice.Archive(t.Context(), client.Query{Max: 1})
	if err != nil || len(page.Messages) != 1 || page.Messages[0].Body != "4" {
		t.Fatalf("the newest is %+v: %v", page, err)
	}
	var refused *client.StanzaError
	if _, err := alice.Archive(t.Context(), client.Query{After: "no-such-id", Max: 1}); !errors.As(err, &refused) || refused.Condition != "item-not-found" {
		t.Errorf("an unknown ID: %v", err)
	}
}

// TestPing asks a room whether it knows us, when it does and when it does not.
func TestPing(t *testing.T) {
	for name, start := range map[string]func(*testing.T) *xmpptest.Server{"prosody": xmpptest.Start, "ejabberd": xmpptest.StartEjabberd} {
		t.Run(name, func(t *testing.T) {
			s := start(t)
			room := jid.MustParse("den@" + xmpptest.Rooms)
			s.Person("bob").Enter(room.String(), "bob")
			alice := run(t, config(t, s, s.Address, "alice", xmpptest.Password))
			if _, err := alice.Enter(t.Context(), client.Enter{Room: room, Nick: "alice"}); err != nil {
				t.Fatal(err)
			}
			if err := alice.PingRoom(t.Context(), room); err != nil && client.NotThere(err) {
				t.Errorf("in the room: %v", err)
			}
			carol := run(t, config(t, s, s.Address, "carol", xmpptest.Password))
			_, err := carol.Ask(t.Context(), "get", jid.MustParse(room.String()+"/carol"), client.El("urn:xmpp:ping", "ping"))
			if !client.NotThere(err) {
				t.Errorf("outside of the room: %v", err)
			}
		})
	}
	for condition, passing := range map[string]bool{"forbidden": false, "remote-server-timeout": true} {
		if client.Passing(&client.StanzaError{Condition: condition}) != passing {
			t.Errorf("%s: passing is not %v", condition, passing)
		}
	}
	for condition, out := range map[string]bool{"not-acceptable": true, "item-not-found": false, "remote-server-timeout": false} {
		if client.NotThere(&client.StanzaError{Condition: condition}) != out {
			t.Errorf("%s: not there is not %v", condition, out)
		}
	}
}
