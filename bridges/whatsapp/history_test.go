package whatsapp_test

import (
	"slices"
	"testing"
	"time"

	"go.mau.fi/whatsmeow/proto/waCommon"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/proto/waHistorySync"
	"go.mau.fi/whatsmeow/proto/waWeb"
	"go.mau.fi/whatsmeow/types"
	"google.golang.org/protobuf/proto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/whatsapp"
	"switchboard/bridges/whatsapp/whatsapptest"
)

// past is when the oldest message of the history was sent.
var past = time.Date(2024, 3, 1, 12, 0, 0, 0, time.UTC)

// remembered is an old message, number i of its chat. Without an author it is
// the account's own.
func remembered(chat types.JID, author *whatsapptest.Account, i int, text string) *waHistorySync.HistorySyncMsg {
	key := &waCommon.MessageKey{RemoteJID: proto.String(chat.String()), FromMe: proto.Bool(author == nil), ID: proto.String("OLD" + text)}
	web := &waWeb.WebMessageInfo{
		Key: key, Message: &waE2E.Message{Conversation: &text}, MessageTimestamp: proto.Uint64(uint64(past.Add(time.Duration(i) * time.Minute).Unix())),
	}
	if author != nil && chat.Server == types.GroupServer {
		key.Participant = proto.String(author.LID.String())
		web.Participant = key.Participant
	}
	return &waHistorySync.HistorySyncMsg{Message: web}
}

// TestHistory links a phone with old messages, which it sends in two parts, the
// newest first.
func TestHistory(t *testing.T) {
	w := start(t, func(c *whatsapp.Config, _ *bridgetest.Options) { c.History = 3 })
	bob := w.wa.Phone(t, "15550002", "Bob")
	alice := w.person("alice", "15550001")
	group := w.wa.Group("Family", bob.Account, alice.phone.Account)
	alice.link()
	conversation := func(chat types.JID, list ...*waHistorySync.HistorySyncMsg) *waHistorySync.Conversation {
		return &waHistorySync.Conversation{ID: proto.String(chat.String()), Messages: list}
	}
	private := conversation(bob.Account.LID, remembered(bob.Account.LID, nil, 3, "four"), remembered(bob.Account.LID, bob.Account, 2, "three"))
	private.Messages[0].Message.Reactions = []*waWeb.Reaction{{
		Key: &waCommon.MessageKey{RemoteJID: private.ID, FromMe: proto.Bool(false), ID: proto.String("R")}, Text: proto.String("👍"),
	}}
	alice.phone.History(&waHistorySync.HistorySync{
		SyncType: waHistorySync.HistorySync_INITIAL_BOOTSTRAP.Enum(), Progress: proto.Uint32(50), ChunkOrder: proto.Uint32(1),
		Conversations: []*waHistorySync.Conversation{private},
	})
	alice.phone.History(&waHistorySync.HistorySync{
		SyncType: waHistorySync.HistorySync_RECENT.Enum(), Progress: proto.Uint32(100), ChunkOrder: proto.Uint32(2),
		Conversations: []*waHistorySync.Conversation{
			conversation(bob.Account.LID, remembered(bob.Account.LID, nil, 1, "two"), remembered(bob.Account.LID, bob.Account, 0, "too old")),
			conversation(group, remembered(group, bob.Account, 1, "in the group"), remembered(group, nil, 0, "to the group")),
		},
	})

	type line struct {
		from id.UserID
		text string
		at   time.Time
	}
	check := func(room id.RoomID, want ...line) {
		t.Helper()
		alice.Await("the last message", bridgetest.Message(room, want[len(want)-1].text))
		var got []line
		for _, e := range alice.Events(bridgetest.Message(room, "")) {
			got = append(got, line{e.Sender, e.Content.AsMessage().Body, time.UnixMilli(e.Timestamp).UTC()})
		}
		if !slices.Equal(got, want) {
			t.Errorf("the history is %v, want %v", got, want)
		}
	}
	room := alice.chat(bob.Account)
	check(room,
		line{alice.UserID, "two", past.Add(time.Minute)},
		line{ghost(bob.Account), "three", past.Add(2 * time.Minute)},
		line{alice.UserID, "four", past.Add(3 * time.Minute)},
	)
	alice.Await("bob's reaction", func(e *event.Event) bool {
		return e.Type == event.EventReaction && e.Sender == ghost(bob.Account) && e.RoomID == room
	})
	check(alice.Room("Family"), line{alice.UserID, "to the group", past}, line{ghost(bob.Account), "in the group", past.Add(time.Minute)})

	// What is older than a quarter of an hour can not be edited any more.
	mine := alice.Await("an own message", bridgetest.Message(room, "four"))
	edit := &event.MessageEventContent{MsgType: event.MsgText, Body: "five"}
	edit.SetEdit(mine.ID)
	alice.refused(alice.Send(room, edit), "too old to be edited")

	// The talk goes on behind it.
	bob.Say(alice.lid(), "and now")
	alice.Await("a new message", bridgetest.Message(room, "and now"))
}
