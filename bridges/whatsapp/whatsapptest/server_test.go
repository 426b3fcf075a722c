package whatsapptest_test

import (
	"context"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"google.golang.org/protobuf/proto"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waCommon"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/proto/waHistorySync"
	"go.mau.fi/whatsmeow/proto/waWeb"
	"go.mau.fi/whatsmeow/store/sqlstore"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"

	"switchboard/bridges/whatsapp/whatsapptest"
	"switchboard/cmd/dev/leaktest"
)

// TestMain fails if a goroutine outlives the tests.
func TestMain(m *testing.M) { leaktest.Main(m) }

// companion is a client that is linked to a phone.
type companion struct {
	*whatsmeow.Client
	t      *testing.T
	events chan any
	seen   map[string]bool // messages, by their IDs
}

// link makes a client and hands its QR codes, or the client itself, to pair.
func link(t *testing.T, s *whatsapptest.Server, pair func(*companion, *events.QR)) *companion {
	t.Helper()
	container, err := sqlstore.New(t.Context(), "sqlite", "file:"+filepath.Join(t.TempDir(), "c.db")+"?_pragma=foreign_keys(1)&_txlock=immediate&_pragma=busy_timeout(10000)&_pragma=journal_mode(WAL)", nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = container.Close() })
	c := &companion{whatsmeow.NewClient(container.NewDevice(), nil), t, make(chan any, 1000), make(map[string]bool)}
	c.SetWebsocketHTTPClient(s.Client())
	c.SetPreLoginHTTPClient(s.Client())
	c.SetMediaHTTPClient(s.Client())
	c.EnableDecryptedEventBuffer, c.SynchronousAck = true, true
	c.AddEventHandler(func(e any) {
		if qr, ok := e.(*events.QR); ok {
			go pair(c, qr)
		}
		c.events <- e
	})
	if err := c.Connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.Disconnect)
	next[*events.Connected](c)
	return c
}

// next waits for the next event of a type.
func next[E any](c *companion) E {
	c.t.Helper()
	deadline := time.After(2 * time.Minute)
	for {
		select {
		case e := <-c.events:
			if e, ok := e.(E); ok {
				return e
			}
		case <-deadline:
			var none E
			c.t.Fatalf("no %T", none)
		}
	}
}

// text waits for the next message with a text. One that comes again, because it was
// not confirmed before a break, is left out.
func (c *companion) text() string {
	c.t.Helper()
	for {
		m := next[*events.Message](c)
		if s := whatsapptest.Text(m.Message); s != "" && !c.seen[m.Info.ID] {
			c.seen[m.Info.ID] = true
			return s
		}
	}
}

func TestServer(t *testing.T) {
	ctx := context.Background()
	s := whatsapptest.NewServer()
	defer s.Close()
	alice, bob := s.Phone(t, "15550001", "Alice"), s.Phone(t, "15550002", "Bob")

	// Texts both ways, before and after a device is linked.
	id := alice.Say(bob.Account.LID, "hello Bob")
	bob.Said("hello Bob")
	alice.Receipt(id, types.ReceiptTypeDelivered)
	c := link(t, s, func(_ *companion, qr *events.QR) { alice.Scan(qr.Codes[0]) })
	bob.Say(alice.Account.PN, "hello Alice")
	alice.Said("hello Alice")
	if got := c.text(); got != "hello Alice" {
		t.Errorf("the linked device got %q", got)
	}
	if _, err := c.SendMessage(ctx, bob.Account.LID, &waE2E.Message{Conversation: proto.String("from my desk")}); err != nil {
		t.Fatal(err)
	}
	if m := bob.Said("from my desk"); m.Info.Sender.ToNonAD() != alice.Account.LID {
		t.Errorf("it came from %s", m.Info.Sender)
	}
	if m := alice.Said("from my desk"); !m.Info.IsFromMe || m.Info.Chat != bob.Account.LID {
		t.Errorf("the phone has it as %s", m.Info.SourceString())
	}

	// A link by code; a wrong code does not link.
	second := link(t, s, func(c *companion, _ *events.QR) {
		code, err := c.PairPhone(ctx, "+1 555 0001", true, whatsmeow.PairClientChrome, "Chrome (Linux)")
		if err != nil {
			t.Error(err)
			return
		}
		alice.Enter(code)
	})
	if n := s.Linked(alice.Account); n != 2 {
		t.Errorf("%d devices are linked", n)
	}
	second.Disconnect()

	// A group, and what is said while the device is away.
	group := s.Group("Family", alice.Account, bob.Account)
	bob.Say(group, "all here?")
	alice.Said("all here?")
	if got := c.text(); got != "all here?" {
		t.Errorf("the linked device got %q", got)
	}
	c.Disconnect()
	for _, text := range []string{"one", "two", "three"} {
		bob.Say(group, text)
	}
	if err := c.Connect(); err != nil {
		t.Fatal(err)
	}
	var got []string
	for range 3 {
		got = append(got, c.text())
	}
	if want := []string{"one", "two", "three"}; !slices.Equal(got, want) {
		t.Errorf("after the absence came %q", got)
	}

	if err := alice.SetGroupName(ctx, group, "Relatives"); err != nil {
		t.Fatal(err)
	}
	if e := next[*events.GroupInfo](c); e.Name == nil || e.Name.Name != "Relatives" {
		t.Errorf("the group changed so: %+v", e)
	}
	s.SetPicture(group, []byte("a picture"))
	info, err := c.GetProfilePictureInfo(ctx, group, nil)
	if err != nil {
		t.Fatal(err)
	}
	if b, err := c.DownloadMediaWithOnlyPath(ctx, info.DirectPath); err != nil || string(b) != "a picture" {
		t.Errorf("the picture is %q, %v", b, err)
	}

	alice.History(&waHistorySync.HistorySync{
		SyncType: waHistorySync.HistorySync_INITIAL_BOOTSTRAP.Enum(),
		Conversations: []*waHistorySync.Conversation{{ID: proto.String(bob.Account.LID.String()), Messages: []*waHistorySync.HistorySyncMsg{
			{Message: &waWeb.WebMessageInfo{Key: &waCommon.MessageKey{ID: proto.String("OLD")}, Message: &waE2E.Message{Conversation: proto.String("long ago")}}},
		}}},
	})
	h := next[*events.HistorySync](c)
	if got := h.Data.GetConversations()[0].GetMessages()[0].GetMessage().GetMessage().GetConversation(); got != "long ago" {
		t.Errorf("history holds %q", got)
	}

	s.Unlink(alice.Account)
	next[*events.LoggedOut](c)
	if u := s.Unexpected(); len(u) > 0 {
		t.Errorf("the server did not know: %v", u)
	}
}
