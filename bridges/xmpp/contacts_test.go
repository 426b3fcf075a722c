package xmpp_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"maunium.net/go/mautrix/bridgev2/status"
	"maunium.net/go/mautrix/event"

	"switchboard/bridges/bridge"
	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/xmpp/xmpptest"
)

// befriend lets two people see each other.
func befriend(a, b *xmpptest.Person) {
	for _, pair := range [][2]*xmpptest.Person{{a, b}, {b, a}} {
		pair[0].Send(`<presence to="%s" type="subscribe"/>`, pair[1].JID)
		pair[1].Await("a request", func(s xmpptest.Stanza) bool { return s.Type == "subscribe" && s.From == pair[0].JID })
		pair[1].Send(`<presence to="%s" type="subscribed"/>`, pair[0].JID)
		pair[1].Send(`<iq type="get" id="fence-%s"><query xmlns="jabber:iq:roster"/></iq>`, pair[0].JID)
		pair[1].Await("that this is done", func(s xmpptest.Stanza) bool { return s.ID == "fence-"+pair[0].JID })
	}
}

// TestContacts shows names and avatars of contacts, and what the user calls them.
func TestContacts(t *testing.T) {
	each(t, func(t *testing.T, server *xmpptest.Server) {
		bob, carol, phone := server.Person("bob"), server.Person("carol"), server.Person("alice")
		for _, one := range []*xmpptest.Person{bob, carol} {
			befriend(phone, one)
		}
		phone.Send(`<iq type="set" id="r"><query xmlns="jabber:iq:roster"><item jid="%s" name="Uncle Bob"/></query></iq>`, bob.JID)
		phone.Await("that bob has a name", func(s xmpptest.Stanza) bool { return s.ID == "r" && s.Type == "result" })
		p := play(t, server, nil)
		profile := func(who *xmpptest.Person, name string, picture bool) {
			t.Helper()
			bridgetest.Eventually(t, who.JID+" is shown as "+name, func() bool {
				resp, err := p.alice.GetProfile(context.Background(), ghost(who.JID))
				return err == nil && resp.DisplayName == name && resp.AvatarURL.IsEmpty() != picture
			})
		}
		for _, one := range []*xmpptest.Person{bob, carol} {
			one.Send(`<message to="alice@`+xmpptest.Domain+`" type="chat" id="h"><body>%s</body></message>`, "hello from "+one.JID)
			p.alice.Await("a message", func(e *event.Event) bool {
				return e.Type == event.EventMessage && strings.HasPrefix(e.Content.AsMessage().Body, "hello from "+one.JID)
			})
		}
		profile(bob, "Uncle Bob", false)
		profile(carol, "carol", false)
		p.alice.Ask(p.manage, "contacts", "Uncle Bob")
		const hash, data = "a9993e364706816aba3e25717850c26c9cd0d89d", "YWJj" // of "abc"
		for _, one := range []*xmpptest.Person{bob, carol} {
			publish := func(node, item, content string, args ...string) {
				one.Send(`<iq type="set" id="`+node+`"><pubsub xmlns="http://jabber.org/protocol/pubsub"><publish node="`+node+`"><item`+item+`>`+content+`</item></publish></pubsub></iq>`, args...)
				one.Await("that it is published", func(s xmpptest.Stanza) bool { return s.ID == node && s.Type == "result" })
			}
			publish("http://jabber.org/protocol/nick", ` id="current"`, `<nick xmlns="http://jabber.org/protocol/nick">Nicky</nick>`)
			publish("urn:xmpp:avatar:data", ` id="`+hash+`"`, `<data xmlns="urn:xmpp:avatar:data">`+data+`</data>`)
			publish("urn:xmpp:avatar:metadata", ` id="`+hash+`"`, `<metadata xmlns="urn:xmpp:avatar:metadata"><info id="`+hash+`" bytes="3" type="image/png"/></metadata>`)
		}
		profile(carol, "Nicky", true)
		profile(bob, "Uncle Bob", true) // what the user calls them comes first
		phone.Send(`<iq type="set" id="r2"><query xmlns="jabber:iq:roster"><item jid="%s" name="Robert"/></query></iq>`, bob.JID)
		profile(bob, "Robert", true)
	})
}

// bookmark keeps a bookmark in the new form.
func bookmark(phone *xmpptest.Person, room, autojoin string) {
	phone.Send(`<iq type="set" id="new-`+autojoin+`"><pubsub xmlns="http://jabber.org/protocol/pubsub"><publish node="urn:xmpp:bookmarks:1"><item id="%s"><conference xmlns="urn:xmpp:bookmarks:1" autojoin="`+autojoin+`"/></item></publish>`+
		`<publish-options><x xmlns="jabber:x:data" type="submit"><field var="FORM_TYPE" type="hidden"><value>http://jabber.org/protocol/pubsub#publish-options</value></field>`+
		`<field var="pubsub#persist_items"><value>true</value></field><field var="pubsub#access_model"><value>whitelist</value></field></x></publish-options></pubsub></iq>`, room)
	phone.Await("the answer", func(s xmpptest.Stanza) bool { return s.ID == "new-"+autojoin && s.Type == "result" })
}

// TestBookmarks goes where the account's other clients go.
func TestBookmarks(t *testing.T) {
	each(t, func(t *testing.T, server *xmpptest.Server) {
		phone, bob := server.Person("alice"), server.Person("bob")
		for _, room := range []string{den, hall} {
			bob.Enter(room, "bob")
		}
		// One is kept in the old form, before the bridge is there.
		phone.Send(`<iq type="set" id="old"><query xmlns="jabber:iq:private"><storage xmlns="storage:bookmarks"><conference jid="%s" autojoin="true"><nick>ali</nick></conference></storage></query></iq>`, den)
		phone.Await("the answer", func(s xmpptest.Stanza) bool { return s.ID == "old" && s.Type == "result" })
		p := play(t, server, nil)
		room := p.alice.Room(den)
		bob.Await("alice, by her nick", func(s xmpptest.Stanza) bool { return s.From == den+"/ali" && s.Type == "" })
		// The other in the new one, while it runs.
		bookmark(phone, hall, "true")
		other := p.alice.Room(hall)
		bookmark(phone, hall, "false")
		p.alice.Await("to be out again", bridgetest.Member(other, p.alice.UserID, event.MembershipLeave))
		// What is left here is left there, in the form that it was kept in.
		if _, err := p.alice.LeaveRoom(context.Background(), room); err != nil {
			t.Fatal(err)
		}
		bob.Await("that alice goes", func(s xmpptest.Stanza) bool { return s.From == den+"/ali" && s.Type == "unavailable" })
		n := 0
		bridgetest.Eventually(t, "the bookmark enters no more", func() bool {
			n++
			id := "get" + strings.Repeat("-", n)
			phone.Send(`<iq type="get" id="%s"><query xmlns="jabber:iq:private"><storage xmlns="storage:bookmarks"/></query></iq>`, id)
			answer := phone.Await("the bookmarks", func(s xmpptest.Stanza) bool { return s.ID == id })
			for _, c := range answer.Conference {
				if c.JID == den && (c.AutoJoin == "true" || c.AutoJoin == "1") {
					return false
				}
			}
			return true
		})
	})
}

// holdingWire holds back the answer to the making of a room.
type holdingWire struct {
	bridge.Wire
	name     string // of the room
	asked    func()
	released chan struct{}
}

// RoundTrip implements http.RoundTripper.
func (w holdingWire) RoundTrip(r *http.Request) (*http.Response, error) {
	var body []byte
	if strings.HasSuffix(r.URL.Path, "/createRoom") {
		body, _ = io.ReadAll(r.Body)
		r.Body = io.NopCloser(bytes.NewReader(body))
	}
	answer, err := w.Wire.RoundTrip(r)
	if bytes.Contains(body, []byte(w.name)) {
		w.asked()
		<-w.released
	}
	return answer, err
}

// TestLeftWhileEntering lets another client go out of a room while the Matrix room
// of it is being made.
func TestLeftWhileEntering(t *testing.T) {
	each(t, func(t *testing.T, server *xmpptest.Server) {
		phone, bob := server.Person("alice"), server.Person("bob")
		bob.Enter(hall, "bob")
		asked := make(chan struct{})
		hold := holdingWire{name: hall, asked: sync.OnceFunc(func() { close(asked) }), released: make(chan struct{})}
		o := direct(server).options(nil)
		o.Wire = func(w bridge.Wire) bridge.Wire { hold.Wire = w; return hold }
		matrix := bridgetest.Start(t, o)
		alice := matrix.User("alice")
		newNetwork(t, server).LogIn(alice, alice.Manage("@xmppbot:"+bridgetest.ServerName))
		bridgetest.Eventually(t, "alice is connected", func() bool {
			logins := matrix.Host.Health().Logins
			return len(logins) == 1 && logins[0].State == string(status.StateConnected)
		})
		bookmark(phone, hall, "true")
		<-asked
		bookmark(phone, hall, "false")
		bob.Send(`<message to="%s" type="chat" id="f"><body>behind it</body></message>`, phone.JID)
		alice.Await("what came behind it", func(e *event.Event) bool {
			return e.Type == event.EventMessage && e.Content.AsMessage().Body == "behind it"
		})
		close(hold.released)
		bob.Await("that alice goes", func(s xmpptest.Stanza) bool { return s.From == hall+"/alice" && s.Type == "unavailable" })
		alice.Await("to be out again", func(e *event.Event) bool {
			return e.Type == event.StateMember && e.GetStateKey() == string(alice.UserID) && e.Content.AsMember().Membership == event.MembershipLeave
		})
	})
}
