package calls

import (
	"encoding/base64"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"switchboard/cmd/dev/child"
	"switchboard/cmd/dev/chromium"
	"switchboard/cmd/dev/instance"
)

// allWays is a section "voip.turn" with every way to the relay.
func allWays(t *testing.T) map[string]any {
	return map[string]any{
		"udp": []string{freeAddress(t)}, "tcp": []string{freeAddress(t)}, "tls": []string{freeAddress(t)}, "https": true,
		"external_ips": []string{"127.0.0.1"}, "min_port": 42400, "max_port": 42700,
	}
}

// row is one of the page's table.
type row struct{ ID, State, Text string }

func tableRows(t *testing.T, b *chromium.Page) map[string]row {
	t.Helper()
	var list []row
	b.Eval(`[...document.querySelectorAll("#results tbody tr")].map((r) => ({ID: r.dataset.id, State: r.dataset.state, Text: r.innerText}))`, &list)
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

// try tests on the page, which is ready, until the result is as wanted: it measures
// times, in which a busy machine carries sound late or not at all, so it has three
// attempts.
func try(b *chromium.Page, wanted func() bool) {
	button := "start"
	for range 3 {
		b.Eval(fmt.Sprintf(`document.getElementById(%q).click()`, button), nil)
		b.Until(`document.querySelector("td.running") !== null || ` + untilDone)
		b.Picture("running")
		b.Until(untilDone)
		if wanted() {
			return
		}
		button = "again"
	}
}

// title is the verdict of the page.
func title(b *chromium.Page) (text string) {
	b.Eval(`document.querySelector("#verdict h2").textContent`, &text)
	return text
}

// TestCallTestPage logs in on the page, tests every way, shares the result, and
// speaks with itself.
func TestCallTestPage(t *testing.T) {
	phone(t)
	s := newServer(t, instance.Binary(t), nil, freeAddress(t), builtin(allWays(t)))
	b := s.page(t, nil, "/calltest")
	b.Look(800, 900, "light")
	b.Until(fmt.Sprintf(shown, "login"))
	b.Picture("login")
	logIn := func(password string) {
		b.Eval(fmt.Sprintf(`(() => {
			const form = document.getElementById("password-form");
			form.user.value = "alice"; form.password.value = %q; form.requestSubmit();
		})()`, password), nil)
	}
	logIn("wrong")
	b.Until(fmt.Sprintf(shown, "message"))
	b.Picture("refused")
	logIn(password)
	b.Until(fmt.Sprintf(shown, "ready"))
	b.Picture("ready")
	var rows map[string]row
	missing := func() (list []string) { // ways that do not work
		rows = tableRows(t, b)
		kinds := map[string]int{}
		for id, r := range rows {
			if r.State == "ok" && strings.Contains(r.Text, "Works") {
				kind, _, _ := strings.Cut(id, "-")
				kinds[kind]++
			}
		}
		for kind, want := range map[string]int{"host": 1, "srflx": 1, "udp": 1, "tcp": 1, "tls": 2} {
			if kinds[kind] < want { // host is one or two, as the machine has IPv6
				list = append(list, fmt.Sprintf("%d ways of the kind %s work", kinds[kind], kind))
			}
		}
		return list
	}
	const works = "Calls work from here"
	try(b, func() bool { return title(b) == works && len(missing()) == 0 })
	b.Picture("done")
	var text, link string
	b.Eval(`document.body.innerText`, &text)
	t.Logf("the page says\n%s", text)
	if got, list := title(b), missing(); got != works || len(list) > 0 {
		t.Errorf("the verdict is %q, %q: %+v\n%s", got, list, rows, b.Console())
	}
	b.Look(380, 900, "dark")
	b.Picture("done-phone-dark")

	b.Eval(`document.getElementById("link").value`, &link)
	for _, secret := range []string{"127.0.0.1", "alice"} {
		if bytes, err := base64.RawURLEncoding.DecodeString(link[strings.Index(link, "=")+1:]); err != nil || strings.Contains(string(bytes), secret) {
			t.Errorf("the link tells %q: %s, %v", secret, bytes, err)
		}
	}
	const hear = `(() => { // again where no connection came about in time
		const button = document.getElementById("hear"), said = document.getElementById("hearing").textContent;
		if (said !== "Speak now." && !button.disabled) button.click();
		return said === "Speak now.";
	})()`
	b.Until(hear)
	b.Picture("hearing-phone-dark")
	b.Eval(`(() => { const button = document.getElementById("hear"); if (button.textContent === "Stop") button.click(); })()`, nil)
	b.Until(`document.getElementById("hearing").textContent === ""`)

	other := s.page(t, nil, strings.TrimPrefix(link, s.url))
	other.Look(800, 900, "dark")
	other.Until(untilDone)
	other.Picture("shared-dark")
	if got := tableRows(t, other); len(got) != len(rows) {
		t.Errorf("the link shows %d rows of %d", len(got), len(rows))
	}
}

// TestCallTestLink comes by a one-time link, to a relay that cannot be reached
// over UDP, and then once more.
func TestCallTestLink(t *testing.T) {
	phone(t)
	turn := allWays(t)
	turn["udp"] = []string{}
	s := newServer(t, instance.Binary(t), nil, freeAddress(t), builtin(turn))
	out, err := s.command("calltest", "link").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	link := strings.TrimSpace(string(out))
	b := s.page(t, nil, strings.TrimPrefix(link, s.url))
	b.Look(380, 900, "light")
	b.Until(fmt.Sprintf(shown, "ready"))
	const slowly = "Calls work, but not as well as they could"
	try(b, func() bool { return title(b) == slowly })
	b.Picture("no-udp-phone")
	if got := title(b); got != slowly {
		t.Errorf("the verdict is %q for %+v", got, tableRows(t, b))
	}
	again := s.page(t, nil, strings.TrimPrefix(link, s.url))
	again.Until(fmt.Sprintf(shown, "message"))
	again.Picture("used-link")
	var message string
	again.Eval(`document.getElementById("message").textContent`, &message)
	if !strings.Contains(message, "has been used") {
		t.Errorf("the page says %q", message)
	}
}

// TestCallTestElsewhere tests a coturn that the server only names, with the
// credentials of a user.
func TestCallTestElsewhere(t *testing.T) {
	phone(t)
	const secret = "a secret of the server and coturn"
	address := freeAddress(t)
	host, port, err := net.SplitHostPort(address)
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	coturn, err := child.Start(exec.Command("turnserver", "-n", "--use-auth-secret", "--static-auth-secret="+secret, "-r", "calls.test", "-L", host, "-E", host, "-p", port,
		"--allow-loopback-peers", "--no-cli", "--no-tls", "--no-dtls", "--min-port", "42710", "--max-port", "42990", "--log-file", filepath.Join(dir, "log"), "--simple-log",
		"--pidfile", filepath.Join(dir, "pid"), "--userdb", filepath.Join(dir, "db")), syscall.SIGKILL)
	if err != nil {
		t.Fatalf("%v; it is in Debian's package coturn", err)
	}
	t.Cleanup(func() { coturn.Stop(syscall.SIGKILL, time.Minute) })
	s := newServer(t, instance.Binary(t), nil, freeAddress(t), map[string]any{"provider": "external", "external": map[string]any{
		"uris": []string{"turn:" + address + "?transport=udp", "turn:" + address + "?transport=tcp"}, "secret": secret,
	}})
	test := func(path string, begin func(b *chromium.Page), wanted func(rows map[string]row) bool) map[string]row {
		b := s.page(t, nil, path)
		b.Look(800, 900, "light")
		begin(b)
		b.Until(fmt.Sprintf(shown, "ready"))
		try(b, func() bool { return wanted(tableRows(t, b)) })
		b.Picture("elsewhere")
		return tableRows(t, b)
	}
	works := func(r row) bool { return r.State == "ok" && strings.Contains(r.Text, "Works") }
	rows := test("/calltest", func(b *chromium.Page) {
		b.Until(fmt.Sprintf(shown, "login"))
		b.Eval(fmt.Sprintf(`(() => {
			const form = document.getElementById("password-form");
			form.user.value = "alice"; form.password.value = %q; form.requestSubmit();
		})()`, password), nil)
	}, func(rows map[string]row) bool { return works(rows["udp-v4"]) && works(rows["tcp-v4"]) })
	for _, id := range []string{"udp-v4", "tcp-v4"} {
		if r := rows[id]; !works(r) {
			t.Errorf("%s: %+v of %+v", id, r, rows)
		}
	}
	out, err := s.command("calltest", "link").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	rows = test(strings.TrimPrefix(strings.TrimSpace(string(out)), s.url), func(*chromium.Page) {}, func(map[string]row) bool { return true })
	if r, ok := rows["account"]; !ok || !strings.Contains(r.Text, "Not tested") || len(rows) != 2 {
		t.Errorf("who came by a link sees %+v", rows)
	}
}

// TestCallTestBot calls the bot with the library of Element Web, by relays alone
// and without them, and reads what it says.
func TestCallTestBot(t *testing.T) {
	script := phone(t)
	s := newServer(t, instance.Binary(t), nil, freeAddress(t), builtin(allWays(t)))
	for _, c := range []struct{ user, policy string }{{"alice", "relay"}, {"bob", "direct"}} {
		t.Run(c.policy, func(t *testing.T) {
			p := s.person(t, nil, script, c.user, c.policy)
			var room string
			p.Eval(`phone.room("@calltest:calls.test")`, &room)
			p.Until(fmt.Sprintf("phone.members(%q) === 2", room))
			p.Eval(fmt.Sprintf("phone.dial(%q)", room), nil)
			r := p.await("the voice comes back", func(r report) bool { return r.State == "connected" && r.Audio.Packets > 100 && r.Audio.Energy > 0 })
			if r.Video.Packets != 0 || c.policy == "relay" && r.Path.Local != "relay" {
				t.Errorf("the call is %+v", r)
			}
			p.Eval("phone.hangUp()", nil)
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
			p.Eval(fmt.Sprintf(notices, c.user, password, room), &said)
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
