package push

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"html/template"
	"net/http"
	"net/url"
	"strings"

	"github.com/rs/zerolog"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// UnsubscribePath is where Unsubscribe is served.
const UnsubscribePath = "/_switchboard/mail/unsubscribe"

// subscription names a pusher in a link.
type subscription struct {
	User    matrix.UserID `json:"u"`
	App     string        `json:"a"`
	Address string        `json:"k"`
}

// unsubscribeURL is the link that ends a pusher, for who has no session.
func (m *Mail) unsubscribeURL(p store.Pusher) string {
	b, err := json.Marshal(subscription{p.User, p.AppID, p.Pushkey})
	if err != nil {
		panic(err) // three strings
	}
	token := base64.RawURLEncoding.EncodeToString(b) + "." + base64.RawURLEncoding.EncodeToString(m.sign(b))
	return m.PublicURL + UnsubscribePath + "?token=" + url.QueryEscape(token)
}

func (m *Mail) sign(b []byte) []byte {
	h := hmac.New(sha256.New, m.Secret)
	h.Write(b)
	return h.Sum(nil)
}

// subscription reads the token of a link that this server has made.
func (m *Mail) subscription(token string) (s subscription, ok bool) {
	payload, mac, _ := strings.Cut(token, ".")
	b, err := base64.RawURLEncoding.DecodeString(payload)
	if err != nil {
		return s, false
	}
	sum, err := base64.RawURLEncoding.DecodeString(mac)
	if err != nil || !hmac.Equal(sum, m.sign(b)) {
		return s, false
	}
	return s, json.Unmarshal(b, &s) == nil
}

var unsubscribePage = template.Must(template.New("").Parse(`<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1"><meta name="color-scheme" content="light dark"><meta name="referrer" content="no-referrer">
<title>E-mail notifications</title>
<style>
body { font: 16px/1.5 system-ui, sans-serif; max-width: 34rem; margin: 3rem auto; padding: 0 1rem; overflow-wrap: anywhere; }
button { padding: .6rem 1.1rem; font: inherit; font-weight: 600; color: #fff; background: #0b7a75; border: 0; border-radius: 9px; cursor: pointer; }
</style></head>
<body>
<h1 style="font-size: 1.3rem">E-mail notifications</h1>
{{if .Wrong}}<p>This link is not complete, or not from this server. E-mail notifications can also be turned off in the settings of your app.</p>
{{else if .Done}}<p>{{.Address}} gets no more notifications about {{.User}}. They can be turned on again in the settings of the app.</p>
{{else}}<p>No more e-mail to {{.Address}} about unread messages of {{.User}}?</p>
<form method="post"><button>End the notifications</button></form>
{{end}}</body>
</html>
`))

// Unsubscribe serves UnsubscribePath: a page that asks, and the POST that ends a
// pusher, by its button or by a mail program's (RFC 8058). It wants no login: the
// link is signed. A GET changes nothing, since programs follow links in e-mail.
func (s *Service) Unsubscribe() http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		for key, value := range map[string]string{
			"Content-Type": "text/html; charset=utf-8", "Cache-Control": "no-store", "Referrer-Policy": "no-referrer", "X-Robots-Tag": "noindex",
			"Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; form-action 'self'; frame-ancestors 'none'",
		} {
			w.Header().Set(key, value)
		}
		var page struct {
			subscription
			Wrong, Done bool
		}
		sub, ok := s.Mail.subscription(r.URL.Query().Get("token"))
		page.subscription, page.Wrong = sub, !ok
		switch {
		case !ok:
			w.WriteHeader(http.StatusNotFound)
		case r.Method == http.MethodPost:
			if err := s.unsubscribe(r.Context(), sub); err != nil {
				zerolog.Ctx(r.Context()).Error().Err(err).Str("user", string(sub.User)).Msg("cannot end e-mail notifications")
				http.Error(w, "this does not work just now; please try again", http.StatusInternalServerError)
				return
			}
			page.Done = true
		case r.Method != http.MethodGet && r.Method != http.MethodHead:
			w.Header().Set("Allow", "GET, HEAD, POST")
			w.WriteHeader(http.StatusMethodNotAllowed)
			return
		}
		unsubscribePage.Execute(w, page) // whoever asked is gone if this fails
	})
}

func (s *Service) unsubscribe(ctx context.Context, sub subscription) error {
	defer s.Bell.Ring(store.PushersBell)
	return s.Store.Update(ctx, func(tx *store.Tx) error { return tx.DeletePusher(ctx, sub.User, sub.App, sub.Address) })
}
