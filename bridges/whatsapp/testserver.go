package whatsapp

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"errors"
	"net"
	"net/http"
	"strings"

	"go.mau.fi/whatsmeow"
)

// testServer takes the option apart.
func (c Config) testServer() (address string, key []byte, err error) {
	address, digits, _ := strings.Cut(c.TestServer, " ")
	key, err = hex.DecodeString(digits)
	if _, _, wrong := net.SplitHostPort(address); wrong != nil || err != nil || len(key) != len(whatsmeow.WACertPubKey) {
		return "", nil, errors.New("must be host:port, a blank and a key of 64 hexadecimal digits")
	}
	return address, key, nil
}

// web makes the connections to the server of a test; it is nil without one.
// There every host is that server, and its key vouches for it instead of TLS.
func (c Config) web() *http.Client {
	address, key, err := c.testServer()
	if err != nil {
		return nil
	}
	if !bytes.Equal(key, whatsmeow.WACertPubKey[:]) { // others in this process may be reading it
		copy(whatsmeow.WACertPubKey[:], key)
	}
	return &http.Client{Transport: &http.Transport{
		TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // see above
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "tcp", address)
		},
	}}
}
