package xmpp_test

import (
	"context"
	"errors"
	"net"
	"strings"
	"testing"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/event"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/xmpp"
	"switchboard/bridges/xmpp/xmpptest"
)

// TestRoomLife plays what happens in rooms besides talk, and what another client
// of the account writes.
func TestRoomLife(t *testing.T) {
	server := xmpptest.Start(t)
	p := play(t, server, nil)
	alice, manage := p.alice, p.manage
	bob := p.Person(t, "bob").(*person)
	alice.Ask(manage, "join "+den, "You are in")
	room := alice.Room(den)

	bob.Write(den, bridgetest.Post{Text: "hi alice, look"})
	e := alice.Await("a mention", bridgetest.Message(room, "hi alice, look"))
	if m := e.Content.AsMessage().Mentions; m == nil || !m.Has(alice.UserID) {
		t.Errorf("the mentions are %+v", m)
	}

	carol := p.Person(t, "carol")
	alice.Await("that carol comes", bridgetest.Member(room, carol.Ghost(), event.MembershipJoin))
	bob.Send(`<iq type="set" id="k" to="` + den + `"><query xmlns="http://jabber.org/protocol/muc#admin"><item nick="carol" role="none"><reason>enough</reason></item></query></iq>`)
	left := alice.Await("that carol is kicked", bridgetest.Member(room, carol.Ghost(), event.MembershipLeave))
	if left.Content.Raw["reason"] != "enough" {
		t.Errorf("the reason is %v", left.Content.Raw)
	}
	bob.Send(`<message type="groupchat" id="s" to="` + den + `"><subject>the news</subject></message>`)
	alice.Await("the topic", func(e *event.Event) bool {
		return e.RoomID == room && e.Type == event.StateTopic && e.Content.AsTopic().Topic == "the news"
	})

	phone := server.Person("alice")
	phone.Send(`<iq type="set" id="c"><enable xmlns="urn:xmpp:carbons:2"/></iq>`)
	phone.Send(`<message type="chat" id="p1" to="%s"><body>from my phone</body></message>`, bob.JID)
	own := alice.Await("what the phone wrote", func(e *event.Event) bool {
		return e.RoomID != room && e.Type == event.EventMessage && e.Content.AsMessage().Body == "from my phone"
	})
	if own.Sender != alice.UserID {
		t.Errorf("what the phone wrote is from %s", own.Sender)
	}

	alice.Ask(manage, "start-chat nobody@"+xmpptest.Domain, "chat")
	nobody := alice.DirectRoom(ghost("nobody@" + xmpptest.Domain))
	lost := alice.Say(nobody, "is there anybody?")
	st := alice.Await("that it failed", bridgetest.Status(lost, event.MessageStatusFail))
	if text := st.Content.Parsed.(*event.BeeperMessageStatusEventContent).Message; !strings.Contains(text, "nobody of that name") {
		t.Errorf("the reason is %q", text)
	}

	bob.Send(`<iq type="set" id="k3" to="` + den + `"><query xmlns="http://jabber.org/protocol/muc#admin"><item nick="alice" role="none"><reason>you too</reason></item></query></iq>`)
	alice.Await("to be told", bridgetest.Message(manage, "You were kicked by bob: you too"))
	alice.Await("to be out", bridgetest.Member(room, alice.UserID, event.MembershipLeave))
}

// TestRefusedAddress lets the operator's rules refuse where a file is.
func TestRefusedAddress(t *testing.T) {
	server := xmpptest.Start(t)
	n := newNetwork(t, server)
	o := direct(server).options(nil)
	o.Connector = func() bridgev2.NetworkConnector {
		return xmpp.New(direct(server).config(), func(context.Context, string, string) (net.Conn, error) { return nil, errors.New("refused") })
	}
	s := bridgetest.Start(t, o)
	alice := s.User("alice")
	manage := alice.Manage("@xmppbot:" + bridgetest.ServerName)
	n.LogIn(alice, manage)
	bob := n.Person(t, "bob")
	bob.Write("alice@"+xmpptest.Domain, bridgetest.Post{File: &bridgetest.File{Name: "a.png", MimeType: "image/png", Data: []byte("abc")}})
	room := alice.DirectRoom(bob.Ghost())
	e := alice.Await("that it stays a link", bridgetest.Message(room, "could not be fetched"))
	if e.Content.AsMessage().URL != "" {
		t.Errorf("the file came: %+v", e.Content.AsMessage())
	}
}
