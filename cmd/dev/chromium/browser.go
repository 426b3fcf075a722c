// Package chromium drives Chromium without a window for tests of pages. It
// speaks the DevTools protocol over a pipe, not over the network, so that a
// browser can be in another one. It knows no page.
package chromium

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

// Patience is how long anything may take, also on a machine that does much else.
const Patience = 3 * time.Minute

// Browser is a running Chromium. The test ends it.
type Browser struct {
	t  testing.TB
	in io.Writer

	mu      sync.Mutex // tier 1; guards all below
	next    int
	answers map[int]chan message
	pages   map[string]*Page // by session
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

// Start starts a browser by a command in front of it, which may be empty, with
// flags besides those that every test needs.
func Start(t testing.TB, before []string, flags ...string) *Browser {
	t.Helper()
	dir, err := os.MkdirTemp("", "chromium")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { remove(t, dir) })
	args := append(append([]string{}, before...), "chromium", "--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-dev-shm-usage",
		"--remote-debugging-pipe", "--user-data-dir="+filepath.Join(dir, "profile"))
	args = append(append(args, flags...), "about:blank")
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
	cmd.Env = append(os.Environ(), "HOME="+dir)
	if err := cmd.Start(); err != nil {
		t.Fatalf("start the browser: %v", err)
	}
	theirs.Close()
	theirOut.Close()
	b := &Browser{t: t, in: in, answers: map[int]chan message{}, pages: map[string]*Page{}}
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
	return b
}

// remove removes the folder of a browser that was killed. Processes of it may write
// for a moment yet.
func remove(t testing.TB, dir string) {
	for end := time.Now().Add(Patience); ; time.Sleep(20 * time.Millisecond) {
		err := os.RemoveAll(dir)
		if err == nil {
			return
		}
		if time.Now().After(end) {
			t.Error(err)
			return
		}
	}
}

// read takes what the browser says until it ends.
func (b *Browser) read(out io.Reader) {
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
		} else if p, text := b.pages[m.Session], said(m); p != nil && text != "" {
			p.log = append(p.log, text)
		}
		b.mu.Unlock()
	}
}

// do asks the browser, or a page by its session, for something and decodes the
// answer into out, which may be nil.
func (b *Browser) do(session, method string, params map[string]any, out any) error {
	answer := make(chan message, 1)
	b.mu.Lock()
	b.next++
	id := b.next
	b.answers[id] = answer
	text, err := json.Marshal(message{ID: id, Session: session, Method: method, Params: params})
	if err == nil {
		_, err = b.in.Write(append(text, 0))
	}
	b.mu.Unlock()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(b.t.Context()), Patience)
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
func (b *Browser) must(method string, params map[string]any, out any) {
	b.t.Helper()
	if err := b.do("", method, params, out); err != nil {
		b.t.Fatal(err)
	}
}

// Open opens a page in a profile of its own: it shares neither logins nor
// anything that is stored with other pages. It has the focus whatever the others
// have, and is there when its document is complete.
func (b *Browser) Open(url string) *Page {
	b.t.Helper()
	var profile struct {
		ID string `json:"browserContextId"`
	}
	b.must("Target.createBrowserContext", nil, &profile)
	var target struct {
		ID string `json:"targetId"`
	}
	b.must("Target.createTarget", map[string]any{"url": "about:blank", "browserContextId": profile.ID}, &target)
	var attached struct {
		Session string `json:"sessionId"`
	}
	b.must("Target.attachToTarget", map[string]any{"targetId": target.ID, "flatten": true}, &attached)
	p := &Page{b: b, t: b.t, session: attached.Session}
	b.mu.Lock()
	b.pages[p.session] = p
	b.mu.Unlock()
	p.Must("Runtime.enable", nil, nil)
	p.Must("Page.enable", nil, nil)
	p.Must("Emulation.setFocusEmulationEnabled", map[string]any{"enabled": true}, nil)
	p.Navigate(url)
	return p
}
