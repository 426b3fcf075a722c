package whatsapp_test

import (
	"path/filepath"
	"testing"

	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types"
	"google.golang.org/protobuf/proto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/whatsapp"
)

// forget is all that a bridge writes down of what it shows: without that it is as
// if it had been killed when the homeserver had just taken it.
var forget = []string{
	"BEFORE INSERT ON message",
	"BEFORE UPDATE ON message",
	"BEFORE DELETE ON message",
	"BEFORE INSERT ON reaction",
	"BEFORE UPDATE ON whatsmeow_event_buffer",
}

// TestCutOff has a bridge that ends between showing what somebody says, edits,
// deletes and reacts to, and writing that down. WhatsApp gives it to the next one
// again, which shows nothing twice.
func TestCutOff(t *testing.T) {
	file := filepath.Join(t.TempDir(), "bridge.db")
	k := talking(t, func(_ *whatsapp.Config, o *bridgetest.Options) { o.Database = "sqlite:" + file })
	alice, bob := k.alice, k.bob
	group := k.wa.Group("Family", bob.Account, alice.phone.Account)
	rooms := map[types.JID]id.RoomID{alice.lid(): k.room, group: alice.Room("Family")}
	said := func(room id.RoomID, text string) func(*event.Event) bool {
		return func(e *event.Event) bool {
			return e.RoomID == room && e.Type == event.EventMessage && e.Content.AsMessage().Body == text
		}
	}
	of := make(map[types.JID][3]string)
	for chat, room := range rooms {
		var ids [3]string
		for i, text := range [...]string{"to be edited", "to be deleted", "to be liked"} {
			ids[i] = bob.Say(chat, text)
			alice.Await(text, said(room, text))
		}
		of[chat] = ids
	}
	bridgetest.Eventually(t, "the bridge has written all that down", func() bool { return k.wa.Unconfirmed(alice.phone.Account) == 0 })

	k.Stop()
	remember := bridgetest.Forget(t, file, forget...)
	k.wa.SetForgetful(true)
	k.Run()
	shown := map[string]func(id.RoomID) func(*event.Event) bool{
		"the message": func(room id.RoomID) func(*event.Event) bool { return said(room, "new") },
		"the edit": func(room id.RoomID) func(*event.Event) bool {
			return func(e *event.Event) bool {
				return e.RoomID == room && e.Type == event.EventMessage && e.Content.AsMessage().RelatesTo.GetReplaceID() != ""
			}
		},
		"the deletion": func(room id.RoomID) func(*event.Event) bool {
			return func(e *event.Event) bool { return e.RoomID == room && e.Type == event.EventRedaction }
		},
		"the reaction": func(room id.RoomID) func(*event.Event) bool {
			return func(e *event.Event) bool { return e.RoomID == room && e.Type == event.EventReaction }
		},
	}
	for chat, room := range rooms {
		bob.Send(chat, bob.BuildEdit(chat, of[chat][0], &waE2E.Message{Conversation: proto.String("edited")}))
		bob.Send(chat, bob.BuildRevoke(chat, bob.Account.LID, of[chat][1]))
		bob.Send(chat, bob.BuildReaction(chat, bob.Account.LID, of[chat][2], "👍"))
		bob.Say(chat, "new")
		for what, is := range shown {
			alice.Await(what, is(room))
		}
	}
	k.Stop()
	remember()
	k.wa.SetForgetful(false)
	k.Run()
	for chat, room := range rooms {
		bob.Say(chat, "last")
		alice.Await("what comes behind it", said(room, "last"))
		for what, is := range shown {
			if got := alice.Events(is(room)); len(got) != 1 {
				t.Errorf("alice got %s in %s %d times", what, chat, len(got))
			}
		}
	}
}
