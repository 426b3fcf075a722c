// Package edge is the road that requests take at every HTTP edge of the
// homeserver: finding the route, reading what came, answering, and saying what
// went wrong. It knows no API.
package edge

import (
	"encoding/json"
	"errors"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"

	"github.com/rs/zerolog"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// Handler serves the routes of a mux and answers in JSON where there is none:
// M_UNRECOGNIZED with 404, or with 405 for a path that has other methods. Paths
// that the mux would redirect have no route.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#common-error-codes
func Handler(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer recovered(w, r)
		handler, pattern := mux.Handler(r)
		tidy := clean(r.URL.EscapedPath())
		if pattern != "" && tidy {
			mux.ServeHTTP(w, r)
			return
		}
		probe := status(http.StatusNotFound)
		if tidy {
			handler.ServeHTTP(&probe, r)
		}
		Fail(w, r, &matrix.Error{Code: matrix.Unrecognized, Status: int(probe), Text: "unrecognized request"})
	})
}

// clean tells whether ServeMux takes the path as it is and does not redirect.
func clean(path string) bool {
	return !strings.Contains(path, "//") && !strings.Contains(path+"/", "/./") && !strings.Contains(path+"/", "/../")
}

// status is a ResponseWriter that keeps only the status.
type status int

func (s *status) Header() http.Header         { return http.Header{} }
func (s *status) Write(b []byte) (int, error) { return len(b), nil }
func (s *status) WriteHeader(code int)        { *s = status(code) }

// recovered answers for a handler that panicked and logs where.
func recovered(w http.ResponseWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	zerolog.Ctx(r.Context()).Error().Interface("panic", p).Str("route", r.Pattern).Bytes("stack", debug.Stack()).Msg("handler panicked")
	WriteJSON(w, http.StatusInternalServerError, json.RawMessage(internal))
}

// internal is all that the other side learns of our own errors.
const internal = `{"errcode":"M_UNKNOWN","error":"internal server error"}`

// Responder is an answer that writes itself, such as media.
type Responder interface {
	Respond(w http.ResponseWriter, r *http.Request)
}

// Answer answers with what a handler returned: with the error, with a Responder
// by its own means, with anything else as JSON.
func Answer(w http.ResponseWriter, r *http.Request, body any, err error) {
	own, ok := body.(Responder)
	switch {
	case err != nil:
		Fail(w, r, err)
	case ok:
		own.Respond(w, r)
	default:
		WriteJSON(w, http.StatusOK, body)
	}
}

// Challenge is an error that brings its own answer, such as that of
// user-interactive authentication.
type Challenge interface {
	error
	HTTPStatus() int
	Body() any
}

// Fail answers with the error if it is meant for the other side. Any other
// error is ours: it is logged here, once, and the other side learns nothing of
// it. The cause of a refusal is logged for who looks for it.
func Fail(w http.ResponseWriter, r *http.Request, err error) {
	var own Challenge
	if errors.As(err, &own) {
		WriteJSON(w, own.HTTPStatus(), own.Body())
		return
	}
	var e *matrix.Error
	if errors.Is(err, database.ErrText) {
		e = matrix.Errorf(matrix.InvalidParam, "text with U+0000 or broken UTF-8 cannot be stored")
	} else if !errors.As(err, &e) {
		if r.Context().Err() != nil { // who asked went away; nobody reads the answer
			WriteJSON(w, 499, map[string]string{"errcode": string(matrix.Unknown), "error": "request was cancelled"})
			return
		}
		e = &matrix.Error{Code: matrix.Unknown, Text: "internal server error", Cause: err}
	}
	if e.Cause != nil {
		level := zerolog.ErrorLevel
		if status := e.HTTPStatus(); status < http.StatusInternalServerError || status == http.StatusBadGateway {
			level = zerolog.DebugLevel // such as a signature that could not be verified, or a server that is away
		}
		zerolog.Ctx(r.Context()).WithLevel(level).Err(err).Str("route", r.Pattern).Msg("request failed")
	}
	answer := map[string]any{"errcode": string(e.Code), "error": e.Text}
	for k, v := range e.Extra {
		answer[k] = v
	}
	if e.RetryAfter > 0 {
		answer["retry_after_ms"] = e.RetryAfter.Milliseconds()
		w.Header().Set("Retry-After", strconv.FormatInt(int64(e.RetryAfter.Seconds())+1, 10))
	}
	WriteJSON(w, e.HTTPStatus(), answer)
}

// WriteJSON answers with body. A json.RawMessage is written as it is.
func WriteJSON(w http.ResponseWriter, code int, body any) {
	b, ok := body.(json.RawMessage)
	if !ok {
		var err error
		if b, err = json.Marshal(body); err != nil {
			code, b = http.StatusInternalServerError, json.RawMessage(internal)
		}
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(code)
	w.Write(b)
}

// Empty is the answer of operations that have nothing to say.
type Empty struct{}
