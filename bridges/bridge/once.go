package bridge

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
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
	onceMark  = "switchboard.once"
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

// OnceMark is Once for a message among others that are sent with one context, such
// as those of the past. It belongs into the content of part n, as Extra, and does
// not get to Matrix. What a homeserver takes in one batch has IDs of its own.
func OnceMark(name string, n int) map[string]any { return map[string]any{onceMark: onceID(name, n)} }

// onceID is the transaction ID of the n-th request for a name.
func onceID(name string, n int) string {
	sum := sha256.Sum256([]byte(name))
	return "once-" + base64.RawURLEncoding.EncodeToString(sum[:]) + "-" + strconv.Itoa(n)
}

// onceWire puts those transaction IDs into requests.
type onceWire struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (w onceWire) RoundTrip(r *http.Request) (*http.Response, error) {
	batch := strings.HasSuffix(r.URL.Path, "/batch_send")
	if !batch && (r.Method != http.MethodPut || !strings.Contains(r.URL.Path, "/send/") && !strings.Contains(r.URL.Path, "/redact/")) {
		return w.RoundTripper.RoundTrip(r)
	}
	txn, r, err := unmark(r, batch)
	if err != nil {
		return nil, err
	}
	if o, ok := r.Context().Value(onceKey{}).(*once); ok && txn == "" {
		txn = onceID(o.name, o.number(r.URL.Path))
	}
	if txn == "" || batch {
		return w.RoundTripper.RoundTrip(r)
	}
	path := r.URL.EscapedPath()
	u, err := r.URL.Parse(path[:strings.LastIndexByte(path, '/')+1] + txn)
	if err != nil {
		return nil, err
	}
	u.RawQuery = r.URL.RawQuery
	r = r.Clone(r.Context())
	r.URL, r.RequestURI = u, ""
	return w.RoundTripper.RoundTrip(r)
}

// unmark takes the mark out of a request, or all marks out of a batch, if there are
// any.
func unmark(r *http.Request, batch bool) (txn string, _ *http.Request, _ error) {
	if r.Body == nil {
		return "", r, nil
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return "", r, err
	}
	if marked := bytes.Contains(body, []byte(`"`+onceMark+`"`)); marked && batch {
		body, err = unmarkBatch(body)
	} else if marked {
		txn, body, err = unmarkContent(body)
	}
	if err != nil {
		return "", r, fmt.Errorf("read what is to be sent: %w", err)
	}
	r = r.Clone(r.Context())
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
	return txn, r, nil
}

func unmarkContent(body []byte) (txn string, _ []byte, err error) {
	var content map[string]json.RawMessage
	if err = json.Unmarshal(body, &content); err != nil {
		return "", body, err
	}
	if mark, ok := content[onceMark]; ok {
		err = json.Unmarshal(mark, &txn)
		delete(content, onceMark)
		body, _ = json.Marshal(content) // what was parsed can be written
	}
	return txn, body, err
}

func unmarkBatch(body []byte) ([]byte, error) {
	var batch map[string]json.RawMessage
	var events []map[string]json.RawMessage
	err := json.Unmarshal(body, &batch)
	if err == nil {
		err = json.Unmarshal(batch["events"], &events)
	}
	for _, e := range events {
		if err == nil {
			_, e["content"], err = unmarkContent(e["content"])
		}
	}
	if err != nil {
		return body, err
	}
	batch["events"], _ = json.Marshal(events) // as above
	return json.Marshal(batch)
}

// number counts the requests for a name. One that is tried again keeps its own.
func (o *once) number(path string) int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n, known := o.seen[path]
	if !known {
		n = len(o.seen)
		o.seen[path] = n
	}
	return n
}

// taken is the answer to what the homeserver is not told.
func taken(r *http.Request) *http.Response {
	return &http.Response{
		Status: "200 OK", StatusCode: http.StatusOK, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1, Request: r,
		Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader("{}")), ContentLength: 2,
	}
}
