package hostile

import (
	"bufio"
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"time"
)

// request is an HTTP/1.1 request, written as it stands: nothing of it is
// escaped, checked or completed, except that Content-Length is added when the
// headers tell no length.
type request struct {
	kind   string
	method string
	target string // path and query as they go over the wire
	header []string
	body   []byte
	// cut ends the sending after the body, for requests that promise more.
	cut bool
	// malformed is set if only 4xx is a right answer. Without it, what came out
	// of the mutation may be harmless.
	malformed bool
	// wire is set if the request is no HTTP, so that an answer in JSON cannot
	// be expected.
	wire bool
}

func (r request) bytes() []byte {
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\n", r.method, r.target)
	length := len(r.body) > 0 || r.method == "POST" || r.method == "PUT"
	for _, h := range append([]string{"Host: localhost", "Connection: close"}, r.header...) {
		b.WriteString(h + "\r\n")
		name := strings.ToLower(h)
		if strings.HasPrefix(name, "content-length") || strings.HasPrefix(name, "transfer-encoding") {
			length = false
		}
	}
	if length {
		fmt.Fprintf(&b, "Content-Length: %d\r\n", len(r.body))
	}
	b.WriteString("\r\n")
	b.Write(r.body)
	return b.Bytes()
}

// String shows the request, shortened, so that it can be read in a failure.
func (r request) String() string {
	b := r.bytes()
	if len(b) > 600 {
		return fmt.Sprintf("[%s] %q … (%d bytes)", r.kind, b[:600], len(b))
	}
	return fmt.Sprintf("[%s] %q", r.kind, b)
}

// answer is what came back.
type answer struct {
	status int
	kind   string // Content-Type
	body   []byte
}

// send makes a connection for the request and returns the answer.
func (r request) send(address string) (answer, error) {
	c, err := net.Dial("tcp", address)
	if err != nil {
		return answer{}, err
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Minute))
	go func() { // the server may answer, and stop reading, before everything is sent
		c.Write(r.bytes())
		if r.cut {
			c.(*net.TCPConn).CloseWrite()
		}
	}()
	resp, err := http.ReadResponse(bufio.NewReader(c), &http.Request{Method: r.method})
	if err != nil {
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return answer{}, err
	}
	return answer{resp.StatusCode, resp.Header.Get("Content-Type"), body}, nil
}

// errcodes have this form.
var errcode = regexp.MustCompile(`^M_[A-Z]+(_[A-Z]+)*$`)

// fault says what is wrong with the answer to r, "" if nothing is.
func (a answer) fault(r request) string {
	switch {
	case a.status >= 500:
		return "server error"
	case r.wire && a.status >= 400:
		return ""
	case a.status < 400 && r.malformed:
		return "accepted"
	case a.status < 400:
		return ""
	case a.kind != "application/json":
		return "not application/json"
	}
	var said struct {
		Code    string          `json:"errcode"`
		Error   *string         `json:"error"`
		Flows   json.RawMessage `json:"flows"`
		Session string          `json:"session"`
	}
	if err := json.Unmarshal(a.body, &said); err != nil {
		return "not JSON: " + err.Error()
	}
	if a.status == http.StatusUnauthorized && said.Code == "" && said.Flows != nil && said.Session != "" {
		return "" // the challenge of user-interactive authentication
	}
	if !errcode.MatchString(said.Code) || said.Error == nil {
		return "no proper errcode and error"
	}
	if lost := said.Code == "M_UNKNOWN_TOKEN" || said.Code == "M_LIMIT_EXCEEDED"; lost && r.kind != tokens {
		return "the request was not looked at"
	}
	return ""
}
