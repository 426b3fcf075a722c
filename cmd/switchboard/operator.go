package main

import (
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver"
	"switchboard/jitsi"
	"switchboard/registrations"
	"switchboard/voip"
)

// order is something an operator asks of the server from the command line. It
// is carried out inside the server if that runs, and in the command's own
// process if not. The end of the command, such as by Ctrl-C, is the end of it.
type order interface {
	// do does it and writes what the operator should read to out, line by line
	// where it takes long.
	do(ctx context.Context, s *homeserver.Server, out io.Writer) error
}

// orders makes an empty order of each name.
var orders = map[string]func() order{
	"user create":        func() order { return &userCreate{} },
	"user list":          func() order { return &userList{} },
	"user set-password":  func() order { return &userSetPassword{} },
	"user set-admin":     func() order { return &userSetAdmin{} },
	"user deactivate":    func() order { return &userDeactivate{} },
	"user add-email":     func() order { return &userAddEmail{} },
	"user remove-email":  func() order { return &userRemoveEmail{} },
	"user list-emails":   func() order { return &userListEmails{} },
	"notice send":        func() order { return &noticeSend{} },
	"notice unpin":       func() order { return &noticeUnpin{} },
	"report list":        func() order { return &reportList{} },
	"media list":         func() order { return &mediaList{} },
	"media delete":       func() order { return &mediaDelete{} },
	"media quarantine":   func() order { return &mediaQuarantine{} },
	"media unquarantine": func() order { return &mediaUnquarantine{} },
	"media purge-remote": func() order { return &mediaPurgeRemote{} },
	"media move":         func() order { return &mediaMove{} },
	"doctor media":       func() order { return &doctorMedia{} },
	"token create":       func() order { return &tokenCreate{} },
	"token list":         func() order { return &tokenList{} },
	"token revoke":       func() order { return &tokenRevoke{} },
	"calltest link":      func() order { return &callTestLink{} },
	"doctor calls":       func() order { return &doctorCalls{} },
	"doctor mail":        func() order { return &doctorMail{} },
	"jitsi check":        func() order { return &jitsiCheck{} },
	"jitsi add":          func() order { return &jitsiAdd{} },
	"jitsi remove":       func() order { return &jitsiRemove{} },
	"jitsi clean":        func() order { return &jitsiClean{} },
}

// carryOut has an order done, by the server of the data directory or here.
func (t *terminal) carryOut(name string, o order) error {
	conf, err := t.load()
	if err != nil {
		return err
	}
	if err := os.MkdirAll(conf.DataDir, 0o700); err != nil {
		return fmt.Errorf("data directory: %w", err)
	}
	lock, err := lockDir(conf.DataDir)
	if errors.Is(err, errLocked) {
		return t.delegate(conf.DataDir, name, o)
	}
	if err != nil {
		return err
	}
	defer lock.Close()
	s, err := homeserver.New(t.ctx, conf.Config.Config, registrations.NewSet(string(conf.ServerName)))
	if err != nil {
		return err
	}
	if j, ok := o.(jitsiOrder); ok {
		j.with(conf.Config, nil)
	}
	return errors.Join(o.do(t.ctx, s, t.out), s.Close())
}

// delegate has the running server do an order.
func (t *terminal) delegate(dir, name string, o order) error {
	content, err := json.Marshal(o)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	b, err := os.ReadFile(controlFile(dir))
	if err != nil {
		return fmt.Errorf("a server uses %s, but it cannot be asked: %w", dir, err)
	}
	address, token, _ := strings.Cut(strings.TrimSpace(string(b)), " ")
	conn, err := net.DialTimeout("tcp", address, 10*time.Second)
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	defer conn.Close()
	defer context.AfterFunc(t.ctx, func() { conn.Close() })()
	if err := json.NewEncoder(conn).Encode(controlRequest{Token: token, Name: name, Order: content}); err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	for answers := json.NewDecoder(conn); ; {
		var answer controlAnswer
		if err := answers.Decode(&answer); err != nil {
			return fmt.Errorf("the server has not told how it ended: %w", err)
		}
		if _, err := io.WriteString(t.out, answer.Output); err != nil {
			return err
		}
		switch {
		case answer.Error != "":
			return errors.New(answer.Error)
		case answer.Done:
			return nil
		}
	}
}

func controlFile(dir string) string { return filepath.Join(dir, "control") }

// controlRequest is an order on its way to the server: one for each connection,
// as JSON.
type controlRequest struct {
	Token string
	Name  string
	Order json.RawMessage
}

// controlAnswer is what an order has to say, or the last answer: what became of it.
type controlAnswer struct {
	Output string `json:",omitempty"`
	Done   bool   `json:",omitempty"`
	Error  string `json:",omitempty"` // why it was not done
}

// controlOutput sends what an order writes at once.
type controlOutput struct{ conn net.Conn }

func (o controlOutput) send(a controlAnswer) error {
	o.conn.SetWriteDeadline(time.Now().Add(controlTimeout))
	return json.NewEncoder(o.conn).Encode(a)
}

// Write implements io.Writer.
func (o controlOutput) Write(p []byte) (int, error) {
	if err := o.send(controlAnswer{Output: string(p)}); err != nil {
		return 0, err
	}
	return len(p), nil
}

// control takes orders from commands on this computer.
type control struct {
	orders map[string]func() order
	server *homeserver.Server
	conf   Config
	meet   *jitsi.Verifier // nil: no Jitsi server may ask
	calls  *voip.Service
	net    net.Listener
	token  string
	file   string
}

// openControl listens on the loopback interface and writes where, with a token,
// into the data directory, which only the operator can read.
func openControl(dir string, s *homeserver.Server) (*control, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, fmt.Errorf("control: %w", err)
	}
	c := &control{orders: orders, server: s, net: l, token: registrations.Token(), file: controlFile(dir)}
	if err := os.WriteFile(c.file, []byte(l.Addr().String()+" "+c.token+"\n"), 0o600); err != nil {
		return nil, errors.Join(fmt.Errorf("control: %w", err), l.Close())
	}
	return c, nil
}

// Run takes orders until ctx is done, and finishes those it has taken.
func (c *control) Run(ctx context.Context) error {
	defer context.AfterFunc(ctx, func() { c.net.Close() })()
	var running sync.WaitGroup
	defer running.Wait()
	for {
		conn, err := c.net.Accept()
		if ctx.Err() != nil {
			if err == nil {
				conn.Close() // it came too late
			}
			return os.Remove(c.file)
		}
		if err != nil {
			return fmt.Errorf("control: %w", err)
		}
		running.Go(func() {
			defer conn.Close()
			conn.SetReadDeadline(time.Now().Add(controlTimeout))
			in := json.NewDecoder(io.LimitReader(conn, 1<<20))
			var r controlRequest
			if err := in.Decode(&r); err != nil {
				return // it was no command of ours
			}
			conn.SetReadDeadline(time.Time{})
			work, cancel := context.WithCancel(context.WithoutCancel(ctx))
			defer cancel()
			defer context.AfterFunc(ctx, func() { time.AfterFunc(controlGrace, cancel) })()
			running.Go(func() {
				_ = in.Decode(new(json.RawMessage)) // the command says no more: this is its end
				cancel()
			})
			answer := controlAnswer{Done: true}
			if err := c.carryOut(work, r, controlOutput{conn}); err != nil {
				answer.Error = err.Error()
			}
			controlOutput{conn}.send(answer) // the command sees an error itself
		})
	}
}

const (
	controlTimeout = time.Minute      // how long a command may take to say what it wants, and to read an answer
	controlGrace   = 10 * time.Second // how long an order may go on when the server stops
)

// carryOut carries out an order. A panic is an error.
func (c *control) carryOut(ctx context.Context, r controlRequest, out io.Writer) (err error) {
	defer func() {
		if p := recover(); p != nil {
			zerolog.Ctx(ctx).Error().Interface("panic", p).Str("order", r.Name).Bytes("stack", debug.Stack()).Msg("order panicked")
			err = errors.New("the server failed; its log says why")
		}
	}()
	if subtle.ConstantTimeCompare([]byte(r.Token), []byte(c.token)) != 1 {
		return errors.New("wrong token")
	}
	empty := c.orders[r.Name]
	if empty == nil {
		return fmt.Errorf("the server is of another version and does not know %s", r.Name)
	}
	o := empty()
	if j, ok := o.(jitsiOrder); ok {
		j.with(c.conf, c.meet)
	}
	if k, ok := o.(callsOrder); ok {
		k.withCalls(c.calls)
	}
	if err := json.Unmarshal(r.Order, o); err != nil {
		return err
	}
	return o.do(ctx, c.server, out)
}

// progress tells how far a long order is: at most every few seconds, so that a
// short one says nothing.
type progress struct {
	out  io.Writer
	last time.Time
}

func newProgress(out io.Writer) *progress { return &progress{out, time.Now()} }

func (p *progress) tell(format string, args ...any) {
	if time.Since(p.last) > 5*time.Second {
		p.last = time.Now()
		fmt.Fprintf(p.out, format+"\n", args...)
	}
}
