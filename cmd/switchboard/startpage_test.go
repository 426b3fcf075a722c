package main

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

// TestStartPage opens the address of the server in a browser: the page says what
// to enter in an app, and how to get an account.
func TestStartPage(t *testing.T) {
	for _, c := range []struct {
		name        string
		environment []string
		want, lacks []string
	}{
		{"this computer", nil, []string{"<h1>localhost</h1>", "<code>URL</code>", "Accounts here are made by", `href="/calltest"`}, []string{"Make an account", "page with help"}},
		{"a public one", []string{
			"SWITCHBOARD_SERVER_NAME=chat.example", "SWITCHBOARD_PUBLIC_URL=https://matrix.chat.example", "SWITCHBOARD_REGISTRATION_MODE=token",
			"SWITCHBOARD_CALL_TEST_ENABLED=false", "SWITCHBOARD_SUPPORT_PAGE=https://chat.example/help?a=b&c",
		}, []string{"<h1>chat.example</h1>", "<code>https://matrix.chat.example</code>", "Make an account with the registration token", `href="https://chat.example/help?a=b&amp;c"`}, []string{"/calltest"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			s := serve(t, c.environment...)
			resp, err := http.Get(s.url + "/")
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			b, err := io.ReadAll(resp.Body)
			if err != nil || resp.StatusCode != http.StatusOK || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/html") {
				t.Fatalf("%s, %s, %v", resp.Status, resp.Header.Get("Content-Type"), err)
			}
			for _, want := range c.want {
				if want = strings.ReplaceAll(want, "URL", s.url); !strings.Contains(string(b), want) {
					t.Errorf("%q is missing in\n%s", want, b)
				}
			}
			for _, lacks := range c.lacks {
				if strings.Contains(string(b), lacks) {
					t.Errorf("%q is on the page\n%s", lacks, b)
				}
			}
			if status, v := s.ask("POST", "/", "", map[string]any{}); status != 404 || v["errcode"] != "M_UNRECOGNIZED" {
				t.Errorf("what is no browser gets %d %v", status, v)
			}
		})
	}
}
