package bridgetest

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// Contract is what every connector must hold, against a real server of its
// network. The homeserver with the bridge runs in a process of its own, which
// is this program again, so that it can be killed: the test function that calls
// Contract does nothing before. Options makes, in that process, the options of
// the bridge from Network.Settings; start runs the network until the test ends.
// Only, if given, are the parts to play after the log-in and the portals.
func Contract(t *testing.T, options func(settings string) Options, start func(t *testing.T) Network, only ...string) {
	if serve(t, options) {
		return
	}
	n := start(t)
	st := &stage{t: t, network: n, f: n.Features(), server: startProcess(t, n.Settings())}
	st.alice = st.server.User("alice")
	st.bot = Bot(options(n.Settings()).ID)
	for _, part := range []struct {
		name string
		run  func(*testing.T)
	}{
		{"log in", st.logIn}, {"portals", st.portals}, {"text", st.text}, {"formatting", st.formatting},
		{"media", st.media}, {"replies", st.replies}, {"edits", st.edits}, {"reactions", st.reactions},
		{"deletions", st.deletions}, {"receipts", st.receipts}, {"typing", st.typing}, {"order", st.order},
		{"reconnect", st.reconnect}, {"restart", st.restart}, {"kill", st.kill}, {"loss", st.loss},
		{"log out", st.logOut},
	} {
		if len(only) > 0 && len(st.chats) > 0 && !slices.Contains(only, part.name) {
			continue
		}
		ok := t.Run(part.name, func(t *testing.T) {
			st.alice.T, st.server.T = t, t
			defer func() { st.alice.T, st.server.T = st.t, st.t }()
			part.run(t)
		})
		if !ok && len(st.chats) == 0 {
			break // without a log-in or a chat nothing else can succeed
		}
	}
}

// stage is where the contract is played.
type stage struct {
	t       *testing.T
	network Network
	f       Features
	server  *process
	alice   *User // on Matrix
	bob     Person
	bot     id.UserID
	manage  id.RoomID
	account string // alice's
	chats   []chat
	links   int // how often the bridge's connection was waited for
}

// chat is a conversation that alice and bob have.
type chat struct {
	kind string // "direct" or "group"
	name string // as bob calls it
	room id.RoomID
}

// each runs a test in every kind of chat.
func (st *stage) each(t *testing.T, has bool, test func(*testing.T, chat)) {
	if !has {
		t.Skip("the network has no such thing")
	}
	for _, c := range st.chats {
		t.Run(c.kind, func(t *testing.T) {
			outer := st.alice.T
			st.alice.T, st.server.T = t, t
			defer func() { st.alice.T, st.server.T = outer, outer }()
			test(t, c)
		})
	}
}

// sees waits until somebody on the network sees what matches.
func sees(t *testing.T, p Person, what string, match func(Seen) bool) Seen {
	t.Helper()
	var found *Seen
	defer func() {
		if found == nil {
			for _, s := range p.Seen() {
				t.Logf("%s saw %+v", p.Ghost(), s)
			}
		}
	}()
	Eventually(t, fmt.Sprintf("%s sees: %s", p.Ghost(), what), func() bool {
		for _, s := range p.Seen() {
			if match(s) {
				found = &s
				return true
			}
		}
		return false
	})
	return *found
}

// said matches a message in a chat.
func (c chat) said(text string) func(Seen) bool {
	return func(s Seen) bool { return s.Kind == Said && s.Chat == c.name && s.Text == text }
}

// from lets somebody on the network write, and returns both names of it.
func (st *stage) from(c chat, p Person, m Post) (string, *event.Event) {
	network := p.Write(c.name, m)
	return network, st.alice.Await(m.Text, Message(c.room, m.Text))
}

// out lets alice write, and returns both names of it.
func (st *stage) out(t *testing.T, c chat, text string) (id.EventID, Seen) {
	t.Helper()
	e := st.alice.Say(c.room, text)
	return e, sees(t, st.bob, text, c.said(text))
}

func (st *stage) logIn(t *testing.T) {
	st.manage = st.alice.Manage(st.bot)
	st.account = st.network.LogIn(st.alice, st.manage)
	st.alice.Ask(st.manage, "list-logins", st.account)
	st.bob = st.network.Person(t, "bob")
}

func (st *stage) portals(t *testing.T) {
	// By an incoming message.
	c := chat{kind: "direct", name: st.account}
	st.bob.Write(c.name, Post{Text: "hello Matrix"})
	c.room = st.alice.DirectRoom(st.bob.Ghost())
	st.alice.Await("bob's first message", Message(c.room, "hello Matrix"))
	st.chats = append(st.chats, c)

	// By a command.
	if st.f.StartChat != "" {
		dora := st.network.Person(t, "dora")
		st.alice.Ask(st.manage, "start-chat "+st.f.StartChat, "chat")
		room := st.alice.DirectRoom(dora.Ghost())
		st.alice.Say(room, "hello dora")
		sees(t, dora, "alice's message", func(s Seen) bool { return s.Kind == Said && s.Text == "hello dora" })
	}

	// By an invitation of somebody's Matrix user.
	carol := st.network.Person(t, "carol")
	made := st.alice.Invite(carol.Ghost())
	st.alice.Await("that carol comes", Member(made, carol.Ghost(), event.MembershipJoin))
	Eventually(t, "the room is a portal", func() bool {
		state, err := st.alice.State(context.Background(), made)
		return err == nil && len(state[event.StateBridge]) > 0
	})
	st.alice.Say(made, "hello carol")
	sees(t, carol, "alice's message", func(s Seen) bool { return s.Kind == Said && s.Text == "hello carol" })

	if st.f.Group != "" {
		st.alice.Say(st.manage, st.f.Join)
		g := chat{kind: "group", name: st.f.Group, room: st.alice.Room(st.f.Group)}
		st.alice.Await("that bob is in the group", Member(g.room, st.bob.Ghost(), event.MembershipJoin))
		st.chats = append(st.chats, g)
	}
}

func (st *stage) text(t *testing.T) {
	st.each(t, true, func(t *testing.T, c chat) {
		e, _ := st.out(t, c, "from Matrix: ü, 日本, <&> and \"quotes\"")
		st.alice.Await("that it arrived", Status(e, event.MessageStatusSuccess))
		_, in := st.from(c, st.bob, Post{Text: "to Matrix: ü, 日本, <&> and \"quotes\""})
		if in.Sender != st.bob.Ghost() || in.Content.AsMessage().MsgType != event.MsgText {
			t.Errorf("bob's message came from %s as %s", in.Sender, in.Content.AsMessage().MsgType)
		}
	})
}

func (st *stage) formatting(t *testing.T) {
	st.each(t, st.f.Formatting.Out, func(t *testing.T, c chat) {
		st.alice.Send(c.room, &event.MessageEventContent{
			MsgType: event.MsgText, Body: "this is **bold**", Format: event.FormatHTML, FormattedBody: "this is <strong>bold</strong>",
		})
		s := sees(t, st.bob, "formatted text", func(s Seen) bool { return s.Kind == Said && s.Chat == c.name && s.Bold == "bold" })
		if s.Text != "this is bold" {
			t.Errorf("the text is %q", s.Text)
		}
		if !st.f.Formatting.In {
			return
		}
		st.bob.Write(c.name, Post{Text: "and strong it was", Bold: "strong"})
		st.alice.Await("formatted text", func(e *event.Event) bool {
			return e.RoomID == c.room && e.Sender == st.bob.Ghost() && e.Type == event.EventMessage &&
				e.Content.AsMessage().FormattedBody == "and <strong>strong</strong> it was"
		})
	})
}

// pixel is a PNG of one pixel.
const pixel = "\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\x00\x00\x00\x01\x00\x00\x00\x01\x08\x06\x00\x00\x00\x1f\x15\xc4\x89" +
	"\x00\x00\x00\rIDATx\x9cc\xf8\xff\xff?\x00\x05\xfe\x02\xfe\xa75\x81\x84\x00\x00\x00\x00IEND\xaeB`\x82"

func (st *stage) media(t *testing.T) {
	ctx := context.Background()
	st.each(t, st.f.Media.Out, func(t *testing.T, c chat) {
		upload, err := st.alice.UploadBytesWithName(ctx, []byte(pixel), "image/png", "dot.png")
		if err != nil {
			t.Fatal(err)
		}
		st.alice.Send(c.room, &event.MessageEventContent{
			MsgType: event.MsgImage, Body: "dot.png", URL: upload.ContentURI.CUString(),
			Info: &event.FileInfo{MimeType: "image/png", Size: len(pixel), Width: 1, Height: 1},
		})
		s := sees(t, st.bob, "an image", func(s Seen) bool { return s.Kind == Said && s.Chat == c.name && s.File != nil })
		if string(s.File.Data) != pixel {
			t.Errorf("the image has %d bytes: %+v", len(s.File.Data), s)
		}
		if !st.f.Media.In {
			return
		}
		st.bob.Write(c.name, Post{File: &File{Name: "bob.png", MimeType: "image/png", Data: []byte(pixel)}})
		e := st.alice.Await("bob's image", func(e *event.Event) bool {
			return e.RoomID == c.room && e.Sender == st.bob.Ghost() && e.Type == event.EventMessage && e.Content.AsMessage().MsgType == event.MsgImage
		})
		uri, err := e.Content.AsMessage().URL.Parse()
		if err != nil {
			t.Fatalf("bob's image is at %q: %v", e.Content.AsMessage().URL, err)
		}
		data, err := st.alice.DownloadBytes(ctx, uri)
		if err != nil || !bytes.Equal(data, []byte(pixel)) {
			t.Errorf("bob's image has %d bytes: %v", len(data), err)
		}
	})
}

func (st *stage) replies(t *testing.T) {
	st.each(t, st.f.Replies.Out, func(t *testing.T, c chat) {
		question, e := st.from(c, st.bob, Post{Text: "a question"})
		st.alice.Send(c.room, &event.MessageEventContent{MsgType: event.MsgText, Body: "an answer", RelatesTo: (&event.RelatesTo{}).SetReplyTo(e.ID)})
		s := sees(t, st.bob, "the answer", c.said("an answer"))
		if s.ReplyTo != question {
			t.Errorf("the answer is to %q, the question was %q", s.ReplyTo, question)
		}
		if !st.f.Replies.In {
			return
		}
		own, seen := st.out(t, c, "alice's question")
		_, e = st.from(c, st.bob, Post{Text: "bob's answer", ReplyTo: seen.ID})
		if content := e.Content.AsMessage(); content.RelatesTo.GetReplyTo() != own || content.Body != "bob's answer" {
			t.Errorf("bob's answer is %+v, to %v, want %s", content, content.RelatesTo, own)
		}
	})
}

func (st *stage) edits(t *testing.T) {
	st.each(t, st.f.Edits.Out, func(t *testing.T, c chat) {
		own, seen := st.out(t, c, "teh first version")
		edit := &event.MessageEventContent{MsgType: event.MsgText, Body: "the first version"}
		edit.SetEdit(own)
		st.alice.Send(c.room, edit)
		if s := sees(t, st.bob, "the correction", c.said("the first version")); s.Replaces != seen.ID {
			t.Errorf("the correction is of %q, the message was %q", s.Replaces, seen.ID)
		}
		if !st.f.Edits.In {
			return
		}
		wrong, e := st.from(c, st.bob, Post{Text: "bob's tpyo"})
		st.bob.Write(c.name, Post{Text: "bob's typo", Replaces: wrong})
		st.alice.Await("bob's correction", func(x *event.Event) bool {
			return x.RoomID == c.room && x.Type == event.EventMessage && x.Content.AsMessage().RelatesTo.GetReplaceID() == e.ID &&
				x.Content.AsMessage().NewContent.Body == "bob's typo"
		})
	})
}

func (st *stage) reactions(t *testing.T) {
	ctx := context.Background()
	st.each(t, st.f.Reactions.Out, func(t *testing.T, c chat) {
		message, e := st.from(c, st.bob, Post{Text: "what do you think?"})
		sent, err := st.alice.SendReaction(ctx, c.room, e.ID, "👍")
		if err != nil {
			t.Fatal(err)
		}
		reacted := func(emoji string) func(Seen) bool {
			return func(s Seen) bool {
				return s.Kind == Reacted && s.Target == message && strings.HasPrefix(s.Emoji, emoji)
			}
		}
		sees(t, st.bob, "the reaction", reacted("👍"))
		if _, err := st.alice.RedactEvent(ctx, c.room, sent.EventID); err != nil {
			t.Fatal(err)
		}
		sees(t, st.bob, "that the reaction is gone", func(s Seen) bool { return reacted("")(s) && s.Emoji == "" })
		if !st.f.Reactions.In {
			return
		}
		own, seen := st.out(t, c, "and you?")
		st.bob.React(c.name, seen.ID, "🎉")
		reaction := st.alice.Await("bob's reaction", func(x *event.Event) bool {
			return x.Type == event.EventReaction && x.Sender == st.bob.Ghost() && x.Content.AsReaction().RelatesTo.EventID == own &&
				strings.HasPrefix(x.Content.AsReaction().RelatesTo.Key, "🎉")
		})
		st.bob.React(c.name, seen.ID, "")
		st.alice.Await("that bob took it back", redaction(reaction.ID))
	})
}

// redaction matches that an event is taken back.
func redaction(of id.EventID) func(*event.Event) bool {
	return func(e *event.Event) bool {
		return e.Type == event.EventRedaction && (e.Redacts == of || e.Content.AsRedaction().Redacts == of)
	}
}

func (st *stage) deletions(t *testing.T) {
	st.each(t, st.f.Deletions.Out, func(t *testing.T, c chat) {
		own, seen := st.out(t, c, "forget this")
		if _, err := st.alice.RedactEvent(context.Background(), c.room, own); err != nil {
			t.Fatal(err)
		}
		sees(t, st.bob, "the deletion", func(s Seen) bool { return s.Kind == Deleted && s.Target == seen.ID })
		if !st.f.Deletions.In {
			return
		}
		message, e := st.from(c, st.bob, Post{Text: "never mind"})
		st.bob.Delete(c.name, message)
		st.alice.Await("bob's deletion", redaction(e.ID))
	})
}

func (st *stage) receipts(t *testing.T) {
	st.each(t, st.f.Receipts.Out, func(t *testing.T, c chat) {
		message, e := st.from(c, st.bob, Post{Text: "have you read this?"})
		if err := st.alice.MarkRead(context.Background(), c.room, e.ID); err != nil {
			t.Fatal(err)
		}
		sees(t, st.bob, "that alice has read it", func(s Seen) bool { return s.Kind == HasRead && s.Target == message })
		if !st.f.Receipts.In {
			return
		}
		own, seen := st.out(t, c, "and you this?")
		st.bob.Read(c.name, seen.ID)
		st.alice.Await("that bob has read it", func(x *event.Event) bool {
			if x.Type != event.EphemeralEventReceipt || x.RoomID != c.room {
				return false
			}
			_, read := (*x.Content.AsReceipt())[own][event.ReceiptTypeRead][st.bob.Ghost()]
			return read
		})
	})
}

func (st *stage) typing(t *testing.T) {
	st.each(t, st.f.Typing.Out, func(t *testing.T, c chat) {
		if _, err := st.alice.UserTyping(context.Background(), c.room, true, patience); err != nil {
			t.Fatal(err)
		}
		sees(t, st.bob, "that alice types", func(s Seen) bool { return s.Kind == IsTyping && s.Chat == c.name })
		if !st.f.Typing.In {
			return
		}
		st.bob.Type(c.name)
		st.alice.Await("that bob types", func(x *event.Event) bool {
			if x.Type != event.EphemeralEventTyping || x.RoomID != c.room {
				return false
			}
			for _, user := range x.Content.AsTyping().UserIDs {
				if user == st.bob.Ghost() {
					return true
				}
			}
			return false
		})
	})
}

func (st *stage) logOut(t *testing.T) {
	list := st.alice.Ask(st.manage, "list-logins", st.account)
	_, rest, ok := strings.Cut(list, "`")
	login, _, closed := strings.Cut(rest, "`")
	if !ok || !closed {
		t.Fatalf("the logins are %q", list)
	}
	st.alice.Ask(st.manage, "logout "+login, "Logged out")
	lost := st.alice.Say(st.chats[0].room, "anybody?")
	st.alice.Await("that it failed", func(e *event.Event) bool {
		return Status(lost, event.MessageStatusRetriable)(e) || Status(lost, event.MessageStatusFail)(e)
	})
	if again := st.network.LogIn(st.alice, st.manage); again != st.account {
		t.Errorf("the account was %s, is %s", st.account, again)
	}
	c := st.chats[0]
	st.bob.Write(c.name, Post{Text: "there you are"})
	st.alice.Await("bob's message, in whatever room", func(e *event.Event) bool {
		return e.Type == event.EventMessage && e.Sender == st.bob.Ghost() && e.Content.AsMessage().Body == "there you are"
	})
	if room := st.alice.DirectRoom(st.bob.Ghost()); room != c.room {
		c.room = room
	}
	st.out(t, c, "here I am")
}
