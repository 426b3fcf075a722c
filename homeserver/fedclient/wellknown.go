package fedclient

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/matrix"
)

// The bounds of .well-known answers.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#resolving-server-names
const (
	wellKnownTime    = 10 * time.Second // for one answer with its redirects
	maxWellKnown     = 50 << 10         // bytes
	defaultWellKnown = 24 * time.Hour   // how long an answer is kept that does not say
	shortWellKnown   = 5 * time.Minute  // the least that an answer is kept
	longWellKnown    = 48 * time.Hour   // the most
	firstFailure     = time.Minute      // how long it is kept that nothing was heard; each further time doubles it
	firstRefusal     = 10 * time.Minute // the same for an answer that there is no delegation
	longFailure      = time.Hour
)

// wellKnown is what a host's .well-known answered last.
type wellKnown struct {
	server   matrix.ServerName // "" where there is no valid answer
	expires  time.Time         // when to ask again
	until    time.Time         // how long the answer may stand in for one that fails
	failures int               // in a row
}

// errDefinite is in the error of an answer that says that there is no
// delegation, other than one that was not heard.
var errDefinite = errors.New("no delegation")

// wellKnown answers what a host delegates to. It never fails: a failure is an
// answer without a server.
func (d *discovery) wellKnown(ctx context.Context, host string) *wellKnown {
	old, ok := d.files.Find(host)
	if ok && d.now().Before(old.expires) {
		return old
	}
	if !ok {
		old = &wellKnown{}
	}
	server, life, err := d.fetchWellKnown(ctx, host)
	now := d.now()
	next := &wellKnown{server: server, expires: now.Add(life), until: now.Add(longWellKnown)}
	if err != nil {
		zerolog.Ctx(ctx).Debug().Err(err).Str("server", host).Msg("no .well-known")
		next = &wellKnown{failures: old.failures + 1}
		pause := firstFailure
		if errors.Is(err, errDefinite) {
			pause = firstRefusal
		} else if now.Before(old.until) { // a host that is down did not take back what it said
			next.server, next.until = old.server, old.until
		}
		next.expires = now.Add(min(pause<<min(old.failures, 10), longFailure))
	}
	if ctx.Err() == nil {
		d.files.Put(host, next, 1)
	}
	return next
}

// fetchWellKnown asks a host what it delegates to, and how long that is to be
// kept.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver
func (d *discovery) fetchWellKnown(ctx context.Context, host string) (matrix.ServerName, time.Duration, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+host+"/.well-known/matrix/server", nil)
	if err != nil {
		return "", 0, err
	}
	r.Header.Set("User-Agent", userAgent)
	r.Header.Set("Accept", "application/json")
	resp, err := d.http.Do(r)
	if err != nil {
		return "", 0, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		err := fmt.Errorf("status %d", resp.StatusCode)
		if resp.StatusCode < 500 && resp.StatusCode != http.StatusTooManyRequests {
			err = fmt.Errorf("%w: %w", errDefinite, err)
		}
		return "", 0, err
	}
	body, err := readAll(resp.Body, maxWellKnown)
	if err != nil {
		return "", 0, err
	}
	server, err := parseWellKnown(body)
	if err != nil {
		return "", 0, fmt.Errorf("%w: %w", errDefinite, err)
	}
	return server, lifetime(resp.Header, d.now()), nil
}

// parseWellKnown reads the answer, whatever its content type was.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#getwell-knownmatrixserver
func parseWellKnown(body []byte) (matrix.ServerName, error) {
	var answer map[string]json.RawMessage
	if err := json.Unmarshal(body, &answer); err != nil {
		return "", err
	}
	var name string
	if err := json.Unmarshal(answer["m.server"], &name); err != nil {
		return "", fmt.Errorf("m.server: %w", err)
	}
	server, err := matrix.ParseServerName(name)
	if err != nil {
		return "", err
	}
	if _, port, explicit := splitName(server); explicit && port == 0 {
		return "", errors.New("m.server: there is no port 0")
	}
	return server, nil
}

// lifetime is how long an answer may be kept, by its header and our bounds.
func lifetime(h http.Header, now time.Time) time.Duration {
	life, told := maxAge(h)
	if !told {
		life, told = expiry(h, now)
	}
	if !told {
		return defaultWellKnown
	}
	life = max(life, 0)
	if age, err := strconv.ParseUint(h.Get("Age"), 10, 31); err == nil {
		life -= time.Duration(age) * time.Second
	}
	return min(max(life, shortWellKnown), longWellKnown)
}

// maxAge reads Cache-Control.
func maxAge(h http.Header) (life time.Duration, told bool) {
	for _, line := range h.Values("Cache-Control") {
		for directive := range strings.SplitSeq(line, ",") {
			name, value, _ := strings.Cut(strings.TrimSpace(directive), "=")
			switch strings.ToLower(name) {
			case "no-store", "no-cache":
				return 0, true
			case "max-age":
				n, err := strconv.ParseUint(strings.Trim(value, `"`), 10, 64)
				switch {
				case errors.Is(err, strconv.ErrRange) || err == nil && n > 1<<31:
					n = 1 << 31 // RFC 9111: as long as can be said
				case err != nil:
					n = 0 // RFC 9111: what cannot be read is stale
				}
				if v := time.Duration(n) * time.Second; !told || v < life {
					life = v
				}
				told = true
			}
		}
	}
	return life, told
}

// expiry reads Expires.
func expiry(h http.Header, now time.Time) (life time.Duration, told bool) {
	if len(h.Values("Expires")) == 0 {
		return 0, false
	}
	at, err := http.ParseTime(h.Get("Expires"))
	if err != nil {
		return 0, true // such as "0": it has expired
	}
	if date, err := http.ParseTime(h.Get("Date")); err == nil {
		now = date // the lifetime does not depend on whose clock is right
	}
	return at.Sub(now), true
}

// ErrAnswerSize is in the error of an answer that is larger than allowed.
var ErrAnswerSize = errors.New("the answer is too large")

// readAll reads at most limit bytes.
func readAll(r io.Reader, limit int64) ([]byte, error) {
	body, err := io.ReadAll(io.LimitReader(r, limit+1))
	if err != nil {
		return nil, err
	}
	if int64(len(body)) > limit {
		return nil, ErrAnswerSize
	}
	return body, nil
}
