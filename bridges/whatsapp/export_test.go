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

// NewWaiting is New that waits for more parts of the past for a time.
func NewWaiting(config Config, pause time.Duration) *Connector {
	c := New(config)
	c.historyPause = pause
	return c
}

// Kept is how many messages of the past wait to be brought into rooms.
func (c *Connector) Kept(ctx context.Context) (n int, err error) {
	return n, c.br.DB.QueryRow(ctx, `SELECT COUNT(*) FROM whatsapp_history`).Scan(&n)
}

// Happen gives the sessions of all logins an event of the connection, as
// whatsmeow does, which may be late with it.
func (c *Connector) Happen(e any) {
	for _, login := range c.br.GetAllCachedUserLogins() {
		login.Client.(*session).handle(c.br.BackgroundCtx, e)
	}
}

// Rest waits until no session waits any more to connect again.
func (c *Connector) Rest() {
	for _, login := range c.br.GetAllCachedUserLogins() {
		login.Client.(*session).work.Wait()
	}
}
