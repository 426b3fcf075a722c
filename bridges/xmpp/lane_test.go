package xmpp

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"mellium.im/xmpp/jid"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/xmpp/client"
	"switchboard/bridges/xmpp/xmpptest"
)

// TestConfirmedFirst lets an answer come right behind the server's confirmation of
// what it answers: a reaction, or that it was read. It is nothing before the
// message is known to be there.
func TestConfirmedFirst(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := &lane{session: &session{ctx: t.Context()}}
		var seen []string
		l.out = []*outgoing{{id: "m", timer: time.NewTimer(time.Hour), done: func(result) {
			time.Sleep(time.Second)
			seen = append(seen, "message")
		}}}
		l.confirmed(l.out[0], nil)
		l.add(false, func(context.Context) { seen = append(seen, "answer") })
		l.session.work.Wait()
		l.settled.Wait()
		if want := []string{"message", "answer"}; !slices.Equal(seen, want) {
			t.Errorf("handled were %q, want %q", seen, want)
		}
	})
}

// TestSlow has a connection to a server that is slower than a message may wait for
// one: the message waits on, and is sent.
func TestSlow(t *testing.T) {
	server := xmpptest.Start(t)
	c := &Connector{config: Config{SendTimeout: time.Millisecond, Servers: []Server{{Domain: xmpptest.Domain, Address: server.Address, CAFile: server.CAFile}}}}
	config, err := c.config.client(parse(server.Account("alice")), xmpptest.Password, nil)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	s := &session{
		ctx: ctx, connector: c, client: client.New(config, func(client.Event) {}),
		login: &bridgev2.UserLogin{UserLogin: &database.UserLogin{Metadata: &LoginMetadata{}}},
	}
	ended := make(chan error)
	go func() { ended <- s.client.Run(ctx) }()
	defer func() { cancel(); <-ended }()
	bridgetest.Eventually(t, "the connection", s.client.Online)
	l := &lane{session: s}
	s.account = l
	sent := make(chan error, 1)
	post := client.Post{To: s.client.Account(), ID: "m", Body: "hello"}
	l.submit(&outgoing{id: "m", stanza: post.Element(), done: func(r result) { sent <- r.err }})
	select {
	case err := <-sent:
		t.Fatalf("it did not wait: %v", err)
	case <-time.After(100 * time.Millisecond):
	}
	l.setReady(true)
	if err := <-sent; err != nil {
		t.Errorf("it was not sent: %v", err)
	}
}

// TestGap lets the stream bring a message while the archive has what was not read
// yet: the position stays before that, so that the next look finds it.
func TestGap(t *testing.T) {
	s := &session{
		ctx: t.Context(), saved: time.Now().Add(time.Hour), // not again in this test
		login: &bridgev2.UserLogin{UserLogin: &database.UserLogin{Metadata: &LoginMetadata{}}},
	}
	s.account = &lane{session: s}
	first := Position{ID: "1", Time: time.Unix(1, 0)}
	s.setPosition(jid.JID{}, first)
	m := &client.Message{Type: "chat", Archive: "3", Time: time.Unix(3, 0)}
	s.account.setGap(true)
	s.reached(m)
	if at := s.position(jid.JID{}); at != first {
		t.Errorf("the position moved to %+v over what was not read", at)
	}
	s.account.setGap(false)
	s.reached(m)
	if at := s.position(jid.JID{}); at.ID != "3" {
		t.Errorf("the position is %+v", at)
	}
}

// TestWrittenWhileChanged writes a login down, as mautrix does whenever it likes,
// while rooms are entered.
func TestWrittenWhileChanged(t *testing.T) {
	meta := &LoginMetadata{}
	s := &session{login: &bridgev2.UserLogin{UserLogin: &database.UserLogin{Metadata: meta}}}
	var changing sync.WaitGroup
	changing.Go(func() {
		for i := range 2000 {
			s.setRoom(jid.MustParse(fmt.Sprintf("room%d@rooms.test", i)), func(st *RoomState) { st.Nick = "alice" })
		}
	})
	for range 200 {
		if _, err := json.Marshal(meta); err != nil {
			t.Error(err)
		}
	}
	changing.Wait()
	text, err := json.Marshal(meta)
	var again LoginMetadata
	if err == nil {
		err = json.Unmarshal(text, &again)
	}
	if err != nil || len(again.Rooms) != 2000 {
		t.Errorf("%d rooms are written down, %v", len(again.Rooms), err)
	}
}
