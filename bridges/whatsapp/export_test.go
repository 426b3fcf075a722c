package whatsapp

import (
	"context"
	"net"
	"net/http"
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
