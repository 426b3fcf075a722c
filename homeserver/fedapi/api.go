// Package fedapi is the edge to other servers: the route table of the
// server-server API, the parsing of requests, the proof of who asks, one call
// into a service, the answer. It holds no rules of rooms and no SQL.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/
package fedapi

import (
	"net/http"
	"strings"
	"sync"

	"switchboard/homeserver/account"
	"switchboard/homeserver/directory"
	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/edge"
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
	return edge.Handler(mux)
}

// serve is the one road from a request to an answer.
func (a *API) serve(rt route) http.HandlerFunc {
	return func(w http.ResponseWriter, hr *http.Request) {
		r := &request{Call: edge.Call{Request: hr, Limit: rt.limit}}
		leave, err := a.admit(rt, r)
		if err != nil {
			edge.Fail(w, hr, err)
			return
		}
		defer leave()
		body, err := rt.handle(a, r)
		edge.Answer(w, hr, body, err)
	}
}
