package whatsapp_test

import (
	"bytes"
	"image/png"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"go.mau.fi/whatsmeow/types/events"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/status"
	"maunium.net/go/mautrix/event"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/whatsapp"
	"switchboard/bridges/whatsapp/whatsapptest"
)

// hasty makes each QR code expire soon.
func hasty(each time.Duration) func(*whatsapp.Config, *bridgetest.Options) {
	return func(c *whatsapp.Config, o *bridgetest.Options) {
		o.Connector = func() bridgev2.NetworkConnector { return whatsapp.NewHasty(*c, each) }
	}
}

// TestQR looks at the codes, lets them expire, and scans one that is not the
// first.
func TestQR(t *testing.T) {
	w := start(t, hasty(300*time.Millisecond))
	alice := w.person("alice", "15550001")
	alice.Say(alice.manage, "login qr")
	alice.Await("that the codes have expired", bridgetest.Message(alice.manage, "no phone has scanned a code in time; say `login qr` for new ones"))
	codes := alice.codes()
	if slices.Sort(codes); len(slices.Compact(codes)) != whatsapptest.Codes {
		t.Errorf("the codes were %q", codes)
	}
	shown := alice.Await("a code", func(e *event.Event) bool {
		return e.RoomID == alice.manage && e.Type == event.EventMessage && e.Content.AsMessage().MsgType == event.MsgImage
	})
	if _, err := png.Decode(bytes.NewReader(alice.download(shown.Content.AsMessage().URL))); err != nil {
		t.Errorf("the code is no picture: %v", err)
	}
	bridgetest.Eventually(t, "an expired code can not be scanned", func() bool { return w.wa.Scan(codes[0], alice.phone.Account) != nil })

	// The second one is scanned, but perhaps not in time.
	said := func(text string) int { return len(alice.Events(bridgetest.Message(alice.manage, text))) }
	const linked, expired = "You are linked as +15550001.", "no phone has scanned a code in time"
	bridgetest.Eventually(t, "a phone scans the second code in time", func() bool {
		before, late := len(alice.codes()), said(expired)
		alice.Say(alice.manage, "login qr")
		_ = w.wa.Scan(alice.code(before+1), alice.phone.Account)
		bridgetest.Eventually(t, "the log-in ends", func() bool { return said(linked) > 0 || said(expired) > late })
		return said(linked) > 0
	})
}

// TestPairingCode links without a camera.
func TestPairingCode(t *testing.T) {
	alice := start(t, nil).person("alice", "15550001")
	alice.Ask(alice.manage, "login code", "country code")
	alice.Ask(alice.manage, "0155", "must start with +")
	alice.Ask(alice.manage, "+1 555 9999", "WhatsApp gives no code for this number")
	alice.phone.Enter(alice.pairingCode("+1 555-0001"))
	alice.Await("the link", bridgetest.Message(alice.manage, "You are linked as +15550001."))
}

// TestPairingCodeExpires enters none.
func TestPairingCodeExpires(t *testing.T) {
	alice := start(t, hasty(100*time.Millisecond)).person("alice", "15550001")
	alice.pairingCode("+1 555 0001")
	alice.Await("that the code has expired", bridgetest.Message(alice.manage, "the code was not entered in time; say `login code` for a new one"))
}

// pairingCode asks for a code for a phone number.
func (p *person) pairingCode(number string) string {
	p.T.Helper()
	form := regexp.MustCompile(`\b[0-9A-Z]{4}-[0-9A-Z]{4}\b`)
	p.Ask(p.manage, "login code", "country code")
	p.Say(p.manage, number)
	return form.FindString(p.Await("a code", func(e *event.Event) bool {
		return e.Sender == bot && e.Type == event.EventMessage && form.MatchString(e.Content.AsMessage().Body)
	}).Content.AsMessage().Body)
}

// TestAccounts links two accounts of one person.
func TestAccounts(t *testing.T) {
	w := start(t, nil)
	bob := w.wa.Phone(t, "15550002", "Bob")
	alice := w.linked("alice", "15550001")
	work := &person{alice.User, w.wa.Phone(t, "15550011", "Alice at work"), alice.manage}
	work.link()
	for _, account := range []*person{alice, work} {
		alice.Ask(alice.manage, "list-logins", account.lid().User)
	}
	bob.Say(alice.lid(), "to the private account")
	bob.Say(work.lid(), "to the account at work")
	for _, c := range []struct {
		of   *person
		text string
	}{{alice, "to the private account"}, {work, "to the account at work"}} {
		e := alice.Await(c.text, func(e *event.Event) bool {
			return e.Type == event.EventMessage && e.Sender == ghost(bob.Account) && e.Content.AsMessage().Body == c.text
		})
		alice.Say(e.RoomID, "re: "+c.text)
		if m := bob.Said("re: " + c.text); m.Info.Sender.User != c.of.lid().User {
			t.Errorf("the answer came from %s, want %s", m.Info.Sender, c.of.lid())
		}
	}
}

// TestEndings lets WhatsApp end or refuse the connection in every way, and looks
// at what the user is told, at once and when something is written.
func TestEndings(t *testing.T) {
	k := talking(t, nil)
	account := k.alice.phone.Account
	const waiting, restart, linking = "time", "restart", "linking"
	for _, c := range []struct {
		name  string
		end   func()
		told  []string
		after string // what brings it back
	}{
		{"outdated", func() { k.wa.Refuse(account, 405) }, []string{"too old for WhatsApp", "need not log in again"}, restart},
		{"banned for a time", func() { k.wa.Refuse(account, 402, "code", "101", "expire", "2") },
			[]string{"blocked your account for some time", "UTC: too many messages to people who do not know you"}, waiting},
		{"replaced", func() { k.wa.Replace(account) }, []string{"is a copy of this server running?"}, restart},
		{"locked", func() { k.wa.Refuse(account, 403) }, []string{"locked your account", "say `login qr`"}, linking},
		{"banned", func() { k.wa.Refuse(account, 406) }, []string{"banned your account", "ask for a review"}, linking},
		{"unlinked by the phone", func() { k.wa.Unlink(account) }, []string{"Your phone has unlinked this bridge", "Say `login qr`"}, linking},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.end()
			k.alice.Await("why it ended", func(e *event.Event) bool {
				return bridgetest.Message(k.alice.manage, c.told[0])(e) && strings.Contains(e.Content.AsMessage().Body, c.told[1%len(c.told)])
			})
			switch sent := k.alice.Say(k.room, "during: "+c.name); c.after {
			case waiting: // which may be over by now
			case restart:
				k.alice.refused(sent, c.told[0])
			case linking:
				k.alice.refused(sent)
			}
			k.wa.Refuse(account, 0)
			switch c.after {
			case restart:
				k.Stop()
				k.Run()
			case linking:
				k.alice.link()
			}
			k.awaitAnswer(t, "after: "+c.name)
		})
	}
}

// TestLate lets whatsmeow tell of what has happened to a connection when something
// else has happened since.
func TestLate(t *testing.T) {
	var c *whatsapp.Connector
	k := talking(t, func(config *whatsapp.Config, o *bridgetest.Options) {
		o.Connector = func() bridgev2.NetworkConnector { c = whatsapp.New(*config); return c }
	})
	is := func(want status.BridgeStateEvent) {
		t.Helper()
		bridgetest.Eventually(t, "the login is "+string(want), func() bool { return k.Host.Health().Logins[0].State == string(want) })
	}
	is(status.StateConnected)
	k.wa.SetDown(true)
	is(status.StateTransientDisconnect)
	c.Happen(&events.Connected{})
	if got := k.Host.Health().Logins[0].State; got != string(status.StateTransientDisconnect) {
		t.Errorf("without a connection the login is %s", got)
	}
	k.wa.SetDown(false)
	is(status.StateConnected)

	c.Happen(&events.TemporaryBan{Expire: time.Millisecond})
	is(status.StateConnected)
	c.Happen(&events.TemporaryBan{Expire: time.Second})
	c.Happen(&events.StreamReplaced{})
	c.Rest()
	k.alice.refused(k.alice.Say(k.room, "behind a ban"), "is a copy of this server running?")
	is(status.StateUnknownError)
}

// awaitAnswer waits until what is said arrives in both directions.
func (k *talk) awaitAnswer(t *testing.T, text string) {
	t.Helper()
	k.bob.Say(k.alice.lid(), text)
	e := k.alice.Await(text, func(e *event.Event) bool {
		return e.Type == event.EventMessage && e.Sender == ghost(k.bob.Account) && e.Content.AsMessage().Body == text
	})
	k.room = e.RoomID
	k.alice.Say(k.room, "re: "+text)
	k.bob.Said("re: " + text)
}
