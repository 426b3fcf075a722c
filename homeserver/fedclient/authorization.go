package fedclient

import (
	"errors"
	"fmt"
	"net/http"
	"strings"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

// scheme is the authentication scheme of servers.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#request-authentication
const scheme = "X-Matrix"

// maxAuthorizations is how many signatures of one request are looked at.
const maxAuthorizations = 8

// xmatrix is one Authorization header.
type xmatrix struct {
	origin      matrix.ServerName
	destination matrix.ServerName // "" where the header has none
	key         string
	signature   string
}

// authorization signs a request and writes its header. Body is canonical JSON;
// nil where there is none.
func authorization(key signing.Key, origin, destination matrix.ServerName, method, uri string, body []byte) (string, error) {
	signed := signedRequest(origin, destination, method, uri, body)
	for _, s := range []string{string(origin), string(destination), key.ID} {
		if strings.ContainsAny(s, "\"\\\r\n") {
			return "", fmt.Errorf("%q cannot stand in a header", s)
		}
	}
	return fmt.Sprintf(`%s origin="%s",destination="%s",key="%s",sig="%s"`, scheme, origin, destination, key.ID, key.Sign(signed)), nil
}

// signedRequest is what the signature of a request covers, in canonical JSON.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#request-authentication
func signedRequest(origin, destination matrix.ServerName, method, uri string, body []byte) []byte {
	b := make([]byte, 0, len(body)+len(uri)+200)
	b = append(b, '{')
	if body != nil {
		b = append(append(append(b, `"content":`...), body...), ',')
	}
	b = canonjson.AppendText(append(b, `"destination":`...), string(destination))
	b = canonjson.AppendText(append(b, `,"method":`...), method)
	b = canonjson.AppendText(append(b, `,"origin":`...), string(origin))
	b = canonjson.AppendText(append(b, `,"uri":`...), uri)
	return append(b, '}')
}

// parseAuthorizations reads the X-Matrix headers of a request. Headers of other
// schemes are left out. All must name the same origin, and destination if they
// name one.
func parseAuthorizations(h http.Header) ([]xmatrix, error) {
	var list []xmatrix
	for _, line := range h.Values("Authorization") {
		name, rest, _ := strings.Cut(strings.TrimLeft(line, " \t"), " ")
		if !strings.EqualFold(name, scheme) {
			continue
		}
		x, err := parseXMatrix(rest)
		if err != nil {
			return nil, err
		}
		if len(list) > 0 && (x.origin != list[0].origin || x.destination != list[0].destination) {
			return nil, errors.New("the headers name different servers")
		}
		if list = append(list, x); len(list) > maxAuthorizations {
			return nil, errors.New("too many headers")
		}
	}
	if len(list) == 0 {
		return nil, errors.New("no X-Matrix header")
	}
	return list, nil
}

// parseXMatrix reads the parameters of a header, as RFC 9110 writes them. As
// older servers do, values without quotes may hold what a token may not.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#request-authentication
func parseXMatrix(s string) (xmatrix, error) {
	params, err := parseParams(s)
	if err != nil {
		return xmatrix{}, err
	}
	x := xmatrix{key: params["key"], signature: params["sig"]}
	if other, ok := params["signature"]; ok && x.signature == "" { // what the list of parameters calls it
		x.signature = other
	}
	if x.origin, err = matrix.ParseServerName(params["origin"]); err != nil {
		return xmatrix{}, errors.New("origin is no server name")
	}
	if d, ok := params["destination"]; ok {
		if x.destination, err = matrix.ParseServerName(d); err != nil {
			return xmatrix{}, errors.New("destination is no server name")
		}
	}
	if x.key == "" || x.signature == "" {
		return xmatrix{}, errors.New("no key or sig")
	}
	return x, nil
}

// parseParams reads a list of name=value pairs with commas between them. Names
// become lower case; none may be there twice. Empty elements are passed over.
func parseParams(s string) (map[string]string, error) {
	params := map[string]string{}
	for {
		s = strings.TrimLeft(s, " \t")
		if s == "" {
			return params, nil
		}
		if s[0] == ',' {
			s = s[1:]
			continue
		}
		end := 0
		for end < len(s) && tokenChar(s[end]) {
			end++
		}
		name := strings.ToLower(s[:end])
		s = strings.TrimLeft(s[end:], " \t")
		if name == "" || s == "" || s[0] != '=' {
			return nil, errors.New("expected name=value")
		}
		value, rest, err := parseValue(strings.TrimLeft(s[1:], " \t"))
		if err != nil {
			return nil, err
		}
		if _, twice := params[name]; twice {
			return nil, fmt.Errorf("%s is there twice", name)
		}
		params[name] = value
		if s = strings.TrimLeft(rest, " \t"); s != "" && s[0] != ',' {
			return nil, errors.New("expected a comma")
		}
	}
}

// parseValue reads a quoted string, or what stands before the next comma or
// space.
func parseValue(s string) (value, rest string, err error) {
	if s == "" || s[0] != '"' {
		end := 0
		for end < len(s) && s[end] > ' ' && s[end] < 0x7f && s[end] != ',' && s[end] != '"' && s[end] != '\\' {
			end++
		}
		if end == 0 {
			return "", "", errors.New("expected a value")
		}
		return s[:end], s[end:], nil
	}
	var b strings.Builder
	for i := 1; i < len(s); i++ {
		switch c := s[i]; {
		case c == '"':
			return b.String(), s[i+1:], nil
		case c == '\\':
			if i++; i == len(s) || s[i] < ' ' && s[i] != '\t' {
				return "", "", errors.New("unfinished quotes")
			}
			b.WriteByte(s[i])
		case c < ' ' && c != '\t' || c == 0x7f:
			return "", "", errors.New("control character")
		default:
			b.WriteByte(c)
		}
	}
	return "", "", errors.New("unfinished quotes")
}

// tokenChar tells whether c may stand in a token of RFC 9110.
func tokenChar(c byte) bool {
	return c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}
