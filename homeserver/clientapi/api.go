// Package clientapi is the edge to clients: the route table of the
// client-server API, the parsing of requests, one call into a service, the
// answer. It holds no rules of rooms or accounts and no SQL.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/
package clientapi

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

// access says who may use a route.
type access int

const (
	public   access = iota // no token is looked at
	optional               // a token is checked if there is one
	users                  // a token is needed; guests are refused
	guests                 // a token is needed; guests are welcome
	admins                 // a token of a server administrator is needed
)

// route is one operation of the specification.
type route struct {
	operation string // operationId in the specification's OpenAPI, "" for what is not in it
	pattern   string // "METHOD /path/{param}" as in net/http.ServeMux
	access    access
	handle    func(*API, *request) (any, error)
}

// routes is the whole client-server API, noun by noun. Each list stands beside
// its handlers.
func routes() []route {
	var all []route
	for _, list := range tables {
		all = append(all, list...)
	}
	return all
}

// Route names an operation that is served, for the law that compares the table
// with the specification.
type Route struct{ Operation, Method, Path string }

// Routes lists what is served, in the order of the table.
func Routes() []Route {
	var list []Route
	for _, rt := range routes() {
		method, path, _ := strings.Cut(rt.pattern, " ")
		list = append(list, Route{rt.operation, method, path})
	}
	return list
}

// Handler is the client-server API as an http.Handler.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range routes() {
		mux.HandleFunc(rt.pattern, a.serve(rt))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
		h.Set("Access-Control-Allow-Headers", "X-Requested-With, Content-Type, Authorization, Date, Range")
		h.Set("Access-Control-Expose-Headers", "Synapse-Trace-Id, Server, Retry-After, Content-Range, ETag")
		defer a.recover(w, r)
		r = current(r)
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		handler, pattern := mux.Handler(r)
		tidy := clean(r.URL.EscapedPath())
		if pattern != "" && tidy {
			mux.ServeHTTP(w, r)
			return
		}
		probe := status(http.StatusNotFound) // 404, or 405 for a path we know
		if tidy {
			handler.ServeHTTP(&probe, r)
		}
		a.writeError(w, r, &matrix.Error{Code: matrix.Unrecognized, Status: int(probe), Text: "unrecognized request"})
	})
}

// current gives a request to a path of before v1.1 the path of today: the first
// clients' "r0" became "v3" with nothing else changed.
func current(r *http.Request) *http.Request {
	for _, api := range []string{"/_matrix/client/", "/_matrix/media/"} {
		rest, ok := strings.CutPrefix(r.URL.Path, api+"r0/")
		if !ok {
			continue
		}
		u := *r.URL
		u.Path = api + "v3/" + rest
		u.RawPath = strings.Replace(u.RawPath, api+"r0/", api+"v3/", 1)
		c := *r
		c.URL = &u
		return &c
	}
	return r
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

// recover answers for a handler that panicked and logs where.
func (a *API) recover(w http.ResponseWriter, r *http.Request) {
	p := recover()
	if p == nil {
		return
	}
	if p == http.ErrAbortHandler {
		panic(p)
	}
	zerolog.Ctx(r.Context()).Error().Interface("panic", p).Str("route", r.Pattern).Bytes("stack", debug.Stack()).Msg("handler panicked")
	writeJSON(w, http.StatusInternalServerError, map[string]string{"errcode": string(matrix.Unknown), "error": "internal server error"})
}

// responder is an answer that writes itself, such as media.
type responder interface {
	respond(w http.ResponseWriter, r *http.Request)
}

// serve is the one road from a request to an answer.
func (a *API) serve(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, hr *http.Request) {
		r := &request{Request: hr, limit: a.maxBody()}
		if err := a.admit(rt, r); err != nil {
			a.writeError(w, hr, err)
			return
		}
		body, err := rt.handle(a, r)
		if err != nil {
			a.writeError(w, hr, err)
			return
		}
		if own, ok := body.(responder); ok {
			own.respond(w, hr)
			return
		}
		writeJSON(w, http.StatusOK, body)
	}
}

// statusError is an error that brings its own answer, such as the challenge of
// user-interactive authentication.
type statusError interface {
	error
	HTTPStatus() int
	Body() any
}

// writeError answers with the error if it is meant for the other side. Any
// other error is ours: it is logged here, once, and the client learns nothing
// of it.
func (a *API) writeError(w http.ResponseWriter, r *http.Request, err error) {
	var own statusError
	if errors.As(err, &own) {
		writeJSON(w, own.HTTPStatus(), own.Body())
		return
	}
	var e *matrix.Error
	if errors.Is(err, database.ErrText) {
		e = matrix.Errorf(matrix.InvalidParam, "text with U+0000 or broken UTF-8 cannot be stored")
	} else if !errors.As(err, &e) {
		if r.Context().Err() != nil { // the client went away; nobody reads the answer
			writeJSON(w, 499, map[string]string{"errcode": string(matrix.Unknown), "error": "request was cancelled"})
			return
		}
		e = &matrix.Error{Code: matrix.Unknown, Text: "internal server error", Cause: err}
	}
	if e.Cause != nil {
		zerolog.Ctx(r.Context()).Err(err).Str("route", r.Pattern).Msg("request failed")
	}
	answer := map[string]any{"errcode": string(e.Code), "error": e.Text}
	for k, v := range e.Extra {
		answer[k] = v
	}
	if e.RetryAfter > 0 {
		answer["retry_after_ms"] = e.RetryAfter.Milliseconds()
		w.Header().Set("Retry-After", strconv.FormatInt(int64(e.RetryAfter.Seconds())+1, 10))
	}
	writeJSON(w, e.HTTPStatus(), answer)
}

// writeJSON answers with body. A []byte or json.RawMessage is written as it is.
func writeJSON(w http.ResponseWriter, code int, body any) {
	var b []byte
	switch v := body.(type) {
	case json.RawMessage:
		b = v
	case []byte:
		b = v
	default:
		var err error
		if b, err = json.Marshal(body); err != nil {
			code, b = http.StatusInternalServerError, []byte(`{"errcode":"M_UNKNOWN","error":"internal server error"}`)
		}
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(b)))
	w.WriteHeader(code)
	w.Write(b)
}
