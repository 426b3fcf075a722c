package main

import (
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
)

// TestJitsi runs a server with a Jitsi server that does not answer: clients are
// told of it, it may ask, and the commands say what is wrong.
func TestJitsi(t *testing.T) {
	t.Chdir(t.TempDir())
	config := "public_url: https://matrix.example.org\njitsi: {domain: '127.0.0.1:1', one_to_one: true, token: secret}\n"
	if err := os.WriteFile(configFile, []byte(config), 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t)
	for _, c := range []struct {
		method, path, token, body string
		status                    int
		want                      string
	}{
		{"GET", "/.well-known/matrix/client", "", "", 200, `"im.vector.riot.jitsi":{"preferredDomain":"127.0.0.1:1","useFor1To1Calls":true},"io.element.jitsi":{`},
		{"GET", "/.well-known/matrix/client", "", "", 200, `"m.homeserver":{"base_url":"https://matrix.example.org"}`},
		{"GET", "/.well-known/element/jitsi", "", "", 200, `{"auth":"openidtoken-jwt"}`},
		{"POST", "/_switchboard/jitsi/verify/user", "secret", `{"token":"forged"}`, 200, `{"results":{"user":false},"user_id":null}`},
		{"POST", "/_switchboard/jitsi/verify/user", "x", `{"token":"forged"}`, 401, `M_UNKNOWN_TOKEN`},
		{"GET", "/_switchboard/jitsi/health", "", "", 200, `{}`},
		{"GET", "/_switchboard/jitsi", "", "", 404, `M_UNRECOGNIZED`},
	} {
		r, err := http.NewRequest(c.method, s.url+c.path, strings.NewReader(c.body))
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+c.token)
		resp, err := http.DefaultClient.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.StatusCode != c.status || !strings.Contains(string(body), c.want) {
			t.Errorf("%s %s: %d %s %v, want %d %s", c.method, c.path, resp.StatusCode, body, err, c.status, c.want)
		}
		if c.method == "GET" && c.status == 200 && strings.Contains(c.path, ".well-known") && resp.Header.Get("Access-Control-Allow-Origin") != "*" {
			t.Errorf("%s may not be read by clients in browsers", c.path)
		}
	}
	for _, c := range []struct {
		args      []string
		out, errs string
	}{
		{[]string{"check"}, "https://127.0.0.1:1/ does not answer", "not all is well"},
		{[]string{"add", "!nowhere:localhost"}, "", "no such room"},
		{[]string{"add", "!nowhere:localhost", "--as", "@eve:elsewhere.test"}, "", "not a user of this server"},
		{[]string{"remove", "#nowhere:localhost"}, "", "no room is known"},
		{[]string{"remove", "nowhere"}, "", "not a valid room ID"},
	} {
		status, out, errs := command(t, "", append([]string{"jitsi"}, c.args...)...)
		if status != 1 || !strings.Contains(out, c.out) || !strings.Contains(errs, c.errs) {
			t.Errorf("%v: status %d\n%s%s\nwant %s and %s", c.args, status, out, errs, c.out, c.errs)
		}
	}
	if out := mustCommand(t, "jitsi", "clean"); !strings.HasPrefix(out, "0 stale calls in 0 rooms") {
		t.Errorf("clean says %q", out)
	}
	s.stop()
	if status, out, _ := command(t, "", "jitsi", "check"); status != 1 || !strings.Contains(out, "does not answer") {
		t.Errorf("without the server: status %d, %s", status, out)
	}
}
