package xmpp_test

import (
	"context"
	"encoding/base64"
	"slices"
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/xmpp"
	"switchboard/bridges/xmpp/xmpptest"
)

// hall is a room that a Matrix user makes.
const hall = "hall@" + xmpptest.Rooms

// stage is a homeserver with the bridge, where alice is logged in.
type stage struct {
	*testing.T
	*network
	matrix *bridgetest.Server
	alice  *bridgetest.User
	manage id.RoomID
}

func play(t *testing.T, server *xmpptest.Server, change func(*xmpp.Config)) *stage {
	t.Helper()
	return playWith(t, server, change, nil)
}

// playWith is play with other permissions.
func playWith(t *testing.T, server *xmpptest.Server, change func(*xmpp.Config), permissions map[string]string) *stage {
	t.Helper()
	o := direct(server).options(change)
	o.Config.Permissions = permissions
	p := &stage{T: t, network: newNetwork(t, server), matrix: bridgetest.Start(t, o)}
	p.alice, p.manage = p.user("alice")
	return p
}

// user logs a Matrix user in.
func (p *stage) user(name string) (*bridgetest.User, id.RoomID) {
	p.Helper()
	u := p.matrix.User(name)
	manage := u.Manage("@xmppbot:" + bridgetest.ServerName)
	p.logInAs(u, manage, name)
	return u, manage
}

// person is somebody on XMPP who is in no room yet.
func (p *stage) person(name string) *person {
	p.Helper()
	return &person{Person: p.server.Person(name), nick: name}
}

// admin changes somebody's standing in a room, by the attributes of an item.
func (p *person) admin(room, item, reason string) {
	p.Send(`<iq type="set" id="admin-%s" to="%s"><query xmlns="http://jabber.org/protocol/muc#admin"><item `+item+`><reason>%s</reason></item></query></iq>`, p.nick, room, reason)
}

// seesStanding waits until somebody in a room gets a role and affiliation, behind
// so many stanzas.
func (p *person) seesStanding(after int, room, nick, affiliation, role string) {
	standing := func(s xmpptest.Stanza) bool {
		return s.XMLName.Local == "presence" && s.From == room+"/"+nick && s.Room != nil &&
			s.Room.Item.Affiliation == affiliation && s.Room.Item.Role == role
	}
	p.Await(nick+" becomes "+affiliation+" and "+role, func(xmpptest.Stanza) bool { return slices.ContainsFunc(p.Stanzas()[after:], standing) })
}

// seesGone waits until somebody is put out of a room with a status and a reason.
func (p *person) seesGone(room, nick, code, reason string) {
	p.Await(nick+" is gone", func(s xmpptest.Stanza) bool {
		return s.Type == "unavailable" && s.From == room+"/"+nick && s.Room != nil && s.Room.Item.Reason == reason &&
			len(s.Room.Status) > 0 && strings.Contains(codes(s), code)
	})
}

func codes(s xmpptest.Stanza) string {
	var list []string
	for _, c := range s.Room.Status {
		list = append(list, c.Code)
	}
	return strings.Join(list, " ")
}

// level is somebody's power level in a room, as a user sees it.
func level(u *bridgetest.User, room id.RoomID, of id.UserID) int {
	var levels event.PowerLevelsEventContent
	if err := u.StateEvent(context.Background(), room, event.StatePowerLevels, "", &levels); err != nil {
		return -99
	}
	return levels.GetUserLevel(of)
}

// TestSharedRoom has two users of the homeserver in the same room.
func TestSharedRoom(t *testing.T) {
	each(t, func(t *testing.T, server *xmpptest.Server) {
		p := play(t, server, nil)
		bob := p.Person(t, "bob").(*person)
		amy, hers := p.user("amy")
		p.alice.Ask(p.manage, "join "+den, "You are in")
		amy.Ask(hers, "join "+den, "You are in")
		room := p.alice.Room(den)
		if got := amy.Room(den); got != room {
			t.Fatalf("amy is in %s, alice in %s", got, room)
		}
		p.alice.AwaitMembers(room, p.alice.UserID, amy.UserID, bob.Ghost(), "@xmppbot:"+bridgetest.ServerName)
		bob.Write(den, bridgetest.Post{Text: "hello amy and alice"})
		e := amy.Await("bob's message", bridgetest.Message(room, "hello amy"))
		if m := e.Content.AsMessage().Mentions; m == nil || !m.Has(p.alice.UserID) || !m.Has(amy.UserID) {
			t.Errorf("the mentions are %+v", m)
		}
		said := p.alice.Say(room, "hello from alice")
		p.alice.Await("that it arrived", bridgetest.Status(said, event.MessageStatusSuccess))
		amy.Say(room, "hello from amy")
		bob.Await("alice", func(s xmpptest.Stanza) bool { return s.From == den+"/alice" && s.Body == "hello from alice" })
		bob.Await("amy", func(s xmpptest.Stanza) bool { return s.From == den+"/amy" && s.Body == "hello from amy" })
		bob.admin(den, `nick="alice" role="none"`, "enough")
		gone := amy.Await("that alice is out", bridgetest.Member(room, p.alice.UserID, event.MembershipLeave))
		if reason, _ := gone.Content.Raw["reason"].(string); !strings.Contains(reason, "kicked by bob: enough") {
			t.Errorf("the reason is %q", reason)
		}
		p.alice.Await("to be told", bridgetest.Message(p.manage, "You were kicked by bob: enough"))
		bob.Write(den, bridgetest.Post{Text: "she is gone"})
		amy.Await("bob's next message", bridgetest.Message(room, "she is gone"))
		p.alice.Ask(p.manage, "join "+den, "You are in")
		again := p.alice.Say(room, "here again")
		p.alice.Await("that it arrived", bridgetest.Status(again, event.MessageStatusSuccess))
		amy.Ask(hers, "part "+den, "You have left")
		p.alice.Await("that amy is out", bridgetest.Member(room, amy.UserID, event.MembershipLeave))
		for _, text := range []string{"hello amy and alice", "she is gone", "hello from alice", "hello from amy", "here again"} {
			if got := p.alice.Events(bridgetest.Message(room, text)); len(got) > 1 {
				t.Errorf("%q came %d times", text, len(got))
			}
		}
	})
}

// TestAdministration changes from Matrix who may do what in a room, and shows
// what others change.
func TestAdministration(t *testing.T) {
	each(t, testAdministration)
}

func testAdministration(t *testing.T, server *xmpptest.Server) {
	p := play(t, server, nil)
	p.alice.Ask(p.manage, "join "+hall, "You are in")
	room := p.alice.Room(hall)
	bob, carol := p.person("bob"), p.person("carol")
	for _, one := range []*person{bob, carol} {
		one.Enter(hall, one.nick)
		p.alice.Await(one.nick+" comes", bridgetest.Member(room, one.Ghost(), event.MembershipJoin))
	}
	p.powers(room, bob, carol)
	p.exclusions(room, bob, carol)
	// Nicks, of which one is taken.
	p.alice.Ask(room, "!xmpp nick alicia", "is asked for")
	bob.Await("alice's new nick", func(s xmpptest.Stanza) bool { return s.Type == "" && s.From == hall+"/alicia" })
	p.alice.Ask(room, "!xmpp nick bob", "is asked for")
	p.alice.Await("that bob is taken", bridgetest.Message(p.manage, hall+":"))
	p.administered(room, bob)
}

// setLevel gives somebody a power level on Matrix.
func (p *stage) setLevel(room id.RoomID, user id.UserID, to int) {
	p.Helper()
	var levels event.PowerLevelsEventContent
	err := p.alice.StateEvent(context.Background(), room, event.StatePowerLevels, "", &levels)
	if err == nil {
		levels.SetUserLevel(user, to)
		_, err = p.alice.SendStateEvent(context.Background(), room, event.StatePowerLevels, "", &levels)
	}
	if err != nil {
		p.Fatal(err)
	}
}

// stand gives somebody a power level in the hall on Matrix, which they see as a
// standing there.
func (p *stage) stand(room id.RoomID, who *person, level int, affiliation, role string) {
	p.Helper()
	before := len(who.Stanzas())
	p.setLevel(room, who.Ghost(), level)
	who.seesStanding(before, hall, who.nick, affiliation, role)
	p.fence(room)
}

// fence waits until the bridge has handled what happened so far in the hall: what
// alice says comes back to it behind that.
func (p *stage) fence(room id.RoomID) {
	p.Helper()
	p.alice.Await("that it arrived", bridgetest.Status(p.alice.Say(room, "and now?"), event.MessageStatusSuccess))
}

// awaitLevel waits for somebody's power level.
func (p *stage) awaitLevel(room id.RoomID, user id.UserID, is func(int) bool) {
	p.Helper()
	bridgetest.Eventually(p.T, "the level of "+string(user), func() bool { return is(level(p.alice, room, user)) })
}

// powers changes people's power from both sides, and the topic.
func (p *stage) powers(room id.RoomID, bob, carol *person) {
	if got := level(p.alice, room, p.alice.UserID); got != 95 {
		p.Errorf("alice, who made the room, has the level %d", got)
	}
	p.stand(room, carol, 50, "none", "moderator")
	p.stand(room, carol, -1, "none", "visitor")
	p.stand(room, carol, 0, "none", "participant")
	p.stand(room, bob, 75, "admin", "moderator")
	bob.admin(hall, `nick="carol" role="moderator"`, "")
	p.awaitLevel(room, carol.Ghost(), func(n int) bool { return n == 50 })
	bob.admin(hall, `nick="carol" role="participant"`, "")
	p.awaitLevel(room, carol.Ghost(), func(n int) bool { return n == 0 })
	if _, err := p.alice.SendStateEvent(context.Background(), room, event.StateTopic, "", &event.TopicEventContent{Topic: "alice's topic"}); err != nil {
		p.Fatal(err)
	}
	bob.Await("the topic", func(s xmpptest.Stanza) bool { return s.Subject == "alice's topic" })
}

// exclusions puts people out of the room from Matrix, and invites one back.
func (p *stage) exclusions(room id.RoomID, bob, carol *person) {
	ctx := context.Background()
	if _, err := p.alice.KickUser(ctx, room, &mautrix.ReqKickUser{UserID: carol.Ghost(), Reason: "out"}); err != nil {
		p.Fatal(err)
	}
	carol.seesGone(hall, "carol", "307", "out")
	p.fence(room)
	if _, err := p.alice.BanUser(ctx, room, &mautrix.ReqBanUser{UserID: bob.Ghost(), Reason: "for good"}); err != nil {
		p.Fatal(err)
	}
	bob.seesGone(hall, "bob", "301", "for good")
	p.fence(room) // else the ban might be shown when it is over
	if _, err := p.alice.UnbanUser(ctx, room, &mautrix.ReqUnbanUser{UserID: bob.Ghost()}); err != nil {
		p.Fatal(err)
	}
	if _, err := p.alice.InviteUser(ctx, room, &mautrix.ReqInviteUser{UserID: bob.Ghost(), Reason: "come back"}); err != nil {
		p.Fatal(err)
	}
	bob.Await("the invitation", func(s xmpptest.Stanza) bool {
		return s.Room != nil && s.Room.Invite != nil && s.Room.Invite.Reason == "come back"
	})
	here := func(s xmpptest.Stanza) bool { return s.From == hall+"/bob" && s.Type == "" }
	before := len(bob.Stanzas())
	bob.Send(`<presence to="%s/bob"><x xmlns="http://jabber.org/protocol/muc"/></presence>`, hall)
	bob.Await("to be in again", func(xmpptest.Stanza) bool { return slices.ContainsFunc(bob.Stanzas()[before:], here) })
}

// administered has an owner on XMPP ban somebody, and take alice's power.
func (p *stage) administered(room id.RoomID, bob *person) {
	dora := p.person("dora")
	dora.Enter(hall, "dora")
	p.alice.Await("that dora comes", bridgetest.Member(room, dora.Ghost(), event.MembershipJoin))
	p.stand(room, bob, 95, "owner", "moderator")
	bob.admin(hall, `jid="`+dora.JID+`" affiliation="outcast"`, "spam")
	ban := p.alice.Await("that dora is banned", bridgetest.Member(room, dora.Ghost(), event.MembershipBan))
	if ban.Content.Raw["reason"] != "spam" {
		p.Errorf("the reason is %v", ban.Content.Raw["reason"])
	}
	bob.admin(hall, `jid="alice@`+xmpptest.Domain+`" affiliation="member"`, "")
	p.awaitLevel(room, p.alice.UserID, func(n int) bool { return n < 95 })
}

// TestRefused has a room refuse what a Matrix user may.
func TestRefused(t *testing.T) {
	each(t, func(t *testing.T, server *xmpptest.Server) {
		p := play(t, server, nil)
		bob := p.person("bob")
		bob.Enter(den, "bob")
		// In an unmoderated room everybody may change the topic only if it says so.
		p.alice.Ask(p.manage, "join "+den, "You are in")
		room := p.alice.Room(den)
		bob.admin(den, `jid="alice@`+xmpptest.Domain+`" affiliation="admin"`, "")
		bridgetest.Eventually(t, "alice is an admin", func() bool { return level(p.alice, room, p.alice.UserID) == 75 })
		carol := p.person("carol")
		carol.Enter(den, "carol")
		p.alice.Await("that carol comes", bridgetest.Member(room, carol.Ghost(), event.MembershipJoin))
		var levels event.PowerLevelsEventContent
		if err := p.alice.StateEvent(context.Background(), room, event.StatePowerLevels, "", &levels); err != nil {
			t.Fatal(err)
		}
		levels.SetUserLevel(carol.Ghost(), 75) // only owners make admins
		resp, err := p.alice.SendStateEvent(context.Background(), room, event.StatePowerLevels, "", &levels)
		if err != nil {
			t.Fatal(err)
		}
		p.alice.Await("that it failed", bridgetest.Status(resp.EventID, event.MessageStatusFail))
		bridgetest.Eventually(t, "carol's level is set back", func() bool { return level(p.alice, room, carol.Ghost()) == 0 })
	})
}

// TestModeration deletes what others wrote, on both sides.
func TestModeration(t *testing.T) {
	p := play(t, xmpptest.Start(t), nil)
	p.alice.Ask(p.manage, "join "+den, "You are in") // she owns it
	room := p.alice.Room(den)
	bob := p.Person(t, "bob").(*person)
	bob.Write(den, bridgetest.Post{Text: "nonsense"})
	e := p.alice.Await("bob's message", bridgetest.Message(room, "nonsense"))
	if _, err := p.alice.RedactEvent(context.Background(), room, e.ID, mautrix.ReqRedact{Reason: "rules"}); err != nil {
		t.Fatal(err)
	}
	bob.Await("the moderation", func(s xmpptest.Stanza) bool { return s.Moderated != nil && s.From == den })
	p.alice.Ask(p.manage, "nick boss "+den, "is asked for")
	bob.Await("her nick", func(s xmpptest.Stanza) bool { return s.From == den+"/boss" })
	phone := p.server.Person("alice")
	phone.Enter(den, "phone")
	stanza := bob.Write(den, bridgetest.Post{Text: "more of it"})
	more := p.alice.Await("bob's message", bridgetest.Message(room, "more of it"))
	phone.Send(`<iq type="set" id="m" to="`+den+`"><apply-to xmlns="urn:xmpp:fasten:0" id="%s"><moderate xmlns="urn:xmpp:message-moderate:0"><retract xmlns="urn:xmpp:message-retract:0"/></moderate></apply-to></iq>`, stanza)
	p.alice.Await("that it is deleted", func(x *event.Event) bool {
		return x.Type == event.EventRedaction && (x.Redacts == more.ID || x.Content.AsRedaction().Redacts == more.ID)
	})
}

// TestAnonymous is in a room that does not show who is who: people are known by
// what the room says of them, not by their nicks.
func TestAnonymous(t *testing.T) {
	p := play(t, xmpptest.Start(t), nil)
	bob := p.person("bob")
	bob.Enter(den, "bob")
	bob.Send(`<iq type="set" id="config" to="` + den + `"><query xmlns="http://jabber.org/protocol/muc#owner"><x xmlns="jabber:x:data" type="submit">` +
		`<field var="FORM_TYPE" type="hidden"><value>http://jabber.org/protocol/muc#roomconfig</value></field>` +
		`<field var="muc#roomconfig_whois"><value>moderators</value></field></x></query></iq>`)
	bob.Await("that the room is anonymous", func(s xmpptest.Stanza) bool { return s.ID == "config" && s.Type == "result" })
	p.alice.Ask(p.manage, "join "+den, "You are in")
	room := p.alice.Room(den)
	carol := p.person("carol")
	carol.Enter(den, "carol")
	carol.write(den, `<body>who am I?</body>`)
	first := p.alice.Await("carol's message", bridgetest.Message(room, "who am I?"))
	if !strings.HasPrefix(string(first.Sender), "@xmpp_den") || strings.Contains(string(first.Sender), "carol") {
		t.Errorf("carol is %s", first.Sender)
	}
	carol.Send(`<presence to="%s/%s"/>`, den, "kate")
	p.alice.Await("her new name", func(e *event.Event) bool {
		return e.Type == event.StateMember && e.GetStateKey() == string(first.Sender) && e.Content.AsMember().Displayname == "kate"
	})
	carol.write(den, `<body>still me</body>`)
	if e := p.alice.Await("her next message", bridgetest.Message(room, "still me")); e.Sender != first.Sender {
		t.Errorf("carol became %s", e.Sender)
	}
	// In private, through the room.
	carol.Send(`<message type="chat" id="pm" to="%s/alice"><body>psst</body><x xmlns="http://jabber.org/protocol/muc#user"/></message>`, den)
	private := p.alice.Await("a private message", func(e *event.Event) bool {
		return e.RoomID != room && e.Type == event.EventMessage && e.Content.AsMessage().Body == "psst"
	})
	if private.Sender != first.Sender {
		t.Errorf("in private carol is %s", private.Sender)
	}
	p.alice.Say(private.RoomID, "psst yourself")
	carol.Await("the answer", func(s xmpptest.Stanza) bool {
		return s.From == den+"/alice" && s.Body == "psst yourself" && s.Type == "chat"
	})
	// Somebody who is a moderator sees accounts, but the Matrix room must not.
	bob.admin(den, `nick="alice" role="moderator"`, "")
	bridgetest.Eventually(t, "alice is a moderator", func() bool { return level(p.alice, room, p.alice.UserID) == 50 })
	dora := p.person("dora")
	dora.Enter(den, "dora")
	dora.write(den, `<body>and I?</body>`)
	if e := p.alice.Await("dora's message", bridgetest.Message(room, "and I?")); e.Sender == dora.Ghost() {
		t.Errorf("the room shows dora's account: %s", e.Sender)
	}
}

// TestRoomAvatar shows the picture of a room.
func TestRoomAvatar(t *testing.T) {
	p := play(t, xmpptest.Start(t), nil)
	bob := p.Person(t, "bob").(*person)
	picture := func(data string) {
		bob.Send(`<iq type="set" id="v" to="`+den+`"><vCard xmlns="vcard-temp"><PHOTO><TYPE>image/png</TYPE><BINVAL>%s</BINVAL></PHOTO></vCard></iq>`,
			base64.StdEncoding.EncodeToString([]byte(data)))
	}
	shows := func(room id.RoomID, data string) {
		t.Helper()
		bridgetest.Eventually(t, "the avatar", func() bool {
			var content event.RoomAvatarEventContent
			if p.alice.StateEvent(context.Background(), room, event.StateRoomAvatar, "", &content) != nil {
				return false
			}
			uri, err := content.URL.Parse()
			if err != nil {
				return false
			}
			got, err := p.alice.DownloadBytes(context.Background(), uri)
			return err == nil && string(got) == data
		})
	}
	picture("first")
	bob.Await("that the picture is set", func(s xmpptest.Stanza) bool { return s.ID == "v" && s.Type == "result" })
	p.alice.Ask(p.manage, "join "+den, "You are in")
	room := p.alice.Room(den)
	shows(room, "first")
	picture("second")
	shows(room, "second")
}

// TestForgotten has a room forget a user without a word: the bridge asks, and
// goes back.
func TestForgotten(t *testing.T) {
	p := play(t, xmpptest.Start(t), func(c *xmpp.Config) { c.RoomCheck = time.Second })
	bob := p.Person(t, "bob").(*person)
	p.alice.Ask(p.manage, "join "+den, "You are in")
	room := p.alice.Room(den)
	bob.Send(`<iq type="set" id="forget" to="` + xmpptest.Rooms + `"><forget xmlns="urn:test:forget"/></iq>`)
	bob.Await("that all is forgotten", func(s xmpptest.Stanza) bool { return s.ID == "forget" && s.Type == "result" })
	bob.Enter(den, "bob")
	bob.Write(den, bridgetest.Post{Text: "welcome back"})
	p.alice.Await("what bob says", bridgetest.Message(room, "welcome back"))
}

// TestAway has the server of a room not answer when the bridge goes back into it:
// the bridge tries until it does.
func TestAway(t *testing.T) {
	p := play(t, xmpptest.Start(t), nil)
	bob := p.Person(t, "bob").(*person)
	p.alice.Ask(p.manage, "join "+den, "You are in")
	room := p.alice.Room(den)
	answers := func(how string) {
		bob.Send(`<iq type="set" id="` + how + `" to="` + xmpptest.Rooms + `"><` + how + ` xmlns="urn:test:forget"/></iq>`)
		bob.Await("that the server is "+how, func(s xmpptest.Stanza) bool { return s.ID == how && s.Type == "result" })
	}
	answers("away")
	p.matrix.Stop()
	p.matrix.Run()
	p.alice.Await("to be told", bridgetest.Message(p.manage, den+" can not be reached"))
	answers("back")
	bob.Write(den, bridgetest.Post{Text: "welcome back"})
	p.alice.Await("what bob says", bridgetest.Message(room, "welcome back"))
	said := p.alice.Say(room, "here I am")
	p.alice.Await("that it arrived", bridgetest.Status(said, event.MessageStatusSuccess))
}

// TestRelay: who may not log in speaks through the login of an administrator who
// offers that.
func TestRelay(t *testing.T) {
	each(t, func(t *testing.T, server *xmpptest.Server) {
		p := playWith(t, server, nil, map[string]string{"@alice:" + bridgetest.ServerName: "admin", "*": "relay"})
		bob := p.Person(t, "bob").(*person)
		p.alice.Ask(p.manage, "join "+den, "You are in")
		room := p.alice.Room(den)
		p.alice.Ask(room, "!xmpp set-relay", "will now be relayed")
		guest := p.matrix.User("guest")
		ctx := context.Background()
		if _, err := p.alice.InviteUser(ctx, room, &mautrix.ReqInviteUser{UserID: guest.UserID}); err != nil {
			t.Fatal(err)
		}
		if _, err := guest.JoinRoomByID(ctx, room); err != nil {
			t.Fatal(err)
		}
		said := guest.Say(room, "hello from a guest")
		bob.Await("the guest", func(s xmpptest.Stanza) bool {
			return s.From == den+"/alice" && strings.Contains(s.Body, "guest") && strings.Contains(s.Body, "hello from a guest")
		})
		guest.Await("that it arrived", bridgetest.Status(said, event.MessageStatusSuccess))
		bob.Write(den, bridgetest.Post{Text: "hello guest"})
		guest.Await("bob's answer", bridgetest.Message(room, "hello guest"))
	})
}
