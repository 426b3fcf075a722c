package main

import (
	"fmt"
	"os"
	"strings"
	"testing"

	"switchboard/homeserver/mail"
	"switchboard/homeserver/mail/mailtest"
)

// TestNoticeCommands tells users something, while the server runs and while it
// does not.
func TestNoticeCommands(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"alice", "bob"} {
		mustCommand(t, "user", "create", name)
	}
	if out := mustCommand(t, "notice", "send", "@alice:localhost", "hello", "there"); out != "done for @alice:localhost\n" {
		t.Errorf("told alice: %s", out)
	}
	serve(t)
	for _, tt := range []struct {
		args string
		want string
	}{
		{"notice send --all maintenance", "done for 2 users\n"},
		{"notice send --usage-limit monthly_active_user --contact mailto:admin@example.org bob full", "done for @bob:localhost\n"},
		{"notice unpin bob", "done for @bob:localhost\n"},
		{"notice unpin --all", "done for 2 users\n"},
		{"notice send --all --after @alice:localhost more", "done for 1 user\n"},
	} {
		if out := mustCommand(t, strings.Fields(tt.args)...); !strings.HasSuffix(out, tt.want) { // before it, a slow one tells how far it is
			t.Errorf("%s: %q, want %q", tt.args, out, tt.want)
		}
	}
	for args, want := range map[string]string{
		"notice send alice": "there is nothing to tell", "notice send nobody hello": "there is no such user", "notice send --contact mailto:x alice hello": "--usage-limit",
		"notice unpin": "name a user", "notice unpin alice --all": "name a user",
	} {
		if status, _, errs := command(t, "", strings.Fields(args)...); status == 0 || !strings.Contains(errs, want) {
			t.Errorf("%s: status %d, %s", args, status, errs)
		}
	}
}

// TestMailCommands: an operator gives an address to a user, and finds out what
// keeps e-mail from being sent.
func TestMailCommands(t *testing.T) {
	t.Chdir(t.TempDir())
	if status, _, errs := command(t, "", "doctor", "mail"); status != 1 || !strings.Contains(errs, "mail.host is not set") {
		t.Errorf("without a mail server: status %d, %s", status, errs)
	}
	server := mailtest.Start(t, mail.StartTLS)
	c := server.Config
	write := func(password string) {
		text := fmt.Sprintf("mail: {host: %s, port: %d, root_ca: %s, user: %s, password: %q, from: %q}\n", c.Host, c.Port, c.RootCA, c.User, password, c.From)
		if err := os.WriteFile("switchboard.yaml", []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("wrong")
	if status, _, errs := command(t, "", "doctor", "mail"); status != 1 || !strings.Contains(errs, "look at mail.user and mail.password") || strings.Contains(errs, "wrong") {
		t.Errorf("with a wrong password: status %d, %s", status, errs)
	}
	write(c.Password)
	mustCommand(t, "user", "create", "alice")
	s := serve(t)
	if out := mustCommand(t, "doctor", "mail", "--to", "you@example.org"); !strings.Contains(out, "encrypted by STARTTLS, logged in as switchboard") {
		t.Errorf("doctor mail: %s", out)
	}
	if m := server.Want(1); m.Header.Get("X-Rcptto") != "you@example.org" {
		t.Errorf("the message went to %v", m.Header)
	}
	mustCommand(t, "user", "add-email", "alice", "Alice@example.org")
	if out := mustCommand(t, "user", "list-emails", "alice"); !strings.HasPrefix(out, "alice@example.org  since ") {
		t.Errorf("addresses: %s", out)
	}
	mustCommand(t, "user", "remove-email", "alice", "alice@example.org")
	if status, _, errs := command(t, "", "user", "remove-email", "alice", "alice@example.org"); status != 1 || !strings.Contains(errs, "does not belong") {
		t.Errorf("removing it again: status %d, %s", status, errs)
	}
	if status, _ := s.ask("GET", "/_switchboard/mail/unsubscribe?token=x", "", nil); status != 404 {
		t.Errorf("a link that is none: status %d", status)
	}
}
