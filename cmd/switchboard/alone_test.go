package main

import (
	"context"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	"switchboard/registrations"
)

// TestBridgeRegistration writes the registrations of a bridge that runs alone.
func TestBridgeRegistration(t *testing.T) {
	t.Chdir(t.TempDir())
	const own, puppets = "switchboard-xmpp.yaml", "switchboard-xmpp-puppets.yaml"
	var before []string
	for range 2 { // the tokens stay
		if out := mustCommand(t, "bridge", "registration", "xmpp", "--url", "http://127.0.0.1:7777/"); !strings.Contains(out, puppets) {
			t.Errorf("printed\n%s", out)
		}
		var tokens []string
		for file, url := range map[string]string{own: "http://127.0.0.1:7777", puppets: ""} {
			text, err := os.ReadFile(file)
			if err != nil {
				t.Fatal(err)
			}
			reg, err := registrations.Parse(file, text)
			if err != nil {
				t.Fatal(err)
			}
			if reg.URL != url || reg.ExclusiveUser("@xmpp_a:localhost") != (file == own) || !reg.CoversUser("@xmpp_a:localhost") {
				t.Errorf("%s: %+v", file, reg)
			}
			if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("%s: %v, %v", file, info.Mode(), err)
			}
			if file == own {
				tokens = []string{reg.ASToken, reg.HSToken}
			}
		}
		if before != nil && strings.Join(before, " ") != strings.Join(tokens, " ") {
			t.Error("the tokens changed")
		}
		before = tokens
	}
}

// TestBridgeMistakes calls the commands wrongly.
func TestBridgeMistakes(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, c := range []struct {
		args   []string
		status int
		text   string
	}{
		{[]string{"bridge", "registration", "icq"}, 1, `no bridge called "icq"`},
		{[]string{"bridge", "registration", "xmpp", "--url", "127.0.0.1"}, 1, "must begin with http"},
		{[]string{"bridge", "registration", "irc"}, 1, "bridges.irc.networks"},
		{[]string{"bridge", "run", "xmpp"}, 2, "--homeserver"},
		{[]string{"bridge", "run", "xmpp", "--homeserver", "localhost:8008"}, 1, "http://127.0.0.1:8008"},
		{[]string{"bridge", "run", "xmpp", "--homeserver", "http://localhost/_matrix"}, 1, "http://127.0.0.1:8008"},
	} {
		if status, _, errs := command(t, "", c.args...); status != c.status || !strings.Contains(errs, c.text) {
			t.Errorf("%v: status %d, %s", c.args, status, errs)
		}
	}
}

// TestBridgeRun runs a bridge whose homeserver is not there yet. That the two
// talk with each other is shown by cmd/dev/alone.
func TestBridgeRun(t *testing.T) {
	t.Chdir(t.TempDir())
	ctx, cancel := context.WithCancel(t.Context())
	var out, errs output
	args := []string{"bridge", "run", "xmpp", "--homeserver", "http://127.0.0.1:1", "--listen", "127.0.0.1:0"}
	status := make(chan int, 1)
	go func() { status <- run(&terminal{ctx: ctx, in: strings.NewReader(""), out: &out, err: &errs}, args) }()
	url := out.find(t, `listening +(\S+)`)
	for path, want := range map[string]int{
		"/health": http.StatusServiceUnavailable, "/_matrix/app/v1/users/@xmpp_a:localhost": http.StatusServiceUnavailable,
		"/_switchboard/bridges/xmpp/media/x": http.StatusNotFound, "/": http.StatusNotFound,
	} {
		answer, err := http.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(answer.Body)
		answer.Body.Close()
		if answer.StatusCode != want {
			t.Errorf("%s: %s %s", path, answer.Status, body)
		}
	}
	if code, _, errs := command(t, "", args...); code != 1 || !strings.Contains(errs, "needs one of its own") {
		t.Errorf("a second one over the same data: status %d, %s", code, errs)
	}
	cancel()
	if code := <-status; code != 0 {
		t.Errorf("status %d: %s", code, &errs)
	}
	http.DefaultClient.CloseIdleConnections()
}
