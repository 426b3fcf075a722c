package bridge_test

import (
	"fmt"
	"slices"
	"sync"
	"testing"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge"
	"switchboard/bridges/bridge/bridgetest"
	"switchboard/homeserver/database/databasetest"
)

// hall logs a user in and opens a room of a mirror.
func hall(u *bridgetest.User, id string) (room func(text, answer string) string) {
	manage := u.Manage(bridgetest.Bot(id))
	u.Ask(manage, "login", "You look fine")
	u.Ask(manage, "start-chat "+id, "Created chat")
	at := u.DirectRoom(bridgetest.Ghost(id, "echo"))
	return func(text, answer string) string { return u.Ask(at, text, answer) }
}

// TestOthersUnharmed has a bridge that panics at each start, one that never gets
// to an end of its start, and one whose network does not answer, beside one that
// works.
func TestOthersUnharmed(t *testing.T) {
	stuck, held := make(chan struct{}), make(chan struct{}, 1)
	free := sync.OnceFunc(func() { close(stuck) })
	mirrors := func(id string, m *mirror) bridgetest.Options {
		return bridgetest.Options{ID: id, Connector: func() bridgev2.NetworkConnector { return m }}
	}
	o := mirrors("mirror", &mirror{})
	o.Beside = []bridgetest.Options{
		mirrors("panicky", &mirror{start: func() error { panic("always") }}),
		mirrors("endless", &mirror{start: func() error { <-stuck; return nil }}),
		mirrors("mute", &mirror{hold: func(string) { held <- struct{}{}; <-stuck }}),
	}
	s := bridgetest.Start(t, o)
	t.Cleanup(free) // before the server stops
	alice := s.User("alice")
	mute := alice.Manage(bridgetest.Bot("mute"))
	alice.Ask(mute, "login", "You look fine")
	alice.Ask(mute, "start-chat mute", "Created chat")
	alice.Say(alice.DirectRoom(bridgetest.Ghost("mute", "echo")), "are you there?")
	<-held
	say := hall(alice, "mirror")
	for i := range 100 { // more than any queue between them holds
		text := fmt.Sprintf("still %d", i)
		say(text, fmt.Sprintf("STILL %d", i))
	}
}

// TestCutOff ends the bridge while it handles an event: the next one handles it
// again, after three times its sender is told.
func TestCutOff(t *testing.T) {
	var mu sync.Mutex
	var heard []string
	stuck, held := make(chan struct{}), make(chan struct{}, 10)
	free := sync.OnceFunc(func() { close(stuck) })
	s := bridgetest.Start(t, bridgetest.Options{ID: "mirror", Connector: func() bridgev2.NetworkConnector {
		return &mirror{hold: func(body string) {
			mu.Lock()
			heard = append(heard, body)
			mu.Unlock()
			if body == "stop here" {
				held <- struct{}{}
				<-stuck
			}
		}}
	}})
	t.Cleanup(free)
	alice := s.User("alice")
	manage := alice.Manage(bridgetest.Bot("mirror"))
	alice.Ask(manage, "login", "You look fine")
	alice.Ask(manage, "start-chat hall", "Created chat")
	room := alice.Room("Mirror hall")
	alice.Ask(room, "hello", "HELLO")
	alice.Await("that hello arrived", func(e *event.Event) bool {
		c, ok := e.Content.Parsed.(*event.BeeperMessageStatusEventContent)
		return ok && c.Status == event.MessageStatusSuccess
	})
	lost := alice.Say(room, "stop here")
	for range 3 {
		<-held
		s.Stop()
		s.Run()
	}
	alice.Await("that it is given up", bridgetest.Status(lost, event.MessageStatusRetriable))
	alice.Ask(room, "and on", "AND ON")
	mu.Lock()
	defer mu.Unlock()
	if want := []string{"hello", "stop here", "stop here", "stop here", "and on"}; !slices.Equal(heard, want) {
		t.Errorf("the network heard %q, want %q", heard, want)
	}
}

// await is what comes in a channel.
func await[T any](t *testing.T, what string, from chan T) (out T) {
	t.Helper()
	bridgetest.Eventually(t, what, func() bool {
		select {
		case out = <-from:
			return true
		default:
			return false
		}
	})
	return out
}

// TestHeld has messages edited before they have arrived, also over
// a restart of the bridge.
func TestHeld(t *testing.T) {
	databasetest.EachURL(t, func(t *testing.T, url string) {
		arrivals, heard := make(chan func(), 10), make(chan string, 10)
		s := bridgetest.Start(t, bridgetest.Options{ID: "mirror", Database: url, Connector: func() bridgev2.NetworkConnector {
			return &mirror{later: arrivals, hold: func(body string) { heard <- body }}
		}})
		hears := func(want string) {
			t.Helper()
			if got := await(t, "the network hears "+want, heard); got != want {
				t.Errorf("the network hears %q, want %q", got, want)
			}
		}
		arrives := func() { await(t, "the network has a message", arrivals)() }
		alice := s.User("alice")
		manage := alice.Manage(bridgetest.Bot("mirror"))
		alice.Ask(manage, "login", "You look fine")
		alice.Ask(manage, "start-chat hall", "Created chat")
		room := alice.Room("Mirror hall")
		edits := func(what id.EventID, text string) id.EventID {
			e := &event.MessageEventContent{MsgType: event.MsgText, Body: text}
			e.SetEdit(what)
			return alice.Send(room, e)
		}
		first := alice.Say(room, "teh first")
		hears("teh first")
		edit := edits(first, "the first")
		second := alice.Say(room, "second") // behind it, and not held
		hears("second")
		other := edits(second, "the second")
		arrives()
		hears("the first")
		alice.Await("that the edit arrived", bridgetest.Status(edit, event.MessageStatusSuccess))
		s.Stop()
		await(t, "the end of a message", arrivals) // of the bridge that is gone
		s.Run()
		hears("second")
		arrives()
		hears("the second")
		alice.Await("that the other edit arrived", bridgetest.Status(other, event.MessageStatusSuccess))
	})
}

// TestCutOffLeave ends the bridge while the network hears that a user leaves a
// room, and before: the next one lets it hear that, and greets nobody again.
func TestCutOffLeave(t *testing.T) {
	stuck, held := make(chan struct{}), make(chan struct{}, 10)
	free := sync.OnceFunc(func() { close(stuck) })
	s := bridgetest.Start(t, bridgetest.Options{ID: "mirror", Connector: func() bridgev2.NetworkConnector {
		return &mirror{hold: func(body string) {
			if body == "(leaves)" {
				held <- struct{}{}
				<-stuck
			}
		}}
	}})
	t.Cleanup(free)
	alice := s.User("alice")
	manage := alice.Manage(bridgetest.Bot("mirror"))
	alice.Ask(manage, "login", "You look fine")
	alice.Ask(manage, "start-chat hall", "Created chat")
	if _, err := alice.LeaveRoom(t.Context(), alice.Room("Mirror hall")); err != nil {
		t.Fatal(err)
	}
	<-held
	s.Stop()
	s.Run()
	<-held
	alice.Ask(manage, "list-logins", "CONNECTED")
	if all := alice.Events(bridgetest.Message(manage, "management room")); len(all) != 1 {
		t.Errorf("alice was greeted %d times", len(all))
	}
}

// TestPermissions has a user who may not log in, and one who may do nothing.
func TestPermissions(t *testing.T) {
	s := bridgetest.Start(t, bridgetest.Options{
		ID: "mirror", Connector: func() bridgev2.NetworkConnector { return &mirror{} },
		Config: bridge.Config{Permissions: map[string]string{
			"*": "block", "@carol:switchboard.test": "commands", "@alice:switchboard.test": "user",
		}},
	})
	carol := s.User("carol")
	carol.Ask(carol.Manage(bridgetest.Bot("mirror")), "login", "do not have permissions to log into")
	hall(s.User("alice"), "mirror")("hello", "HELLO")
	mallory := s.User("mallory")
	room := mallory.Invite(bridgetest.Bot("mirror"))
	mallory.Await("that the bot does not come", bridgetest.Member(room, bridgetest.Bot("mirror"), event.MembershipLeave))
}

// TestLogins looks at the health of logins.
func TestLogins(t *testing.T) {
	s := bridgetest.Start(t, bridgetest.Options{ID: "mirror", Connector: func() bridgev2.NetworkConnector { return &mirror{} }})
	if h := s.Host.Health(); !h.Running || len(h.Logins) != 0 {
		t.Errorf("without a login the health is %+v", h)
	}
	hall(s.User("alice"), "mirror")("hello", "HELLO")
	bridgetest.Eventually(t, "a message is counted", func() bool { return s.Host.Health().Told[event.MessageStatusSuccess] > 0 })
	h := s.Host.Health()
	if want := []bridge.Login{{ID: "alice", State: "CONNECTED"}}; !slices.Equal(h.Logins, want) {
		t.Errorf("the logins are %+v, want %+v", h.Logins, want)
	}
	s.Stop()
	if s.Host.Health().Running {
		t.Error("it runs when it has stopped")
	}
	s.Run()
}
