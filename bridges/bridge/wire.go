package bridge

import (
	"io"
	"net/http"
	"strings"
)

// patientWire is the wire with one answer changed: that a profile has no name
// or avatar is 404 by the specification, but mautrix takes that for a failure
// and never sets the first one. Synapse answers with an empty object; so does
// this.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3profileuseridkeyname
type patientWire struct{ http.RoundTripper }

// RoundTrip implements http.RoundTripper.
func (w patientWire) RoundTrip(r *http.Request) (*http.Response, error) {
	resp, err := w.RoundTripper.RoundTrip(r)
	if err != nil || resp.StatusCode != http.StatusNotFound || r.Method != http.MethodGet || !isProfileField(r.URL.Path) {
		return resp, err
	}
	_ = resp.Body.Close()
	resp.Status, resp.StatusCode = "200 OK", http.StatusOK
	resp.Header = http.Header{"Content-Type": {"application/json"}}
	resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader("{}")), 2
	return resp, nil
}

func isProfileField(path string) bool {
	rest, ok := strings.CutPrefix(path, "/_matrix/client/v3/profile/")
	return ok && (strings.HasSuffix(rest, "/displayname") || strings.HasSuffix(rest, "/avatar_url"))
}
