// Package identity asks identity servers, which know whose an e-mail address or
// a phone number is. It trusts none of them: a client names the one to ask, and
// brings the token for it. What an answer means for a room, federation decides.
package identity

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"switchboard/homeserver/matrix"
)

// Client asks identity servers. Its methods may be called from several
// goroutines.
type Client struct {
	// HTTP makes the requests. As clients choose whom they go to, it must refuse
	// addresses that are not on the internet, and bound how long a request takes.
	HTTP *http.Client
}

// Server is an identity server that a client names, with the client's token for
// it.
type Server struct {
	Name  matrix.ServerName `json:"id_server"`
	Token string            `json:"id_access_token"`
}

// Address is an e-mail address (medium "email") or a phone number ("msisdn").
type Address struct {
	Medium  string `json:"medium"`
	Address string `json:"address"`
}

// Invitee is whom a client wants to invite, and who may know which user that is.
type Invitee struct {
	Server
	Address
}

// Check tells what is missing, as M_MISSING_PARAM or M_INVALID_PARAM.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#thirdparty_post_matrixclientv3roomsroomidinvite
func (i Invitee) Check() error {
	for _, f := range []struct{ name, value string }{
		{"id_server", string(i.Name)}, {"id_access_token", i.Token}, {"medium", i.Medium}, {"address", i.Address.Address},
	} {
		if f.value == "" {
			return matrix.Errorf(matrix.MissingParam, "%s is missing", f.name)
		}
	}
	if _, err := matrix.ParseServerName(string(i.Name)); err != nil {
		return matrix.Errorf(matrix.InvalidParam, "id_server is not the name of a server, without a scheme and a path")
	}
	return nil
}

// folded is the address as identity servers compare it.
func (a Address) folded() string {
	if a.Medium == "email" {
		return strings.ToLower(a.Address)
	}
	return a.Address
}

// hashed is what a lookup shows instead of the address.
func (a Address) hashed(pepper string) string {
	sum := sha256.Sum256([]byte(a.folded() + " " + a.Medium + " " + pepper))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// Lookup finds the user to whom an address belongs, "" if the server knows none.
func (c *Client) Lookup(ctx context.Context, s Server, a Address) (matrix.UserID, error) {
	for again := false; ; again = true { // the pepper may change in between
		var details struct {
			Algorithms []string `json:"algorithms"`
			Pepper     string   `json:"lookup_pepper"`
		}
		if err := c.call(ctx, s, "GET", "hash_details", nil, &details); err != nil {
			return "", err
		}
		if !slices.Contains(details.Algorithms, "sha256") {
			return "", refused(s, "it hides addresses by no way that this server knows")
		}
		hash := a.hashed(details.Pepper)
		var found struct {
			Mappings map[string]matrix.UserID `json:"mappings"`
		}
		err := c.call(ctx, s, "POST", "lookup", map[string]any{
			"addresses": []string{hash}, "algorithm": "sha256", "pepper": details.Pepper,
		}, &found)
		var answer *answerError
		if errors.As(err, &answer) && answer.Code == "M_INVALID_PEPPER" && !again {
			continue
		}
		if err != nil || found.Mappings[hash] == "" {
			return "", err
		}
		return matrix.ParseUserID(string(found.Mappings[hash]))
	}
}

// Invite is an invitation of an address, with what the mail to it may tell.
type Invite struct {
	Address
	Room      matrix.RoomID    `json:"room_id"`
	Sender    matrix.UserID    `json:"sender"`
	Alias     matrix.RoomAlias `json:"room_alias,omitempty"`
	Avatar    string           `json:"room_avatar_url,omitempty"`
	JoinRule  string           `json:"room_join_rules,omitempty"`
	Name      string           `json:"room_name,omitempty"`
	RoomType  string           `json:"room_type,omitempty"`
	SenderIs  string           `json:"sender_display_name,omitempty"`
	SenderPic string           `json:"sender_avatar_url,omitempty"`
}

// PublicKey is one whose private half signs for who has shown that an address is
// theirs, in base64. At the URL stands whether it still does.
type PublicKey struct {
	Key string `json:"public_key"`
	URL string `json:"key_validity_url,omitempty"`
}

// Stored is an invitation that waits at an identity server.
type Stored struct {
	Token       string      `json:"token"`
	DisplayName string      `json:"display_name"` // tells the room who is invited, and hides the address
	Keys        []PublicKey `json:"public_keys"`  // at least one
}

// StoreInvite leaves an invitation for an address that belongs to no user yet.
// The server writes to the address.
func (c *Client) StoreInvite(ctx context.Context, s Server, in Invite) (*Stored, error) {
	var stored Stored
	if err := c.call(ctx, s, "POST", "store-invite", in, &stored); err != nil {
		return nil, err
	}
	if stored.Token == "" || len(stored.Keys) == 0 || stored.Keys[0].Key == "" {
		return nil, refused(s, "its answer has no token or no key")
	}
	return &stored, nil
}

// Valid asks whether a key still counts. The URL must be one of HTTPS.
func (c *Client) Valid(ctx context.Context, k PublicKey) (bool, error) {
	u, err := url.Parse(k.URL)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return false, matrix.Errorf(matrix.Forbidden, "the key of the invitation has no HTTPS address at which it can be checked")
	}
	q := u.Query()
	q.Set("public_key", k.Key)
	u.RawQuery = q.Encode()
	r, err := http.NewRequestWithContext(ctx, "GET", u.String(), nil)
	if err != nil {
		return false, err
	}
	var answer struct {
		Valid bool `json:"valid"`
	}
	err = c.do(r, matrix.ServerName(u.Host), &answer)
	return answer.Valid, err
}

// call makes one request of the identity service API, version 2.
func (c *Client) call(ctx context.Context, s Server, method, path string, body, answer any) error {
	var b []byte
	if body != nil {
		var err error
		if b, err = json.Marshal(body); err != nil {
			return err
		}
	}
	r, err := http.NewRequestWithContext(ctx, method, "https://"+string(s.Name)+"/_matrix/identity/v2/"+path, bytes.NewReader(b))
	if err != nil {
		return err
	}
	r.Header.Set("Authorization", "Bearer "+s.Token)
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	return c.do(r, s.Name, answer)
}

// largest is the largest answer in bytes.
const largest = 256 << 10

// do makes a request and reads the answer, which is JSON.
func (c *Client) do(r *http.Request, name matrix.ServerName, answer any) error {
	resp, err := c.HTTP.Do(r)
	if err != nil {
		var where *url.Error
		if errors.As(err, &where) {
			err = where.Err // without the URL, which may hold what is nobody's business
		}
		if r.Context().Err() != nil {
			return r.Context().Err()
		}
		return &matrix.Error{Code: matrix.Unknown, Status: 502, Text: fmt.Sprintf("the identity server %s could not be reached", name), Cause: err}
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(io.LimitReader(resp.Body, largest+1))
	if err != nil || len(b) > largest {
		return &matrix.Error{Code: matrix.Unknown, Status: 502, Text: fmt.Sprintf("the answer of the identity server %s is cut off or too long", name), Cause: err}
	}
	if resp.StatusCode != http.StatusOK {
		e := &answerError{Server: name, Status: resp.StatusCode}
		if json.Unmarshal(b, e) != nil {
			e.Code, e.Text = "", ""
		}
		return e.matrix()
	}
	if err := json.Unmarshal(b, answer); err != nil {
		return &matrix.Error{Code: matrix.Unknown, Status: 502, Text: fmt.Sprintf("the identity server %s answers no JSON of the expected shape", name), Cause: err}
	}
	return nil
}

// answerError is what an identity server answers where it does not do what it is
// asked for.
type answerError struct {
	Server matrix.ServerName `json:"-"`
	Status int               `json:"-"`
	Code   matrix.Code       `json:"errcode"`
	Text   string            `json:"error"`
}

func (e *answerError) Error() string {
	return fmt.Sprintf("identity server %s: %d %s", e.Server, e.Status, e.Code)
}

// matrix is the error for the client. It has never the code of a bad token: the
// client would think that its token for this server is.
func (e *answerError) matrix() *matrix.Error {
	text := fmt.Sprintf("the identity server %s says no", e.Server)
	if e.Text != "" && len(e.Text) < 300 {
		text = fmt.Sprintf("%s: %s", text, e.Text)
	}
	switch {
	case e.Status >= 500:
		return &matrix.Error{Code: matrix.Unknown, Status: 502, Text: text, Cause: e}
	case e.Status == http.StatusTooManyRequests:
		return matrix.Errorf(matrix.LimitExceeded, "%s", text)
	case e.Code == "M_TERMS_NOT_SIGNED":
		return &matrix.Error{Code: e.Code, Status: http.StatusForbidden, Text: text}
	}
	return &matrix.Error{Code: matrix.Forbidden, Text: text, Cause: e}
}

// refused is an answer that is of no use.
func refused(s Server, why string) error {
	return &matrix.Error{Code: matrix.Unknown, Status: 502, Text: fmt.Sprintf("the identity server %s is of no use here: %s", s.Name, why)}
}
