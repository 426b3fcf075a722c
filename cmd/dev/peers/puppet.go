package peers

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"io"
	"log"
	"math/big"
	"net"
	"net/http"
	"time"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

// Puppet is a server that only seems to be one: it publishes a key, with which
// the caller signs events of its users, and takes whatever it is sent.
type Puppet struct {
	Name matrix.ServerName
	Key  signing.Key

	server http.Server
}

// NewPuppet serves a puppet at an IP address of the loopback interface, under a
// name that is its address.
func NewPuppet(ctx context.Context, a *Authority, host string) (*Puppet, error) {
	key, err := signing.Generate()
	if err != nil {
		return nil, err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp4", net.JoinHostPort(host, "0"))
	if err != nil {
		return nil, err
	}
	certificate, err := a.certify(host)
	if err != nil {
		return nil, err
	}
	p := &Puppet{Name: matrix.ServerName(l.Addr().String()), Key: key}
	keys, err := p.keys()
	if err != nil {
		return nil, err
	}
	mux := http.NewServeMux()
	answer := func(body []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			io.Copy(io.Discard, r.Body) // an error shows in the answer
			w.Header().Set("Content-Type", "application/json")
			w.Write(body)
		}
	}
	mux.HandleFunc("GET /_matrix/key/v2/server", answer(keys))
	mux.HandleFunc("PUT /_matrix/federation/v1/send/{txn}", answer([]byte(`{"pdus":{}}`)))
	p.server = http.Server{Handler: mux, ErrorLog: log.New(io.Discard, "", 0), TLSConfig: &tls.Config{Certificates: []tls.Certificate{certificate}}}
	go p.server.ServeTLS(l, "", "") // until Close
	return p, nil
}

// Close ends the puppet.
func (p *Puppet) Close() error { return p.server.Close() }

// keys is what the server publishes.
func (p *Puppet) keys() ([]byte, error) {
	body, err := json.Marshal(map[string]any{
		"server_name": p.Name, "valid_until_ts": time.Now().Add(24 * time.Hour).UnixMilli(), "old_verify_keys": map[string]any{},
		"verify_keys": map[string]any{p.Key.ID: map[string]any{"key": signing.EncodeBase64(p.Key.Public())}},
	})
	if err != nil {
		return nil, err
	}
	if body, err = canonjson.Canonical(body); err != nil {
		return nil, err
	}
	return signing.SignJSON(body, p.Name, p.Key)
}

// certify makes a certificate for an IP address.
func (a *Authority) certify(host string) (tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return tls.Certificate{}, err
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 100))
	if err != nil {
		return tls.Certificate{}, err
	}
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: host},
		NotBefore: a.certificate.NotBefore, NotAfter: a.certificate.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.ParseIP(host)},
	}, a.certificate, key.Public(), a.key)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}, err
}
