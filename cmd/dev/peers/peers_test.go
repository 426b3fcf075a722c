package peers

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"syscall"
	"testing"

	"switchboard/cmd/dev/instance"
)

// TestServer runs our own program with a certificate of an authority, stops it
// and runs it again under the same name.
func TestServer(t *testing.T) {
	authority, err := NewAuthority()
	if err != nil {
		t.Fatal(err)
	}
	s, err := New(t.Context(), Switchboard(instance.Binary(t)), Options{Dir: t.TempDir(), Authority: authority})
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(authority.certificate)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots}}
	defer transport.CloseIdleConnections()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		if err := s.Start(t.Context()); err != nil {
			t.Fatal(err)
		}
		resp, err := (&http.Client{Transport: transport}).Get("https://" + s.Name + "/_matrix/federation/v1/version")
		if err != nil {
			t.Fatalf("%v\n%s", err, s.Log())
		}
		resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Errorf("federation answers %s", resp.Status)
		}
		if err := s.Stop(signal); err != nil {
			t.Error(err)
		}
		if resp, err := (&http.Client{Transport: transport}).Get("https://" + s.Name + "/"); err == nil {
			resp.Body.Close()
			t.Error("a server that was stopped answers")
		}
	}
}
