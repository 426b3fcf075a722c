// Package fedapi is the edge to other servers: the route table of the
// server-server API, the parsing of requests, the proof of who asks, one call
// into a service, the answer. It holds no rules of rooms and no SQL.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/
package fedapi

import (
	"net/http"
	"strings"
	"time"

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

	traffic traffic
}

// access says who may use a route.
type access int

const (
	public  access = iota // no signature is looked at
	servers               // the request must be signed by a server
)

// The sizes of bodies.
const (
	small  int64 = 1 << 20  // an event with some stripped state, a question
	middle int64 = 4 << 20  // a question for the keys of many users, which takes a hundred times that in memory
	large  int64 = 16 << 20 // a transaction
)

// bodyTime is how long a body may take to arrive.
const bodyTime = time.Minute

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
		pace := http.NewResponseController(w)
		pace.SetReadDeadline(time.Now().Add(bodyTime)) // where that is not supported, there is no deadline
		leave, err := a.admit(rt, r)
		pace.SetReadDeadline(time.Time{})
		if err != nil {
			edge.Fail(w, hr, err)
			return
		}
		defer leave()
		body, err := rt.handle(a, r)
		edge.Answer(w, hr, body, err)
	}
}
