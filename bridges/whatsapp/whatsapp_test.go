package whatsapp_test

import (
	"testing"

	"maunium.net/go/mautrix/event"

	"switchboard/bridges/bridge/bridgetest"
)

func TestConversation(t *testing.T) {
	w := start(t, nil)
	bob := w.wa.Phone(t, "15550002", "Bob")
	alice := w.linked("alice", "15550001")

	bob.Say(alice.lid(), "hello Alice")
	room := alice.chat(bob.Account)
	e := alice.Await("bob's message", bridgetest.Message(room, "hello Alice"))
	if e.Sender != ghost(bob.Account) || e.Content.AsMessage().MsgType != event.MsgText {
		t.Errorf("it came from %s: %+v", e.Sender, e.Content.AsMessage())
	}
	sent := alice.Say(room, "hello Bob")
	bob.Said("hello Bob")
	alice.phone.Said("hello Bob")
	alice.Await("that it was sent", bridgetest.Status(sent, event.MessageStatusSuccess))
}
