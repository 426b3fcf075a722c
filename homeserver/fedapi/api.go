// Package fedapi is the edge to other servers: the route table of the
// server-server API, the parsing of requests, the proof of who asks, one call
// into a service, the answer. It holds no rules of rooms and no SQL.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/
package fedapi

import (
	"encoding/json"
	"errors"
	"net/http"
	"runtime/debug"
	"strconv"
	"strings"
	"sync"

	"github.com/rs/zerolog"

	"switchboard/homeserver/account"
	"switchboard/homeserver/database"
	"switchboard/homeserver/directory"
	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/federation"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/media"
)

// API serves the server-server API. Its exported fields are set before Handler
// is called and not changed afterwards.
type API struct {
	ServerName matrix.ServerName
	Federation *federation.Service
	KeyRing    *fedclient.KeyRing
	Accounts   *account.Service
	Directory  *directory.Service
	Encryption *e2ee.Service
	Media      *media.Service

	mu     sync.Mutex // tier 1; guards asking
	asking map[matrix.ServerName]int
}

// mostAsking is how many requests of one server are worked on at a time.
const mostAsking = 100

// enter counts a request of a server and gives the function that ends it. The
// error is M_LIMIT_EXCEEDED.
func (a *API) enter(origin matrix.ServerName) (leave func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.asking == nil {
		a.asking = map[matrix.ServerName]int{}
	}
	if a.asking[origin] >= mostAsking {
		return nil, matrix.Errorf(matrix.LimitExceeded, "too many requests at a time")
	}
	a.asking[origin]++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.asking[origin]--; a.asking[origin] == 0 {
			delete(a.asking, origin)
		}
	}, nil
}

// access says who may use a route.
type access int

const (
	public  access = iota // no signature is looked at
	servers               // the request must be signed by a server
)

// The sizes of bodies.
const (
	small int64 = 1 << 20  // an event with some stripped state, a question
	large int64 = 16 << 20 // a transaction, keys of many users
)

// route is one operation of the specification.
type route struct {
	operation string // operationId in the specification's OpenAPI, "" for what is not in it any more
	pattern   string // "METHOD /path/{param}" as in net/http.ServeMux
	access    access
	limit     int64 // bytes of the body
	handle    func(*API, *request) (any, error)
}

// tables are the noun's route tables, each beside its handlers.
var tables = [][]route{
	serverRoutes, keyRoutes, transactionRoutes, membershipRoutes, historyRoutes, queryRoutes, deviceRoutes, mediaRoutes,
}

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

// Handler is the server-server API as an http.Handler.
func (a *API) Handler() http.Handler {
	mux := http.NewServeMux()
	for _, rt := range routes() {
		mux.HandleFunc(rt.pattern, a.serve(rt))
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer a.recover(w, r)
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
		r := &request{Request: hr}
		leave, err := a.admit(rt, r)
		if err != nil {
			a.writeError(w, hr, err)
			return
		}
		defer leave()
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

// writeError answers with the error if it is meant for the other side. Any
// other error is ours: it is logged here, once, and the server learns nothing
// of it.
func (a *API) writeError(w http.ResponseWriter, r *http.Request, err error) {
	var e *matrix.Error
	if errors.Is(err, database.ErrText) {
		e = matrix.Errorf(matrix.InvalidParam, "text with U+0000 or broken UTF-8 cannot be stored")
	} else if !errors.As(err, &e) {
		if r.Context().Err() != nil { // the server went away; nobody reads the answer
			writeJSON(w, 499, map[string]string{"errcode": string(matrix.Unknown), "error": "request was cancelled"})
			return
		}
		e = &matrix.Error{Code: matrix.Unknown, Text: "internal server error", Cause: err}
	}
	if e.Cause != nil {
		level := zerolog.ErrorLevel
		if e.HTTPStatus() < http.StatusInternalServerError {
			level = zerolog.DebugLevel // such as a signature that could not be verified
		}
		zerolog.Ctx(r.Context()).WithLevel(level).Err(err).Str("route", r.Pattern).Msg("request of a server failed")
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

// writeJSON answers with body. A json.RawMessage is written as it is.
func writeJSON(w http.ResponseWriter, code int, body any) {
	b, ok := body.(json.RawMessage)
	if !ok {
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
