package client

import (
	"bytes"
	"errors"
	"fmt"
	"strconv"
	"time"

	"github.com/ergochat/irc-go/ircmsg"
)

// Errors of an Outcome besides *ReplyError.
var (
	// ErrNotSent means that the line has not left this process.
	ErrNotSent = errors.New("not connected to the network")

	// ErrUnconfirmed means that the line was sent and that nobody knows
	// whether the network accepted it.
	ErrUnconfirmed = errors.New("the network did not confirm the message")
)

// ReplyError is the refusal of a request by the network.
type ReplyError struct {
	Code string // the numeric, or FAIL's code
	Text string // as the server worded it
}

// Error returns the server's text and the code.
func (e *ReplyError) Error() string { return fmt.Sprintf("%s (%s)", e.Text, e.Code) }

// Outcome is what became of a request.
type Outcome struct {
	Err  error
	ID   string    // msgid of a message, when the network gives one
	Time time.Time // when the network took it, or zero
}

// request is one line on its way: queued, then in flight until its outcome is
// known. How that is learnt depends on what the server offers:
//
//   - labeled-response: the answer bears our label;
//   - echo-message: a message is done when it comes back;
//   - otherwise a PING follows the line. Servers work in order, so a refusal
//     can only come before the PONG.
type request struct {
	msg    ircmsg.Message
	line   []byte
	target string // folded first parameter
	label  string
	fence  string // token of the PING
	echo   bool   // ends with our own message coming back
	done   func(Outcome)

	sent    time.Time
	outcome Outcome // so far
}

// newRequest prepares a line. The caller holds mu.
func (l *link) newRequest(m ircmsg.Message, done func(Outcome)) (*request, error) {
	r := &request{msg: m, done: done}
	if len(m.Params) > 0 {
		r.target = l.fold(m.Params[0])
	}
	message := m.Command == "PRIVMSG" || m.Command == "NOTICE"
	if !l.caps.enabled["message-tags"] {
		r.msg = ircmsg.MakeMessage(nil, "", m.Command, m.Params...)
	}
	if done != nil {
		switch {
		case l.caps.enabled["labeled-response"] && l.caps.enabled["batch"]:
			r.label = l.token()
			r.msg.SetTag("label", r.label)
			r.echo = message && l.caps.enabled["echo-message"]
		case message && l.caps.enabled["echo-message"]:
			r.echo = true
		default:
			r.fence = l.token()
		}
	}
	line, err := r.msg.LineBytesStrict(true, l.isupport.LineLen())
	if err != nil {
		return nil, fmt.Errorf("%s: %w", m.Command, err)
	}
	if r.fence != "" {
		line = append(bytes.Clone(line), "PING :"+r.fence+"\r\n"...)
	}
	r.line = line
	return r, nil
}

// token returns a string that was not used on this connection.
func (l *link) token() string {
	l.tokens++
	return "sb" + strconv.FormatUint(l.tokens, 36)
}

// finish takes the i-th request out of flight.
func (l *link) finish(i int, fx *effects) {
	r := l.inflight[i]
	l.inflight = append(l.inflight[:i], l.inflight[i+1:]...)
	out := r.outcome
	fx.then(func() { r.done(out) })
}

// byLabel finds a request in flight by its label, or returns -1.
func (l *link) byLabel(label string) int {
	if label == "" {
		return -1
	}
	for i, r := range l.inflight {
		if r.label == label {
			return i
		}
	}
	return -1
}

// answer gives a message to the request that it answers, if there is one, and
// reports whether it was an echo of ours, which nobody else needs to see.
func (l *link) answer(m *ircmsg.Message, fx *effects) (echo bool) {
	_, label := m.GetTag("label")
	_, batch := m.GetTag("batch")
	if m.Command == "BATCH" {
		return false // see startBatch and endBatch
	}
	i := l.byLabel(label)
	inBatch := false
	if i < 0 && batch != "" {
		if b := l.batches[batch]; b != nil && b.label != "" {
			i, inBatch = l.byLabel(b.label), true
		}
	}
	if i >= 0 {
		echo = l.note(l.inflight[i], m)
		if !inBatch {
			l.finish(i, fx)
		}
		return echo
	}
	return l.answerUnlabelled(m, fx)
}

// note records what a labelled answer says.
func (l *link) note(r *request, m *ircmsg.Message) (echo bool) {
	if err := replyError(m); err != nil {
		if r.outcome.Err == nil {
			r.outcome.Err = err
		}
		return false
	}
	if m.Command == r.msg.Command && l.isOwn(m.Nick()) {
		l.noteEcho(r, m)
		return r.echo
	}
	return false
}

func (l *link) noteEcho(r *request, m *ircmsg.Message) {
	if r.outcome.ID == "" {
		_, r.outcome.ID = m.GetTag("msgid")
		r.outcome.Time = l.time(m)
	}
}

// answerUnlabelled matches echoes, refusals and the PONG of a fence. Requests
// are answered in the order in which they were sent.
func (l *link) answerUnlabelled(m *ircmsg.Message, fx *effects) (echo bool) {
	switch {
	case m.Command == "PONG" && len(m.Params) > 0:
		l.passFence(m.Params[len(m.Params)-1], fx)
	case (m.Command == "PRIVMSG" || m.Command == "NOTICE") && len(m.Params) > 1 && l.isOwn(m.Nick()):
		target := l.fold(m.Params[0])
		for i, r := range l.inflight {
			if r.echo && r.label == "" && r.msg.Command == m.Command && r.target == target {
				l.noteEcho(r, m)
				l.finish(i, fx)
				return true
			}
		}
	default:
		err := replyError(m)
		if err == nil {
			return false
		}
		for i, r := range l.inflight {
			if r.label != "" || !l.concerns(m, r) {
				continue
			}
			if r.outcome.Err == nil {
				r.outcome.Err = err
			}
			if r.echo {
				l.finish(i, fx)
			}
			return false
		}
	}
	return false
}

// passFence ends the request of a fence that came back.
func (l *link) passFence(token string, fx *effects) {
	for i, r := range l.inflight {
		if r.fence != "" && r.fence == token {
			l.finish(i, fx)
			return
		}
	}
}

// concerns reports whether an error numeric is about a request: one of its
// parameters is the request's target or command.
func (l *link) concerns(m *ircmsg.Message, r *request) bool {
	params := m.Params
	if len(params) > 1 {
		params = params[1:] // the first is our nick
	}
	for i, p := range params {
		if i == len(params)-1 && len(params) > 1 {
			break // the text
		}
		if p == r.msg.Command || l.fold(p) == r.target {
			return true
		}
		for _, q := range r.msg.Params[min(1, len(r.msg.Params)):] { // "JOIN #a" or "KICK #a nick"
			if l.fold(p) == l.fold(q) {
				return true
			}
		}
	}
	return false
}

// replyError returns the refusal in a message, nil if it is none.
func replyError(m *ircmsg.Message) *ReplyError {
	switch {
	case m.Command == "FAIL" && len(m.Params) >= 2:
		return &ReplyError{Code: m.Params[1], Text: m.Params[len(m.Params)-1]}
	case len(m.Command) == 3 && (m.Command[0] == '4' || m.Command[0] == '5') && len(m.Params) > 0:
		if m.Command == "422" { // no MOTD
			return nil
		}
		return &ReplyError{Code: m.Command, Text: m.Params[len(m.Params)-1]}
	}
	return nil
}

// expire ends requests that have waited too long for an answer.
func (l *link) expire(before time.Time, fx *effects) {
	for i := 0; i < len(l.inflight); {
		r := l.inflight[i]
		if r.sent.After(before) {
			i++
			continue
		}
		if r.outcome.Err == nil && r.outcome.ID == "" {
			r.outcome.Err = ErrUnconfirmed
		}
		l.finish(i, fx)
	}
}
