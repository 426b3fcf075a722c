package mail_test

import (
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/mail"
	"strings"
	"testing"

	ours "switchboard/homeserver/mail"
	"switchboard/homeserver/mail/mailtest"
)

// TestSend: a message reaches a real mail server as it is, whichever way the
// connection is encrypted.
func TestSend(t *testing.T) {
	for _, tls := range []string{ours.StartTLS, ours.TLS, ours.None} {
		t.Run(tls, func(t *testing.T) {
			server := mailtest.Start(t, tls)
			if err := server.Sender().Try(t.Context()); err != nil {
				t.Fatal(err)
			}
			sent := ours.Message{
				ID: "one", To: "bob@example.org", Subject: "Grüße", Text: "hällo\n.\nthere", HTML: "<p>hällo</p>",
				Unsubscribe: "https://example.org/_switchboard/mail/unsubscribe?token=" + strings.Repeat("x", 400),
			}
			if err := server.Sender().Send(t.Context(), sent); err != nil {
				t.Fatal(err)
			}
			m := server.Want(1)
			for name, want := range map[string]string{
				"From": `"Example chat" <chat@example.org>`, "To": "<bob@example.org>", "Subject": "Grüße", "Message-Id": "<one@example.org>",
				"X-Mailfrom": "chat@example.org", "X-Rcptto": "bob@example.org", "Auto-Submitted": "auto-generated",
				"List-Unsubscribe": "<" + sent.Unsubscribe + ">", "List-Unsubscribe-Post": "List-Unsubscribe=One-Click",
			} {
				if got, err := new(mime.WordDecoder).DecodeHeader(m.Header.Get(name)); err != nil || got != want {
					t.Errorf("%s: %q, want %q (%v)", name, got, want, err)
				}
			}
			if got := bodies(t, m); got["text/plain"] != strings.ReplaceAll(sent.Text, "\n", "\r\n") && got["text/plain"] != sent.Text || strings.TrimSpace(got["text/html"]) != sent.HTML {
				t.Errorf("bodies %q", got)
			}
		})
	}
}

// bodies are the parts of a message by their type.
func bodies(t *testing.T, m *mail.Message) map[string]string {
	t.Helper()
	_, params, err := mime.ParseMediaType(m.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	parts := multipart.NewReader(m.Body, params["boundary"])
	found := map[string]string{}
	for {
		p, err := parts.NextPart()
		if errors.Is(err, io.EOF) {
			return found
		}
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(p)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := mime.ParseMediaType(p.Header.Get("Content-Type"))
		found[kind] = string(b)
	}
}

// TestHeaderInjection: nothing that stands in a message ends a header.
func TestHeaderInjection(t *testing.T) {
	server := mailtest.Start(t, ours.None)
	evil := "x\r\nBcc: victim@example.org\r\n\r\n<b>body</b>\u2028\x00\u202e\xff" + strings.Repeat(" long ünd länger", 50)
	if err := server.Sender().Send(t.Context(), ours.Message{ID: evil, To: "bob@example.org", Subject: evil, Text: evil, HTML: "<p>", Unsubscribe: "https://a.test/" + evil}); err != nil {
		t.Fatal(err)
	}
	m := server.Want(1)
	if m.Header.Get("Bcc") != "" || m.Header.Get("X-Rcptto") != "bob@example.org" || !strings.HasPrefix(m.Header.Get("Content-Type"), "multipart/alternative") {
		t.Errorf("headers %v", m.Header)
	}
	for _, to := range []string{"bob@example.org\r\nBcc: victim@example.org", "bob@example.org, victim@example.org", "bob@example.org> <victim@example.org", ""} {
		if err := server.Sender().Send(t.Context(), ours.Message{ID: "two", To: to, Subject: "s", Text: "t"}); !errors.Is(err, ours.ErrRefused) {
			t.Errorf("sending to %q: %v", to, err)
		}
	}
	if n := len(server.Raw()); n != 1 {
		t.Errorf("the server has %d messages", n)
	}
}

// TestAdvice: what an operator is told of what goes wrong leads to the cause.
func TestAdvice(t *testing.T) {
	starttls, plain, implicit := mailtest.Start(t, ours.StartTLS), mailtest.Start(t, ours.None), mailtest.Start(t, ours.TLS)
	closed := plain.Config
	closed.Port = 1
	for name, tt := range map[string]struct {
		config ours.Config
		change func(*ours.Config)
		advice string
	}{
		"no host":       {starttls.Config, func(c *ours.Config) { c.Host = "mail.invalid" }, "no host mail.invalid"},
		"closed":        {closed, func(*ours.Config) {}, "Nothing listens"},
		"password":      {starttls.Config, func(c *ours.Config) { c.Password = "wrong" }, "mail.password"},
		"no STARTTLS":   {plain.Config, func(c *ours.Config) { c.TLS = ours.StartTLS }, "does not offer STARTTLS"},
		"no TLS":        {plain.Config, func(c *ours.Config) { c.TLS = ours.TLS }, "does not begin with TLS"},
		"unknown":       {implicit.Config, func(c *ours.Config) { c.RootCA = "" }, "mail.root_ca"},
		"other name":    {implicit.Config, func(c *ours.Config) { c.Host = "localhost" }, "not for localhost"},
		"wants a login": {starttls.Config, func(c *ours.Config) { c.User, c.Password = "", "" }, "wants this server to log in"},
	} {
		t.Run(name, func(t *testing.T) {
			tt.change(&tt.config)
			s, err := ours.New(tt.config)
			if err != nil {
				t.Fatal(err)
			}
			if err = s.Try(t.Context()); err == nil {
				err = s.Send(t.Context(), ours.Message{ID: "one", To: "bob@example.org", Subject: "s", Text: "t"})
			}
			if err == nil {
				t.Fatal("it works")
			}
			if advice := s.Advice(err); !strings.Contains(advice, tt.advice) {
				t.Errorf("%v: advice %q, want %q", err, advice, tt.advice)
			}
		})
	}
}

// TestRefused: a refusal for good is told apart from one that may pass.
func TestRefused(t *testing.T) {
	server := mailtest.Start(t, ours.None)
	send := func() error {
		return server.Sender().Send(t.Context(), ours.Message{ID: "one", To: "bob@example.org", Subject: "s", Text: "t"})
	}
	for _, tt := range []struct {
		refuse, fail string
		good         bool
	}{{"550 nobody here", "", true}, {"450 mailbox busy", "", false}, {"", "554 spam", true}, {"", "451 later", false}} {
		server.Refuse(tt.refuse)
		server.Fail(tt.fail)
		if err := send(); err == nil || errors.Is(err, ours.ErrRefused) != tt.good {
			t.Errorf("%q %q: %v", tt.refuse, tt.fail, err)
		}
	}
	server.Refuse("")
	server.Fail("")
	if err := send(); err != nil {
		t.Error(err)
	}
}

func TestCheck(t *testing.T) {
	good := ours.DefaultConfig()
	good.Host, good.From = "mail.example.org", "chat@example.org"
	for name, change := range map[string]func(*ours.Config){
		"port": func(c *ours.Config) { c.Port = 70000 }, "from": func(c *ours.Config) { c.From = "nobody" }, "user": func(c *ours.Config) { c.Password = "x" },
		"tls": func(c *ours.Config) { c.User, c.TLS = "x", ours.None }, "root_ca": func(c *ours.Config) { c.RootCA = "/nowhere" },
		"client": func(c *ours.Config) { c.Client = "javascript:alert(1)" }, "timeout": func(c *ours.Config) { c.Timeout = 0 }, "delay": func(c *ours.Config) { c.Delay = 0 },
		"pause": func(c *ours.Config) { c.Pause = 0 }, "longest_pause": func(c *ours.Config) { c.LongestPause = 0 },
	} {
		c := good
		change(&c)
		if err := c.Check(); err == nil || !strings.HasPrefix(err.Error(), "mail."+name+": ") {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
}
