package client_test

import (
	"reflect"
	"testing"

	"mellium.im/xmpp/jid"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/xmpp/client"
	"switchboard/bridges/xmpp/xmpptest"
)

// TestAccount looks at what an account keeps on its server.
func TestAccount(t *testing.T) {
	s := xmpptest.Start(t)
	alice := run(t, config(t, s, s.Address, "alice", xmpptest.Password))
	service, limit, err := alice.Uploader(t.Context())
	if err != nil || service.String() != xmpptest.Upload || limit != 1<<20 {
		t.Fatalf("files go to %s, up to %d: %v", service, limit, err)
	}
	slot, err := alice.Slot(t.Context(), service, "ä b.png", "image/png", 3)
	if err != nil || slot.Put == "" || slot.Get == "" || len(slot.Header) == 0 {
		t.Errorf("the slot is %+v: %v", slot, err)
	}

	want := client.Bookmark{Room: jid.MustParse("den@" + xmpptest.Rooms), Nick: "ivy", Password: "p", AutoJoin: true}
	if err := alice.SetBookmark(t.Context(), want); err != nil {
		t.Fatal(err)
	}
	if got, err := alice.Bookmarks(t.Context()); err != nil || len(got) != 1 || !reflect.DeepEqual(got[0], want) {
		t.Errorf("the bookmarks are %+v: %v", got, err)
	}

	// Two who see each other: one publishes a nickname and an avatar.
	bob := s.Person("bob")
	alice.Subscription(jid.MustParse(bob.JID), "subscribe")
	bob.Await("the request", func(m xmpptest.Stanza) bool { return m.Type == "subscribe" })
	bob.Send(`<presence to="%s" type="subscribed"/>`, alice.Account().String())
	bridgetest.Eventually(t, "bob is a contact", func() bool {
		list, err := alice.Roster(t.Context())
		return err == nil && len(list) == 1 && list[0].Subscription == "to"
	})
	bob.Send(`<presence to="%s" type="subscribe"/>`, alice.Account().String())
	await(alice, "bob's request", func(e client.Subscribe) bool { return e.From.String() == bob.JID })
	alice.Subscription(jid.MustParse(bob.JID), "subscribed")
	bob.Send(`<iq type="set" id="n"><pubsub xmlns="http://jabber.org/protocol/pubsub"><publish node="http://jabber.org/protocol/nick"><item><nick xmlns="http://jabber.org/protocol/nick">Bobby</nick></item></publish></pubsub></iq>`)
	await(alice, "the nickname", func(e client.NickChanged) bool { return e.Nick == "Bobby" && e.Of.String() == bob.JID })
	const hash, data = "a9993e364706816aba3e25717850c26c9cd0d89d", "YWJj" // of "abc"
	bob.Send(`<iq type="set" id="d"><pubsub xmlns="http://jabber.org/protocol/pubsub"><publish node="urn:xmpp:avatar:data"><item id="%s"><data xmlns="urn:xmpp:avatar:data">%s</data></item></publish></pubsub></iq>`, hash, data)
	bob.Send(`<iq type="set" id="m"><pubsub xmlns="http://jabber.org/protocol/pubsub"><publish node="urn:xmpp:avatar:metadata"><item id="%s"><metadata xmlns="urn:xmpp:avatar:metadata"><info id="%s" bytes="3" type="image/png"/></metadata></item></publish></pubsub></iq>`, hash, hash)
	await(alice, "the avatar", func(e client.AvatarChanged) bool { return e.Hash == hash })
	if image, err := alice.Avatar(t.Context(), jid.MustParse(bob.JID), hash); err != nil || string(image) != "abc" {
		t.Errorf("the avatar is %q: %v", image, err)
	}
}
