package whatsapp_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/whatsapp"
	"switchboard/bridges/whatsapp/whatsapptest"
)

const bot id.UserID = "@whatsappbot:switchboard.test"

// world is a WhatsApp server and a homeserver with the bridge.
type world struct {
	*bridgetest.Server
	t     *testing.T
	wa    *whatsapptest.Server
	lines *lines // the bridge's
}

// start runs both until the test ends.
func start(t *testing.T, change func(*whatsapp.Config, *bridgetest.Options)) *world {
	t.Helper()
	wa := whatsapptest.NewServer()
	t.Cleanup(func() {
		if u := wa.Unexpected(); len(u) > 0 {
			t.Errorf("the bridge asked WhatsApp what it does not know: %v", u)
		}
		wa.Close()
	})
	config := whatsapp.Config{TestServer: whatsapptest.Settings(wa.Address())}
	config.SetDefaults()
	options := bridgetest.Options{ID: "whatsapp"}
	if change != nil {
		change(&config, &options)
	}
	l := &lines{}
	if options.Connector == nil {
		options.Connector = func() bridgev2.NetworkConnector { return whatsapp.NewOver(config, l.carry) }
	}
	return &world{Server: bridgetest.Start(t, options), t: t, wa: wa, lines: l}
}

// ghost is the Matrix user of an account.
func ghost(a *whatsapptest.Account) id.UserID {
	return id.UserID("@whatsapp_" + a.LID.User + ":switchboard.test")
}

// person is a Matrix user with a management room, and a phone.
type person struct {
	*bridgetest.User
	phone  *whatsapptest.Phone
	manage id.RoomID
}

// person makes one who is not logged in.
func (w *world) person(name, number string) *person {
	w.t.Helper()
	u := w.User(name)
	return &person{u, w.wa.Phone(w.t, number, strings.ToUpper(name[:1])+name[1:]), u.Manage(bot)}
}

// linked makes one whose phone has scanned the QR code.
func (w *world) linked(name, number string) *person {
	w.t.Helper()
	p := w.person(name, number)
	p.link()
	return p
}

// link logs in.
func (p *person) link() {
	p.T.Helper()
	before, shown := len(p.Events(bridgetest.Message(p.manage, "You are linked"))), len(p.codes())
	p.Say(p.manage, "login qr")
	p.phone.Scan(p.code(shown))
	bridgetest.Eventually(p.T, "the device is linked", func() bool {
		return len(p.Events(bridgetest.Message(p.manage, "You are linked"))) > before
	})
}

// codes are the QR codes that were shown so far.
func (p *person) codes() (list []string) {
	for _, e := range p.Events(bridgetest.Message(p.manage, "")) {
		c := e.Content.AsMessage()
		if c.NewContent != nil {
			c = c.NewContent
		}
		if c.MsgType == event.MsgImage {
			list = append(list, c.Body)
		}
	}
	return list
}

// code waits for a QR code after so many.
func (p *person) code(after int) string {
	p.T.Helper()
	bridgetest.Eventually(p.T, "a QR code is shown", func() bool { return len(p.codes()) > after })
	return p.codes()[after]
}

// chat is the room with somebody, once it is there.
func (p *person) chat(with *whatsapptest.Account) id.RoomID {
	p.T.Helper()
	return p.DirectRoom(ghost(with))
}

// lid is the name of an account.
func (p *person) lid() types.JID { return p.phone.Account.LID }

// gets lets somebody do something and returns the message that comes of it.
func (p *person) gets(room id.RoomID, sender id.UserID, do func()) *event.Event {
	p.T.Helper()
	messages := func() []*event.Event {
		return p.Events(func(e *event.Event) bool {
			return e.RoomID == room && e.Sender == sender && (e.Type == event.EventMessage || e.Type == event.EventSticker)
		})
	}
	before := len(messages())
	do()
	bridgetest.Eventually(p.T, fmt.Sprintf("%s gets a message of %s", p.UserID, sender), func() bool { return len(messages()) > before })
	return messages()[before]
}

// arrives sends something in a room and returns what a phone gets.
func (p *person) arrives(at *whatsapptest.Phone, room id.RoomID, t event.Type, content any) *waE2E.Message {
	p.T.Helper()
	mine := func() (list []*events.Message) {
		for _, m := range at.Messages() {
			if m.Info.Sender.User == p.lid().User {
				list = append(list, m)
			}
		}
		return list
	}
	before := len(mine())
	if _, err := p.SendMessageEvent(context.Background(), room, t, content); err != nil {
		p.T.Fatal(err)
	}
	bridgetest.Eventually(p.T, "it arrives at "+at.Account.Name, func() bool { return len(mine()) > before })
	return mine()[before].Message
}

// refused waits until an event has failed, for a reason in these words.
func (p *person) refused(of id.EventID, words ...string) {
	p.T.Helper()
	reason := p.Await("that it failed", func(e *event.Event) bool {
		return bridgetest.Status(of, event.MessageStatusFail)(e) || bridgetest.Status(of, event.MessageStatusRetriable)(e)
	}).Content.Parsed.(*event.BeeperMessageStatusEventContent).Message
	for _, w := range words {
		if !strings.Contains(reason, w) {
			p.T.Errorf("the reason is %q, want %q in it", reason, w)
		}
	}
}

// uploaded is the address of a file that is on the homeserver now.
func (p *person) uploaded(data []byte, mimeType string) id.ContentURIString {
	p.T.Helper()
	up, err := p.UploadBytes(context.Background(), data, mimeType)
	if err != nil {
		p.T.Fatal(err)
	}
	return up.ContentURI.CUString()
}

// download fetches a file from the homeserver.
func (p *person) download(address id.ContentURIString) []byte {
	p.T.Helper()
	uri, err := address.Parse()
	if err != nil {
		p.T.Fatalf("the file is at %q: %v", address, err)
	}
	data, err := p.DownloadBytes(context.Background(), uri)
	if err != nil {
		p.T.Fatal(err)
	}
	return data
}
