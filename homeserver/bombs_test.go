package homeserver_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"runtime"
	"strings"
	"testing"

	"switchboard/homeserver/clientapi"
	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/fedapi"
)

// bomb is a JSON value that costs who reads it more than who sends it.
type bomb struct {
	name, value string
	broken      bool // no JSON that anybody may take
}

func bombs() []bomb {
	const many, deep = 100_000, 30_000
	var keys, same strings.Builder
	for i := range many {
		fmt.Fprintf(&keys, `"%x":1,`, i)
		same.WriteString(`"a":1,`)
	}
	return []bomb{
		{"deep lists", strings.Repeat("[", deep) + strings.Repeat("]", deep), true},
		{"deep objects", strings.Repeat(`{"a":`, deep) + "1" + strings.Repeat("}", deep), true},
		{"lists without an end", strings.Repeat("[", 10*many), true},
		{"broken UTF-8", "\"\xff\xfe\xc0\xaf\"", true},
		{"a great exponent", "1e999999999", false},
		{"a long number", strings.Repeat("9", many), false},
		{"half a character", `"\ud800"`, false},
		{"a NUL", `"\u0000"`, false},
		{"many keys", "{" + keys.String() + `"z":1}`, false},
		{"one key many times", "{" + same.String() + `"a":2}`, false},
		{"a long list", "[" + strings.Repeat("0,", many) + "0]", false},
	}
}

// noJSON are the operations that take any bytes, or look at none.
var noJSON = map[string]bool{
	"uploadContent": true, "uploadContentToMXC": true, "createContent": true, "logout": true, "logout_all": true, "forgetRoom": true,
	"generateLoginToken": true, "onBindThirdPartyIdentifier": true, // which are not for this server to do
}

// TestBombs sends every route that takes a body one that is to hurt, as a whole and
// in the place of each of its fields. What nobody may take is refused, nothing is
// the server's fault, and what a request takes of memory is in proportion.
func TestBombs(t *testing.T) {
	w := newWalk(t, databasetest.SQLite(t))
	all := bombs()
	for _, rt := range clientapi.Routes() {
		target, body := w.request(rt.Operation, rt.Path)
		alice := w.login("alice") // some routes end it
		w.bombard(all, rt.Operation, rt.Method, target, body, func(body string) *httptest.ResponseRecorder {
			return w.ask(rt.Method, target, alice, body)
		})
	}
	for _, rt := range fedapi.Routes() {
		target, body := w.request(rt.Operation, rt.Path)
		w.bombard(all, rt.Operation, rt.Method, target, body, func(body string) *httptest.ResponseRecorder {
			r := httptest.NewRequestWithContext(t.Context(), rt.Method, target, strings.NewReader(body))
			r.Header.Set("Authorization", w.signature(w.eveKey, rt.Method, target, body))
			a := httptest.NewRecorder()
			w.federation.ServeHTTP(a, r)
			return a
		})
	}
	w.must("GET", "/_matrix/client/v3/sync", w.login("alice"), "")
}

// bombard sends a route its bombs.
func (w *walk) bombard(all []bomb, operation, method, target, good string, ask func(body string) *httptest.ResponseRecorder) {
	if method == http.MethodGet || method == http.MethodDelete {
		return
	}
	var fields map[string]json.RawMessage
	w.ok(json.Unmarshal([]byte(good), &fields))
	for _, b := range all {
		bodies := []string{b.value, `{"a":` + b.value + `}`}
		for field := range fields {
			bodies = append(bodies, fmt.Sprintf(`{%q:%s}`, field, b.value))
		}
		for _, body := range bodies {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			a := ask(body)
			runtime.ReadMemStats(&after)
			what := fmt.Sprintf("%s %s: %s in %.20q", method, target, b.name, body)
			if a.Code >= 500 || b.broken && a.Code < 400 && !noJSON[operation] && !strings.HasSuffix(target, "/restart") {
				w.Errorf("%s: %d %s", what, a.Code, a.Body)
			}
			const share, base = 250, 32 << 20 // with what is garbage at once; a short key alone is a hundred bytes of a map
			if used := after.TotalAlloc - before.TotalAlloc; used > uint64(share*len(body)+base) {
				w.Errorf("%s: %d MB of memory for %d kB", what, used>>20, len(body)>>10)
			}
		}
	}
}
