package irc_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/irc"
	"switchboard/bridges/irc/irctest"
)

// scripted is a world with two networks: "script", which the test plays, and
// "real".
func scripted(t *testing.T, change func(*irc.Network)) (*world, *irctest.Scripted) {
	t.Helper()
	script := irctest.StartScripted(t)
	server := irctest.Start(t, false)
	one := irc.Network{ID: "script", Name: "Scripted", Address: script.Address, TLS: "off", Burst: 100, Interval: time.Millisecond}
	if change != nil {
		change(&one)
	}
	two := irc.Network{ID: "real", Name: "TestNet", Address: server.Address, TLS: "off", Burst: 100, Interval: time.Millisecond}
	options := bridgetest.Options{ID: "irc", Connector: func() bridgev2.NetworkConnector {
		return irc.New(irc.Config{Networks: []irc.Network{one, two}})
	}}
	return &world{Server: bridgetest.Start(t, options), t: t, irc: server}, script
}

// aliceInGo logs alice in to the scripted network, and lets her enter #go.
func (w *world) aliceInGo() (alice *person, room id.RoomID) {
	alice = w.person("alice")
	alice.Ask(alice.manage, "login", "Options")
	alice.Ask(alice.manage, "script", "nick on Scripted")
	alice.Ask(alice.manage, "alice", "enter your account")
	alice.Ask(alice.manage, "-", "You are alice on Scripted")
	alice.Ask(alice.manage, "join #go", "You are in")
	return alice, alice.Room("#go")
}

func TestAccount(t *testing.T) {
	w, script := scripted(t, nil)
	script.Password = "right"
	alice := w.person("alice")
	alice.Ask(alice.manage, "login", "Options: `script`, `real`")
	alice.Ask(alice.manage, "none", `there is no network "none"`)
	alice.Ask(alice.manage, "script", "nick on Scripted")
	alice.Ask(alice.manage, "alice", "enter your account")
	alice.Ask(alice.manage, "acc", "enter your password of acc")
	secret := alice.Say(alice.manage, "wrong")
	alice.Await("the server's words", bridgetest.Message(alice.manage, "Invalid credentials for your account"))
	alice.Await("that the password was deleted", func(e *event.Event) bool {
		return e.Type == event.EventRedaction && (e.Redacts == secret || e.Content.AsRedaction().Redacts == secret)
	})
	alice.Ask(alice.manage, "right", "You are alice on Scripted")

	// The same user on another network at the same time.
	bob := w.irc.User("bob")
	bob.Join("#go")
	alice.Ask(alice.manage, "login", "Options: `script`, `real`")
	alice.Ask(alice.manage, "real", "nick on TestNet")
	alice.Ask(alice.manage, "alice", "enter your account")
	alice.Ask(alice.manage, "-", "You are alice on TestNet")
	alice.Ask(alice.manage, "join #go", "Which network?")
	alice.Ask(alice.manage, "join real #go", "You are in")
	script.Names["#go"] = []string{"@carol"}
	alice.Ask(alice.manage, "join script #go", "You are in")
	rooms := map[id.UserID]id.RoomID{}
	for _, other := range []id.UserID{"@irc_real.bob:switchboard.test", "@irc_script.carol:switchboard.test"} {
		rooms[other] = alice.DirectRoom(other)
	}
	alice.Say(rooms["@irc_script.carol:switchboard.test"], "to carol")
	script.Await("PRIVMSG #go :to carol")
	alice.Say(rooms["@irc_real.bob:switchboard.test"], "to bob")
	bob.Await("PRIVMSG #go :to bob")
}

// TestNetSplit loses ten users and gets most back, in two lines and without a
// change of the members; or loses them for good.
func TestNetSplit(t *testing.T) {
	for _, tt := range []struct {
		delay time.Duration // before who is gone leaves the room
		back  int
	}{{time.Hour, 8}, {time.Millisecond, 0}} {
		t.Run(fmt.Sprintf("%d are back", tt.back), func(t *testing.T) {
			w, script := scripted(t, func(n *irc.Network) { n.SplitDelay = tt.delay })
			members := []id.UserID{"@alice:switchboard.test", bot}
			for i := range 10 {
				nick := fmt.Sprintf("user%d", i)
				script.Names["#go"] = append(script.Names["#go"], nick)
				members = append(members, id.UserID("@irc_script."+nick+":switchboard.test"))
			}
			alice, room := w.aliceInGo()
			alice.AwaitMembers(room, members...)
			left := len(alice.Events(leaves(room)))

			script.Send(":irc.test BATCH +s netsplit a.test b.test")
			for i := range 10 {
				script.Send("@batch=s :user%d!u@h QUIT :a.test b.test", i)
			}
			script.Send(":irc.test BATCH -s")
			if tt.back > 0 {
				script.Send(":irc.test BATCH +j netjoin a.test b.test")
				for i := range tt.back {
					script.Send("@batch=j :user%d!u@h JOIN #go", i)
				}
				script.Send(":irc.test BATCH -j")
				alice.Await("its end", bridgetest.Message(room, fmt.Sprintf("found each other again: %d users are back", tt.back)))
			}
			alice.Await("the split", bridgetest.Message(room, "Net split between a.test and b.test: 10 users are gone"))
			alice.AwaitMembers(room, members[:2+tt.back]...)
			if n := len(alice.Events(leaves(room))) - left; n > 10-tt.back {
				t.Errorf("%d users left the room, %d are gone", n, 10-tt.back)
			}
		})
	}
}

func leaves(room id.RoomID) func(*event.Event) bool {
	return func(e *event.Event) bool {
		return e.RoomID == room && e.Type == event.StateMember && e.Content.AsMember().Membership == event.MembershipLeave
	}
}

// TestLargeChannel shows only a part of the members until the others write.
func TestLargeChannel(t *testing.T) {
	w, script := scripted(t, func(n *irc.Network) { n.MemberLimit = 5 })
	script.Names["#go"] = []string{"@op", "+voice"}
	for i := range 20 {
		script.Names["#go"] = append(script.Names["#go"], fmt.Sprintf("user%d", i))
	}
	alice, room := w.aliceInGo()
	shown := []id.UserID{alice.UserID, bot, "@irc_script.op:switchboard.test", "@irc_script.voice:switchboard.test"}
	alice.AwaitMembers(room, shown...)
	script.Send(":user7!u@h PRIVMSG #go :here I am")
	alice.Await("user7's message", bridgetest.Message(room, "here I am"))
	alice.AwaitMembers(room, append(shown, "@irc_script.user7:switchboard.test")...)
	script.Send(":user7!u@h PART #go")
	alice.AwaitMembers(room, shown...)

	var levels event.PowerLevelsEventContent
	if err := alice.StateEvent(context.Background(), room, event.StatePowerLevels, "", &levels); err != nil {
		t.Fatal(err)
	}
	if op, voice := levels.GetUserLevel(shown[2]), levels.GetUserLevel(shown[3]); op != 50 || voice != 10 {
		t.Errorf("levels are %d and %d", op, voice)
	}
}

// TestCut loses the connection with messages in the queue: what was not sent
// is sent once the channel is entered again, in order.
func TestCut(t *testing.T) {
	w, script := scripted(t, func(n *irc.Network) { n.Burst, n.Interval = 2, 200*time.Millisecond })
	script.Names["#go"] = []string{"bob"}
	alice, room := w.aliceInGo()
	var sent []id.EventID
	for i := range 8 {
		sent = append(sent, alice.Say(room, fmt.Sprintf("message %d", i)))
	}
	script.Await("message 2")
	script.Cut()
	verdicts := func(i int) (n int) {
		for _, verdict := range []event.MessageStatus{event.MessageStatusSuccess, event.MessageStatusRetriable} {
			n += len(alice.Events(bridgetest.Status(sent[i], verdict)))
		}
		return n
	}
	for i := range sent {
		bridgetest.Eventually(t, fmt.Sprintf("it is told what became of message %d", i), func() bool { return verdicts(i) > 0 })
	}
	for i := range sent {
		if n := verdicts(i); n != 1 {
			t.Errorf("message %d has %d verdicts", i, n)
		}
	}
	var said []string
	in := false
	for _, line := range script.All() {
		switch {
		case line == "CAP END":
			in = false
		case strings.HasPrefix(line, "JOIN #go"):
			in = true
		case strings.HasPrefix(line, "PRIVMSG #go "):
			if said = append(said, line); !in {
				t.Errorf("%q came before the channel was entered", line)
			}
		}
	}
	if !slices.IsSorted(said) || len(slices.Compact(slices.Clone(said))) != len(said) {
		t.Errorf("sent was %q", said)
	}
}
