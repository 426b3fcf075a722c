package load

import (
	"context"
	"encoding/json"
)

// Account is a user of a homeserver.
type Account struct {
	ID string // the user ID

	user   user
	client *client
}

// Register makes an account on the server at url with its shared secret.
func Register(ctx context.Context, url, secret, name string) (*Account, error) {
	c := newClient(url)
	c.http.Timeout = 0 // the caller's context bounds the time
	u, err := c.register(ctx, secret, name)
	return &Account{u.id, u, c}, err
}

// Call makes one request with a body of JSON, unless that is nil, and decodes
// the answer into out, unless that is nil. Any answer but 200 is an error.
func (a *Account) Call(ctx context.Context, method, path string, body, out any) error {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return err
		}
	}
	return a.client.call(ctx, method, path, a.user.token, b, out)
}
