package calls

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// patience is how long anything may take.
const patience = 3 * time.Minute

// browser is a Chromium without a window. It is driven over a pipe, not over the
// network, so that it can be in another one.
type browser struct {
	t       *testing.T
	in      io.Writer
	session string // of the only page

	mu      sync.Mutex // tier 1; guards all below
	next    int
	answers map[int]chan message
	log     []string // what the page's console said
}

// message is one of the DevTools protocol.
type message struct {
	ID        int             `json:"id,omitempty"`
	Session   string          `json:"sessionId,omitempty"`
	Method    string          `json:"method,omitempty"`
	Params    any             `json:"params,omitempty"`
	Result    json.RawMessage `json:"result,omitempty"`
	Error     json.RawMessage `json:"error,omitempty"`
	RawParams json.RawMessage `json:"-"`
}

// UnmarshalJSON keeps the parameters of an event as they are.
func (m *message) UnmarshalJSON(b []byte) error {
	type plain message
	params := struct {
		*plain
		Params json.RawMessage `json:"params"`
	}{plain: (*plain)(m)}
	err := json.Unmarshal(b, &params)
	m.RawParams = params.Params
	return err
}

// newBrowser starts a browser by a command in front of it, which may be empty,
// and opens a page. It trusts the certificate with a fingerprint.
func newBrowser(t *testing.T, before []string, fingerprint, page string) *browser {
	t.Helper()
	args := append(append([]string{}, before...), "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
		"--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream", "--autoplay-policy=no-user-gesture-required",
		"--allow-loopback-in-peer-connection", "--ignore-certificate-errors-spki-list="+fingerprint,
		"--remote-debugging-pipe", "--user-data-dir="+filepath.Join(t.TempDir(), "profile"), "about:blank")
	cmd := exec.Command(args[0], args[1:]...)
	theirs, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	out, theirOut, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.ExtraFiles = []*os.File{theirs, theirOut}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir())
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	theirs.Close()
	theirOut.Close()
	b := &browser{t: t, in: in, answers: map[int]chan message{}}
	read := make(chan struct{})
	go func() {
		defer close(read)
		b.read(out)
	}()
	t.Cleanup(func() {
		syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		cmd.Wait()
		in.Close()
		out.Close()
		<-read
	})
	b.open(page)
	return b
}

// read takes what the browser says until it ends.
func (b *browser) read(out io.Reader) {
	r := bufio.NewReader(out)
	for {
		raw, err := r.ReadBytes(0)
		if err != nil {
			return
		}
		var m message
		if json.Unmarshal(raw[:len(raw)-1], &m) != nil {
			continue
		}
		b.mu.Lock()
		if answer := b.answers[m.ID]; m.ID != 0 && answer != nil {
			delete(b.answers, m.ID)
			answer <- m
		} else if m.Method == "Runtime.consoleAPICalled" || m.Method == "Runtime.exceptionThrown" || m.Method == "Log.entryAdded" {
			b.log = append(b.log, string(m.RawParams))
		}
		b.mu.Unlock()
	}
}

// do asks the browser for something and decodes the answer into out, which may
// be nil.
func (b *browser) do(method string, params map[string]any, out any) error {
	answer := make(chan message, 1)
	b.mu.Lock()
	b.next++
	id := b.next
	b.answers[id] = answer
	text, err := json.Marshal(message{ID: id, Session: b.session, Method: method, Params: params})
	if err == nil {
		_, err = b.in.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(b.t.Context(), patience)
	defer cancel()
	select {
	case m := <-answer:
		if m.Error != nil {
			return fmt.Errorf("%s: %s", method, m.Error)
		}
		if out == nil {
			return nil
		}
		return json.Unmarshal(m.Result, out)
	case <-ctx.Done():
		return fmt.Errorf("%s: %w", method, ctx.Err())
	}
}

// must is do for what has to succeed.
func (b *browser) must(method string, params map[string]any, out any) {
	b.t.Helper()
	if err := b.do(method, params, out); err != nil {
		b.t.Fatalf("%v\nthe console of the page:\n%s", err, b.console())
	}
}

// open opens the page.
func (b *browser) open(page string) {
	b.t.Helper()
	var target struct {
		ID string `json:"targetId"`
	}
	b.must("Target.createTarget", map[string]any{"url": "about:blank"}, &target)
	var attached struct {
		Session string `json:"sessionId"`
	}
	b.must("Target.attachToTarget", map[string]any{"targetId": target.ID, "flatten": true}, &attached)
	b.session = attached.Session
	b.must("Runtime.enable", nil, nil)
	b.must("Page.enable", nil, nil)
	var went struct {
		Error string `json:"errorText"`
	}
	b.must("Page.navigate", map[string]any{"url": page}, &went)
	if went.Error != "" {
		b.t.Fatalf("open %s: %s", page, went.Error)
	}
	for end := time.Now().Add(patience); ; time.Sleep(50 * time.Millisecond) {
		var there bool
		b.eval(`location.href !== "about:blank" && document.readyState === "complete"`, &there)
		if there {
			return
		}
		if time.Now().After(end) {
			b.t.Fatalf("%s does not open", page)
		}
	}
}

// eval has the page compute an expression, awaits what it promises, and decodes
// it into out, which may be nil.
func (b *browser) eval(expression string, out any) {
	b.t.Helper()
	var answer struct {
		Result    struct{ Value json.RawMessage }
		Exception json.RawMessage `json:"exceptionDetails"`
	}
	b.must("Runtime.evaluate", map[string]any{"expression": expression, "awaitPromise": true, "returnByValue": true}, &answer)
	if answer.Exception != nil {
		b.t.Fatalf("%.200s\n%s\nthe console of the page:\n%s", expression, answer.Exception, b.console())
	}
	if out != nil {
		if err := json.Unmarshal(answer.Result.Value, out); err != nil {
			b.t.Fatalf("%.200s: %v in %s", expression, err, answer.Result.Value)
		}
	}
}

// console is the end of what the page's console said.
func (b *browser) console() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	var text string
	for _, line := range b.log[max(0, len(b.log)-40):] {
		text += fmt.Sprintf("%.600s\n", line)
	}
	return text
}
