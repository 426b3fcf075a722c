package bridge

import (
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/event"
)

// The marks that events bear in this process, in their content.
const (
	againMark = "switchboard.again"
	laterMark = "switchboard.later"
)

// Again reports whether an event was cut off when the bridge ended, so that it
// may be on the network already.
func Again(e *event.Event) bool {
	again, _ := e.Content.Raw[againMark].(bool)
	return again
}

// markAgain marks an event for Again.
func markAgain(body json.RawMessage) (json.RawMessage, error) {
	var whole, content map[string]json.RawMessage
	if err := json.Unmarshal(body, &whole); err != nil {
		return nil, err
	}
	if err := json.Unmarshal(whole["content"], &content); err != nil || content == nil {
		return body, nil // a redacted event, or one that is no use
	}
	content[againMark] = json.RawMessage("true")
	whole["content"], _ = json.Marshal(content) // what was parsed can be written
	return json.Marshal(whole)
}

// Later says that the handler of an event ends before it is known what becomes
// of it. The connector tells that later, by SendMessageStatus with a context of
// its own; until then the event is kept.
func Later(e *event.Event) {
	if e.Content.Raw == nil {
		e.Content.Raw = make(map[string]any)
	}
	e.Content.Raw[laterMark] = true
}

// isLater reports whether a request says of an event that it has arrived, which
// the connector does not know yet.
func isLater(ctx context.Context) bool {
	e := bridgev2.GetMatrixEventFromContext(ctx)
	return e != nil && e.Content.Raw[laterMark] == true
}

type onceKey struct{}

// once names what is sent with a context.
type once struct {
	name string

	mu   sync.Mutex // tier 1; guards seen
	seen map[string]int
}

// Once returns a context with which the same message comes to Matrix once, even
// if the bridge ends in the middle and sends it again: what is sent gets
// transaction IDs that follow from the name, which is the network's ID of the
// message. It is for the MutateContextFunc of one event.
func Once(ctx context.Context, name string) context.Context {
	return context.WithValue(ctx, onceKey{}, &once{name: name, seen: make(map[string]int)})
}

// onceWire puts those transaction IDs into requests. A request that is tried
// again keeps its own.
type onceWire struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (w onceWire) RoundTrip(r *http.Request) (*http.Response, error) {
	o, ok := r.Context().Value(onceKey{}).(*once)
	if !ok || r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/send/") && !strings.Contains(r.URL.Path, "/redact/") {
		return w.RoundTripper.RoundTrip(r)
	}
	o.mu.Lock()
	n, known := o.seen[r.URL.Path]
	if !known {
		n = len(o.seen)
		o.seen[r.URL.Path] = n
	}
	o.mu.Unlock()
	sum := sha256.Sum256([]byte(o.name))
	txn := "once-" + base64.RawURLEncoding.EncodeToString(sum[:]) + "-" + strconv.Itoa(n)
	path := r.URL.EscapedPath()
	path = path[:strings.LastIndexByte(path, '/')+1] + txn
	r = r.Clone(r.Context())
	u, err := r.URL.Parse(path)
	if err != nil {
		return nil, err
	}
	u.RawQuery = r.URL.RawQuery
	r.URL, r.RequestURI = u, ""
	return w.RoundTripper.RoundTrip(r)
}

// taken is the answer to what the homeserver is not told.
func taken(r *http.Request) *http.Response {
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader("{}")), ContentLength: 2,
	}
}
