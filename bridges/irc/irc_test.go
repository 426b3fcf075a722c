package irc_test

import (
	"context"
	"fmt"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/status"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge"
	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/irc"
	"switchboard/bridges/irc/irctest"
)

const bot id.UserID = "@ircbot:switchboard.test"

// world is an IRC server, a homeserver with the bridge, and what else a test
// asks for.
type world struct {
	*bridgetest.Server
	t   *testing.T
	irc *irctest.Server
}

func start(t *testing.T, change func(*irc.Network, *bridgetest.Options)) *world {
	t.Helper()
	return startOn(t, irctest.Start(t, false), change)
}

func startOn(t *testing.T, server *irctest.Server, change func(*irc.Network, *bridgetest.Options)) *world {
	t.Helper()
	network := irc.Network{ID: "test", Name: "TestNet", Address: server.Address, TLS: "off", Burst: 100, Interval: time.Millisecond}
	options := bridgetest.Options{ID: "irc", Config: bridge.Config{Permissions: map[string]string{"*": "user", "@admin:switchboard.test": "admin"}}}
	if change != nil {
		change(&network, &options)
	}
	options.Connector = func() bridgev2.NetworkConnector {
		return irc.New(irc.Config{Networks: []irc.Network{network}})
	}
	return &world{Server: bridgetest.Start(t, options), t: t, irc: server}
}

// ghost is the Matrix user of a nick without special characters.
func ghost(nick string) id.UserID { return id.UserID("@irc_test." + nick + ":switchboard.test") }

// person is a Matrix user with a management room.
type person struct {
	*bridgetest.User
	manage id.RoomID
}

func (w *world) person(name string) *person {
	w.t.Helper()
	u := w.User(name)
	return &person{u, u.Manage(bot)}
}

// loggedIn is a person who is logged in with a nick.
func (w *world) loggedIn(name, nick string) *person {
	w.t.Helper()
	p := w.person(name)
	p.Ask(p.manage, "login", "nick on TestNet")
	p.Ask(p.manage, nick, "enter your account")
	p.Ask(p.manage, "-", "You are "+nick)
	return p
}

// join enters a channel and returns its room.
func (p *person) join(channel string) id.RoomID {
	p.T.Helper()
	p.Ask(p.manage, "join "+channel, "You are in")
	return p.Room(channel)
}

func TestConversation(t *testing.T) {
	w := start(t, nil)
	bob := w.irc.User("bob")
	bob.Join("#go")
	bob.Send("TOPIC #go :all about \x02Go\x02")
	bob.Await("TOPIC #go")
	alice := w.loggedIn("alice", "alice")
	room := alice.join("#go")
	bob.Await(":alice!alice@", "JOIN", "#go")

	var topic event.TopicEventContent
	if err := alice.StateEvent(context.Background(), room, event.StateTopic, "", &topic); err != nil || topic.Topic != "all about Go" {
		t.Errorf("topic is %q, %v", topic.Topic, err)
	}
	alice.AwaitMembers(room, alice.UserID, bot, ghost("bob"))

	// Matrix to IRC.
	first := alice.Say(room, "hello from Matrix")
	bob.Await(":alice!alice@", "PRIVMSG #go :hello from Matrix")
	alice.Await("that it arrived", bridgetest.Status(first, event.MessageStatusSuccess))
	alice.Send(room, &event.MessageEventContent{MsgType: event.MsgEmote, Body: "waves"})
	bob.Await("PRIVMSG #go :\x01ACTION waves\x01")
	alice.Send(room, &event.MessageEventContent{MsgType: event.MsgNotice, Body: "by the way"})
	bob.Await("NOTICE #go :by the way")
	alice.Send(room, &event.MessageEventContent{
		MsgType: event.MsgText, Body: "x", Format: event.FormatHTML,
		FormattedBody: `<b>bold</b> and <i>italic</i> for <a href="https://matrix.to/#/` + string(ghost("bob")) + `">Robert</a>`,
	})
	bob.Await("PRIVMSG #go :\x02bold\x02 and \x1ditalic\x1d for bob")
	alice.Say(room, "one\ntwo\n"+strings.Repeat("ä", 400))
	bob.Await("PRIVMSG #go :one")
	bob.Await("PRIVMSG #go :two")
	bob.Await("PRIVMSG #go :ää")
	bob.Await("PRIVMSG #go :ää")

	// IRC to Matrix.
	bob.Send("PRIVMSG #go :hi alice, this is \x02bold\x02")
	e := alice.Await("bob's message", bridgetest.Message(room, "hi alice"))
	content := e.Content.AsMessage()
	if e.Sender != ghost("bob") || content.MsgType != event.MsgText || content.FormattedBody != "hi alice, this is <strong>bold</strong>" {
		t.Errorf("got %s: %+v", e.Sender, content)
	}
	if content.Mentions == nil || !content.Mentions.Has(alice.UserID) {
		t.Errorf("alice is not mentioned: %+v", content.Mentions)
	}
	bob.Send("PRIVMSG #go :\x01ACTION dances\x01")
	if e := alice.Await("an action", bridgetest.Message(room, "dances")); e.Content.AsMessage().MsgType != event.MsgEmote {
		t.Errorf("the action is %s", e.Content.AsMessage().MsgType)
	}
	bob.Send("NOTICE #go :beep")
	if e := alice.Await("a notice", bridgetest.Message(room, "beep")); e.Content.AsMessage().MsgType != event.MsgNotice {
		t.Errorf("the notice is %s", e.Content.AsMessage().MsgType)
	}

	// Replies and edits become text.
	alice.Send(room, &event.MessageEventContent{MsgType: event.MsgText, Body: "to you", RelatesTo: (&event.RelatesTo{}).SetReplyTo(e.ID)})
	bob.Await("PRIVMSG #go :bob: to you")
	alice.Send(room, &event.MessageEventContent{MsgType: event.MsgText, Body: "to myself", RelatesTo: (&event.RelatesTo{}).SetReplyTo(first)})
	bob.Await("PRIVMSG #go :> hello from Matrix")
	bob.Await("PRIVMSG #go :to myself")
	edit := &event.MessageEventContent{MsgType: event.MsgText, Body: "hello out of Matrix"}
	edit.SetEdit(first)
	alice.Send(room, edit)
	bob.Await("PRIVMSG #go :s/from/out of/")

	// Nothing comes twice: neither our own messages as echoes, nor bob's.
	if all := alice.Events(bridgetest.Message(room, "hello from Matrix")); len(all) != 1 {
		t.Errorf("the message is in the room %d times", len(all))
	}
	if all := alice.Events(bridgetest.Message(room, "hi alice")); len(all) != 1 {
		t.Errorf("bob's message is in the room %d times", len(all))
	}
}

func TestMembership(t *testing.T) {
	w := start(t, nil)
	bob := w.irc.User("bob")
	bob.Join("#go")
	alice := w.loggedIn("alice", "alice")
	room := alice.join("#go")

	// Others come, change their nick, and go in every way.
	carol := w.irc.User("carol")
	carol.Join("#go")
	alice.AwaitMembers(room, alice.UserID, bot, ghost("bob"), ghost("carol"))
	carol.Send("NICK Carola")
	alice.AwaitMembers(room, alice.UserID, bot, ghost("bob"), ghost("carola"))
	left := alice.Await("why carol left", bridgetest.Member(room, ghost("carol"), event.MembershipLeave))
	if reason := left.Content.AsMember().Reason; reason != "is now known as Carola" {
		t.Errorf("the reason is %q", reason)
	}
	carol.Send("NICK CAROLA")
	bridgetest.Eventually(t, "the ghost's name follows", func() bool {
		name, err := alice.GetDisplayName(context.Background(), ghost("carola"))
		return err == nil && name.DisplayName == "CAROLA"
	})
	carol.Send("PART #go :see you")
	alice.AwaitMembers(room, alice.UserID, bot, ghost("bob"))
	dave := w.irc.User("dave")
	dave.Join("#go")
	alice.AwaitMembers(room, alice.UserID, bot, ghost("bob"), ghost("dave"))
	bob.Send("KICK #go dave :enough")
	alice.AwaitMembers(room, alice.UserID, bot, ghost("bob"))
	kicked := alice.Await("that dave was kicked", bridgetest.Member(room, ghost("dave"), event.MembershipLeave))
	if kicked.Sender != ghost("bob") || kicked.Content.AsMember().Reason != "enough" {
		t.Errorf("dave was kicked by %s: %q", kicked.Sender, kicked.Content.AsMember().Reason)
	}
	dave.Join("#go")
	alice.AwaitMembers(room, alice.UserID, bot, ghost("bob"), ghost("dave"))
	dave.Send("QUIT :bye")
	alice.AwaitMembers(room, alice.UserID, bot, ghost("bob"))

}

func TestModeration(t *testing.T) {
	w := start(t, nil)
	bob := w.irc.User("bob")
	bob.Join("#go")
	alice := w.loggedIn("alice", "alice")
	room := alice.join("#go")

	// Topics both ways. The channel is +t at first, which the server tells when we
	// are in already.
	alice.Await("that the topic is not free", func(e *event.Event) bool {
		return e.RoomID == room && e.Type == event.StatePowerLevels && e.Content.AsPowerLevels().GetEventLevel(event.StateTopic) > 0
	})
	if _, err := alice.SendStateEvent(context.Background(), room, event.StateTopic, "", &event.TopicEventContent{Topic: "x"}); err == nil {
		t.Error("alice set the topic without being op")
	}
	bob.Send("MODE #go -t")
	alice.Await("that the topic is free", func(e *event.Event) bool {
		return e.RoomID == room && e.Type == event.StatePowerLevels && e.Content.AsPowerLevels().GetEventLevel(event.StateTopic) == 0
	})
	bob.Send("TOPIC #go :from IRC")
	alice.Await("bob's topic", func(e *event.Event) bool {
		return e.RoomID == room && e.Type == event.StateTopic && e.Content.AsTopic().Topic == "from IRC"
	})
	if _, err := alice.SendStateEvent(context.Background(), room, event.StateTopic, "", &event.TopicEventContent{Topic: "from Matrix"}); err != nil {
		t.Errorf("alice may not set the topic: %v", err)
	}
	bob.Await("TOPIC #go :from Matrix")

	// Without the op's modes alice can not kick, with them she can.
	erin := w.irc.User("erin")
	erin.Join("#go")
	alice.AwaitMembers(room, alice.UserID, bot, ghost("bob"), ghost("erin"))
	if _, err := alice.KickUser(context.Background(), room, kick(ghost("erin"), "no reason")); err == nil {
		t.Error("alice kicked erin without being op")
	}
	bob.Send("MODE #go +o alice")
	alice.Await("that alice is op", func(e *event.Event) bool {
		return e.RoomID == room && e.Type == event.StatePowerLevels && e.Content.AsPowerLevels().GetUserLevel(alice.UserID) == 50
	})
	if _, err := alice.KickUser(context.Background(), room, kick(ghost("erin"), "off topic")); err != nil {
		t.Errorf("alice is op and may not kick: %v", err)
	}
	bob.Await("KICK #go erin :off topic")

	// A ban ends with an invitation.
	erin.Join("#go")
	alice.AwaitMembers(room, alice.UserID, bot, ghost("bob"), ghost("erin"))
	if _, err := alice.BanUser(context.Background(), room, &mautrix.ReqBanUser{UserID: ghost("erin"), Reason: "spam"}); err != nil {
		t.Errorf("alice is op and may not ban: %v", err)
	}
	bob.Await("MODE #go +b ", "erin!*@*")
	bob.Await("KICK #go erin :spam")
	if _, err := alice.UnbanUser(context.Background(), room, &mautrix.ReqUnbanUser{UserID: ghost("erin")}); err != nil {
		t.Errorf("alice may not unban: %v", err)
	}
	bob.Await("MODE #go -b ", "erin!*@*")
	if _, err := alice.InviteUser(context.Background(), room, &mautrix.ReqInviteUser{UserID: ghost("erin")}); err != nil {
		t.Errorf("alice may not invite: %v", err)
	}
	erin.Await("INVITE erin", "#go")
}

func TestOwnMembership(t *testing.T) {
	w := start(t, nil)
	bob := w.irc.User("bob")
	bob.Join("#go")
	alice := w.loggedIn("alice", "alice")
	room := alice.join("#go")

	alice.Ask(alice.manage, "nick alicia", "You are alicia on TestNet now.")
	bob.Await("NICK :alicia")
	alice.Ask(alice.manage, "nick bob", "in use")

	// Leaving the room is leaving the channel.
	if _, err := alice.LeaveRoom(context.Background(), room); err != nil {
		t.Fatal(err)
	}
	bob.Await(":alicia!", "PART", "#go")
	room = alice.join("#go")
	bob.Await(":alicia!", "JOIN", "#go")
	bob.Send("KICK #go alicia :out")
	alice.Await("that alice was kicked", func(e *event.Event) bool {
		return bridgetest.Member(room, alice.UserID, event.MembershipLeave)(e) && e.Content.AsMember().Reason == "out"
	})
	alice.join("#go")
	alice.Ask(alice.manage, "part #go goodbye", "You have left #go")
	bob.Await(":alicia!", "PART #go :goodbye")
}

func TestPrivate(t *testing.T) {
	w := start(t, nil)
	bob := w.irc.User("bob")
	alice := w.loggedIn("alice", "alice")

	// Started by the one on IRC.
	bob.Send("PRIVMSG alice :psst")
	room := alice.DirectRoom(ghost("bob"))
	alice.Await("bob's message", bridgetest.Message(room, "psst"))
	alice.Say(room, "yes?")
	bob.Await("PRIVMSG bob :yes?")

	// The room follows a new nick, which we see in a channel that we share.
	bob.Join("#go")
	alice.join("#go")
	bob.Send("NICK robert")
	alice.Await("the new nick", bridgetest.Message(room, "bob is now known as robert"))
	alice.Say(room, "still there?")
	bob.Await("PRIVMSG robert :still there?")
	bob.Send("PRIVMSG alice :sure")
	alice.Await("robert's message", bridgetest.Message(room, "sure"))

	// Started from Matrix.
	carol := w.irc.User("carol")
	alice.Ask(alice.manage, "start-chat carol", "Created chat with")
	other := alice.DirectRoom(ghost("carol"))
	alice.Say(other, "hello carol")
	carol.Await("PRIVMSG carol :hello carol")
	alice.Ask(alice.manage, "start-chat nobody", "No such nick")

	// Refusals are told.
	carol.Send("QUIT")
	carol.Await("ERROR")
	lost := alice.Say(other, "are you there?")
	status := alice.Await("that it failed", bridgetest.Status(lost, event.MessageStatusFail))
	if c := status.Content.Parsed.(*event.BeeperMessageStatusEventContent); !strings.Contains(c.Message, "No such nick") {
		t.Errorf("the reason is %q", c.Message)
	}
	alice.Await("why it failed", bridgetest.Message(other, "No such nick"))

	// A notice from somebody without a room goes to the management room.
	dave := w.irc.User("dave")
	dave.Send("NOTICE alice :you have mail")
	alice.Await("the notice", bridgetest.Message(alice.manage, "[TestNet] dave: you have mail"))

	// CTCP is answered, and does not show.
	dave.Send("PRIVMSG alice :\x01VERSION\x01")
	dave.Await("NOTICE dave :\x01VERSION Switchboard")
	dave.Send("PRIVMSG alice :\x01DCC SEND cat.png 2130706433 1 2\x01")
	alice.Await("the refusal", bridgetest.Message(alice.manage, "dave on TestNet wants a direct connection (DCC)"))
}

func TestRefused(t *testing.T) {
	for _, plain := range []bool{false, true} {
		t.Run(fmt.Sprintf("plain=%v", plain), func(t *testing.T) {
			w := startOn(t, irctest.Start(t, plain), nil)
			bob := w.irc.User("bob")
			bob.Join("#go")
			alice := w.loggedIn("alice", "alice")
			room := alice.join("#go")
			bob.Send("MODE #go +m")
			alice.Await("the mode", bridgetest.Message(room, "bob set mode +m"))
			lost := alice.Say(room, "may I?")
			status := alice.Await("that it failed", bridgetest.Status(lost, event.MessageStatusFail))
			if c := status.Content.Parsed.(*event.BeeperMessageStatusEventContent); !strings.Contains(c.Message, "TestNet says:") {
				t.Errorf("the reason is %q", c.Message)
			}
			bob.Send("MODE #go +v alice")
			bob.Await("MODE #go +v")
			fine := alice.Say(room, "now I may")
			bob.Await("PRIVMSG #go :now I may")
			alice.Await("that it arrived", bridgetest.Status(fine, event.MessageStatusSuccess))

			alice.Ask(alice.manage, "join go", "is no channel of TestNet")
			bob.Join("#secret")
			bob.Send("MODE #secret +k key")
			bob.Await("MODE #secret")
			alice.Ask(alice.manage, "join #secret", "could not be joined: Cannot join channel")
			alice.Ask(alice.manage, "join #secret key", "You are in")
		})
	}
}

func TestRelay(t *testing.T) {
	w := start(t, func(n *irc.Network, o *bridgetest.Options) {
		n.Relay = &irc.Relay{Nick: "matrix", Channels: []string{"#lobby"}}
	})
	bob := w.irc.User("bob")
	bridgetest.Eventually(t, "the relay is in its channel", func() bool {
		bob.Send("WHOIS matrix")
		bob.Await(" 318 ")
		return len(bob.All(" 319 ", "#lobby")) > 0
	})
	bob.Join("#go")

	alice, carol := w.person("alice"), w.person("carol")
	room := alice.join("#go")
	bob.Await(":matrix!", "JOIN", "#go")
	if other := carol.join("#go"); other != room {
		t.Errorf("two rooms for one channel: %s and %s", room, other)
	}
	alice.AwaitMembers(room, alice.UserID, carol.UserID, bot, ghost("bob"))

	if err := alice.SetDisplayName(context.Background(), "Alice <the\x02> Great"); err != nil {
		t.Fatal(err)
	}
	alice.Await("the new name", func(e *event.Event) bool {
		return bridgetest.Member(room, alice.UserID, event.MembershipJoin)(e) && strings.Contains(e.Content.AsMember().Displayname, "Great")
	})
	sent := alice.Say(room, "first\nsecond")
	bob.Await(":matrix!", "PRIVMSG #go :<Alice the Great> first")
	bob.Await(":matrix!", "PRIVMSG #go :<Alice the Great> second")
	alice.Await("that it arrived", bridgetest.Status(sent, event.MessageStatusSuccess))
	carol.Send(room, &event.MessageEventContent{MsgType: event.MsgEmote, Body: "waves"})
	bob.Await("PRIVMSG #go :* carol waves")
	bob.Send("PRIVMSG #go :hello you two")
	alice.Await("bob's message", bridgetest.Message(room, "hello you two"))

	// Who logs in speaks for himself.
	carol.Ask(carol.manage, "login", "nick on TestNet")
	carol.Ask(carol.manage, "caro", "enter your account")
	carol.Ask(carol.manage, "-", "You are caro")
	carol.join("#go")
	bob.Await(":caro!", "JOIN", "#go")
	carol.Say(room, "with my own nick")
	bob.Await(":caro!", "PRIVMSG #go :with my own nick")
	alice.Say(room, "still relayed")
	bob.Await(":matrix!", "PRIVMSG #go :<Alice the Great> still relayed")

	// Each message is in the room once, whichever connection saw it.
	bob.Send("PRIVMSG #go :once")
	alice.Await("bob's message", bridgetest.Message(room, "once"))
	bob.Send("PRIVMSG #go :end")
	alice.Await("the end", bridgetest.Message(room, "end"))
	for _, text := range []string{"once", "with my own nick", "still relayed"} {
		if all := alice.Events(bridgetest.Message(room, text)); len(all) != 1 {
			t.Errorf("%q is in the room %d times", text, len(all))
		}
	}
	alice.AwaitMembers(room, alice.UserID, carol.UserID, bot, ghost("bob"))
}

func TestMedia(t *testing.T) {
	w := start(t, nil)
	bob := w.irc.User("bob")
	bob.Join("#go")
	alice := w.loggedIn("alice", "alice")
	room := alice.join("#go")
	upload, err := alice.UploadBytesWithName(context.Background(), []byte("\x89PNG\r\n\x1a\n pixels"), "image/png", "cat.png")
	if err != nil {
		t.Fatal(err)
	}
	alice.Send(room, &event.MessageEventContent{
		MsgType: event.MsgImage, Body: "my cat", FileName: "cat.png", URL: upload.ContentURI.CUString(), Info: &event.FileInfo{MimeType: "image/png"},
	})
	line := bob.Await("PRIVMSG #go :my cat "+bridgetest.PublicURL, "cat.png")
	address := line[strings.Index(line, bridgetest.PublicURL):]
	if status, body := w.Fetch(address); status != 200 || !strings.Contains(body, "pixels") {
		t.Errorf("%s: %d %q", address, status, body)
	}
	if status, _ := w.Fetch(strings.Replace(address, "/media/", "/media/x", 1)); status != 404 {
		t.Errorf("a guessed link: %d", status)
	}

	// A message with too many lines becomes its beginning and a link.
	alice.Say(room, strings.Repeat("line\n", 30))
	line = bob.Await("PRIVMSG #go :… " + bridgetest.PublicURL)
	address = line[strings.Index(line, bridgetest.PublicURL):]
	if status, body := w.Fetch(address); status != 200 || strings.Count(body, "line") != 30 {
		t.Errorf("%s: %d %q", address, status, body)
	}
}

func TestNoMedia(t *testing.T) {
	w := start(t, func(_ *irc.Network, o *bridgetest.Options) { o.NoMedia = true })
	alice := w.loggedIn("alice", "alice")
	room := alice.join("#go")
	alice.Send(room, &event.MessageEventContent{MsgType: event.MsgImage, Body: "cat.png", URL: "mxc://switchboard.test/x", Info: &event.FileInfo{}})
	alice.Await("that there are no links", bridgetest.Message(room, "offers no public links"))
	alice.Say(room, strings.Repeat("line\n", 30))
	alice.Await("that it is too long", bridgetest.Message(room, "makes 30 lines on IRC, 10 are allowed"))
}

func TestNickInUse(t *testing.T) {
	w := start(t, nil)
	w.irc.User("taken")
	alice := w.person("alice")
	alice.Ask(alice.manage, "login", "nick on TestNet")
	alice.Ask(alice.manage, "1bad", "must not begin with a digit")
	alice.Ask(alice.manage, "taken", "enter your account")
	alice.Ask(alice.manage, "-", "enter your nick on TestNet")
	alice.Await("why", bridgetest.Message(alice.manage, "taken: that nick is in use"))
	alice.Ask(alice.manage, "-", "enter your account") // the proposal
	alice.Ask(alice.manage, "-", "You are alice[m]")
	alice.Ask(alice.manage, "networks", "you are alice[m], connected")

	// Logging in again ends the old connection and keeps the channels.
	bob := w.irc.User("bob")
	bob.Join("#go")
	room := alice.join("#go")
	bob.Await(":alice[m]!", "JOIN", "#go")
	alice.Ask(alice.manage, "relogin test.alice[m]", "enter your nick on TestNet")
	alice.Ask(alice.manage, "ali", "enter your account")
	alice.Ask(alice.manage, "-", "You are ali on TestNet")
	bob.Await(":alice[m]!", "QUIT")
	bob.Await(":ali!", "JOIN", "#go")
	alice.Say(room, "the new me")
	bob.Await(":ali!", "PRIVMSG #go :the new me")
	bob.Send("PRIVMSG #go :hello ali")
	alice.Await("bob's message", bridgetest.Message(room, "hello ali"))

	// And logging out ends it.
	alice.Ask(alice.manage, "logout test.alice[m]", "Logged out")
	bob.Await(":ali!", "QUIT")
	lost := alice.Say(room, "anybody?")
	alice.Await("that it failed", bridgetest.Status(lost, event.MessageStatusRetriable))
}

// TestBridgeInfo looks at what the room says of itself.
func TestBridgeInfo(t *testing.T) {
	w := start(t, nil)
	alice := w.loggedIn("alice", "alice")
	room := alice.join("#Go")
	state, err := alice.State(context.Background(), room)
	if err != nil {
		t.Fatal(err)
	}
	infos := state[event.StateBridge]
	if len(infos) != 1 {
		t.Fatalf("%d m.bridge events", len(infos))
	}
	for _, e := range infos {
		c, ok := e.Content.Parsed.(*event.BridgeEventContent)
		if !ok || c.Protocol.ID != "irc" || c.Network == nil || c.Network.ID != "test" || c.Network.DisplayName != "TestNet" || c.Channel.ID != "#Go" {
			t.Errorf("m.bridge says %+v", e.Content.Parsed)
		}
	}
}

// TestRestart stops the bridge and the IRC server in turn: the login, the
// channel and the room are there again, and what was written meanwhile arrives.
func TestRestart(t *testing.T) {
	server := irctest.Start(t, false)
	proxy := bridgetest.NewProxy(t, server.Address)
	w := startOn(t, server, func(n *irc.Network, _ *bridgetest.Options) { n.Address = proxy.Address })
	bob := w.irc.User("bob")
	bob.Join("#go")
	alice := w.loggedIn("alice", "alice")
	room := alice.join("#go")

	w.Stop()
	bob.Await(":alice!", "QUIT")
	w.Run()
	bob.Await(":alice!", "JOIN", "#go")
	bob.Send("PRIVMSG #go :welcome back")
	alice.Await("bob's message", bridgetest.Message(room, "welcome back"))

	w.irc.Kill()
	proxy.Down() // the bridge must not be back before bob, who would miss what it says
	bridgetest.Eventually(t, "the bridge knows that there is no connection", func() bool {
		return w.Host.Health().Logins[0].State == string(status.StateTransientDisconnect)
	})
	alice.Say(room, "into the dark 1")
	alice.Say(room, "into the dark 2")
	w.irc.Run()
	bob = w.irc.User("bob")
	bob.Join("#go")
	proxy.Up()
	bob.Await("PRIVMSG #go :into the dark 1")
	bob.Await("PRIVMSG #go :into the dark 2")
	bob.Send("PRIVMSG #go :here again")
	alice.Await("bob's message", bridgetest.Message(room, "here again"))
	alice.AwaitMembers(room, alice.UserID, bot, ghost("bob"))
}
