package fedapi

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"unicode/utf8"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
)

// request is one request on its way through a handler.
type request struct {
	*http.Request
	origin matrix.ServerName // who asks; "" where the route is public
	body   []byte
}

// admit reads the body, finds out who asks and refuses who may not.
func (a *API) admit(rt route, r *request) (leave func(), err error) {
	body, err := io.ReadAll(io.LimitReader(r.Body, rt.limit+1))
	if err != nil {
		return nil, matrix.Errorf(matrix.NotJSON, "the body could not be read")
	}
	if int64(len(body)) > rt.limit {
		return nil, matrix.Errorf(matrix.TooLarge, "the body is larger than %d bytes", rt.limit)
	}
	r.body = body
	if rt.access == public {
		return func() {}, nil
	}
	if r.origin, err = a.KeyRing.Authenticate(r.Request, body); err != nil {
		return nil, err
	}
	return a.enter(r.origin)
}

// room is the room ID of the path.
func (r *request) room() (matrix.RoomID, error) { return matrix.ParseRoomID(r.PathValue("roomId")) }

// event is the event ID of the path.
func (r *request) event() (matrix.EventID, error) { return matrix.ParseEventID(r.PathValue("eventId")) }

// roomEvent are both.
func (r *request) roomEvent() (room matrix.RoomID, event matrix.EventID, err error) {
	if room, err = r.room(); err != nil {
		return "", "", err
	}
	event, err = r.event()
	return room, event, err
}

// object is the body, which must be a JSON object.
func (r *request) object() (json.RawMessage, error) {
	b := bytes.TrimSpace(r.body)
	switch {
	case len(b) == 0 || !utf8.Valid(b) || canonjson.Valid(b) != nil:
		return nil, matrix.Errorf(matrix.NotJSON, "the body is not JSON")
	case b[0] != '{':
		return nil, matrix.Errorf(matrix.BadJSON, "the body is not a JSON object")
	}
	return b, nil
}

// json decodes the body into v.
func (r *request) json(v any) error {
	b, err := r.object()
	if err != nil {
		return err
	}
	err = json.Unmarshal(b, v)
	var wrong *json.UnmarshalTypeError
	var e *matrix.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong) && wrong.Field != "":
		return matrix.Errorf(matrix.BadJSON, "%s cannot be a %s", wrong.Field, wrong.Value)
	case errors.As(err, &e):
		return e
	}
	return matrix.Errorf(matrix.BadJSON, "the body does not have the expected shape")
}

// number is a query parameter; absent gives def, more than most gives most.
func (r *request) number(name string, def, most int64) (int64, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 {
		return 0, matrix.Errorf(matrix.InvalidParam, "%s must be a number and not negative", name)
	}
	return min(n, most), nil
}

// flag is a query parameter that is true or false; absent is false.
func (r *request) flag(name string) (bool, error) {
	switch r.URL.Query().Get(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, matrix.Errorf(matrix.InvalidParam, "%s must be true or false", name)
}

// user is a user ID in a query parameter, which must be there.
func (r *request) user(name string) (matrix.UserID, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return "", matrix.Errorf(matrix.MissingParam, "%s is missing", name)
	}
	return matrix.ParseUserID(s)
}

// empty is the answer of operations that have nothing to say.
type empty struct{}

// answer is a large object that is written piece by piece. The pieces of lists
// are JSON as it was stored, and written as it is.
type answer []member

type member struct {
	name  string
	value any               // nil: the list
	list  []json.RawMessage // if value is nil
}

func (a answer) respond(w http.ResponseWriter, _ *http.Request) {
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

func (p pair) respond(w http.ResponseWriter, _ *http.Request) {
	w.Header().Set("Content-Type", "application/json")
	b := bufio.NewWriterSize(w, 64<<10)
	b.WriteString("[200,")
	if err := p.write(b); err != nil {
		panic(http.ErrAbortHandler)
	}
	b.WriteByte(']')
	b.Flush()
}
