package whatsapptest

import (
	"bytes"
	"compress/zlib"
	"context"
	"database/sql"
	"encoding/binary"
	"fmt"
	"net/url"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"google.golang.org/protobuf/proto"
	_ "modernc.org/sqlite" // the driver "sqlite"

	"go.mau.fi/whatsmeow"
	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/proto/waHistorySync"
	"go.mau.fi/whatsmeow/store/sqlstore"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
)

// Phone is the phone of an account: a whatsmeow client that needs not be linked.
// As WhatsApp's apps do, it shows a message once, however often it comes.
type Phone struct {
	*whatsmeow.Client
	Account *Account
	T       T

	server *Server
	mu     sync.Mutex // tier 1; guards what follows
	seen   map[string]bool
	events []any
}

// T is what a phone needs of a *testing.T. A program that is no test gives
// something of its own.
type T interface {
	Helper()
	Context() context.Context
	TempDir() string
	Cleanup(f func())
	Logf(format string, args ...any)
	Fatal(args ...any)
	Fatalf(format string, args ...any)
}

// Phone switches the phone of an account on, until the test ends.
func (s *Server) Phone(t T, phone, name string) *Phone {
	t.Helper()
	ctx := t.Context()
	p := &Phone{Account: s.Account(phone, name), T: t, server: s, seen: make(map[string]bool)}
	file := url.URL{Path: filepath.Join(t.TempDir(), "phone.db")}
	db, err := sql.Open("sqlite", "file:"+file.EscapedPath()+
		"?_pragma=foreign_keys(1)&_pragma=journal_mode(WAL)&_pragma=synchronous(OFF)&_pragma=busy_timeout(10000)&_txlock=immediate")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	container := sqlstore.NewWithDB(db, "sqlite", nil)
	if err := container.Upgrade(ctx); err != nil {
		t.Fatal(err)
	}
	store := container.NewDevice()
	pn := p.Account.PN
	store.ID, store.LID, store.PushName = &pn, p.Account.LID, name
	store.IdentityKey = p.Account.identity
	store.SignedPreKey = store.IdentityKey.CreateSignedPreKey(1)
	store.Account = p.Account.accept(0, store.IdentityKey.Pub[:])
	store.Account.DeviceSignature = make([]byte, 64)
	if err := store.Save(ctx); err != nil {
		t.Fatal(err)
	}
	registration := make([]byte, 4)
	binary.BigEndian.PutUint32(registration, store.RegistrationID)
	s.mu.Lock()
	s.devices[p.Account.LID] = &device{account: p.Account, registration: registration, identity: store.IdentityKey.Pub[:]}
	s.mu.Unlock()

	p.Client = whatsmeow.NewClient(store, nil)
	web := s.Client()
	p.SetWebsocketHTTPClient(web)
	p.SetMediaHTTPClient(web)
	p.EnableDecryptedEventBuffer, p.SynchronousAck = true, true
	p.SetForceActiveDeliveryReceipts(true)
	p.AddEventHandler(p.keep)
	if err := p.Connect(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(p.Disconnect)
	p.Await("the phone is online", func(e any) bool { _, ok := e.(*events.Connected); return ok })
	if err := p.SendPresence(ctx, types.PresenceAvailable); err != nil {
		t.Fatal(err)
	}
	return p
}

// keep takes an event.
func (p *Phone) keep(e any) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if m, ok := e.(*events.Message); ok {
		key := fmt.Sprint(m.Info.Chat, m.Info.Sender, m.Info.ID)
		if p.seen[key] || m.Message == nil || m.RawMessage.GetSenderKeyDistributionMessage() != nil && proto.Size(m.Message) == proto.Size(&waE2E.Message{
			SenderKeyDistributionMessage: m.RawMessage.SenderKeyDistributionMessage,
		}) { // a key for a group alone
			return
		}
		p.seen[key] = true
	}
	p.events = append(p.events, e)
}

// patience is how long something may take that must happen.
const patience = 2 * time.Minute

// Await waits for an event that matches.
func (p *Phone) Await(what string, match func(any) bool) any {
	p.T.Helper()
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		for _, e := range p.Events() {
			if match(e) {
				return e
			}
		}
	}
	for _, e := range p.Messages() {
		p.T.Logf("%s has %s: %v", p.Account.Name, e.Info.SourceString(), e.Message)
	}
	p.T.Fatalf("%s waited in vain: %s", p.Account.Name, what)
	return nil
}

// Message waits for a message that matches.
func (p *Phone) Message(what string, match func(*events.Message) bool) *events.Message {
	p.T.Helper()
	e := p.Await(what, func(e any) bool {
		m, ok := e.(*events.Message)
		return ok && match(m)
	})
	return e.(*events.Message)
}

// Text is the text of a message, or the caption of what it carries.
func Text(m *waE2E.Message) string {
	for _, s := range []string{
		m.GetConversation(), m.GetExtendedTextMessage().GetText(), m.GetImageMessage().GetCaption(),
		m.GetVideoMessage().GetCaption(), m.GetDocumentMessage().GetCaption(),
	} {
		if s != "" {
			return s
		}
	}
	return ""
}

// Said waits for a message with a text.
func (p *Phone) Said(text string) *events.Message {
	p.T.Helper()
	return p.Message(fmt.Sprintf("%q", text), func(m *events.Message) bool { return Text(m.Message) == text })
}

// Receipt waits for a receipt for a message.
func (p *Phone) Receipt(id types.MessageID, kinds ...types.ReceiptType) *events.Receipt {
	p.T.Helper()
	e := p.Await(fmt.Sprintf("a receipt %q for %s", kinds, id), func(e any) bool {
		r, ok := e.(*events.Receipt)
		if !ok {
			return false
		}
		for _, kind := range kinds {
			for _, of := range r.MessageIDs {
				if of == id && r.Type == kind {
					return true
				}
			}
		}
		return false
	})
	return e.(*events.Receipt)
}

// Events are whatsmeow's events so far.
func (p *Phone) Events() []any {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.events)
}

// Messages are the messages so far, in the order in which they came.
func (p *Phone) Messages() (list []*events.Message) {
	for _, e := range p.Events() {
		if m, ok := e.(*events.Message); ok {
			list = append(list, m)
		}
	}
	return list
}

// Say sends a text and returns the message's ID.
func (p *Phone) Say(to types.JID, text string) types.MessageID {
	p.T.Helper()
	return p.Send(to, &waE2E.Message{Conversation: proto.String(text)})
}

// Send sends a message and returns its ID.
func (p *Phone) Send(to types.JID, m *waE2E.Message) types.MessageID {
	p.T.Helper()
	resp, err := p.SendMessage(context.Background(), to, m)
	if err != nil {
		p.T.Fatalf("%s sends: %v", p.Account.Name, err)
	}
	return resp.ID
}

// Scan links the device that shows a QR code.
func (p *Phone) Scan(code string) {
	p.T.Helper()
	if err := p.server.Scan(code, p.Account); err != nil {
		p.T.Fatal(err)
	}
}

// Enter links the device that shows a pairing code.
func (p *Phone) Enter(code string) {
	p.T.Helper()
	if err := p.server.Enter(code, p.Account); err != nil {
		p.T.Fatal(err)
	}
}

// History sends history to the account's linked devices, as a phone does when
// they are new.
func (p *Phone) History(h *waHistorySync.HistorySync) {
	p.T.Helper()
	ctx := context.Background()
	var packed bytes.Buffer
	w := zlib.NewWriter(&packed)
	_, _ = w.Write(must(proto.Marshal(h)))
	_ = w.Close()
	up, err := p.Upload(ctx, packed.Bytes(), whatsmeow.MediaHistory)
	if err != nil {
		p.T.Fatal(err)
	}
	p.peer(&waE2E.Message{ProtocolMessage: &waE2E.ProtocolMessage{
		Type: waE2E.ProtocolMessage_HISTORY_SYNC_NOTIFICATION.Enum(),
		HistorySyncNotification: &waE2E.HistorySyncNotification{
			FileSHA256: up.FileSHA256, FileEncSHA256: up.FileEncSHA256, FileLength: &up.FileLength, MediaKey: up.MediaKey,
			DirectPath: &up.DirectPath, SyncType: waE2E.HistorySyncType(h.GetSyncType()).Enum(), ChunkOrder: h.ChunkOrder,
		},
	}})
}

// peer sends a message to the account's linked devices, which is not shown.
func (p *Phone) peer(m *waE2E.Message) {
	p.T.Helper()
	ctx := context.Background()
	p.server.mu.Lock()
	companions := p.server.companions(p.Account)
	p.server.mu.Unlock()
	inside := p.DangerousInternals() //lint:ignore SA1019 the only way to speak as a phone
	for _, d := range companions {
		to, id := d.jid(), p.GenerateMessageID()
		parts, first, err := inside.EncryptMessageForDevices(ctx, []types.JID{to}, id, must(proto.Marshal(m)), nil, waBinary.Attrs{})
		if err != nil || len(parts) != 1 {
			p.T.Fatalf("encrypt for %s: %d parts, %v", to, len(parts), err)
		}
		content := parts[0].GetChildren()
		if first {
			content = append(content, inside.MakeDeviceIdentityNode())
		}
		err = inside.SendNode(ctx, waBinary.Node{
			Tag: "message", Attrs: waBinary.Attrs{"id": id, "type": "text", "category": "peer", "to": to}, Content: content,
		})
		if err != nil {
			p.T.Fatal(err)
		}
	}
}
