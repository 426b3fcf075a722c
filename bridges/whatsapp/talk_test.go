package whatsapp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types/events"
	"google.golang.org/protobuf/proto"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/whatsapp/whatsapptest"
)

// TestMentions names people in a group, both ways.
func TestMentions(t *testing.T) {
	f := newFamily(t)
	carol, alice := f.carol.Account, f.alice.phone.Account
	f.alice.gets(f.room, ghost(carol), func() { f.carol.Say(f.group, "my name is Carol") })
	text := fmt.Sprintf("@%s and @%s, dinner?", alice.LID.User, carol.PN.User) // a name of each kind
	e := f.alice.gets(f.room, ghost(f.bob.Account), func() {
		f.bob.Send(f.group, &waE2E.Message{ExtendedTextMessage: &waE2E.ExtendedTextMessage{
			Text: &text, ContextInfo: &waE2E.ContextInfo{MentionedJID: []string{alice.LID.String(), carol.PN.String()}},
		}})
	}).Content.AsMessage()
	if want := []id.UserID{f.alice.UserID, ghost(carol)}; !slices.Equal(e.Mentions.UserIDs, want) {
		t.Errorf("it mentions %v, want %v", e.Mentions.UserIDs, want)
	}
	if link := fmt.Sprintf(`<a href="%s">`, ghost(carol).URI().MatrixToURL()); !strings.Contains(e.FormattedBody, link) || e.Body != "alice and Carol, dinner?" {
		t.Errorf("it says %q, %q", e.Body, e.FormattedBody)
	}
	m := f.alice.arrives(f.bob, f.room, event.EventMessage, &event.MessageEventContent{
		MsgType: event.MsgText, Body: "Carol: soup?", Mentions: &event.Mentions{UserIDs: []id.UserID{ghost(carol)}},
		Format: event.FormatHTML, FormattedBody: fmt.Sprintf(`<a href="%s">Carol</a>: soup?`, ghost(carol).URI().MatrixToURL()),
	})
	if got := m.GetExtendedTextMessage(); got.GetText() != "@"+carol.LID.User+": soup?" || !slices.Equal(got.GetContextInfo().GetMentionedJID(), []string{carol.LID.String()}) {
		t.Errorf("it arrived as %v", m)
	}
}

// TestDeletionOfOthers deletes as an admin what others wrote, both ways.
func TestDeletionOfOthers(t *testing.T) {
	f := newFamily(t)
	said := func(text string) (message string, e *event.Event) {
		e = f.alice.gets(f.room, ghost(f.carol.Account), func() { message = f.carol.Say(f.group, text) })
		return message, e
	}
	message, e := said("a spoiler")
	f.bob.Send(f.group, f.bob.BuildRevoke(f.group, f.carol.Account.LID, message))
	gone := f.alice.Await("the deletion", func(r *event.Event) bool {
		return r.Type == event.EventRedaction && (r.Redacts == e.ID || r.Content.AsRedaction().Redacts == e.ID)
	})
	if gone.Sender != ghost(f.bob.Account) {
		t.Errorf("%s deleted it", gone.Sender)
	}
	f.members(f.alice.phone, whatsmeow.ParticipantChangePromote)
	f.level(f.alice.UserID, 50)
	message, e = said("another spoiler")
	if _, err := f.alice.RedactEvent(context.Background(), f.room, e.ID); err != nil {
		t.Fatal(err)
	}
	f.bob.Message("the deletion", func(m *events.Message) bool {
		p := m.Message.GetProtocolMessage()
		return p.GetType() == waE2E.ProtocolMessage_REVOKE && p.GetKey().GetID() == message && p.GetKey().GetParticipant() == f.carol.Account.LID.String()
	})
}

// TestTalk looks at what two people do in a private chat beside what every
// network has.
func TestTalk(t *testing.T) {
	k := talking(t, nil)
	ctx, bob, alice, room := context.Background(), k.bob, k.alice, k.room
	from := func(m *waE2E.Message) *event.MessageEventContent {
		t.Helper()
		return alice.gets(room, ghost(bob.Account), func() { bob.Send(alice.lid(), m) }).Content.AsMessage()
	}
	t.Run("what others wrote stays", func(t *testing.T) {
		e := alice.gets(room, ghost(bob.Account), func() { bob.Say(alice.lid(), "this stays") })
		if _, err := alice.RedactEvent(ctx, room, e.ID); !errors.Is(err, mautrix.MForbidden) {
			t.Errorf("alice deletes what bob wrote: %v", err)
		}
	})
	t.Run("delivery", func(t *testing.T) {
		sent := alice.Say(room, "has it come?")
		alice.Await("that it was delivered", func(e *event.Event) bool {
			s, ok := e.Content.Parsed.(*event.BeeperMessageStatusEventContent)
			return ok && s.RelatesTo.EventID == sent && s.DeliveredToUsers != nil && slices.Contains(*s.DeliveredToUsers, ghost(bob.Account))
		})
	})
	t.Run("one reaction each", func(t *testing.T) {
		m := alice.arrives(bob, room, event.EventMessage, &event.MessageEventContent{MsgType: event.MsgText, Body: "how do you like it?"})
		if m.GetConversation() != "how do you like it?" {
			t.Fatalf("it arrived as %v", m)
		}
		of := bob.Said("how do you like it?").Info.ID
		react := func(emoji string) *event.Event {
			bob.Send(alice.lid(), bob.BuildReaction(alice.lid(), alice.lid(), of, emoji))
			return alice.Await(emoji, func(e *event.Event) bool {
				return e.Type == event.EventReaction && strings.HasPrefix(e.Content.AsReaction().RelatesTo.Key, emoji)
			})
		}
		first := react("👍")
		react("🎉")
		alice.Await("that the first is gone", func(e *event.Event) bool {
			return e.Type == event.EventRedaction && (e.Redacts == first.ID || e.Content.AsRedaction().Redacts == first.ID)
		})
	})
	t.Run("poll", func(t *testing.T) {
		if c := from(bob.BuildPollCreation("Lunch?", []string{"Pizza", "Soup"}, 1)); c.Body != "Poll: Lunch?\n• Pizza\n• Soup\nVote on your phone." {
			t.Errorf("it is %q", c.Body)
		}
	})
	t.Run("buttons", func(t *testing.T) {
		c := from(&waE2E.Message{ButtonsMessage: &waE2E.ButtonsMessage{ContentText: proto.String("Your parcel"), Buttons: []*waE2E.ButtonsMessage_Button{
			{ButtonText: &waE2E.ButtonsMessage_Button_ButtonText{DisplayText: proto.String("Track")}},
		}}})
		if c.Body != "Your parcel\n• Track" {
			t.Errorf("it is %q", c.Body)
		}
	})
	t.Run("invitation to a group", func(t *testing.T) {
		c := from(&waE2E.Message{GroupInviteMessage: &waE2E.GroupInviteMessage{GroupName: proto.String("Chess"), InviteCode: proto.String("x")}})
		if c.Body != "Invitation to the group Chess\nAccept it on your phone." {
			t.Errorf("it is %q", c.Body)
		}
	})
	t.Run("something unknown", func(t *testing.T) {
		c := from(&waE2E.Message{EventMessage: &waE2E.EventMessage{Name: proto.String("Party")}})
		if c.MsgType != event.MsgNotice || !strings.Contains(c.Body, "can not be shown here") {
			t.Errorf("it is %+v", c)
		}
	})
	t.Run("unreadable at first", func(t *testing.T) {
		k.wa.Garble(alice.phone.Account)
		e := alice.gets(room, ghost(bob.Account), func() { bob.Say(alice.lid(), "a secret") })
		if !strings.Contains(e.Content.AsMessage().Body, "could not be read yet") {
			t.Errorf("at first it is %q", e.Content.AsMessage().Body)
		}
		alice.Await("the message itself", func(x *event.Event) bool {
			c := x.Content.AsMessage()
			return x.Type == event.EventMessage && c.RelatesTo.GetReplaceID() == e.ID && c.NewContent.Body == "a secret"
		})
	})
}

// TestPeople looks at names, pictures and IDs.
func TestPeople(t *testing.T) {
	k := talking(t, nil)
	ctx, bob, who := context.Background(), k.bob, ghost(k.bob.Account)
	named := func(name string) func(*event.Event) bool {
		return func(e *event.Event) bool {
			return bridgetest.Member(k.room, who, event.MembershipJoin)(e) && e.Content.AsMember().Displayname == name
		}
	}
	k.alice.Await("bob's name", named("Bob"))
	k.wa.Rename(bob.Account, "Robert")
	bob.Say(k.alice.lid(), "I have a new name")
	k.alice.Await("bob's new name", named("Robert"))

	for _, face := range [][]byte{[]byte("a face"), []byte("another face"), nil} {
		k.wa.SetPicture(bob.Account.LID, face)
		bridgetest.Eventually(t, "bob's picture", func() bool {
			p, err := k.alice.GetProfile(ctx, who)
			if err != nil || face == nil || p.AvatarURL.IsEmpty() {
				return err == nil && face == nil && p.AvatarURL.IsEmpty()
			}
			got, err := k.alice.DownloadBytes(ctx, p.AvatarURL)
			return err == nil && bytes.Equal(got, face)
		})
	}

	dora := k.wa.Phone(t, "15550004", "Dora")
	k.alice.Ask(k.alice.manage, "start-chat +1 555 0099", "+15550099 is not on WhatsApp")
	k.alice.Ask(k.alice.manage, "start-chat 0155", "is no phone number with a country code")
	k.alice.Say(k.alice.manage, "start-chat +1 555 0004")
	k.alice.Say(k.alice.chat(dora.Account), "hello Dora")
	dora.Said("hello Dora")
	for _, e := range k.alice.Events(func(*event.Event) bool { return true }) {
		for _, p := range []*whatsapptest.Phone{bob, dora, k.alice.phone} {
			if user := string(e.Sender) + " " + e.GetStateKey(); strings.Contains(user, p.Account.PN.User) {
				t.Errorf("somebody is named by a phone number: %s", user)
			}
		}
	}
}
