package xmpp_test

import (
	"context"
	"path/filepath"
	"strings"
	"testing"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/xmpp/xmpptest"
)

// forget is what a bridge writes down of what it carries, besides the position of
// its login: without that it is as if it had been killed behind each step, before
// the next.
var forget = []string{
	"BEFORE INSERT ON message",
	"BEFORE UPDATE OF settled ON bridge_inbox",
	"BEFORE DELETE ON bridge_inbox",
}

// TestCutOff has a bridge that ends between sending or receiving messages and
// writing that down: the next one neither loses nor doubles them.
func TestCutOff(t *testing.T) {
	each(t, func(t *testing.T, server *xmpptest.Server) {
		t.Run("before the position", func(t *testing.T) {
			testCutOff(t, server, "alice", append([]string{"BEFORE UPDATE ON user_login"}, forget...)...)
		})
		t.Run("behind the position", func(t *testing.T) { testCutOff(t, server, "amy", forget...) })
	})
}

func testCutOff(t *testing.T, server *xmpptest.Server, name string, forget ...string) {
	n := newNetwork(t, server)
	o := direct(server).options(nil)
	file := filepath.Join(t.TempDir(), "bridge.db")
	o.Database = "sqlite:" + file
	s := bridgetest.Start(t, o)
	alice := s.User(name)
	manage := alice.Manage("@xmppbot:" + bridgetest.ServerName)
	account := n.logInAs(alice, manage, name)
	bob := n.Person(t, "bobby"+name).(*person)
	bob.Write(account, bridgetest.Post{Text: "hello"})
	direct := alice.DirectRoom(bob.Ghost())
	alice.Ask(manage, "join "+den, "You are in")
	group := alice.Room(den)
	chats := map[string]id.RoomID{account: direct, den: group}

	s.Stop()
	remember := bridgetest.Forget(t, file, forget...)
	s.Run()
	text := func(body string) func(xmpptest.Stanza) bool {
		return func(s xmpptest.Stanza) bool { return s.Text() == body }
	}
	for chat, room := range chats {
		picture, err := alice.UploadBytesWithName(context.Background(), []byte("abc"), "image/png", "a.png")
		if err != nil {
			t.Fatal(err)
		}
		alice.Say(room, name+" to "+chat)
		alice.Send(room, &event.MessageEventContent{MsgType: event.MsgImage, Body: name + " caption to " + chat, FileName: "a.png", URL: picture.ContentURI.CUString()})
		bob.Await("the caption", text(name+" caption to "+chat))
		bob.Write(chat, bridgetest.Post{Text: name + " from " + chat})
		alice.Await("bob's message", bridgetest.Message(room, name+" from "+chat))
	}
	s.Stop()
	remember()
	s.Run()
	for chat, room := range chats {
		alice.Say(room, name+" again")
		bob.Await("what alice says then", func(s xmpptest.Stanza) bool {
			return s.Text() == name+" again" && strings.HasPrefix(s.From, chat)
		})
		bob.Write(chat, bridgetest.Post{Text: name + " hears again"})
		alice.Await("what bob says then", bridgetest.Message(room, name+" hears again"))
		for _, body := range []string{name + " to " + chat, name + " caption to " + chat} {
			count := 0
			for _, s := range bob.Stanzas() {
				if s.Text() == body {
					count++
				}
			}
			if count != 1 {
				t.Errorf("bob got %q %d times", body, count)
			}
		}
		if got := alice.Events(bridgetest.Message(room, name+" from "+chat)); len(got) != 1 {
			t.Errorf("alice got bob's message from %s %d times", chat, len(got))
		}
	}
}
