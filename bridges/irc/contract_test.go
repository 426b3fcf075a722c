package irc_test

import (
	"strings"
	"testing"
	"time"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/irc"
	"switchboard/bridges/irc/irctest"
	"switchboard/homeserver/database/databasetest"
)

// TestContract holds the bridge to what every bridge must do, on InspIRCd.
func TestContract(t *testing.T) { bridgetest.Contract(t, onInspIRCd, startInspIRCd) }

// TestContractOnPostgreSQL plays the parts of the contract that depend on the
// database with the server and the bridge on PostgreSQL.
func TestContractOnPostgreSQL(t *testing.T) {
	bridgetest.Contract(t, onInspIRCd, func(t *testing.T) bridgetest.Network {
		n := startInspIRCd(t).(*inspircd)
		n.database = databasetest.PostgreSQL(t)
		return n
	}, "text", "order", "restart", "kill", "log out")
}

// TestFootprint measures the memory of an idle login.
func TestFootprint(t *testing.T) { bridgetest.Footprint(t, onInspIRCd, startInspIRCd, 50, 256<<10) }

// onInspIRCd are the options of the bridge by the settings.
func onInspIRCd(settings string) bridgetest.Options {
	address, database, shared := strings.Cut(settings, " ")
	network := irc.Network{
		ID: "test", Name: "TestNet", Address: address, TLS: "off",
		Burst: 100, Interval: time.Millisecond, Backoff: time.Millisecond, Gap: time.Millisecond,
	}
	return bridgetest.Options{ID: "irc", Database: database, Shared: shared, Connector: func() bridgev2.NetworkConnector {
		return irc.New(irc.Config{Networks: []irc.Network{network}})
	}}
}

func startInspIRCd(t *testing.T) bridgetest.Network {
	server := irctest.Start(t, false)
	return &inspircd{server: server, proxy: bridgetest.NewProxy(t, server.Address)}
}

// inspircd is the network of the contract.
type inspircd struct {
	server *irctest.Server
	proxy  *bridgetest.Proxy

	database string // of the server and the bridge; empty means files
}

// Features implements bridgetest.Network. What IRC can only write as text
// (replies, edits, links to files) TestConversation and TestMedia look at.
func (n *inspircd) Features() bridgetest.Features {
	return bridgetest.Features{Group: "#go", Join: "join #go", StartChat: "dora", Formatting: bridgetest.Both}
}

func (n *inspircd) Proxy() *bridgetest.Proxy { return n.proxy }

func (n *inspircd) Settings() string {
	if n.database == "" {
		return n.proxy.Address
	}
	return n.proxy.Address + " " + n.database
}

func (n *inspircd) LogIn(u *bridgetest.User, manage id.RoomID) string {
	nick := u.UserID.Localpart()
	u.Ask(manage, "login", "nick on TestNet")
	u.Ask(manage, nick, "enter your account")
	u.Ask(manage, "-", "You are "+nick)
	return nick
}

func (n *inspircd) Person(_ *testing.T, name string) bridgetest.Person {
	u := n.server.User(name)
	u.Join("#go")
	return ircPerson{u}
}

// ircPerson is somebody on IRC.
type ircPerson struct{ *irctest.User }

func (p ircPerson) Ghost() id.UserID { return ghost(p.Nick) }

func (p ircPerson) Write(chat string, m bridgetest.Post) string {
	text := m.Text
	if m.Bold != "" {
		text = strings.Replace(text, m.Bold, "\x02"+m.Bold+"\x02", 1)
	}
	p.Send("PRIVMSG %s :%s", chat, text)
	return ""
}

func (p ircPerson) React(_, _, _ string) {}
func (p ircPerson) Delete(_, _ string)   {}
func (p ircPerson) Read(_, _ string)     {}
func (p ircPerson) Type(string)          {}

func (p ircPerson) Seen() []bridgetest.Seen {
	var out []bridgetest.Seen
	for _, line := range p.All(" PRIVMSG ") {
		source, rest, _ := strings.Cut(strings.TrimPrefix(line, ":"), " PRIVMSG ")
		from, _, _ := strings.Cut(source, "!")
		chat, text, ok := strings.Cut(rest, " :")
		if !ok {
			continue
		}
		if chat == p.Nick {
			chat = from
		}
		s := bridgetest.Seen{Kind: bridgetest.Said, Chat: chat, From: from}
		if parts := strings.Split(text, "\x02"); len(parts) > 1 {
			s.Bold = parts[1]
		}
		s.Text = strings.ReplaceAll(text, "\x02", "")
		out = append(out, s)
	}
	return out
}
