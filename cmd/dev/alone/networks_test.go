package alone

import (
	"testing"

	"go.mau.fi/whatsmeow/types"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/irc/irctest"
	"switchboard/bridges/whatsapp/whatsapptest"
	"switchboard/bridges/xmpp/xmpptest"
)

// What is said on each network.
const (
	question = "Is this bridge a program of its own?"
	answer   = "It is. Grüße aus Matrix 🎉"
)

// network is a network with somebody on it.
type network struct {
	id     string
	config map[string]any // of the bridge

	// logIn lets alice log in by the bot.
	logIn func(alice *bridgetest.User, bot id.UserID)

	// talk lets somebody ask alice a question, which she answers.
	talk func(alice *bridgetest.User, question, answer string)
}

// onIRC is InspIRCd with ivy, who is in #go.
func onIRC(t *testing.T) *network {
	server := irctest.Start(t, false)
	ivy := server.User("ivy")
	ivy.Join("#go")
	config := map[string]any{"networks": []any{map[string]any{"id": "test", "name": "TestNet", "address": server.Address, "tls": "off"}}}
	return &network{"irc", config, func(alice *bridgetest.User, bot id.UserID) {
		manage := alice.Manage(bot)
		alice.Ask(manage, "login", "nick on TestNet")
		alice.Ask(manage, "alice", "enter your account")
		alice.Ask(manage, "-", "You are alice")
		alice.Ask(manage, "join #go", "#go")
	}, func(alice *bridgetest.User, question, answer string) {
		room := alice.Room("#go")
		ivy.Await(":alice!", " JOIN ", "#go")
		ivy.Send("PRIVMSG #go :%s", question)
		alice.Await("ivy's question", bridgetest.Message(room, question))
		told(alice, alice.Say(room, answer))
		ivy.Await(":alice!", "PRIVMSG #go :"+answer)
	}}
}

// onXMPP is Prosody with xenia.
func onXMPP(t *testing.T) *network {
	server := xmpptest.Start(t)
	account := server.Account("alice")
	xenia := server.Person("xenia")
	config := map[string]any{"servers": []any{map[string]any{"domain": xmpptest.Domain, "address": server.Address, "ca_file": server.CAFile}}}
	return &network{"xmpp", config, func(alice *bridgetest.User, bot id.UserID) {
		manage := alice.Manage(bot)
		alice.Ask(manage, "login", "XMPP address")
		alice.Ask(manage, account, "password")
		alice.Ask(manage, xmpptest.Password, "You are "+account)
	}, func(alice *bridgetest.User, question, answer string) {
		xenia.Send(`<message to="%s" type="chat" id="%s"><body>%s</body></message>`, account, question, question)
		room := directRoom(alice, "@xmpp_"+id.EncodeUserLocalpart(xenia.JID))
		alice.Await("xenia's question", bridgetest.Message(room, question))
		told(alice, alice.Say(room, answer))
		xenia.Await("alice's answer", func(s xmpptest.Stanza) bool { return s.Body == answer })
	}}
}

// onWhatsApp is our server with wanda, and alice's phone, which links the bridge.
func onWhatsApp(t *testing.T) *network {
	server := whatsapptest.NewServer()
	t.Cleanup(server.Close)
	phone := server.Phone(t, "15550001", "Alice")
	wanda := server.Phone(t, "15550002", "Wanda")
	config := map[string]any{"test_server": whatsapptest.Settings(server.Address())}
	return &network{"whatsapp", config, func(alice *bridgetest.User, bot id.UserID) {
		manage := alice.Manage(bot)
		alice.Say(manage, "login qr")
		code := alice.Await("the QR code", func(e *event.Event) bool {
			return e.RoomID == manage && e.Type == event.EventMessage && e.Content.AsMessage().MsgType == event.MsgImage
		})
		phone.Scan(code.Content.AsMessage().Body)
		alice.Await("that the device is linked", bridgetest.Message(manage, "You are linked"))
	}, func(alice *bridgetest.User, question, answer string) {
		wanda.Say(types.NewJID(phone.Account.LID.User, types.HiddenUserServer), question)
		room := directRoom(alice, "@whatsapp_"+wanda.Account.LID.User)
		alice.Await("wanda's question", bridgetest.Message(room, question))
		told(alice, alice.Say(room, answer))
		wanda.Said(answer)
	}}
}

// directRoom waits until alice is in a room with a ghost, whom it names without
// its server.
func directRoom(alice *bridgetest.User, ghost string) id.RoomID {
	alice.T.Helper()
	return alice.DirectRoom(id.UserID(ghost + ":" + alice.UserID.Homeserver()))
}
