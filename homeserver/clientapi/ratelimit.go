package clientapi

import (
	"errors"
	"fmt"
	"net/netip"
	"strings"
	"sync"
	"time"

	"switchboard/homeserver/matrix"
)

// Rate allows Burst requests at once and PerSecond on average. The zero value
// allows everything.
type Rate struct {
	// PerSecond is how many are allowed on average; 0 sets no limit.
	PerSecond float64 `yaml:"per_second"`

	// Burst is how many are allowed at once.
	Burst int `yaml:"burst"`
}

// Rates are the limits of one user, or of one address where nobody has logged
// in.
type Rates struct {
	// Login counts logins and refreshed tokens by address.
	Login Rate `yaml:"login"`

	// FailedLogin counts wrong passwords by account.
	FailedLogin Rate `yaml:"failed_login"`

	// Register counts registrations by address.
	Register Rate `yaml:"register"`

	// Message counts events sent by a user, later ones and reports too.
	Message Rate `yaml:"message"`

	// Join counts joins and knocks by a user.
	Join Rate `yaml:"join"`

	// Invite counts invites by a user, those of a new room included: it can be
	// made with no more of them than burst.
	Invite Rate `yaml:"invite"`

	// Create counts rooms made by a user.
	Create Rate `yaml:"create"`

	// Public counts everything else that is asked without a token, by address.
	Public Rate `yaml:"public"`

	// Request counts everything else by a user.
	Request Rate `yaml:"request"`
}

// DefaultRates stop abuse and are not noticed by people.
func DefaultRates() Rates {
	return Rates{
		Login:       Rate{PerSecond: 0.5, Burst: 20},
		FailedLogin: Rate{PerSecond: 0.1, Burst: 6},
		Register:    Rate{PerSecond: 0.2, Burst: 10},
		Message:     Rate{PerSecond: 5, Burst: 50},
		Join:        Rate{PerSecond: 0.5, Burst: 30},
		Invite:      Rate{PerSecond: 1, Burst: 50},
		Create:      Rate{PerSecond: 0.2, Burst: 20},
		Public:      Rate{PerSecond: 50, Burst: 500},
		Request:     Rate{PerSecond: 100, Burst: 1000},
	}
}

// longestFill bounds how long a bucket takes to fill, in seconds: 30 years.
const longestFill = 1e9

// Check returns everything that is wrong, not only the first thing.
func (r Rates) Check() error {
	var errs []error
	for _, f := range []struct {
		key  string
		rate Rate
	}{
		{"login", r.Login}, {"failed_login", r.FailedLogin}, {"register", r.Register}, {"message", r.Message}, {"join", r.Join},
		{"invite", r.Invite}, {"create", r.Create}, {"public", r.Public}, {"request", r.Request},
	} {
		rate := f.rate
		switch {
		case rate.PerSecond < 0:
			errs = append(errs, fmt.Errorf("rate_limits.%s.per_second: must not be negative; 0 sets no limit", f.key))
		case rate.Burst < 0:
			errs = append(errs, fmt.Errorf("rate_limits.%s.burst: must not be negative", f.key))
		case rate.PerSecond > 0 && float64(rate.Burst) > rate.PerSecond*longestFill:
			errs = append(errs, fmt.Errorf("rate_limits.%s.burst: would take more than 30 years to come again at per_second", f.key))
		case rate.PerSecond > 0 && rate.PerSecond*longestFill < 1:
			errs = append(errs, fmt.Errorf("rate_limits.%s.per_second: must be at least 0.000000001; 0 sets no limit", f.key))
		}
	}
	return errors.Join(errs...)
}

// class is what a limit counts.
type class uint8

const (
	classRequest class = iota
	classPublic
	classLogin
	classFailedLogin
	classRegister
	classMessage
	classJoin
	classInvite
	classCreate
	classes // how many there are
)

// classOf gives the class of the patterns that have one of their own.
var classOf = map[string]class{
	"POST /_matrix/client/v3/login":                                                                    classLogin,
	"POST /_matrix/client/v3/refresh":                                                                  classLogin,
	"POST /_matrix/client/v3/register":                                                                 classRegister,
	"GET /_matrix/client/v3/register/available":                                                        classRegister,
	"GET /_matrix/client/v1/register/m.login.registration_token/validity":                              classRegister,
	"POST /_synapse/admin/v1/register":                                                                 classRegister,
	"PUT /_matrix/client/v3/rooms/{roomId}/send/{eventType}/{txnId}":                                   classMessage,
	"POST /_matrix/client/v3/rooms/{roomId}/send/{eventType}":                                          classMessage,
	"PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}":                                          classMessage,
	"PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{$}":                                      classMessage,
	"PUT /_matrix/client/v3/rooms/{roomId}/state/{eventType}/{stateKey}":                               classMessage,
	"PUT /_matrix/client/v3/rooms/{roomId}/redact/{eventId}/{txnId}":                                   classMessage,
	"POST /_matrix/client/v3/rooms/{roomId}/redact/{eventId}":                                          classMessage,
	"PUT /_matrix/client/v3/rooms/{roomId}/delayed_event/{eventType}/{txnId}":                          classMessage,
	"PUT /_matrix/client/unstable/org.matrix.msc4140/rooms/{roomId}/delayed_event/{eventType}/{txnId}": classMessage,
	"POST /_matrix/client/v3/rooms/{roomId}/report/{eventId}":                                          classMessage,
	"POST /_matrix/client/v3/rooms/{roomId}/report":                                                    classMessage,
	"POST /_matrix/client/v3/users/{userId}/report":                                                    classMessage,
	"POST /_matrix/client/unstable/org.matrix.msc4151/rooms/{roomId}/report":                           classMessage,
	"POST /_matrix/client/unstable/org.matrix.msc4260/users/{userId}/report":                           classMessage,
	"POST /_matrix/client/v3/rooms/{roomId}/join":                                                      classJoin,
	"POST /_matrix/client/v3/join/{roomIdOrAlias}":                                                     classJoin,
	"POST /_matrix/client/v3/knock/{roomIdOrAlias}":                                                    classJoin,
	"POST /_matrix/client/v3/rooms/{roomId}/invite":                                                    classInvite,
	"POST /_matrix/client/v3/createRoom":                                                               classCreate,
	"POST /_matrix/client/v3/rooms/{roomId}/upgrade":                                                   classCreate,
}

// mostBuckets bounds each of the two halves of the buckets, about 100 bytes
// each.
const mostBuckets = 1 << 16

// Limits is a bucket of tokens for each user or address and class. A bucket
// that nobody used for long is forgotten, which is as good as full.
type Limits struct {
	rates [classes]Rate

	mu         sync.Mutex // tier 1; guards all below
	young, old map[bucketKey]bucket
}

type bucketKey struct {
	class class
	who   string
}

// bucket is empty at a time; from then on it fills.
type bucket struct{ empty time.Time }

// NewLimits makes limits with nothing counted yet.
func NewLimits(r Rates) *Limits {
	return &Limits{young: make(map[bucketKey]bucket), rates: [classes]Rate{
		classRequest: r.Request, classPublic: r.Public, classLogin: r.Login, classFailedLogin: r.FailedLogin, classRegister: r.Register,
		classMessage: r.Message, classJoin: r.Join, classInvite: r.Invite, classCreate: r.Create,
	}}
}

// limitAddress counts a request of nobody known, by its address. What an
// appservice asks without being a user, such as to register one, is free.
func (a *API) limitAddress(r *request) error {
	if _, err := a.appservice(r); err == nil {
		return nil
	}
	c := classOf[r.Pattern]
	if c == classRequest {
		c = classPublic
	}
	return a.Limits.take(c, network(address(r.Request)), time.Now())
}

// limitUser counts a request of a user. An appservice's own user is free, and
// so are its other users unless the registration says otherwise.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#rate-limiting
func (a *API) limitUser(r *request) error {
	return a.limitMore(r, classOf[r.Pattern], 1)
}

// limitMore counts what a request does beside itself, such as n invitations.
func (a *API) limitMore(r *request, c class, n int) error {
	if reg := r.Appservice; reg != nil && (!reg.RateLimited || string(r.User) == reg.Sender(string(a.ServerName))) {
		return nil
	}
	return a.Limits.takeAll(c, string(r.User), n, time.Now())
}

// network is what is counted of an address: an IPv6 client has at least a /64.
func network(address string) string {
	ip, err := netip.ParseAddr(address)
	if err != nil || ip.Is4() {
		return address
	}
	p, _ := ip.WithZone("").Prefix(64)
	return p.String()
}

// take takes one token out of a bucket, or tells when there will be one.
func (l *Limits) take(c class, who string, now time.Time) error { return l.takeAll(c, who, 1, now) }

// takeAll is take for n tokens, or none of them.
func (l *Limits) takeAll(c class, who string, n int, now time.Time) error {
	if l == nil || l.rates[c].PerSecond <= 0 || n == 0 {
		return nil
	}
	one, full := l.rates[c].times()
	if one *= time.Duration(n); one > full {
		return matrix.Errorf(matrix.InvalidParam, "%d at once is more than this server allows", n)
	}
	k := bucketKey{c, strings.Clone(who)}
	l.mu.Lock()
	defer l.mu.Unlock()
	b := l.bucket(k, now.Add(-full))
	if left := b.empty.Add(one).Sub(now); left > 0 {
		return &matrix.Error{Code: matrix.LimitExceeded, Text: "too many requests", RetryAfter: left}
	}
	l.keep(k, bucket{b.empty.Add(one)})
	return nil
}

// give puts back a token that was taken.
func (l *Limits) give(c class, who string, now time.Time) {
	if l == nil || l.rates[c].PerSecond <= 0 {
		return
	}
	one, full := l.rates[c].times()
	k := bucketKey{c, strings.Clone(who)}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.keep(k, bucket{l.bucket(k, now.Add(-full)).empty.Add(-one)})
}

// times are how long one token takes to come, and a whole bucket.
func (r Rate) times() (one, full time.Duration) {
	one = time.Duration(float64(time.Second) / r.PerSecond)
	return one, one * time.Duration(max(r.Burst, 1))
}

// bucket finds a bucket; one that is full was empty at the time full. l.mu is
// held.
func (l *Limits) bucket(k bucketKey, full time.Time) bucket {
	b, ok := l.young[k]
	if !ok {
		b, ok = l.old[k]
	}
	if !ok || b.empty.Before(full) {
		b.empty = full
	}
	return b
}

// keep remembers a bucket. l.mu is held.
func (l *Limits) keep(k bucketKey, b bucket) {
	if len(l.young) >= mostBuckets {
		l.old, l.young = l.young, make(map[bucketKey]bucket)
	}
	l.young[k] = b
}
