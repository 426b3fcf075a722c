package load

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha1"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"
)

// user is an account with its access token.
type user struct{ id, token string }

// client calls one homeserver.
type client struct {
	base string
	http *http.Client
}

func newClient(base string) *client {
	return &client{base, &http.Client{
		Transport: &http.Transport{MaxIdleConnsPerHost: 1024},
		Timeout:   2 * time.Minute,
	}}
}

func (c *client) close() { c.http.CloseIdleConnections() }

// call does one request and decodes a 200 answer into out, unless that is nil.
func (c *client) call(ctx context.Context, method, path, token string, body []byte, out any) error {
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, bytes.NewReader(body))
	if err != nil {
		return err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	if body != nil {
		req.Header.Set("Content-Type", "application/json")
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	answer, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s %s: %d %s", method, path, resp.StatusCode, bytes.TrimSpace(answer))
	}
	if out == nil {
		return nil
	}
	return json.Unmarshal(answer, out)
}

// password is that of every account.
const password = "load-Passw0rd!"

// register makes an account with the shared secret.
func (c *client) register(ctx context.Context, secret, name string) (user, error) {
	const path = "/_synapse/admin/v1/register"
	var n struct{ Nonce string }
	if err := c.call(ctx, "GET", path, "", nil, &n); err != nil {
		return user{}, err
	}
	mac := hmac.New(sha1.New, []byte(secret))
	fmt.Fprintf(mac, "%s\x00%s\x00%s\x00notadmin", n.Nonce, name, password)
	body, err := json.Marshal(map[string]any{
		"nonce": n.Nonce, "username": name, "password": password, "admin": false,
		"mac": hex.EncodeToString(mac.Sum(nil)),
	})
	if err != nil {
		return user{}, err
	}
	var made struct {
		UserID      string `json:"user_id"`
		AccessToken string `json:"access_token"`
	}
	err = c.call(ctx, "POST", path, "", body, &made)
	return user{made.UserID, made.AccessToken}, err
}

// join makes a user a member of a public room.
func (c *client) join(ctx context.Context, u user, room string) error {
	return c.call(ctx, "POST", "/_matrix/client/v3/join/"+url.PathEscape(room), u.token, []byte(`{}`), nil)
}

// answer is what we read of a sync: where to go on, and messages.
type answer struct {
	Next  string `json:"next_batch"`
	Rooms struct {
		Join map[string]struct {
			Timeline struct {
				Events []struct{ Content struct{ Body string } }
			}
		}
	}
}

// bodies returns the texts of a room's messages, in order.
func (a *answer) bodies(room string) []string {
	var list []string
	for _, e := range a.Rooms.Join[room].Timeline.Events {
		if e.Content.Body != "" {
			list = append(list, e.Content.Body)
		}
	}
	return list
}

// sync does one request of a sync loop. Since is empty at the start of it.
func (c *client) sync(ctx context.Context, u user, since, filter string, wait time.Duration) (*answer, error) {
	q := url.Values{"timeout": {fmt.Sprint(wait.Milliseconds())}}
	if since != "" {
		q.Set("since", since)
	}
	if filter != "" {
		q.Set("filter", filter)
	}
	a := new(answer)
	err := c.call(ctx, "GET", "/_matrix/client/v3/sync?"+q.Encode(), u.token, nil, a)
	return a, err
}
