package edge

import (
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

// Call is one request on its way through a handler. Its errors are for the
// other side.
type Call struct {
	*http.Request
	Limit int64 // bytes of the body

	body []byte // once it is read
}

// Bytes reads the whole body, at most the limit of bytes. It may be called
// again.
func (c *Call) Bytes() ([]byte, error) {
	if c.body != nil {
		return c.body, nil
	}
	b, err := io.ReadAll(io.LimitReader(c.Body, c.Limit+1))
	var refused *matrix.Error
	switch {
	case errors.As(err, &refused): // by who counts what is read
		return nil, refused
	case err != nil:
		return nil, matrix.Errorf(matrix.NotJSON, "the body could not be read")
	case int64(len(b)) > c.Limit:
		return nil, matrix.Errorf(matrix.TooLarge, "the body is larger than %d bytes", c.Limit)
	}
	c.body = b
	return b, nil
}

// Object is the body, which must be a JSON object. Its numbers and keys are not
// looked at.
func (c *Call) Object() (json.RawMessage, error) {
	b, err := c.Bytes()
	if err != nil {
		return nil, err
	}
	b = bytes.TrimSpace(b)
	switch {
	case !utf8.Valid(b) || canonjson.Valid(b) != nil:
		return nil, matrix.Errorf(matrix.NotJSON, "the body is not JSON")
	case b[0] != '{':
		return nil, matrix.Errorf(matrix.BadJSON, "the body is not a JSON object")
	}
	return b, nil
}

// JSON decodes the body, a JSON object, into each of v. The error names the
// field that does not fit.
func (c *Call) JSON(v ...any) error {
	b, err := c.Object()
	if err != nil {
		return err
	}
	for _, to := range v {
		if err := Decode(b, to); err != nil {
			return err
		}
	}
	return nil
}

// OptionalJSON is JSON for a body that may also be empty, which counts as {}.
func (c *Call) OptionalJSON(v ...any) error {
	b, err := c.Bytes()
	if err == nil && len(bytes.TrimSpace(b)) == 0 {
		c.body = []byte("{}")
	}
	return c.JSON(v...)
}

// Decode turns JSON into v and names the field that does not fit.
func Decode(b []byte, v any) error {
	err := json.Unmarshal(b, v)
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

// Room is the room ID of the path.
func (c *Call) Room() (matrix.RoomID, error) { return matrix.ParseRoomID(c.PathValue("roomId")) }

// Event is the event ID of the path.
func (c *Call) Event() (matrix.EventID, error) { return matrix.ParseEventID(c.PathValue("eventId")) }

// Number is a query parameter that counts something; absent gives def, more
// than most gives most.
func (c *Call) Number(name string, def, most int) (int, error) {
	s := c.URL.Query().Get(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.Atoi(s)
	if err != nil || n < 0 {
		return 0, matrix.Errorf(matrix.InvalidParam, "%s must be a number and not negative", name)
	}
	return min(n, most), nil
}

// Flag is a query parameter that is true or false; absent is false.
func (c *Call) Flag(name string) (bool, error) {
	switch c.URL.Query().Get(name) {
	case "", "false":
		return false, nil
	case "true":
		return true, nil
	}
	return false, matrix.Errorf(matrix.InvalidParam, "%s must be true or false", name)
}

// Time is a query parameter with a moment in ms since 1970; absent gives 0.
func (c *Call) Time(name string) (int64, error) {
	s := c.URL.Query().Get(name)
	if s == "" {
		return 0, nil
	}
	ts, err := strconv.ParseInt(s, 10, 64)
	if err != nil || ts < 0 || ts >= 1<<53 {
		return 0, matrix.Errorf(matrix.InvalidParam, "%s must be a time in milliseconds", name)
	}
	return ts, nil
}

// Moment is what a search for an event by time starts from, in the parameters
// "ts", in ms since 1970, and "dir", and whether it goes back from there.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1roomsroomidtimestamp_to_event
func (c *Call) Moment() (ts int64, backwards bool, err error) {
	q := c.URL.Query()
	if q.Get("ts") == "" {
		return 0, false, matrix.Errorf(matrix.MissingParam, "ts is missing")
	}
	if ts, err = c.Time("ts"); err != nil {
		return 0, false, err
	}
	switch q.Get("dir") {
	case "f":
		return ts, false, nil
	case "b":
		return ts, true, nil
	case "":
		return 0, false, matrix.Errorf(matrix.MissingParam, "dir is missing")
	}
	return 0, false, matrix.Errorf(matrix.InvalidParam, "dir must be f or b")
}
