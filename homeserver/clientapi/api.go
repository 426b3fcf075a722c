// Package clientapi is the edge to clients: the route table of the
// client-server API, the parsing of requests, one call into a service, the
// answer. It holds no rules of rooms or accounts and no SQL.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/
package clientapi

import (
	"net/http"
	"strings"

	"switchboard/homeserver/edge"
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
	road := edge.Handler(mux)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Access-Control-Allow-Origin", "*")
		h.Set("Access-Control-Allow-Methods", "GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS")
		h.Set("Access-Control-Allow-Headers", "X-Requested-With, Content-Type, Authorization, Date, Range")
		h.Set("Access-Control-Expose-Headers", "Synapse-Trace-Id, Server, Retry-After, Content-Range, ETag")
		if r.Method == http.MethodOptions {
			w.WriteHeader(http.StatusNoContent)
			return
		}
		road.ServeHTTP(w, current(r))
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

// serve is the one road from a request to an answer.
func (a *API) serve(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, hr *http.Request) {
		r := &request{Call: edge.Call{Request: hr, Limit: a.maxBody()}}
		if err := a.admit(rt, r); err != nil {
			edge.Fail(w, hr, err)
			return
		}
		body, err := rt.handle(a, r)
		edge.Answer(w, hr, body, a.withContact(err))
	}
}
