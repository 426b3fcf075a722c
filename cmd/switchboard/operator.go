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
// process if not.
type order interface {
	// do does it and writes what the operator should read to out.
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
	var answer controlAnswer
	err = json.NewEncoder(conn).Encode(controlRequest{Token: token, Name: name, Order: content})
	if err == nil {
		err = json.NewDecoder(conn).Decode(&answer)
	}
	if err != nil {
		return fmt.Errorf("ask the server: %w", err)
	}
	if _, err := io.WriteString(t.out, answer.Output); err != nil {
		return err
	}
	if answer.Error != "" {
		return errors.New(answer.Error)
	}
	return nil
}

func controlFile(dir string) string { return filepath.Join(dir, "control") }

// controlRequest is an order on its way to the server: one for each connection,
// as JSON.
type controlRequest struct {
	Token string
	Name  string
	Order json.RawMessage
}

// controlAnswer is what became of an order.
type controlAnswer struct {
	Output string // also before an error
	Error  string // "" if it was done
}

// control takes orders from commands on this computer.
type control struct {
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
	c := &control{server: s, net: l, token: registrations.Token(), file: controlFile(dir)}
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
			return os.Remove(c.file)
		}
		if err != nil {
			return fmt.Errorf("control: %w", err)
		}
		running.Go(func() {
			defer conn.Close()
			conn.SetDeadline(time.Now().Add(controlTimeout))
			var r controlRequest
			if err := json.NewDecoder(io.LimitReader(conn, 1<<20)).Decode(&r); err != nil {
				return // it was no command of ours
			}
			json.NewEncoder(conn).Encode(c.answer(context.WithoutCancel(ctx), r)) // the command sees an error itself
		})
	}
}

// controlTimeout is how long an order may take.
const controlTimeout = 2 * time.Minute

// answer carries out an order. A panic is answered like an error.
func (c *control) answer(ctx context.Context, r controlRequest) (answer controlAnswer) {
	defer func() {
		if p := recover(); p != nil {
			zerolog.Ctx(ctx).Error().Interface("panic", p).Str("order", r.Name).Bytes("stack", debug.Stack()).Msg("order panicked")
			answer = controlAnswer{Error: "the server failed; its log says why"}
		}
	}()
	if subtle.ConstantTimeCompare([]byte(r.Token), []byte(c.token)) != 1 {
		return controlAnswer{Error: "wrong token"}
	}
	empty := orders[r.Name]
	if empty == nil {
		return controlAnswer{Error: "the server is of another version and does not know " + r.Name}
	}
	o := empty()
	if j, ok := o.(jitsiOrder); ok {
		j.with(c.conf, c.meet)
	}
	if k, ok := o.(callsOrder); ok {
		k.withCalls(c.calls)
	}
	if err := json.Unmarshal(r.Order, o); err != nil {
		return controlAnswer{Error: err.Error()}
	}
	ctx, cancel := context.WithTimeout(ctx, controlTimeout)
	defer cancel()
	var out strings.Builder
	if err := o.do(ctx, c.server, &out); err != nil {
		answer.Error = err.Error()
	}
	answer.Output = out.String()
	return answer
}
