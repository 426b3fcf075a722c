package fedapi

import (
	"bufio"
	"context"
	"encoding/json"
	"net/http"
	"strconv"

	"github.com/rs/zerolog"

	"switchboard/homeserver/edge"
	"switchboard/homeserver/federation"
	"switchboard/homeserver/matrix"
)

// request is one request on its way through a handler.
type request struct {
	edge.Call
	origin matrix.ServerName // who asks; "" where the route is public
}

// admit reads the body, finds out who asks and refuses who may not.
func (a *API) admit(rt route, r *request) (leave func(), err error) {
	b := &body{ReadCloser: r.Request.Body, t: &a.traffic, most: a.Federation.Config.RequestMemory}
	r.Request.Body = b
	defer func() {
		if err != nil {
			b.done()
		}
	}()
	raw, err := r.Bytes()
	if err != nil || rt.access == public {
		return b.done, err
	}
	if r.origin, err = a.KeyRing.Authenticate(r.Request, raw); err != nil {
		return nil, err
	}
	end, err := a.traffic.enter(r.origin, rt.operation, a.Federation.Config)
	return func() { end(); b.done() }, err
}

// roomEvent are both.
func (r *request) roomEvent() (room matrix.RoomID, event matrix.EventID, err error) {
	if room, err = r.Room(); err != nil {
		return "", "", err
	}
	event, err = r.Event()
	return room, event, err
}

// user is a user ID in a query parameter, which must be there.
func (r *request) user(name string) (matrix.UserID, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return "", matrix.Errorf(matrix.MissingParam, "%s is missing", name)
	}
	return matrix.ParseUserID(s)
}

// answer is a large object that is written piece by piece. The pieces of lists
// are JSON as it was stored, and written as it is.
type answer []member

type member struct {
	name  string
	value any               // nil: a list
	each  federation.Events // the list; nil: it is in memory
	list  []json.RawMessage
}

func (a answer) Respond(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	b := bufio.NewWriterSize(w, 64<<10)
	if err := a.write(r.Context(), b); err != nil {
		abort(r, err)
	}
	b.Flush()
}

// abort ends an answer that has begun: it must not look whole.
func abort(r *http.Request, err error) {
	if r.Context().Err() == nil {
		zerolog.Ctx(r.Context()).Info().Err(err).Str("route", r.Pattern).Msg("an answer broke off")
	}
	panic(http.ErrAbortHandler)
}

func (a answer) write(ctx context.Context, b *bufio.Writer) error {
	b.WriteByte('{')
	for i, m := range a {
		if i > 0 {
			b.WriteByte(',')
		}
		b.WriteString(strconv.Quote(m.name) + ":")
		if m.value != nil {
			v, err := json.Marshal(m.value)
			if err != nil {
				return err
			}
			b.Write(v)
			continue
		}
		if err := m.write(ctx, b); err != nil {
			return err
		}
	}
	return b.WriteByte('}')
}

// write writes the list.
func (m member) write(ctx context.Context, b *bufio.Writer) error {
	between := byte('[')
	one := func(raw json.RawMessage) error {
		b.WriteByte(between)
		between = ','
		_, err := b.Write(raw)
		return err
	}
	for _, raw := range m.list {
		if err := one(raw); err != nil {
			return err
		}
	}
	if m.each != nil {
		if err := m.each(ctx, one); err != nil {
			return err
		}
	}
	if between == '[' {
		b.WriteByte('[')
	}
	return b.WriteByte(']')
}

// pair is an answer in the form of the API's first version: [200, answer].
type pair struct{ answer }

func (p pair) Respond(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	b := bufio.NewWriterSize(w, 64<<10)
	b.WriteString("[200,")
	if err := p.write(r.Context(), b); err != nil {
		abort(r, err)
	}
	b.WriteByte(']')
	b.Flush()
}
