package bridge

import (
	"fmt"
	"net/http"
	"net/url"
)

// Wire carries a bridge's requests to the homeserver.
type Wire = http.RoundTripper

// Remote is a wire to a homeserver that is another program, at an address such
// as http://127.0.0.1:8008.
func Remote(homeserver string) (Wire, error) {
	u, err := url.Parse(homeserver)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" || u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.User != nil {
		return nil, fmt.Errorf("the homeserver's address %q must be http:// or https://, a host and perhaps a port, such as http://127.0.0.1:8008", homeserver)
	}
	return remote{http.DefaultTransport.(*http.Transport).Clone(), u}, nil
}

// remote sends every request to one server.
type remote struct {
	*http.Transport
	server *url.URL
}

// RoundTrip implements http.RoundTripper.
func (w remote) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.URL.Scheme, r.URL.Host, r.Host = w.server.Scheme, w.server.Host, ""
	return w.Transport.RoundTrip(r)
}
