package whatsapp

import (
	"context"
	"net"
	"net/http"
	"time"
)

// NewOver is New whose connections to the server of a test are put into wrap.
func NewOver(config Config, wrap func(net.Conn) net.Conn) *Connector {
	c := New(config)
	transport := c.web.Transport.(*http.Transport)
	dial := transport.DialContext
	transport.DialContext = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		if err != nil {
			return nil, err
		}
		return wrap(conn), nil
	}
	return c
}

// NewHasty is New with QR codes of which each is good for a time.
func NewHasty(config Config, each time.Duration) *Connector {
	c := New(config)
	c.codeTime = each
	return c
}
