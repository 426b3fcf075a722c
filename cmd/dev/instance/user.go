package instance

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
)

// User is an account of the server with one login. Its methods may be called
// from several goroutines.
type User struct {
	// ID is the user ID, Device the ID of the device that is logged in.
	ID, Device string

	// Token is the access token.
	Token string

	s           *Server
	transaction atomic.Int64
}

const register = "/_matrix/client/v3/register"

// password is the password of every account, known for logins after the first.
const password = "correct horse battery staple"

// Register makes an account, which must succeed.
func (s *Server) Register(name string) *User {
	s.t.Helper()
	account := map[string]any{"username": name, "password": password}
	answer, err := (&User{s: s}).Do(s.t.Context(), "POST", register, account)
	var challenge struct {
		Session string `json:"session"`
	}
	if err != nil || answer.Status != http.StatusUnauthorized || json.Unmarshal(answer.Body, &challenge) != nil {
		s.t.Fatalf("register %s: %d %s, %v, want a challenge", name, answer.Status, answer.Body, err)
	}
	account["auth"] = map[string]any{"type": "m.login.dummy", "session": challenge.Session}
	return s.logIn(register, account)
}

// LogIn makes another login of the account, which must succeed.
func (s *Server) LogIn(name string) *User {
	s.t.Helper()
	return s.logIn("/_matrix/client/v3/login", map[string]any{
		"type": "m.login.password", "password": password,
		"identifier": map[string]any{"type": "m.id.user", "user": name},
	})
}

func (s *Server) logIn(path string, body map[string]any) *User {
	s.t.Helper()
	u := &User{s: s}
	var login struct {
		UserID      string `json:"user_id"`
		DeviceID    string `json:"device_id"`
		AccessToken string `json:"access_token"`
	}
	u.Must(&login, "POST", path, body)
	u.ID, u.Device, u.Token = login.UserID, login.DeviceID, login.AccessToken
	return u
}

// Answer is what the server said to a request.
type Answer struct {
	Status int
	Header http.Header
	Body   []byte
}

// Do makes a request. body is sent as JSON, nil sends none; an error means that
// no complete answer came.
func (u *User) Do(ctx context.Context, method, path string, body any) (Answer, error) {
	var content io.Reader
	if body != nil {
		b, err := json.Marshal(body)
		if err != nil {
			return Answer{}, err
		}
		content = bytes.NewReader(b)
	}
	r, err := http.NewRequestWithContext(ctx, method, u.s.URL+path, content)
	if err != nil {
		return Answer{}, err
	}
	if u.Token != "" {
		r.Header.Set("Authorization", "Bearer "+u.Token)
	}
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := u.s.client.Do(r)
	if err != nil {
		return Answer{}, err
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(answer.Body)
	if err != nil {
		return Answer{}, err
	}
	return Answer{answer.StatusCode, answer.Header, b}, nil
}

// Must makes a request that has to be answered with 200, and decodes the answer
// into out unless that is nil. It must not be called from a goroutine other
// than the test's.
func (u *User) Must(out any, method, path string, body any) {
	u.s.t.Helper()
	answer, err := u.Do(u.s.t.Context(), method, path, body)
	switch {
	case err != nil:
		u.s.t.Fatal(err)
	case answer.Status != http.StatusOK:
		u.s.t.Fatalf("%s %s: %d %s", method, path, answer.Status, answer.Body)
	case out != nil:
		if err := json.Unmarshal(answer.Body, out); err != nil {
			u.s.t.Fatalf("%s %s: %v in %s", method, path, err, answer.Body)
		}
	}
}

// CreateRoom creates a room that everybody may join and returns its ID.
func (u *User) CreateRoom() string {
	u.s.t.Helper()
	var room struct {
		ID string `json:"room_id"`
	}
	u.Must(&room, "POST", "/_matrix/client/v3/createRoom", map[string]any{"preset": "public_chat"})
	return room.ID
}

// Join joins a room.
func (u *User) Join(room string) {
	u.s.t.Helper()
	u.Must(nil, "POST", "/_matrix/client/v3/join/"+url.PathEscape(room), map[string]any{})
}

// Transaction returns a transaction ID that this login has not used.
func (u *User) Transaction() string {
	return "t" + strconv.FormatInt(u.transaction.Add(1), 10)
}

// Send sends a text as the given transaction and returns the event's ID. The
// error says why the server did not acknowledge it.
func (u *User) Send(ctx context.Context, room, transaction, text string) (string, error) {
	path := fmt.Sprintf("/_matrix/client/v3/rooms/%s/send/m.room.message/%s", url.PathEscape(room), url.PathEscape(transaction))
	answer, err := u.Do(ctx, "PUT", path, map[string]any{"msgtype": "m.text", "body": text})
	if err != nil {
		return "", err
	}
	var sent struct {
		ID string `json:"event_id"`
	}
	if err := json.Unmarshal(answer.Body, &sent); err != nil || answer.Status != http.StatusOK || !strings.HasPrefix(sent.ID, "$") {
		return "", &Refusal{answer}
	}
	return sent.ID, nil
}

// Refusal is an answer that is no acknowledgement.
type Refusal struct{ Answer Answer }

// Error implements error.
func (r *Refusal) Error() string { return fmt.Sprintf("%d %s", r.Answer.Status, r.Answer.Body) }

// Event is an event as clients see it.
type Event struct {
	ID      string `json:"event_id"`
	Type    string `json:"type"`
	Sender  string `json:"sender"`
	Content struct {
		Body string `json:"body"`
	} `json:"content"`
}

// Event returns one event of a room, which must exist.
func (u *User) Event(room, id string) Event {
	u.s.t.Helper()
	var e Event
	u.Must(&e, "GET", fmt.Sprintf("/_matrix/client/v3/rooms/%s/event/%s", url.PathEscape(room), url.PathEscape(id)), nil)
	return e
}

// Timeline returns all events of a room, oldest first.
func (u *User) Timeline(room string) []Event {
	u.s.t.Helper()
	var all []Event
	for from := ""; ; {
		var page struct {
			Chunk []Event `json:"chunk"`
			End   string  `json:"end"`
		}
		query := url.Values{"dir": {"f"}, "limit": {"100"}}
		if from != "" {
			query.Set("from", from)
		}
		u.Must(&page, "GET", "/_matrix/client/v3/rooms/"+url.PathEscape(room)+"/messages?"+query.Encode(), nil)
		all = append(all, page.Chunk...)
		if page.End == "" || page.End == from {
			return all
		}
		from = page.End
	}
}
