package whatsapp_test

import (
	"bytes"
	"context"
	"image"
	_ "image/jpeg" // what the bridge makes of a picture
	"strings"
	"testing"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/types"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/whatsapp/whatsapptest"
)

// family is a world with a group that bob runs: alice, who is on Matrix, and
// carol are in it, dora and eve are not.
type family struct {
	*world
	alice                 *person
	bob, carol, dora, eve *whatsapptest.Phone
	group                 types.JID
	room                  id.RoomID
}

func newFamily(t *testing.T) *family {
	t.Helper()
	w := start(t, nil)
	f := &family{
		world: w, bob: w.wa.Phone(t, "15550002", "Bob"), carol: w.wa.Phone(t, "15550003", "Carol"),
		dora: w.wa.Phone(t, "15550004", "Dora"), eve: w.wa.Phone(t, "15550005", "Eve"),
	}
	f.alice = w.linked("alice", "15550001")
	f.group = w.wa.Group("Family", f.bob.Account, f.alice.phone.Account, f.carol.Account)
	f.room = f.alice.Room("Family")
	f.alice.AwaitMembers(f.room, f.alice.UserID, bot, ghost(f.bob.Account), ghost(f.carol.Account))
	return f
}

// ask lets a phone change the group.
func (f *family) ask(what string, err error) {
	f.t.Helper()
	if err != nil {
		f.t.Fatalf("%s: %v", what, err)
	}
}

// state is a part of the room's state.
func state[C any](f *family, kind event.Type) *C {
	content := new(C)
	_ = f.alice.StateEvent(context.Background(), f.room, kind, "", content) // then it is empty
	return content
}

// levels waits until the power levels are as they should be.
func (f *family) levels(what string, right func(*event.PowerLevelsEventContent) bool) {
	f.t.Helper()
	bridgetest.Eventually(f.t, what, func() bool { return right(state[event.PowerLevelsEventContent](f, event.StatePowerLevels)) })
}

// level waits until somebody has a power level.
func (f *family) level(who id.UserID, want int) {
	f.t.Helper()
	f.levels("the power level of "+string(who), func(l *event.PowerLevelsEventContent) bool { return l.GetUserLevel(who) == want })
}

// members changes who is in the group, as bob.
func (f *family) members(who *whatsapptest.Phone, action whatsmeow.ParticipantChange) {
	f.t.Helper()
	_, err := f.bob.UpdateGroupParticipants(context.Background(), f.group, []types.JID{who.Account.LID}, action)
	f.ask(string(action), err)
}

// TestGroupToMatrix changes everything about a group from a phone.
func TestGroupToMatrix(t *testing.T) {
	f, ctx := newFamily(t), context.Background()
	f.ask("name", f.bob.SetGroupName(ctx, f.group, "Relatives"))
	named := f.alice.Await("the new name", func(e *event.Event) bool {
		return e.RoomID == f.room && e.Type == event.StateRoomName && e.Content.AsRoomName().Name == "Relatives"
	})
	if named.Sender != ghost(f.bob.Account) {
		t.Errorf("%s gave the name", named.Sender)
	}
	f.ask("topic", f.bob.SetGroupTopic(ctx, f.group, "", "", "about us"))
	bridgetest.Eventually(t, "the topic", func() bool { return state[event.TopicEventContent](f, event.StateTopic).Topic == "about us" })

	face := []byte("\xff\xd8\xff\xe0 a picture of all")
	_, err := f.bob.SetGroupPhoto(ctx, f.group, face)
	f.ask("picture", err)
	bridgetest.Eventually(t, "the picture", func() bool {
		url := state[event.RoomAvatarEventContent](f, event.StateRoomAvatar).URL
		return url != "" && bytes.Equal(f.alice.download(url), face)
	})

	f.members(f.dora, whatsmeow.ParticipantChangeAdd)
	f.alice.Await("that dora is in", bridgetest.Member(f.room, ghost(f.dora.Account), event.MembershipJoin))
	f.members(f.dora, whatsmeow.ParticipantChangeRemove)
	gone := f.alice.Await("that dora is out", bridgetest.Member(f.room, ghost(f.dora.Account), event.MembershipLeave))
	if gone.Sender != ghost(f.bob.Account) {
		t.Errorf("%s took dora out", gone.Sender)
	}
	f.members(f.carol, whatsmeow.ParticipantChangePromote)
	f.level(ghost(f.carol.Account), 50)
	f.members(f.carol, whatsmeow.ParticipantChangeDemote)
	f.level(ghost(f.carol.Account), 0)
	f.ask("leave", f.carol.LeaveGroup(ctx, f.group))
	f.alice.Await("that carol has left", bridgetest.Member(f.room, ghost(f.carol.Account), event.MembershipLeave))

	f.ask("announcements only", f.bob.SetGroupAnnounce(ctx, f.group, true))
	f.levels("only admins may write", func(l *event.PowerLevelsEventContent) bool { return l.EventsDefault == 50 })
	if _, err := f.alice.SendText(ctx, f.room, "may I?"); err == nil {
		t.Error("alice may write among announcements")
	}
	f.ask("no announcements", f.bob.SetGroupAnnounce(ctx, f.group, false))
	f.levels("all may write", func(l *event.PowerLevelsEventContent) bool { return l.EventsDefault == 0 })
	f.ask("lock", f.bob.SetGroupLocked(ctx, f.group, true))
	f.levels("only admins may name it", func(l *event.PowerLevelsEventContent) bool { return l.GetEventLevel(event.StateRoomName) == 50 })

	f.members(f.alice.phone, whatsmeow.ParticipantChangePromote)
	f.level(f.alice.UserID, 50)
	f.members(f.alice.phone, whatsmeow.ParticipantChangeRemove)
	f.alice.Await("that alice is out", bridgetest.Member(f.room, f.alice.UserID, event.MembershipLeave))
}

// TestGroupToWhatsApp changes everything about a group from Matrix.
func TestGroupToWhatsApp(t *testing.T) {
	f, ctx := newFamily(t), context.Background()
	set := func(kind event.Type, content any) {
		t.Helper()
		_, err := f.alice.SendStateEvent(ctx, f.room, kind, "", content)
		f.ask(kind.Type, err)
	}
	set(event.StateRoomName, &event.RoomNameEventContent{Name: "Relatives"}) // any member may
	bridgetest.Eventually(t, "the name", func() bool { return f.wa.Subject(f.group) == "Relatives" })

	f.members(f.alice.phone, whatsmeow.ParticipantChangePromote)
	f.level(f.alice.UserID, 50)
	set(event.StateTopic, &event.TopicEventContent{Topic: "about us"})
	bridgetest.Eventually(t, "the topic", func() bool { return f.wa.Topic(f.group) == "about us" })
	set(event.StateRoomAvatar, &event.RoomAvatarEventContent{URL: f.alice.uploaded(picture(40, 20), "image/png")})
	bridgetest.Eventually(t, "the picture", func() bool {
		c, kind, err := image.DecodeConfig(bytes.NewReader(f.wa.Picture(f.group)))
		return err == nil && kind == "jpeg" && c.Width == 20 && c.Height == 20
	})

	is := func(what string, who *whatsapptest.Phone, in, admin bool) {
		t.Helper()
		bridgetest.Eventually(t, what, func() bool {
			a, is := f.wa.Members(f.group)[who.Account.LID]
			return is == in && a == admin
		})
	}
	invite := func(who *whatsapptest.Phone) {
		t.Helper()
		_, err := f.alice.InviteUser(ctx, f.room, &mautrix.ReqInviteUser{UserID: ghost(who.Account)})
		f.ask("invite", err)
	}
	invite(f.dora)
	is("dora is in", f.dora, true, false)
	f.alice.Await("that dora is in", bridgetest.Member(f.room, ghost(f.dora.Account), event.MembershipJoin))
	f.eve.Account.Private = true
	invite(f.eve)
	out := f.alice.Await("that eve is not in", bridgetest.Member(f.room, ghost(f.eve.Account), event.MembershipLeave))
	if reason := out.Content.AsMember().Reason; !strings.Contains(reason, "Their privacy settings do not let you add them.") {
		t.Errorf("the reason is %q", reason)
	}
	is("eve is not in", f.eve, false, false)

	levels := state[event.PowerLevelsEventContent](f, event.StatePowerLevels)
	levels.SetUserLevel(ghost(f.carol.Account), 50)
	set(event.StatePowerLevels, levels)
	is("carol is an admin", f.carol, true, true)
	_, err := f.alice.KickUser(ctx, f.room, &mautrix.ReqKickUser{UserID: ghost(f.dora.Account)})
	f.ask("kick", err)
	is("dora is out", f.dora, false, false)

	_, err = f.alice.LeaveRoom(ctx, f.room)
	f.ask("leave", err)
	is("alice is out", f.alice.phone, false, false)
}

// TestRefusals tries what only admins may, where Matrix does not know it.
func TestRefusals(t *testing.T) {
	f, ctx := newFamily(t), context.Background()
	f.wa.Restrict(f.group)
	f.alice.refused(f.alice.Say(f.room, "may I?"), "it is for admins only")
	_, err := f.alice.SendStateEvent(ctx, f.room, event.StateRoomName, "", &event.RoomNameEventContent{Name: "Mine"})
	f.ask("name", err)
	f.alice.Await("that the name is refused", func(e *event.Event) bool {
		return e.RoomID == f.room && e.Type == event.StateRoomName && e.Sender == bot && e.Content.AsRoomName().Name == "Family"
	})
	if got := f.wa.Subject(f.group); got != "Family" {
		t.Errorf("the group is called %q", got)
	}
}
