package jitsi

import (
	"context"
	"crypto/subtle"
	"errors"
	"net/http"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/account"
	"switchboard/homeserver/edge"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// Path is where the API for Jitsi begins: behind the public address of the
// homeserver it is the MATRIX_UVS_URL of Jitsi, which takes no / at the end.
const Path = "/_switchboard/jitsi"

// WellKnownPath is where a Jitsi server tells clients how to prove who they are.
const WellKnownPath = "/.well-known/element/jitsi"

// Verifier answers Jitsi who may join a call. Its exported fields are set before
// the first request and not changed; its methods may be called from several
// goroutines.
type Verifier struct {
	Token      string // that Jitsi must show; "": none
	ServerName matrix.ServerName
	Accounts   *account.Service
	Rooms      *room.Service
	Servers    *fedclient.Client // asks other servers about their users

	asking atomic.Int32 // other servers
	probes probes
}

// Handler serves what Jitsi asks, below Path, and what clients ask of a Jitsi
// server whose proxy sends WellKnownPath here.
func (v *Verifier) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+WellKnownPath, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Access-Control-Allow-Origin", "*")
		edge.WriteJSON(w, http.StatusOK, map[string]string{"auth": Authentication})
	})
	mux.HandleFunc("GET "+Path+"/health", func(w http.ResponseWriter, _ *http.Request) {
		edge.WriteJSON(w, http.StatusOK, edge.Empty{})
	})
	serve := func(path string, verify func(context.Context, question) (any, error)) {
		mux.HandleFunc("POST "+Path+path, func(w http.ResponseWriter, r *http.Request) {
			q, err := v.read(r)
			var body any
			if err == nil {
				body, err = verify(r.Context(), q)
			}
			edge.Answer(w, r, body, err)
		})
	}
	serve("/verify/user", v.verifyUser)
	serve("/verify/user_in_room", v.verifyUserInRoom)
	return edge.Handler(mux)
}

// question is what Jitsi asks.
type question struct {
	Token  string            `json:"token"`
	Server matrix.ServerName `json:"matrix_server_name"` // "" for this one
	Room   matrix.RoomID     `json:"room_id"`
}

// maxQuestion is the largest body in bytes.
const maxQuestion = 16 << 10

// read reads a question of somebody who may ask.
func (v *Verifier) read(r *http.Request) (question, error) {
	var q question
	call := edge.Call{Request: r, Limit: maxQuestion}
	err := call.JSON(&q)
	if err == nil && q.Token == "" {
		err = matrix.Errorf(matrix.MissingParam, "token is missing")
	}
	if q.Server == "" {
		q.Server = v.ServerName
	}
	if v.Token != "" {
		shown, _ := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
		if subtle.ConstantTimeCompare([]byte(shown), []byte(v.Token)) != 1 {
			v.probes.note(q.Token, func(p *probe) { p.unauthorized = true })
			return q, matrix.Errorf(matrix.UnknownToken, "the token of Jitsi, its MATRIX_UVS_AUTH_TOKEN, is not that of this server")
		}
	}
	return q, err
}

// verdict is the answer to a question about a user.
type verdict struct {
	Results struct {
		User bool `json:"user"`
	} `json:"results"`
	User *matrix.UserID `json:"user_id"`
}

// roomVerdict is the answer to a question about a user in a room.
type roomVerdict struct {
	Results struct {
		User   bool `json:"user"`
		Member bool `json:"room_membership"`
	} `json:"results"`
	User  *matrix.UserID `json:"user_id"`
	Power *power         `json:"power_levels"` // nil if the user is not in the room
}

// verifyUser tells whose a token is.
func (v *Verifier) verifyUser(ctx context.Context, q question) (any, error) {
	var a verdict
	user, err := v.user(ctx, q)
	if err == nil && user != "" {
		a.Results.User, a.User = true, &user
	}
	return a, err
}

// verifyUserInRoom tells whose a token is, and what that user may do in a room.
func (v *Verifier) verifyUserInRoom(ctx context.Context, q question) (any, error) {
	if _, err := matrix.ParseRoomID(string(q.Room)); err != nil {
		return nil, err
	}
	if p := v.probes.note(q.Token, func(p *probe) { p.asked = true }); p != nil {
		return p.verdict(q), nil
	}
	var a roomVerdict
	if q.Server != v.ServerName { // no server is asked that has nobody in the room
		if in, err := v.Rooms.Attends(ctx, q.Room, q.Server); err != nil || !in {
			return a, err
		}
	}
	user, err := v.user(ctx, q)
	if err != nil || user == "" {
		return a, err
	}
	a.Results.User, a.User = true, &user
	levels, err := v.Rooms.Standing(ctx, q.Room, user)
	if err != nil {
		return nil, err
	}
	if levels == nil {
		zerolog.Ctx(ctx).Info().Str("user", string(user)).Str("room", string(q.Room)).Msg("Jitsi asked for somebody who is not in the room")
		return a, nil
	}
	a.Results.Member, a.Power = true, newPower(levels, user)
	return a, nil
}

// user tells whose a token is: "" if nobody's, as far as the server says which
// made it.
func (v *Verifier) user(ctx context.Context, q question) (matrix.UserID, error) {
	if q.Server == v.ServerName {
		user, err := v.Accounts.OpenIDUser(ctx, q.Token)
		var refused *matrix.Error
		if errors.As(err, &refused) && refused.Code == matrix.UnknownToken {
			return "", nil
		}
		return user, err
	}
	if _, err := matrix.ParseServerName(string(q.Server)); err != nil {
		return "", err
	}
	defer v.asking.Add(-1)
	if v.asking.Add(1) > mostAsk {
		return "", &matrix.Error{Code: matrix.LimitExceeded, Text: "too many users of other servers are being verified", RetryAfter: time.Second}
	}
	ctx, cancel := context.WithTimeout(ctx, askTime)
	defer cancel()
	user, err := v.Servers.OpenIDUser(ctx, q.Server, q.Token)
	if err != nil {
		zerolog.Ctx(ctx).Info().Err(err).Str("server", string(q.Server)).Msg("the user of a Jitsi call could not be verified")
		return "", nil
	}
	return user, nil
}

// The bounds of asking other servers: everybody who can reach Jitsi can cause it.
const (
	askTime = 15 * time.Second
	mostAsk = 32 // at once
)

// power is what a user may do in a room, with every level that the room leaves
// out.
type power struct {
	User int64      `json:"user"`
	Room roomLevels `json:"room"`
}

type roomLevels struct {
	Ban           int64            `json:"ban"`
	Events        map[string]int64 `json:"events"`
	EventsDefault int64            `json:"events_default"`
	Invite        int64            `json:"invite"`
	Kick          int64            `json:"kick"`
	Redact        int64            `json:"redact"`
	StateDefault  int64            `json:"state_default"`
	UsersDefault  int64            `json:"users_default"`
}

func newPower(l *eventauth.PowerLevels, user matrix.UserID) *power {
	p := &power{number(l.User(user)), roomLevels{
		Ban: number(l.Ban()), Events: map[string]int64{}, EventsDefault: number(l.Event("", false)), Invite: number(l.Invite()), Kick: number(l.Kick()),
		Redact: number(l.Redact()), StateDefault: number(l.Event("", true)), UsersDefault: number(l.UsersDefault()),
	}}
	for typ, level := range l.Events() {
		p.Room.Events[typ] = number(level)
	}
	return p
}

// number is a level as Lua can read it, whose numbers are no larger: an
// infinite one, too.
func number(l eventauth.Level) int64 { return min(max(int64(l), -1<<53+1), 1<<53-1) }
