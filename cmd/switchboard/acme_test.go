package main

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/letsencrypt/pebble/v2/ca"
	"github.com/letsencrypt/pebble/v2/db"
	"github.com/letsencrypt/pebble/v2/va"
	"github.com/letsencrypt/pebble/v2/wfe"
	"github.com/miekg/dns"

	"switchboard/cmd/dev/child"
)

// nameserver says that every name is this computer, over UDP and TCP.
func nameserver(t *testing.T) string {
	t.Helper()
	tcp, err := net.Listen("tcp", "127.0.0.1:"+strconv.Itoa(freePort(t))) // is free for both
	if err != nil {
		t.Fatal(err)
	}
	udp, err := net.ListenPacket("udp", tcp.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	handler := dns.HandlerFunc(func(w dns.ResponseWriter, q *dns.Msg) {
		answer := new(dns.Msg).SetReply(q)
		for _, question := range q.Question {
			if question.Qtype == dns.TypeA {
				answer.Answer = append(answer.Answer, &dns.A{
					Hdr: dns.RR_Header{Name: question.Name, Rrtype: dns.TypeA, Class: dns.ClassINET}, A: net.IPv4(127, 0, 0, 1),
				})
			}
		}
		w.WriteMsg(answer)
	})
	var running sync.WaitGroup
	t.Cleanup(running.Wait)
	for _, server := range []*dns.Server{{Listener: tcp, Handler: handler}, {PacketConn: udp, Handler: handler}} {
		started := make(chan struct{})
		server.NotifyStartedFunc = func() { close(started) }
		running.Go(func() { server.ActivateAndServe() })
		<-started
		t.Cleanup(func() { server.Shutdown() })
	}
	return tcp.Addr().String()
}

// freePort gives a port where nobody listens now.
func freePort(t *testing.T) int {
	t.Helper()
	port, err := child.FreePort()
	if err != nil {
		t.Fatal(err)
	}
	return port
}

// authority is Let's Encrypt's own test server.
func authority(t *testing.T, httpPort, tlsPort int) (directory string, roots *x509.CertPool) {
	t.Helper()
	t.Setenv("PEBBLE_VA_NOSLEEP", "1")
	logger := log.New(io.Discard, "", 0)
	store := db.NewMemoryStore()
	issuing := ca.New(logger, store, "", "ecdsa", 0, 1, map[string]ca.Profile{"default": {Description: "default"}})
	validating := va.New(logger, httpPort, tlsPort, false, nameserver(t), store)
	front := wfe.New(logger, store, validating, issuing, nil, false, false, 1, 1)
	server := httptest.NewTLSServer(front.Handler())
	t.Cleanup(server.Close)
	pemFile := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw})
	if err := os.WriteFile("authority.pem", pemFile, 0o600); err != nil {
		t.Fatal(err)
	}
	roots = x509.NewCertPool()
	roots.AddCert(issuing.GetRootCert(0).Cert)
	return server.URL + wfe.DirectoryPath, roots
}

// TestACME gets a certificate from an authority that asks back: over TLS alone,
// and over plain HTTP.
func TestACME(t *testing.T) {
	for _, plain := range []bool{false, true} {
		name := "TLS"
		if plain {
			name = "HTTP"
		}
		t.Run(name, func(t *testing.T) {
			t.Chdir(t.TempDir())
			tlsPort, httpPort := freePort(t), freePort(t)
			seen := tlsPort // where the authority asks over TLS
			if plain {
				seen = freePort(t) // nobody there
			}
			directory, roots := authority(t, httpPort, seen)
			httpAddress := ""
			if plain {
				httpAddress = "127.0.0.1:" + strconv.Itoa(httpPort)
			}
			s := serve(t, "SWITCHBOARD_SERVER_NAME=hs.example.org", "SWITCHBOARD_ACME_EMAIL=admin@example.org",
				"SWITCHBOARD_ACME_DIRECTORY="+directory, "SWITCHBOARD_ACME_ROOT_CA=authority.pem", "SWITCHBOARD_ACME_HTTP="+httpAddress,
				"SWITCHBOARD_LOG_LEVEL=debug",
				"SWITCHBOARD_LISTENERS=[{address: '127.0.0.1:"+strconv.Itoa(tlsPort)+"', tls: {acme: true}}]")
			client := &http.Client{Transport: &http.Transport{
				TLSClientConfig: &tls.Config{RootCAs: roots, ServerName: "hs.example.org"}, DisableKeepAlives: true,
			}}
			// What fails once is tried again after a minute, and then after two more.
			for deadline := time.Now().Add(3 * patience); ; time.Sleep(20 * time.Millisecond) {
				a, err := client.Get(s.url + "/health")
				if err == nil {
					a.Body.Close()
					break
				}
				if time.Now().After(deadline) {
					t.Fatalf("no certificate: %v\n%s", err, &s.err)
				}
			}
			if !plain {
				return
			}
			direct := &http.Client{
				CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
				Transport:     &http.Transport{DisableKeepAlives: true},
			}
			a, err := direct.Get("http://" + httpAddress + "/some/path?x=1")
			if err != nil {
				t.Fatal(err)
			}
			a.Body.Close()
			if to := a.Header.Get("Location"); a.StatusCode != http.StatusMovedPermanently || !strings.HasSuffix(to, "/some/path?x=1") || !strings.HasPrefix(to, "https://") {
				t.Errorf("plain HTTP: %d to %s", a.StatusCode, to)
			}
		})
	}
}
