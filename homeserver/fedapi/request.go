package fedapi

import (
	"bufio"
	"encoding/json"
	"net/http"
	"strconv"

	"switchboard/homeserver/edge"
	"switchboard/homeserver/matrix"
)

// request is one request on its way through a handler.
type request struct {
	edge.Call
	origin matrix.ServerName // who asks; "" where the route is public
}

// admit reads the body, finds out who asks and refuses who may not.
func (a *API) admit(rt route, r *request) (leave func(), err error) {
	body, err := r.Bytes()
	if err != nil {
		return nil, err
	}
	if rt.access == public {
		return func() {}, nil
	}
	if r.origin, err = a.KeyRing.Authenticate(r.Request, body); err != nil {
		return nil, err
	}
	return a.enter(r.origin)
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
	value any               // nil: the list
	list  []json.RawMessage // if value is nil
}

func (a answer) Respond(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	b := bufio.NewWriterSize(w, 64<<10)
	if err := a.write(b); err != nil {
		panic(http.ErrAbortHandler) // the answer has begun: it must not look whole
	}
	b.Flush()
}

func (a answer) write(b *bufio.Writer) error {
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
		b.WriteByte('[')
		for i, raw := range m.list {
			if i > 0 {
				b.WriteByte(',')
			}
			if _, err := b.Write(raw); err != nil {
				return err
			}
		}
		b.WriteByte(']')
	}
	return b.WriteByte('}')
}

// pair is an answer in the form of the API's first version: [200, answer].
type pair struct{ answer }

func (p pair) Respond(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	b := bufio.NewWriterSize(w, 64<<10)
	b.WriteString("[200,")
	if err := p.write(b); err != nil {
		panic(http.ErrAbortHandler)
	}
	b.WriteByte(']')
	b.Flush()
}
