package xmpp_test

import (
	"encoding/json"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/xmpp"
	"switchboard/bridges/xmpp/xmpptest"
	"switchboard/homeserver/database/databasetest"
)

// den is the room of the tests.
const den = "den@" + xmpptest.Rooms

// settings are how the process with the bridge reaches the server, and its
// database.
type settings struct{ Address, CAFile, Database string }

// config is the configuration of a bridge that reaches the server.
func (s settings) config() (c xmpp.Config) {
	c.SetDefaults()
	c.Servers = []xmpp.Server{{Domain: xmpptest.Domain, Address: s.Address, CAFile: s.CAFile}}
	return c
}

// options run the bridge, with a change of the configuration unless that is nil.
func (s settings) options(change func(*xmpp.Config)) bridgetest.Options {
	c := s.config()
	if change != nil {
		change(&c)
	}
	return bridgetest.Options{ID: "xmpp", Database: s.Database, Shared: s.Database != "", Connector: func() bridgev2.NetworkConnector {
		return xmpp.New(c, nil)
	}}
}

// direct are the settings without a proxy.
func direct(server *xmpptest.Server) settings {
	return settings{Address: server.Address, CAFile: server.CAFile}
}

// newNetwork is a server as the network of tests.
func newNetwork(t *testing.T, server *xmpptest.Server) *network {
	return &network{server: server, proxy: bridgetest.NewProxy(t, server.Address)}
}

// servers are what the bridge is tested on.
var servers = map[string]func(*testing.T) *xmpptest.Server{"prosody": xmpptest.Start, "ejabberd": xmpptest.StartEjabberd}

// each runs a test on every server.
func each(t *testing.T, test func(*testing.T, *xmpptest.Server)) {
	for name, start := range servers {
		t.Run(name, func(t *testing.T) { test(t, start(t)) })
	}
}

// TestContract holds the bridge to what every bridge must do, on Prosody.
func TestContract(t *testing.T) { bridgetest.Contract(t, onNetwork, startOn(xmpptest.Start, false)) }

// TestContractEjabberd does so on ejabberd. When a stream goes on there, what is
// on its way to the process of before is routed again, behind what is newer; and
// what that process has read but not handled yet it may handle after it has told
// the new one how much it had. We send that again, as XEP-0198 wants it, and it
// arrives twice.
func TestContractEjabberd(t *testing.T) {
	bridgetest.Contract(t, onNetwork, startOn(xmpptest.StartEjabberd, true))
}

// TestContractOnPostgreSQL plays the parts of the contract that depend on the
// database with the server and the bridge on PostgreSQL.
func TestContractOnPostgreSQL(t *testing.T) {
	bridgetest.Contract(t, onNetwork, func(t *testing.T) bridgetest.Network {
		n := newNetwork(t, xmpptest.Start(t))
		n.database = databasetest.PostgreSQL(t)
		return n
	}, "replies", "edits", "reactions", "deletions", "receipts", "restart", "kill", "log out")
}

// TestFootprint measures the memory of an idle login.
func TestFootprint(t *testing.T) {
	bridgetest.Footprint(t, onNetwork, startOn(xmpptest.Start, false), 25, 384<<10)
}

func onNetwork(text string) bridgetest.Options {
	var s settings
	_ = json.Unmarshal([]byte(text), &s)
	return s.options(nil)
}

func startOn(start func(*testing.T) *xmpptest.Server, ejabberd bool) func(*testing.T) bridgetest.Network {
	return func(t *testing.T) bridgetest.Network {
		n := newNetwork(t, start(t))
		n.ejabberd = ejabberd
		return n
	}
}

// network is the network of the contract.
type network struct {
	server   *xmpptest.Server
	proxy    *bridgetest.Proxy
	ejabberd bool
	database string // of the server and the bridge; empty means files
}

// Features implements bridgetest.Network.
func (n *network) Features() bridgetest.Features {
	both := bridgetest.Both
	return bridgetest.Features{
		Group: den, Join: "join " + den, StartChat: "dora@" + xmpptest.Domain,
		Formatting: both, Media: both, Replies: both, Edits: both, Reactions: both, Deletions: both, Receipts: both, Typing: both,
		History: true, Exact: true, Jumbled: n.ejabberd,
	}
}

func (n *network) Settings() string {
	text, _ := json.Marshal(settings{n.proxy.Address, n.server.CAFile, n.database})
	return string(text)
}

func (n *network) Proxy() *bridgetest.Proxy { return n.proxy }

func (n *network) LogIn(u *bridgetest.User, manage id.RoomID) string {
	return n.logInAs(u, manage, u.UserID.Localpart())
}

func (n *network) logInAs(u *bridgetest.User, manage id.RoomID, name string) string {
	account := n.server.Account(name)
	u.Ask(manage, "login", "XMPP address")
	u.Ask(manage, account, "password")
	u.Ask(manage, xmpptest.Password, "You are "+account)
	return account
}

func (n *network) Person(_ *testing.T, name string) bridgetest.Person {
	p := &person{Person: n.server.Person(name), nick: name, knows: n.ejabberd}
	p.Enter(den, name)
	return p
}

// person is somebody on XMPP.
type person struct {
	*xmpptest.Person
	nick  string
	knows bool // messages by their IDs, see first
	ids   atomic.Int64
	mu    sync.Mutex
	data  map[string][]byte // files that were fetched
}

// ghost is the Matrix user of an account, or of somebody in a room.
func ghost(j string) id.UserID {
	return id.UserID("@xmpp_" + id.EncodeUserLocalpart(j) + ":" + bridgetest.ServerName)
}

func (p *person) Ghost() id.UserID { return ghost(p.JID) }

// write sends a message with content, and returns the ID by which others refer
// to it.
func (p *person) write(chat, content string, args ...string) string {
	key := fmt.Sprintf("%s-%d", p.nick, p.ids.Add(1))
	kind := "chat"
	if chat == den {
		kind = "groupchat"
	}
	p.Send(`<message to="%s" type="%s" id="%s">`+content+`</message>`, append([]string{chat, kind, key}, args...)...)
	return key
}

// reference is the ID by which others refer to a message: in a room its own.
func (p *person) reference(chat, key string) string {
	if chat != den {
		return key
	}
	return p.Await("the echo of "+key, func(s xmpptest.Stanza) bool { return s.ID == key && s.From == den+"/"+p.nick }).StanzaID.ID
}

func (p *person) Write(chat string, m bridgetest.Post) string {
	text := m.Text
	if m.Bold != "" {
		text = strings.Replace(text, m.Bold, "*"+m.Bold+"*", 1)
	}
	content, args := `<body>%s</body>`, []string{text}
	if m.File != nil {
		address := p.Upload(m.File.Name, m.File.MimeType, m.File.Data)
		content, args = `<body>%s</body><x xmlns="jabber:x:oob"><url>%s</url></x>`, []string{address, address}
	}
	if m.ReplyTo != "" {
		content += `<reply xmlns="urn:xmpp:reply:0" id="%s" to="` + chat + `"/>`
		args = append(args, m.ReplyTo)
	}
	if m.Replaces != "" {
		content += `<replace xmlns="urn:xmpp:message-correct:0" id="%s"/>`
		args = append(args, p.origin(m.Replaces))
	}
	return p.reference(chat, p.write(chat, content, args...))
}

// origin is the sender's ID of a message.
func (p *person) origin(reference string) string {
	for _, s := range p.Stanzas() {
		if s.StanzaID.ID == reference && s.StanzaID.By == den {
			return s.ID
		}
	}
	return reference
}

func (p *person) React(chat, message, emoji string) {
	content, args := `<reactions xmlns="urn:xmpp:reactions:0" id="%s">`, []string{message}
	if emoji != "" {
		content, args = content+`<reaction>%s</reaction>`, append(args, emoji)
	}
	p.write(chat, content+`</reactions>`, args...)
}

func (p *person) Delete(chat, message string) {
	p.write(chat, `<retract xmlns="urn:xmpp:message-retract:1" id="%s"/>`, message)
}

func (p *person) Read(chat, message string) {
	p.write(chat, `<displayed xmlns="urn:xmpp:chat-markers:0" id="%s"/>`, message)
}

func (p *person) Type(chat string) {
	p.write(chat, `<composing xmlns="http://jabber.org/protocol/chatstates"/>`)
}

// file fetches a file once.
func (p *person) file(address string) *bridgetest.File {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.data == nil {
		p.data = make(map[string][]byte)
	}
	if _, ok := p.data[address]; !ok {
		p.data[address] = p.Fetch(address)
	}
	return &bridgetest.File{Data: p.data[address]}
}

// first leaves out what has the sender and the ID of an earlier stanza, as the
// clients of people do (XEP-0359). The sender is one stream, so that what the
// bridge itself sends again, in a new one, still counts.
func first(list []xmpptest.Stanza) (out []xmpptest.Stanza) {
	known := make(map[[2]string]bool)
	for _, s := range list {
		key := [2]string{s.From, s.ID}
		if s.ID == "" || !known[key] {
			out = append(out, s)
		}
		known[key] = true
	}
	return out
}

// TestFirst has what ejabberd doubles in one stream, and what the bridge would in
// two.
func TestFirst(t *testing.T) {
	list := []xmpptest.Stanza{{From: "a/1", ID: "x"}, {From: "a/1", ID: "x"}, {From: "a/1"}, {From: "a/1"}, {From: "a/2", ID: "x"}, {From: "a/1", ID: "y"}}
	if got, want := first(list), slices.Delete(slices.Clone(list), 1, 2); !reflect.DeepEqual(got, want) {
		t.Errorf("left are %+v", got)
	}
}

func (p *person) Seen() []bridgetest.Seen {
	list := p.Stanzas()
	if p.knows {
		list = first(list)
	}
	var out []bridgetest.Seen
	for _, s := range list {
		if s.XMLName.Local != "message" || s.From == den+"/"+p.nick {
			continue
		}
		chat, _, _ := strings.Cut(s.From, "/")
		seen := bridgetest.Seen{Chat: chat, From: s.From, ID: s.ID}
		if chat == den {
			seen.ID = s.StanzaID.ID
		}
		switch {
		case s.Retract != nil:
			seen.Kind, seen.Target = bridgetest.Deleted, s.Retract.ID
		case s.Reactions != nil:
			seen.Kind, seen.Target, seen.Emoji = bridgetest.Reacted, s.Reactions.ID, strings.Join(s.Reactions.List, " ")
		case s.Displayed != nil:
			seen.Kind, seen.Target = bridgetest.HasRead, s.Displayed.ID
		case s.Composing != nil:
			seen.Kind = bridgetest.IsTyping
		case s.Body != "":
			seen.Kind, seen.Text, seen.ReplyTo = bridgetest.Said, s.Text(), s.Reply.ID
			seen.Replaces = p.reached(s.Replace.ID)
			if parts := strings.Split(seen.Text, "*"); len(parts) == 3 {
				seen.Bold, seen.Text = parts[1], strings.Join(parts, "")
			}
			if s.URL != "" {
				seen.File = p.file(s.URL)
			}
		default:
			continue
		}
		out = append(out, seen)
	}
	return out
}

// reached is the ID by which others refer to a message that its sender calls
// origin.
func (p *person) reached(origin string) string {
	for _, s := range p.Stanzas() {
		if s.ID == origin && s.StanzaID.By == den && origin != "" {
			return s.StanzaID.ID
		}
	}
	return origin
}
