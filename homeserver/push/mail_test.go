package push

import (
	"encoding/json"
	"io"
	"mime/multipart"
	"mime/quotedprintable"
	"net/http"
	"net/http/httptest"
	netmail "net/mail"
	"net/url"
	"regexp"
	"strings"
	"testing"
	"time"

	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/mail"
	"switchboard/homeserver/mail/mailtest"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// post is the world with a mail server, and a pusher of bob's address.
func (w *world) post() *mailtest.Server {
	w.Helper()
	w.stop()
	server := mailtest.Start(w.TB, mail.StartTLS)
	server.Config.Delay = 10 * time.Millisecond
	w.mailBy(server)
	w.ok(w.accounts.AddEmail(w.Context(), bob, "Bob@example.org"))
	w.ok(w.accounts.SetPusher(w.Context(), bobsMail(), true))
	return server
}

// mailBy runs the pushers with a mail server.
func (w *world) mailBy(server *mailtest.Server) {
	w.Mail = &Mail{Sender: server.Sender(), ServerName: "a.test", PublicURL: "https://chat.a.test", Secret: []byte("secret")}
	w.accounts.SendsMail = true
	w.start()
}

func bobsMail() store.Pusher {
	return store.Pusher{
		User: bob, Device: "WEB", AppID: "m.email", Pushkey: "bob@Example.org", Kind: "email",
		AppName: "E-mail", DeviceName: "bob@example.org", Lang: "en", Data: json.RawMessage(`{}`),
	}
}

// letter is an e-mail as its reader sees it.
type letter struct {
	*netmail.Message
	text, html string
}

func (w *world) letter(server *mailtest.Server, n int) letter {
	w.Helper()
	m := server.Want(n)
	l := letter{Message: m}
	_, boundary, _ := strings.Cut(m.Header.Get("Content-Type"), "boundary=")
	parts := multipart.NewReader(m.Body, strings.Trim(boundary, "\" \r\n"))
	for _, to := range []*string{&l.text, &l.html} {
		p, err := parts.NextRawPart()
		w.ok(err)
		b, err := io.ReadAll(quotedprintable.NewReader(p))
		w.ok(err)
		*to = strings.ReplaceAll(string(b), "\r\n", "\n")
	}
	return l
}

// read lets bob read everything up to an event.
func (w *world) read(id matrix.RoomID, upto matrix.EventID) {
	w.Helper()
	w.ok(w.ephemeral.SetMarks(w.Context(), bob, id, ephemeral.Mark{Type: ephemeral.Read, Event: upto}))
}

// TestMail: what is unread comes as one e-mail to the user's own address, with
// rooms, names, texts and links; what is read meanwhile does not, and the rest
// after an e-mail ends when it was read.
func TestMail(t *testing.T) {
	each(t, func(w *world) {
		w.ok(w.accounts.SetProfile(w.Context(), alice, "displayname", json.RawMessage(`"Alice"`)))
		id := w.room()
		w.read(id, w.say(alice, id, "read already"))
		server := w.post()
		first := w.say(alice, id, "hello\nBob")
		l := w.letter(server, 1)
		if l.Header.Get("X-Rcptto") != "bob@example.org" || l.Header.Get("Subject") != "[a.test] A message from Alice in Talk" {
			t.Errorf("headers %v", l.Header)
		}
		link := "https://matrix.to/#/" + url.PathEscape(string(id)) + "?via=a.test"
		for _, want := range []string{"Talk\n", "Alice:\n    hello\n    Bob\n", "@bob:a.test", "https://chat.a.test/_switchboard/mail/unsubscribe?token="} {
			if !strings.Contains(l.text, want) {
				t.Errorf("the text lacks %q: %s", want, l.text)
			}
		}
		if strings.Contains(l.text, "read already") || !strings.Contains(l.text, link) {
			t.Errorf("text %s", l.text)
		}
		for _, want := range []string{"<strong>Alice</strong>", "hello\nBob</span>"} {
			if !strings.Contains(l.html, want) {
				t.Errorf("the HTML lacks %q: %s", want, l.html)
			}
		}
		w.say(alice, id, "in the rest") // while the first is unread, the room rests
		other := w.room()
		w.say(alice, other, "another room")
		l = w.letter(server, 2)
		if !strings.Contains(l.text, "in the rest") || !strings.Contains(l.text, "another room") || strings.Contains(l.text, "hello") || !strings.Contains(l.Header.Get("Subject"), "2 unread messages in 2 rooms") {
			t.Errorf("the second e-mail: %s %s", l.Header.Get("Subject"), l.text)
		}
		w.stop()
		w.read(id, first)
		w.read(id, w.say(alice, id, "soon read"))
		w.say(alice, id, "after the rest")
		w.start()
		if l = w.letter(server, 3); !strings.Contains(l.text, "after the rest") || strings.Contains(l.text, "in the rest") {
			t.Errorf("the third e-mail: %s", l.text)
		}
	})
}

// TestMailKinds: an encrypted message is a message and no more; pictures and
// invitations are named.
func TestMailKinds(t *testing.T) {
	each(t, func(w *world) {
		id := w.room()
		server := w.post()
		w.stop()
		for typ, content := range map[string]string{
			"m.room.encrypted": `{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"AwgAEnACgAkL","sender_key":"k","device_id":"D","session_id":"s"}`,
			"m.room.message":   `{"msgtype":"m.image","body":"cat.jpg","url":"mxc://a.test/x"}`,
		} {
			_, err := w.Rooms.Send(w.Context(), room.Sending{User: alice, Room: id, Type: typ, Content: json.RawMessage(content)})
			w.ok(err)
		}
		name := "Elsewhere"
		_, err := w.Rooms.Create(w.Context(), room.Creation{Creator: alice, Name: &name, Invite: []matrix.UserID{bob}})
		w.ok(err)
		w.start()
		l := w.letter(server, 1)
		for _, want := range []string{"  alice sent a message\n", "  alice sent an image:\n    cat.jpg", "Elsewhere\n", "  alice invites you"} {
			if !strings.Contains(l.text, want) {
				t.Errorf("the text lacks %q: %s", want, l.text)
			}
		}
		if strings.Contains(l.text+l.html, "AwgAEnACgAkL") {
			t.Error("the e-mail holds the ciphertext")
		}
	})
}

// TestMailHostile: what others write is text in an e-mail, whatever it looks
// like.
func TestMailHostile(t *testing.T) {
	each(t, func(w *world) {
		evil := "</title></strong><script>alert(1)</script><img src=http://tracker.test/>\"'\r\nBcc: victim@example.org\n\n-- \nhttps://evil.test/ \u202egnp.exe\u0000"
		quoted, err := json.Marshal(strings.ReplaceAll(evil, "\u0000", ""))
		w.ok(err)
		w.ok(w.accounts.SetProfile(w.Context(), alice, "displayname", quoted))
		id := w.room()
		_, err = w.Rooms.Send(w.Context(), room.Sending{User: alice, Room: id, Type: "m.room.name", StateKey: new(string), Content: must(json.Marshal(map[string]string{"name": evil}))})
		w.ok(err)
		server := w.post()
		w.stop()
		w.say(alice, id, evil)
		_, err = w.Rooms.Send(w.Context(), room.Sending{User: alice, Room: id, Type: "m.room.message", Content: must(json.Marshal(map[string]string{"msgtype": "m.emote", "body": evil}))})
		w.ok(err)
		_, err = w.Rooms.Send(w.Context(), room.Sending{User: alice, Room: id, Type: "m.room.message", Content: must(json.Marshal(map[string]any{"msgtype": []int{1}, "body": evil}))})
		w.ok(err)
		w.say(alice, id, strings.Repeat("long ", 100_000/8))
		w.start()
		l := w.letter(server, 1)
		if l.Header.Get("Bcc") != "" || l.Header.Get("X-Rcptto") != "bob@example.org" || len(l.html) > 20_000 {
			t.Errorf("headers %v, %d bytes", l.Header, len(l.html))
		}
		for _, bad := range []string{"<script", "<img", "\u202e", "</strong><s", "\x00"} {
			if strings.Contains(l.html, bad) {
				t.Errorf("the HTML holds %q: %s", bad, l.html)
			}
		}
		if n := strings.Count(l.text, "\n-- \n"); n != 1 || strings.Contains(l.text, "\u202e") {
			t.Errorf("the text has %d signatures: %s", n, l.text)
		}
	})
}

// TestMailAway: nothing is lost while the mail server is away, also over a
// restart, and nothing comes twice; a refusal for good ends only that e-mail.
func TestMailAway(t *testing.T) {
	each(t, func(w *world) {
		id := w.room()
		server := w.post()
		server.Fail("451 later")
		w.say(alice, id, "one")
		w.stop()
		server.Fail("")
		w.mailBy(server)
		if l := w.letter(server, 1); !strings.Contains(l.text, "one") {
			t.Errorf("the e-mail: %s", l.text)
		}
		w.stop()
		server.Refuse("550 nobody here")
		other := w.room()
		w.say(alice, other, "two")
		w.mailBy(server)
		w.told()
		server.Refuse("")
		third := w.room()
		w.say(alice, third, "three")
		if l := w.letter(server, 2); !strings.Contains(l.text, "three") || strings.Contains(l.text, "two") || strings.Contains(l.text, "one") {
			t.Errorf("the e-mail after: %s", l.text)
		}
		if ids := server.Raw(); len(ids) != 2 {
			t.Errorf("%d e-mails", len(ids))
		}
	})
}

// told waits until bob's pusher has dealt with all of the log.
func (w *world) told() {
	w.Helper()
	end := w.Store.Position()
	w.pushers("which are at the end of the log", func(list []store.Pusher) bool { return len(list) == 1 && list[0].Pos >= end })
}

// gone waits until bob has no pusher.
func (w *world) gone() {
	w.Helper()
	w.pushers("which are gone", func(list []store.Pusher) bool { return len(list) == 0 })
}

// pushers waits for bob's pushers to be as ok wants.
func (w *world) pushers(what string, ok func([]store.Pusher) bool) {
	w.Helper()
	for deadline := time.Now().Add(2 * time.Minute); ; time.Sleep(10 * time.Millisecond) {
		list, err := w.Store.Pushers(w.Context(), bob)
		w.ok(err)
		if ok(list) {
			return
		}
		if time.Now().After(deadline) {
			w.Fatalf("waited in vain for pushers %s: %+v", what, list)
		}
	}
}

// TestMailAddress: e-mail goes to a user's own addresses alone.
func TestMailAddress(t *testing.T) {
	each(t, func(w *world) {
		p := bobsMail()
		wantCode(t, matrix.InvalidParam, w.accounts.SetPusher(w.Context(), p, true)) // the server sends none
		id := w.room()
		server := w.post()
		for key, code := range map[string]matrix.Code{
			"stranger@example.org": matrix.ThreepidNotFound, "nobody": matrix.InvalidParam, "bob@example.org\r\nx": matrix.InvalidParam, "a@b,c@d": matrix.InvalidParam,
		} {
			p.Pushkey = key
			wantCode(t, code, w.accounts.SetPusher(w.Context(), p, true))
		}
		p = bobsMail()
		p.User = alice
		wantCode(t, matrix.ThreepidNotFound, w.accounts.SetPusher(w.Context(), p, true))
		wantCode(t, matrix.ThreepidInUse, w.accounts.AddEmail(w.Context(), alice, "bob@example.org"))
		w.ok(w.accounts.RemoveEmail(w.Context(), bob, "bob@example.org"))
		w.say(alice, id, "one")
		if list, err := w.Store.Pushers(w.Context(), bob); err != nil || len(list) != 0 {
			t.Errorf("pushers %v after the address is gone (%v)", list, err)
		}
		// What a pusher that is still there sends does not go there either.
		p = bobsMail()
		p.Pushkey = "bob@example.org"
		w.ok(w.Store.Update(w.Context(), func(tx *store.Tx) error { return tx.PutPusher(w.Context(), p) }))
		w.Bell.Ring(store.PushersBell)
		w.gone()
		if n := len(server.Raw()); n != 0 {
			t.Errorf("%d e-mails went out", n)
		}
		w.ok(w.accounts.AddEmail(w.Context(), bob, "bob@example.org"))
		w.ok(w.accounts.SetPusher(w.Context(), bobsMail(), true))
		w.ok(w.accounts.Deactivate(w.Context(), bob, false))
		w.gone()
		if list, err := w.accounts.Threepids(w.Context(), bob); err != nil || len(list) != 0 {
			t.Errorf("a deactivated user has the addresses %v (%v)", list, err)
		}
	})
}

func wantCode(t *testing.T, code matrix.Code, err error) {
	t.Helper()
	if e, ok := err.(*matrix.Error); !ok || e.Code != code {
		t.Errorf("error %v, want %s", err, code)
	}
}

// TestUnsubscribe: the link in an e-mail ends the pusher without a login, by a
// POST and not by looking; one that was changed does nothing.
func TestUnsubscribe(t *testing.T) {
	each(t, func(w *world) {
		id := w.room()
		server := w.post()
		w.say(alice, id, "one")
		l := w.letter(server, 1)
		link := strings.Trim(l.Header.Get("List-Unsubscribe"), "<>")
		path, ok := strings.CutPrefix(link, "https://chat.a.test")
		if !ok || l.Header.Get("List-Unsubscribe-Post") != "List-Unsubscribe=One-Click" || !strings.Contains(l.html, link) {
			t.Fatalf("the link %q", link)
		}
		ask := func(method, path, body string) *httptest.ResponseRecorder {
			r := httptest.NewRequest(method, path, strings.NewReader(body))
			answer := httptest.NewRecorder()
			w.Unsubscribe().ServeHTTP(answer, r)
			return answer
		}
		wrong := regexp.MustCompile(`token=..`).ReplaceAllString(path, "token=AA")
		for _, tt := range []struct {
			method, path string
			status       int
		}{{"GET", path, 200}, {"HEAD", path, 200}, {"GET", wrong, 404}, {"POST", wrong, 404}, {"POST", UnsubscribePath, 404}, {"POST", UnsubscribePath + "?token=e30.", 404}, {"DELETE", path, 405}} {
			if got := ask(tt.method, tt.path, ""); got.Code != tt.status {
				t.Errorf("%s %s: status %d, want %d", tt.method, tt.path, got.Code, tt.status)
			}
		}
		if list, err := w.Store.Pushers(w.Context(), bob); err != nil || len(list) != 1 {
			t.Fatalf("pushers %v (%v)", list, err)
		}
		if got := ask("POST", path, "List-Unsubscribe=One-Click"); got.Code != http.StatusOK || !strings.Contains(got.Body.String(), "bob@example.org gets no more") {
			t.Errorf("status %d: %s", got.Code, got.Body)
		}
		w.gone()
		if got := ask("POST", path, ""); got.Code != http.StatusOK {
			t.Errorf("a second time: status %d", got.Code)
		}
	})
}

// TestRest: a conversation is told of when it has come to rest, or after a while
// when it does not; each e-mail that is not read makes the next come later.
func TestRest(t *testing.T) {
	const delay, shortest, longest = 10 * time.Minute, time.Hour, 24 * time.Hour
	start := time.UnixMilli(1_700_000_000_000)
	for _, tt := range []struct {
		name        string
		first, last time.Duration
		until       time.Duration
		want        time.Duration
	}{
		{"one message", 0, 0, 0, delay},
		{"goes on", 0, 8 * time.Minute, 0, 18 * time.Minute},
		{"never rests", 0, 39 * time.Minute, 0, 40 * time.Minute},
		{"told of lately", 0, 0, time.Hour, time.Hour},
	} {
		r := rest{Until: start.Add(tt.until).UnixMilli()}
		if got := r.due(start.Add(tt.first), start.Add(tt.last), delay); !got.Equal(start.Add(tt.want)) {
			t.Errorf("%s: due after %v, want %v", tt.name, got.Sub(start), tt.want)
		}
	}
	var r rest
	now := start
	for i, want := range []time.Duration{time.Hour, 6 * time.Hour, longest, longest} {
		r = r.next(now, int64(i), shortest, longest)
		if got := time.UnixMilli(r.Until).Sub(now); got != want || r.Pos != int64(i) {
			t.Errorf("rest %d is %v, want %v", i, got, want)
		}
		now = now.Add(want)
	}
	if r = r.next(now.Add(forgotten+time.Hour), 9, shortest, longest); r.Length != time.Hour.Milliseconds() {
		t.Errorf("after a quiet day the rest is %d ms", r.Length)
	}
}
