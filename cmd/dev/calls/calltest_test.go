package calls

import (
	"encoding/base64"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"switchboard/cmd/dev/instance"
)

// allWays is a section "voip.turn" with every way to the relay.
func allWays(t *testing.T) map[string]any {
	return map[string]any{
		"udp": []string{freeAddress(t)}, "tcp": []string{freeAddress(t)}, "tls": []string{freeAddress(t)}, "https": true,
		"external_ips": []string{"127.0.0.1"}, "min_port": 42400, "max_port": 42700,
	}
}

// picture photographs the page, as high as it is, into the directory that
// SWITCHBOARD_TEST_PICTURES names, if it does.
func (b *browser) picture(name string) {
	b.t.Helper()
	dir := os.Getenv("SWITCHBOARD_TEST_PICTURES")
	if dir == "" {
		return
	}
	var shot struct{ Data string }
	b.must("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &shot)
	image, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), image, 0o600)
	}
	if err != nil {
		b.t.Fatal(err)
	}
}

// look sets how wide the page is, in CSS pixels, and which colours are wanted.
func (b *browser) look(width int, scheme string) {
	b.t.Helper()
	b.must("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 500}, nil)
	b.must("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// until waits until an expression is true in the page.
func (b *browser) until(expression string) {
	b.t.Helper()
	for end := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		var is bool
		b.eval(expression, &is)
		if is {
			return
		}
		if time.Now().After(end) {
			var text string
			b.eval("document.body.innerText", &text)
			b.t.Fatalf("it did not come that %s; the page says\n%s\nits console\n%s", expression, text, b.console())
		}
	}
}

// row is one of the page's table.
type row struct{ ID, State, Text string }

func (b *browser) rows() map[string]row {
	b.t.Helper()
	var list []row
	b.eval(`[...document.querySelectorAll("#results tbody tr")].map((r) => ({ID: r.dataset.id, State: r.dataset.state, Text: r.innerText}))`, &list)
	rows := map[string]row{}
	for _, r := range list {
		rows[r.ID] = r
	}
	return rows
}

const (
	shown     = `!document.getElementById(%q).hidden`
	untilDone = `!document.getElementById("verdict").hidden`
)

// TestCallTestPage logs in on the page, tests every way, shares the result, and
// speaks with itself.
func TestCallTestPage(t *testing.T) {
	phone(t)
	s := newServer(t, instance.Binary(t), nil, freeAddress(t), allWays(t))
	b := newBrowser(t, nil, s.fingerprint, s.url+"/calltest")
	b.look(800, "light")
	b.until(fmt.Sprintf(shown, "login"))
	b.picture("login")
	logIn := func(password string) {
		b.eval(fmt.Sprintf(`(() => {
			const form = document.getElementById("password-form");
			form.user.value = "alice"; form.password.value = %q; form.requestSubmit();
		})()`, password), nil)
	}
	logIn("wrong")
	b.until(fmt.Sprintf(shown, "message"))
	b.picture("refused")
	logIn(password)
	b.until(fmt.Sprintf(shown, "ready"))
	b.picture("ready")
	b.eval(`document.getElementById("start").click()`, nil)
	b.until(`document.querySelector("td.running") !== null`)
	b.picture("running")
	b.until(untilDone)
	b.picture("done")
	var title, text, link string
	b.eval(`document.querySelector("#verdict h2").textContent`, &title)
	b.eval(`document.body.innerText`, &text)
	t.Logf("the page says\n%s", text)
	if title != "Calls work from here" {
		t.Errorf("the verdict is %q\n%s", title, b.console())
	}
	rows, kinds := b.rows(), map[string]int{}
	for id, r := range rows {
		if r.State == "ok" && strings.Contains(r.Text, "Works") {
			kind, _, _ := strings.Cut(id, "-")
			kinds[kind]++
		}
	}
	for kind, want := range map[string]int{"host": 1, "srflx": 1, "udp": 1, "tcp": 1, "tls": 2} {
		if kinds[kind] < want { // host is one or two, as the machine has IPv6
			t.Errorf("%d ways of the kind %s work: %+v", kinds[kind], kind, rows)
		}
	}
	b.look(380, "dark")
	b.picture("done-phone-dark")

	b.eval(`document.getElementById("link").value`, &link)
	for _, secret := range []string{"127.0.0.1", "alice"} {
		if bytes, err := base64.RawURLEncoding.DecodeString(link[strings.Index(link, "=")+1:]); err != nil || strings.Contains(string(bytes), secret) {
			t.Errorf("the link tells %q: %s, %v", secret, bytes, err)
		}
	}
	b.eval(`document.getElementById("hear").click()`, nil)
	b.until(`document.getElementById("hearing").textContent === "Speak now."`)
	b.picture("hearing-phone-dark")
	b.eval(`document.getElementById("hear").click()`, nil)
	b.until(`document.getElementById("hearing").textContent === ""`)

	other := newBrowser(t, nil, s.fingerprint, link)
	other.look(800, "dark")
	other.until(untilDone)
	other.picture("shared-dark")
	if got := other.rows(); len(got) != len(rows) {
		t.Errorf("the link shows %d rows of %d", len(got), len(rows))
	}
}

// TestCallTestLink comes by a one-time link, to a relay that cannot be reached
// over UDP, and then once more.
func TestCallTestLink(t *testing.T) {
	phone(t)
	turn := allWays(t)
	turn["udp"] = []string{}
	s := newServer(t, instance.Binary(t), nil, freeAddress(t), turn)
	out, err := s.command("calltest", "link").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	link := strings.TrimSpace(string(out))
	b := newBrowser(t, nil, s.fingerprint, link)
	b.look(380, "light")
	b.until(fmt.Sprintf(shown, "ready"))
	b.eval(`document.getElementById("start").click()`, nil)
	b.until(untilDone)
	b.picture("no-udp-phone")
	var title string
	b.eval(`document.querySelector("#verdict h2").textContent`, &title)
	if title != "Calls work, but not as well as they could" {
		t.Errorf("the verdict is %q for %+v", title, b.rows())
	}
	again := newBrowser(t, nil, s.fingerprint, link)
	again.until(fmt.Sprintf(shown, "message"))
	again.picture("used-link")
	var message string
	again.eval(`document.getElementById("message").textContent`, &message)
	if !strings.Contains(message, "has been used") {
		t.Errorf("the page says %q", message)
	}
}

// TestCallTestBot calls the bot with the library of Element Web, by relays alone
// and without them, and reads what it says.
func TestCallTestBot(t *testing.T) {
	script := phone(t)
	s := newServer(t, instance.Binary(t), nil, freeAddress(t), allWays(t))
	for _, c := range []struct{ user, policy string }{{"alice", "relay"}, {"bob", "direct"}} {
		t.Run(c.policy, func(t *testing.T) {
			p := s.person(t, nil, script, c.user, c.policy)
			var room string
			p.eval(`phone.room("@calltest:calls.test")`, &room)
			p.until(fmt.Sprintf("phone.members(%q) === 2", room))
			p.eval(fmt.Sprintf("phone.dial(%q)", room), nil)
			r := p.await("the voice comes back", func(r report) bool { return r.State == "connected" && r.Audio.Packets > 100 && r.Audio.Energy > 0 })
			if r.Video.Packets != 0 || c.policy == "relay" && r.Path.Local != "relay" {
				t.Errorf("the call is %+v", r)
			}
			p.eval("phone.hangUp()", nil)
			var said string
			const notices = `(async () => {
				const login = await (await fetch("/_matrix/client/v3/login", {method: "POST", body: JSON.stringify({
					type: "m.login.password", identifier: {type: "m.id.user", user: %q}, password: %q})})).json();
				for (let i = 0; i < 600; i++) {
					const page = await (await fetch("/_matrix/client/v3/rooms/" + encodeURIComponent(%q) + "/messages?dir=b&limit=50",
						{headers: {Authorization: "Bearer " + login.access_token}})).json();
					const found = page.chunk.find((e) => e.sender.startsWith("@calltest:") && (e.content.body || "").startsWith("The call took"));
					if (found) return found.content.body;
					await new Promise((done) => setTimeout(done, 200));
				}
				return "";
			})()`
			p.eval(fmt.Sprintf(notices, c.user, password, room), &said)
			t.Logf("the bot says\n%s", said)
			for _, want := range []string{"Codec: opus", "Round trip: ", "Lost on the way here: "} {
				if !strings.Contains(said, want) {
					t.Errorf("%q is missing", want)
				}
			}
			if through := strings.Contains(said, "through a relay"); through != (c.policy == "relay") {
				t.Errorf("the bot sees another path for %s", c.policy)
			}
		})
	}
}
