package fedclient

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"sync"
	"sync/atomic"
	"time"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
)

// maxElement is the largest event of a list in bytes, with its "unsigned" and
// as wasteful as JSON may be written.
const maxElement = 8 * event.MaxSize

// stallTime is how long a long answer may stand still.
const stallTime = 30 * time.Second

// document reads one JSON object from a stream, member by member, and holds
// no more of it than one value. It finds where values end and checks nothing
// else about them.
type document struct {
	r     io.Reader
	buf   []byte
	start int // of what is not read yet in buf
	err   error
	most  int // bytes that one value may have
}

func newDocument(r io.Reader, most int) *document {
	return &document{r: r, buf: make([]byte, 0, 64<<10), most: most}
}

var errSyntax = errors.New("not the JSON that was expected")

// more reads on and tells whether there was something. What stands in buf from
// start on is kept.
func (d *document) more() bool {
	if d.err != nil {
		return false
	}
	if d.start > 0 {
		n := copy(d.buf, d.buf[d.start:])
		d.buf, d.start = d.buf[:n], 0
	}
	if len(d.buf) == cap(d.buf) {
		if len(d.buf) > d.most {
			d.err = ErrAnswerSize
			return false
		}
		d.buf = append(d.buf, make([]byte, len(d.buf)+1)...)[:len(d.buf)]
	}
	for range 100 { // as io.Reader allows answers of nothing
		n, err := d.r.Read(d.buf[len(d.buf):cap(d.buf)])
		d.buf = d.buf[:len(d.buf)+n]
		if err == io.EOF && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != io.EOF {
			d.err = err
		}
		if n > 0 {
			d.err = nil // an error will come again
			return true
		}
		if d.err != nil {
			return false
		}
	}
	d.err = io.ErrNoProgress
	return false
}

// fail is the error of the stream, or errSyntax.
func (d *document) fail() error {
	if d.err != nil {
		return d.err
	}
	return errSyntax
}

// next passes over white space and answers the byte behind it, which stays.
// It is 0 at an error.
func (d *document) next() byte {
	for {
		for d.start < len(d.buf) {
			switch c := d.buf[d.start]; c {
			case ' ', '\t', '\n', '\r':
				d.start++
			default:
				return c
			}
		}
		if !d.more() {
			return 0
		}
	}
}

// take passes over c.
func (d *document) take(c byte) error {
	if d.next() != c {
		return d.fail()
	}
	d.start++
	return nil
}

// value answers the next value, which is good until the next call.
func (d *document) value() ([]byte, error) {
	first := d.next()
	if first == 0 || bytes.IndexByte([]byte(",:]}"), first) >= 0 {
		return nil, d.fail()
	}
	var s scanner
	for done := 0; ; {
		n, ended := s.scan(d.buf[d.start+done:])
		done += n
		if done > d.most {
			d.err = ErrAnswerSize
			return nil, d.err
		}
		if ended {
			v := d.buf[d.start : d.start+done]
			d.start += done
			return v, nil
		}
		if !d.more() {
			return nil, d.fail()
		}
	}
}

// skip passes over the next value without holding it.
func (d *document) skip() error {
	first := d.next()
	if first == 0 || bytes.IndexByte([]byte(",:]}"), first) >= 0 {
		return d.fail()
	}
	var s scanner
	for {
		n, ended := s.scan(d.buf[d.start:])
		d.start += n
		if ended {
			return nil
		}
		if !d.more() {
			return d.fail()
		}
	}
}

// members calls f for each member of an object. f must read or skip the value.
func (d *document) members(f func(key string) error) error {
	if err := d.take('{'); err != nil {
		return err
	}
	if d.next() == '}' {
		d.start++
		return nil
	}
	seen := map[string]bool{}
	for {
		if d.next() != '"' {
			return d.fail()
		}
		raw, err := d.value()
		if err != nil {
			return err
		}
		var key string
		if err := json.Unmarshal(raw, &key); err != nil {
			return err
		}
		if seen[key] || len(seen) > 1000 {
			return errSyntax
		}
		seen[key] = true
		if err := d.take(':'); err != nil {
			return err
		}
		if err := f(key); err != nil {
			return err
		}
		if again, err := d.comma('}'); !again {
			return err
		}
	}
}

// elements calls f for each value of an array. The value is good until f
// returns.
func (d *document) elements(f func(value []byte) error) error {
	if err := d.take('['); err != nil {
		return err
	}
	if d.next() == ']' {
		d.start++
		return nil
	}
	for {
		v, err := d.value()
		if err != nil {
			return err
		}
		if err := f(v); err != nil {
			return err
		}
		if again, err := d.comma(']'); !again {
			return err
		}
	}
}

// list is elements, but null is an empty list, as some servers write it.
func (d *document) list(f func(value []byte) error) error {
	if d.next() != 'n' {
		return d.elements(f)
	}
	v, err := d.value()
	if err == nil && string(v) != "null" {
		err = errSyntax
	}
	return err
}

// comma passes over a comma, or over the end of the list.
func (d *document) comma(end byte) (again bool, err error) {
	switch d.next() {
	case ',':
		d.start++
		return true, nil
	case end:
		d.start++
		return false, nil
	}
	return false, d.fail()
}

// decode reads the next value into out.
func (d *document) decode(out any) error {
	v, err := d.value()
	if err != nil {
		return err
	}
	return json.Unmarshal(v, out)
}

// scanner finds the end of one value whose bytes come in pieces.
type scanner struct {
	kind    byte // of the value: '{' for objects and arrays, '"', or 'a' for the others; 0 before it
	depth   int
	text    bool // inside a string
	escaped bool // behind a backslash
}

// scan looks at the next piece. It answers how many of its bytes belong to the
// value, and whether the value has ended.
func (s *scanner) scan(b []byte) (n int, ended bool) {
	i := 0
	if s.kind == 0 && len(b) > 0 {
		switch b[0] {
		case '{', '[':
			s.kind = '{'
		case '"':
			s.kind, s.text, i = '"', true, 1
		default:
			s.kind = 'a'
		}
	}
	for i < len(b) {
		if s.text {
			i = s.string(b, i)
			if !s.text && s.kind == '"' {
				return i, true
			}
			continue
		}
		switch c := b[i]; {
		case s.kind == 'a':
			if c == ',' || c == ']' || c == '}' || c <= ' ' {
				return i, true
			}
			i++
		case c == '"':
			s.text = true
			i++
		case c == '{' || c == '[':
			s.depth++
			i++
		case c == '}' || c == ']':
			i++
			if s.depth--; s.depth == 0 {
				return i, true
			}
		default:
			i++
		}
	}
	return len(b), false
}

// string goes on behind the end of the string that it is in, or to the end.
func (s *scanner) string(b []byte, i int) int {
	if s.escaped {
		s.escaped = false
		i++
	}
	for i < len(b) {
		// Short runs, which most are, are faster without a call.
		switch b[i] {
		case '"':
			s.text = false
			return i + 1
		case '\\':
			if i++; i == len(b) {
				s.escaped = true
				return i
			}
		}
		i++
	}
	return i
}

// stream makes a call with a long answer and gives its members to f. The
// answer may take as long as LongTimeout, but must not stand still.
func (c *Client) stream(ctx context.Context, server matrix.ServerName, k call, f func(d *document, key string) error) error {
	ctx, cancel := context.WithTimeout(ctx, c.config.LongTimeout)
	defer cancel()
	resp, err := c.send(ctx, server, k)
	if err != nil {
		return wrap(k.op, err)
	}
	defer resp.Body.Close()
	body := &watched{r: io.LimitReader(resp.Body, c.config.MaxState), left: c.config.MaxState}
	defer body.watch(c.tick(), cancel)()
	d := newDocument(body, maxElement)
	err = d.members(func(key string) error { return f(d, key) })
	switch {
	case err == nil:
		return nil
	case body.stalled.Load():
		err = c.unreachable(context.WithoutCancel(ctx), server, k, errStall)
	case body.left <= 0:
		err = &AnswerError{server, ErrAnswerSize}
	case body.broke(err):
		err = c.broken(ctx, server, k, err)
	case errors.Is(err, errCallback):
		err = errors.Unwrap(err)
	default:
		err = &AnswerError{server, err}
	}
	return wrap(k.op, err)
}

var errStall = errors.New("the answer stood still")

// errCallback marks the errors of our callers' functions.
var errCallback = errors.New("callback")

// callbackError is an error of a caller's function.
type callbackError struct{ err error }

func (e callbackError) Error() string        { return e.err.Error() }
func (e callbackError) Unwrap() error        { return e.err }
func (e callbackError) Is(target error) bool { return target == errCallback }

// watched is a body of which one can see whether it moves.
type watched struct {
	r       io.Reader
	left    int64
	err     error
	reads   atomic.Int64
	waiting atomic.Bool
	stalled atomic.Bool
}

// Read implements io.Reader.
func (w *watched) Read(p []byte) (int, error) {
	w.waiting.Store(true)
	n, err := w.r.Read(p)
	w.waiting.Store(false)
	w.reads.Add(1)
	w.left -= int64(n)
	w.err = err
	return n, err
}

// broke tells whether err comes from the body itself, and is not its end.
func (w *watched) broke(err error) bool {
	return w.err != nil && w.err != io.EOF && errors.Is(err, w.err)
}

// watch calls cancel when one read takes longer than two ticks. It answers the
// function that ends the watch.
func (w *watched) watch(tick *time.Ticker, cancel func()) (stop func()) {
	done := make(chan struct{})
	go func() {
		defer tick.Stop()
		seen, still := int64(-1), 0
		for {
			select {
			case <-done:
				return
			case <-tick.C:
			}
			reads := w.reads.Load()
			if reads != seen || !w.waiting.Load() {
				seen, still = reads, 0
				continue
			}
			if still++; still >= 2 {
				w.stalled.Store(true)
				cancel()
				return
			}
		}
	}()
	return sync.OnceFunc(func() { close(done) })
}

// Part is the list of an answer in which an event stands.
type Part int

// The lists of answers with the state of a room.
const (
	State     Part = iota // the state itself
	AuthChain             // the events that authorize it, and those that authorize them
)

// Each is called for each event of a long answer while it arrives, in the
// order of the answer. The event is a JSON object, to be parsed by event.Parse,
// and good until the call returns. An error ends the reading and is answered as
// it is.
type Each func(part Part, event json.RawMessage) error

// eachEvent reads a list of events.
func eachEvent(d *document, part Part, each Each) error {
	return d.list(func(v []byte) error {
		if v[0] != '{' {
			return fmt.Errorf("%w: an event is no object", errSyntax)
		}
		if err := each(part, v); err != nil {
			return callbackError{err}
		}
		return nil
	})
}
