package whatsapp_test

import (
	"bytes"
	"io"
	"net/http"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mau.fi/whatsmeow/proto/waCommon"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/proto/waHistorySync"
	"go.mau.fi/whatsmeow/proto/waWeb"
	"go.mau.fi/whatsmeow/types"
	"google.golang.org/protobuf/proto"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge"
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
	w := start(t, func(c *whatsapp.Config, o *bridgetest.Options) {
		c.History = 3
		// The second part says that it is the last: it must not come too late.
		o.Connector = func() bridgev2.NetworkConnector { return whatsapp.NewWaiting(*c, time.Hour) }
	})
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

// TestHistoryCutOff has a bridge that ends when it has brought old messages into a
// room, and before it has written down that it has: the next one shows none twice.
func TestHistoryCutOff(t *testing.T) {
	t.Run("in a batch", func(t *testing.T) { testHistoryCutOff(t, nil, "of bob's", "of mine") })
	t.Run("one by one", func(t *testing.T) {
		testHistoryCutOff(t, func(w bridge.Wire) bridge.Wire { return unbatched{w} }, "of bob's") // what is not written down ends it
	})
}

// unbatched is a homeserver that takes no batches.
type unbatched struct{ bridge.Wire }

// RoundTrip implements http.RoundTripper.
func (w unbatched) RoundTrip(r *http.Request) (*http.Response, error) {
	answer, err := w.Wire.RoundTrip(r)
	if err != nil || !strings.HasSuffix(r.URL.Path, "/versions") {
		return answer, err
	}
	body, err := io.ReadAll(answer.Body)
	_ = answer.Body.Close()
	body = bytes.ReplaceAll(body, []byte(mautrix.BeeperFeatureBatchSending.UnstableFlag), []byte("test.no"))
	answer.Body, answer.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return answer, err
}

func testHistoryCutOff(t *testing.T, wire func(bridge.Wire) bridge.Wire, before ...string) {
	file := filepath.Join(t.TempDir(), "bridge.db")
	var c *whatsapp.Connector
	k := talking(t, func(config *whatsapp.Config, o *bridgetest.Options) {
		o.Database, o.Wire = "sqlite:"+file, wire
		o.Connector = func() bridgev2.NetworkConnector { c = whatsapp.NewWaiting(*config, time.Second); return c }
	})
	alice := k.alice
	k.Stop()
	remember := bridgetest.Forget(t, file, "BEFORE INSERT ON message", "BEFORE INSERT ON reaction", "BEFORE DELETE ON whatsapp_history")
	k.Run()
	group := k.wa.Group("Family", k.bob.Account, alice.phone.Account)
	room := alice.Room("Family")
	old := []*waHistorySync.HistorySyncMsg{remembered(group, nil, 1, "of mine"), remembered(group, k.bob.Account, 0, "of bob's")}
	old[0].Message.Reactions = []*waWeb.Reaction{{Text: proto.String("👍"), Key: &waCommon.MessageKey{
		RemoteJID: proto.String(group.String()), Participant: proto.String(k.bob.Account.LID.String()), ID: proto.String("R"),
	}}}
	alice.phone.History(&waHistorySync.HistorySync{
		SyncType: waHistorySync.HistorySync_RECENT.Enum(), Progress: proto.Uint32(100), ChunkOrder: proto.Uint32(1),
		Conversations: []*waHistorySync.Conversation{{ID: proto.String(group.String()), Messages: old}},
	})
	for _, text := range before {
		alice.Await(text, bridgetest.Message(room, text))
	}
	liked := func(e *event.Event) bool { return e.RoomID == room && e.Type == event.EventReaction }
	if wire == nil {
		alice.Await("the reaction", liked)
	}
	k.Stop()
	remember()
	k.Run()
	bridgetest.Eventually(t, "all is brought into rooms", func() bool {
		n, err := c.Kept(t.Context())
		return err == nil && n == 0
	})
	k.bob.Say(group, "last")
	alice.Await("what comes behind it", bridgetest.Message(room, "last"))
	for _, text := range []string{"of bob's", "of mine"} {
		if n := len(alice.Events(bridgetest.Message(room, text))); n != 1 {
			t.Errorf("%q came %d times", text, n)
		}
	}
	for _, e := range alice.Events(func(e *event.Event) bool { return e.RoomID == room }) {
		if strings.Contains(string(e.Content.VeryRaw), "switchboard.once") {
			t.Errorf("a mark is in %s", e.Content.VeryRaw)
		}
	}
	if n := len(alice.Events(liked)); n != 1 {
		t.Errorf("the reaction came %d times", n)
	}
}
