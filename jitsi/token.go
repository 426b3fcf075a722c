package jitsi

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base32"
	"encoding/base64"
	"encoding/json"

	"switchboard/homeserver/matrix"
)

// Authentication is how clients prove at Jitsi that they are in a room, as
// /.well-known/element/jitsi names it.
const Authentication = "openidtoken-jwt"

// Conference is the name of the conference of a room at a Jitsi server that
// verifies members.
func Conference(room matrix.RoomID) string {
	return base32.StdEncoding.WithPadding(base32.NoPadding).EncodeToString([]byte(room))
}

// Credential is what a member brings to Jitsi.
type Credential struct {
	Token  string            `json:"token"` // an OpenID token
	Room   matrix.RoomID     `json:"room_id"`
	Server matrix.ServerName `json:"server_name"` // that made the token
}

// JWT is the credential as clients send it to Jitsi at a domain. Jitsi does not
// look at the signature, so the key is known to all.
func (c Credential) JWT(domain string) string {
	object := func(v any) string {
		b, err := json.Marshal(v)
		if err != nil {
			panic(err) // only strings are in it
		}
		return base64.RawURLEncoding.EncodeToString(b)
	}
	text := object(map[string]string{"alg": "HS256", "typ": "JWT"}) + "." + object(map[string]any{
		"iss": domain, "sub": domain, "aud": "https://" + domain, "room": "*",
		"context": map[string]any{"matrix": c, "user": map[string]string{"name": "", "avatar": ""}},
	})
	mac := hmac.New(sha256.New, []byte("notused"))
	mac.Write([]byte(text))
	return text + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
