package clientapi

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"strconv"
	"strings"
	"unicode/utf8"

	"switchboard/homeserver/account"
	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
)

// request is one request on its way through a handler.
type request struct {
	*http.Request
	account.Session // who asks; the zero value where the route is public

	limit int64 // bytes of the body
}

// admit finds out who asks and refuses who may not.
func (a *API) admit(rt route, r *request) error {
	if rt.access == public {
		return a.limitAddress(r)
	}
	token := bearer(r.Request)
	if token == "" {
		if rt.access == optional {
			return a.limitAddress(r)
		}
		return matrix.Errorf(matrix.MissingToken, "missing access token")
	}
	var err error
	q := r.URL.Query()
	device := q.Get("device_id")
	if device == "" {
		device = q.Get("org.matrix.msc3202.device_id")
	}
	r.Session, err = a.Accounts.Authenticate(r.Context(), token, account.Masquerade{
		User: matrix.UserID(q.Get("user_id")), Device: matrix.DeviceID(device),
	}, a.client(r.Request))
	if err != nil {
		return err
	}
	switch {
	case r.Guest && rt.access == users:
		return matrix.Errorf(matrix.GuestAccessForbidden, "guests may not do this")
	case rt.access == admins && !r.Admin:
		return matrix.Errorf(matrix.Forbidden, "only administrators of the server may do this")
	}
	return a.limitUser(r)
}

// bearer gives the access token, from the header or, as older clients do, from
// the query.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#using-access-tokens
func bearer(r *http.Request) string {
	scheme, token, ok := strings.Cut(r.Header.Get("Authorization"), " ")
	if ok && strings.EqualFold(scheme, "Bearer") {
		return strings.TrimSpace(token)
	}
	return r.URL.Query().Get("access_token")
}

// self refuses a path that names another user than the one who asks.
func (r *request) self() error {
	if r.PathValue("userId") != string(r.User) {
		return matrix.Errorf(matrix.Forbidden, "you may only do this for yourself")
	}
	return nil
}

// active refuses who is suspended what would reach others.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#account-suspension
func (r *request) active() error {
	if r.Suspended {
		return matrix.Errorf(matrix.UserSuspended, "this account has been suspended")
	}
	return nil
}

// room is the room ID of the path.
func (r *request) room() (matrix.RoomID, error) { return matrix.ParseRoomID(r.PathValue("roomId")) }

// event is the event ID of the path.
func (r *request) event() (matrix.EventID, error) { return matrix.ParseEventID(r.PathValue("eventId")) }

// body reads the whole body, at most the limit of bytes.
func (r *request) body() ([]byte, error) {
	b, err := io.ReadAll(io.LimitReader(r.Body, r.limit+1))
	if err != nil {
		return nil, matrix.Errorf(matrix.NotJSON, "the body could not be read")
	}
	if int64(len(b)) > r.limit {
		return nil, matrix.Errorf(matrix.TooLarge, "the body is larger than %d bytes", r.limit)
	}
	return b, nil
}

// object is the body, which must be a JSON object. Its numbers and keys are not
// looked at.
func (r *request) object() (json.RawMessage, error) {
	b, err := r.body()
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

// json decodes the body into each of v. An empty body counts as {}.
func (r *request) json(v ...any) error {
	b, err := r.body()
	if err != nil {
		return err
	}
	if b = bytes.TrimSpace(b); len(b) == 0 {
		b = []byte("{}")
	}
	if !utf8.Valid(b) || canonjson.Valid(b) != nil {
		return matrix.Errorf(matrix.NotJSON, "the body is not JSON")
	}
	if b[0] != '{' {
		return matrix.Errorf(matrix.BadJSON, "the body is not a JSON object")
	}
	for _, to := range v {
		if err := decode(b, to); err != nil {
			return err
		}
	}
	return nil
}

// decode turns JSON into v and names the field that does not fit.
func decode(b []byte, v any) error {
	err := json.Unmarshal(b, v)
	var wrong *json.UnmarshalTypeError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &wrong) && wrong.Field != "":
		return matrix.Errorf(matrix.BadJSON, "%s cannot be a %s", wrong.Field, wrong.Value)
	}
	var e *matrix.Error
	if errors.As(err, &e) {
		return e
	}
	return matrix.Errorf(matrix.BadJSON, "the body does not have the expected shape")
}

// number is a query parameter that counts something; absent gives def, more
// than most gives most.
func (r *request) number(name string, def, most int) (int, error) {
	s := r.URL.Query().Get(name)
	if s == "" {
		return def, nil
	}
	n, err := strconv.Atoi(s)
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

// empty is the answer of operations that have nothing to say.
type empty struct{}
