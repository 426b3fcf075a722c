package whatsapp_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
	"google.golang.org/protobuf/proto"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/whatsapp"
	"switchboard/bridges/whatsapp/whatsapptest"
	"switchboard/homeserver/database/databasetest"
)

// TestContract holds the bridge to what every bridge must do.
func TestContract(t *testing.T) { bridgetest.Contract(t, onTestServer, startTestServer) }

// TestContractOnPostgreSQL plays the parts of the contract that depend on the
// database with the server and the bridge on PostgreSQL.
func TestContractOnPostgreSQL(t *testing.T) {
	bridgetest.Contract(t, onTestServer, func(t *testing.T) bridgetest.Network {
		n := startTestServer(t).(*network)
		n.database = databasetest.PostgreSQL(t)
		return n
	}, "text", "order", "kill")
}

// TestFootprint measures the memory of an idle login.
func TestFootprint(t *testing.T) { bridgetest.Footprint(t, onTestServer, startTestServer, 10, 384<<10) }

// onTestServer are the options of the bridge by the settings.
func onTestServer(settings string) bridgetest.Options {
	server, database, shared := strings.Cut(settings, "|")
	config := whatsapp.Config{TestServer: server}
	config.SetDefaults()
	return bridgetest.Options{
		ID: "whatsapp", Database: database, Shared: shared,
		Connector: func() bridgev2.NetworkConnector { return whatsapp.New(config) },
	}
}

func startTestServer(t *testing.T) bridgetest.Network {
	s := whatsapptest.NewServer()
	t.Cleanup(s.Close)
	n := &network{
		t: t, server: s, proxy: bridgetest.NewProxy(t, s.Address()),
		phones: make(map[id.UserID]*whatsapptest.Phone), files: make(map[string]*bridgetest.File),
	}
	n.group = s.Group("Gophers", s.Account("15550009", "Olga"))
	return n
}

// network is the network of the contract.
type network struct {
	t      *testing.T
	server *whatsapptest.Server
	proxy  *bridgetest.Proxy
	group  types.JID
	phones map[id.UserID]*whatsapptest.Phone // of who is on Matrix

	database string // of the server and the bridge; empty means files

	mu    sync.Mutex // tier 1; guards what follows
	files map[string]*bridgetest.File
}

// numbers are the phone numbers of the people of the contract.
var numbers = map[string]string{"bob": "15550002", "carol": "15550003", "dora": "15550004"}

// Features implements bridgetest.Network.
func (n *network) Features() bridgetest.Features {
	both := bridgetest.Both
	return bridgetest.Features{
		Group: "Gophers", Join: "join " + n.server.Link(n.group), StartChat: "+" + numbers["dora"],
		Formatting: both, Media: both, Replies: both, Edits: both, Reactions: both, Deletions: both, Receipts: both, Typing: both,
		History: true, Exact: true,
	}
}

func (n *network) Proxy() *bridgetest.Proxy { return n.proxy }

func (n *network) Settings() string {
	settings := whatsapptest.Settings(n.proxy.Address)
	if n.database != "" {
		settings += "|" + n.database
	}
	return settings
}

func (n *network) LogIn(u *bridgetest.User, manage id.RoomID) string {
	phone := n.phones[u.UserID]
	if phone == nil {
		phone = n.server.Phone(n.t, fmt.Sprintf("1666%04d", len(n.phones)), u.UserID.Localpart())
		n.phones[u.UserID] = phone
	}
	(&person{u, phone, manage}).link()
	return phone.Account.LID.User
}

func (n *network) Person(_ *testing.T, name string) bridgetest.Person {
	p := waPerson{n.server.Phone(n.t, numbers[name], strings.ToUpper(name[:1])+name[1:]), n}
	if _, err := p.JoinGroupWithLink(context.Background(), n.server.Link(n.group)); err != nil {
		n.t.Fatal(err)
	}
	return p
}

// chat is what a name of the contract stands for, name the other way round.
func (n *network) chat(name string) types.JID {
	if name == "Gophers" {
		return n.group
	}
	return types.NewJID(name, types.HiddenUserServer)
}

func (n *network) name(chat types.JID) string {
	if chat == n.group {
		return "Gophers"
	}
	return chat.User
}

// waPerson is somebody with a phone.
type waPerson struct {
	*whatsapptest.Phone
	network *network
}

func (p waPerson) Ghost() id.UserID { return ghost(p.Account) }

// author is who wrote a message: somebody else whose message came, or this person.
func (p waPerson) author(message string) types.JID {
	for _, e := range p.Messages() {
		if e.Info.ID == message {
			return e.Info.Sender.ToNonAD()
		}
	}
	return p.Account.LID
}

func (p waPerson) Write(name string, post bridgetest.Post) string {
	chat := p.network.chat(name)
	text := post.Text
	if post.Bold != "" {
		text = strings.Replace(text, post.Bold, "*"+post.Bold+"*", 1)
	}
	switch {
	case post.File != nil:
		up, err := p.Upload(context.Background(), post.File.Data, whatsmeow.MediaImage)
		if err != nil {
			p.T.Fatal(err)
		}
		return p.Send(chat, &waE2E.Message{ImageMessage: &waE2E.ImageMessage{
			URL: &up.URL, DirectPath: &up.DirectPath, MediaKey: up.MediaKey, FileEncSHA256: up.FileEncSHA256, FileSHA256: up.FileSHA256,
			FileLength: &up.FileLength, Mimetype: &post.File.MimeType,
		}})
	case post.Replaces != "":
		return p.Send(chat, p.BuildEdit(chat, post.Replaces, &waE2E.Message{Conversation: &text}))
	case post.ReplyTo != "":
		return p.Send(chat, &waE2E.Message{ExtendedTextMessage: &waE2E.ExtendedTextMessage{Text: &text, ContextInfo: &waE2E.ContextInfo{
			StanzaID: &post.ReplyTo, Participant: proto.String(p.author(post.ReplyTo).String()), QuotedMessage: &waE2E.Message{Conversation: proto.String("…")},
		}}})
	}
	return p.Say(chat, text)
}

func (p waPerson) React(name, message, emoji string) {
	chat := p.network.chat(name)
	p.Send(chat, p.BuildReaction(chat, p.author(message), message, emoji))
}

func (p waPerson) Delete(name, message string) {
	chat := p.network.chat(name)
	p.Send(chat, p.BuildRevoke(chat, p.author(message), message))
}

func (p waPerson) Read(name, message string) {
	if err := p.MarkRead(context.Background(), []string{message}, time.Now(), p.network.chat(name), p.author(message)); err != nil {
		p.T.Fatal(err)
	}
}

func (p waPerson) Type(name string) {
	if err := p.SendChatPresence(context.Background(), p.network.chat(name), types.ChatPresenceComposing, types.ChatPresenceMediaText); err != nil {
		p.T.Fatal(err)
	}
}

func (p waPerson) Seen() (list []bridgetest.Seen) {
	for _, e := range p.Events() {
		switch e := e.(type) {
		case *events.Message:
			if !e.Info.IsFromMe {
				list = append(list, p.message(e))
			}
		case *events.Receipt:
			if e.Type != types.ReceiptTypeRead {
				continue
			}
			for _, of := range e.MessageIDs {
				list = append(list, bridgetest.Seen{Kind: bridgetest.HasRead, Chat: p.network.name(e.Chat), From: e.Sender.User, Target: of})
			}
		case *events.ChatPresence:
			if e.State == types.ChatPresenceComposing {
				list = append(list, bridgetest.Seen{Kind: bridgetest.IsTyping, Chat: p.network.name(e.Chat), From: e.Sender.User})
			}
		}
	}
	return list
}

// message is what a phone shows of a message, or of what is written like one.
func (p waPerson) message(e *events.Message) bridgetest.Seen {
	s := bridgetest.Seen{Kind: bridgetest.Said, Chat: p.network.name(e.Info.Chat), From: e.Info.Sender.User, ID: e.Info.ID}
	m := e.Message
	if r := m.GetReactionMessage(); r != nil {
		s.Kind, s.Target, s.Emoji = bridgetest.Reacted, r.GetKey().GetID(), r.GetText()
		return s
	}
	if change := m.GetProtocolMessage(); change != nil {
		if change.GetType() == waE2E.ProtocolMessage_REVOKE {
			s.Kind, s.Target = bridgetest.Deleted, change.GetKey().GetID()
			return s
		}
		s.Replaces, m = change.GetKey().GetID(), change.GetEditedMessage()
	}
	s.Text, s.ReplyTo = whatsapptest.Text(m), m.GetExtendedTextMessage().GetContextInfo().GetStanzaID()
	if parts := strings.Split(s.Text, "*"); len(parts) == 3 {
		s.Text, s.Bold = strings.Join(parts, ""), parts[1]
	}
	if i := m.GetImageMessage(); i != nil {
		s.File = p.network.file(p, e.Info.ID, i)
	}
	return s
}

// file fetches a file once.
func (n *network) file(p waPerson, message string, i *waE2E.ImageMessage) *bridgetest.File {
	n.mu.Lock()
	defer n.mu.Unlock()
	if n.files[message] == nil {
		data, err := p.Download(context.Background(), i)
		if err != nil {
			p.T.Fatal(err)
		}
		n.files[message] = &bridgetest.File{MimeType: i.GetMimetype(), Data: data}
	}
	return n.files[message]
}
