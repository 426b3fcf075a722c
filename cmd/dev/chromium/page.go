package chromium

import (
	"cmp"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"
)

// Page is an open page. What it cannot do ends the test, with what its console
// said.
type Page struct {
	b       *Browser
	t       testing.TB
	session string

	log []string // what its console said; guarded by the lock of the browser
}

// Must asks for something by the DevTools protocol and decodes the answer into
// out, which may be nil.
func (p *Page) Must(method string, params map[string]any, out any) {
	p.t.Helper()
	if err := p.b.do(p.session, method, params, out); err != nil {
		p.t.Fatalf("%v\nthe console of the page:\n%s", err, p.Console())
	}
}

// Navigate goes to another document and returns when that is complete.
func (p *Page) Navigate(url string) {
	p.t.Helper()
	var went struct {
		Error string `json:"errorText"`
	}
	p.Must("Page.navigate", map[string]any{"url": url}, &went)
	if went.Error != "" {
		p.t.Fatalf("open %s: %s", url, went.Error)
	}
	p.Until(`location.href !== "about:blank" && document.readyState === "complete"`)
}

// leaves finds that the page is just going to another document.
var leaves = regexp.MustCompile("context was destroyed|default execution context|target navigated")

// Eval has the page compute an expression, awaits what it promises, and decodes
// it into out, which may be nil.
func (p *Page) Eval(expression string, out any) {
	p.t.Helper()
	var answer struct {
		Result    struct{ Value json.RawMessage }
		Exception json.RawMessage `json:"exceptionDetails"`
	}
	params := map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}
	err := p.b.do(p.session, "Runtime.evaluate", params, &answer)
	for end := time.Now().Add(Patience); err != nil && leaves.MatchString(err.Error()) && time.Now().Before(end); {
		time.Sleep(100 * time.Millisecond)
		err = p.b.do(p.session, "Runtime.evaluate", params, &answer)
	}
	if err != nil {
		p.t.Fatalf("%v\nthe console of the page:\n%s", err, p.Console())
	}
	if answer.Exception != nil {
		p.t.Fatalf("%.200s\n%s\nthe console of the page:\n%s", expression, answer.Exception, p.Console())
	}
	if out != nil {
		if err := json.Unmarshal(answer.Result.Value, out); err != nil {
			p.t.Fatalf("%.200s: %v in %s", expression, err, answer.Result.Value)
		}
	}
}

// Until waits until an expression is true in the page.
func (p *Page) Until(expression string) {
	p.t.Helper()
	p.await(expression, func() bool {
		var is bool
		p.Eval(expression, &is)
		return is
	})
}

// await asks until something is there.
func (p *Page) await(what string, there func() bool) {
	p.t.Helper()
	for end := time.Now().Add(Patience); !there(); time.Sleep(100 * time.Millisecond) {
		if time.Now().After(end) {
			var text string
			p.Eval("document.body.innerText", &text)
			p.t.Fatalf("it did not come that %s; the page says\n%s\nits console\n%s", what, text, p.Console())
		}
	}
}

// spot finds where on the screen an element can be clicked; it is null as long
// as there is none, it is disabled, or something lies above it.
const spot = `(() => {
	const element = %s;
	if (!element || element.disabled || element.getAttribute("aria-disabled") === "true") return null;
	element.scrollIntoView({block: "nearest", inline: "nearest"});
	const {left, top, width, height} = element.getBoundingClientRect();
	const at = {x: left + width / 2, y: top + height / 2};
	const there = document.elementFromPoint(at.x, at.y);
	return there && (element.contains(there) || there.contains(element)) ? at : null;
})()`

type point struct{ X, Y float64 }

// at waits until the element that an expression gives rests at a place where it
// can be clicked.
func (p *Page) at(element string) point {
	p.t.Helper()
	var before, now *point
	p.await(element+" can be clicked", func() bool {
		before, now = now, nil
		p.Eval(fmt.Sprintf(spot, element), &now)
		return before != nil && now != nil && *before == *now
	})
	return *now
}

// Point moves the mouse onto the element that an expression gives.
func (p *Page) Point(element string) {
	p.t.Helper()
	at := p.at(element)
	p.Must("Input.dispatchMouseEvent", map[string]any{"type": "mouseMoved", "x": at.X, "y": at.Y}, nil)
}

// Click clicks on the element that an expression gives, once it is there.
func (p *Page) Click(element string) {
	p.t.Helper()
	at := p.at(element)
	for _, what := range []string{"mouseMoved", "mousePressed", "mouseReleased"} {
		mouse := map[string]any{"type": what, "x": at.X, "y": at.Y}
		if what != "mouseMoved" {
			mouse["button"], mouse["clickCount"] = "left", 1
		}
		p.Must("Input.dispatchMouseEvent", mouse, nil)
	}
}

// Type writes a text where the cursor is.
func (p *Page) Type(text string) {
	p.t.Helper()
	p.Must("Input.insertText", map[string]any{"text": text}, nil)
}

// Enter presses the key that ends a line.
func (p *Page) Enter() {
	p.t.Helper()
	for _, what := range []string{"keyDown", "keyUp"} {
		p.Must("Input.dispatchKeyEvent", map[string]any{"type": what, "key": "Enter", "code": "Enter", "text": "\r", "windowsVirtualKeyCode": 13}, nil)
	}
}

// Choose gives files to the element for files that an expression gives.
func (p *Page) Choose(element string, files ...string) {
	p.t.Helper()
	p.Until(fmt.Sprintf("Boolean(%s)", element))
	var input struct {
		Result struct {
			ID string `json:"objectId"`
		}
	}
	p.Must("Runtime.evaluate", map[string]any{"expression": element}, &input)
	p.Must("DOM.setFileInputFiles", map[string]any{"files": files, "objectId": input.Result.ID}, nil)
}

// Look sets how wide and high the page is, in CSS pixels, and which colours are
// wanted: "light" or "dark".
func (p *Page) Look(width, height int, scheme string) {
	p.t.Helper()
	p.Must("Emulation.setDeviceMetricsOverride", map[string]any{"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}, nil)
	p.Must("Emulation.setEmulatedMedia", map[string]any{"features": []any{map[string]any{"name": "prefers-color-scheme", "value": scheme}}}, nil)
}

// Picture photographs the page, as high as it is, into the directory that
// SWITCHBOARD_TEST_PICTURES names, if it does.
func (p *Page) Picture(name string) {
	p.t.Helper()
	dir := os.Getenv("SWITCHBOARD_TEST_PICTURES")
	if dir == "" {
		return
	}
	var shot struct{ Data string }
	p.Must("Page.captureScreenshot", map[string]any{"captureBeyondViewport": true}, &shot)
	image, err := base64.StdEncoding.DecodeString(shot.Data)
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), image, 0o600)
	}
	if err != nil {
		p.t.Fatal(err)
	}
}

// said is what an event of the console says; "" if the event is another one.
func said(m message) string {
	type thing struct {
		Value       json.RawMessage
		Description string
	}
	var e struct {
		Type   string
		Args   []thing
		Entry  struct{ Level, Text, URL string }
		Thrown struct {
			Text      string
			Exception thing
		} `json:"exceptionDetails"`
	}
	if json.Unmarshal(m.RawParams, &e) != nil {
		return ""
	}
	switch m.Method {
	case "Runtime.consoleAPICalled":
		text := e.Type + ":"
		for _, a := range e.Args {
			text += " " + cmp.Or(a.Description, string(a.Value))
		}
		return text
	case "Runtime.exceptionThrown":
		return e.Thrown.Text + ": " + e.Thrown.Exception.Description
	case "Log.entryAdded":
		return e.Entry.Level + ": " + e.Entry.Text + " " + e.Entry.URL
	}
	return ""
}

// Console is the end of what the console of the page said.
func (p *Page) Console() string {
	p.b.mu.Lock()
	defer p.b.mu.Unlock()
	var text strings.Builder
	for _, line := range p.log[max(0, len(p.log)-40):] {
		fmt.Fprintf(&text, "%.600s\n", line)
	}
	return text.String()
}
