package voip

import (
	"context"
	"crypto/hmac"
	"crypto/md5"
	"crypto/rand"
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pion/stun/v3"
)

// Credentials are what a client needs for a TURN server.
type Credentials struct {
	Username string
	Password string
	URIs     []string      // "turn:host:port?transport=udp" and the like, the best first
	TTL      time.Duration // for how long they are good
}

// Secret signs credentials.
type Secret struct {
	Value []byte
	Made  time.Time // since when credentials are signed by it
}

// Vault keeps secrets where they outlive the process.
type Vault interface {
	// Secrets are all that are kept, the newest first.
	Secrets(ctx context.Context) ([]Secret, error)

	// AddSecret keeps one more, and forgets those made before a time.
	AddSecret(ctx context.Context, s Secret, before time.Time) error
}

// rotation is how long new credentials are signed by the same secret, or for as
// long as they last, if that is longer.
const rotation = 7 * 24 * time.Hour

// restUsername is a name of the TURN REST API, which holds when it ends.
func restUsername(user string, ends time.Time) string {
	return strconv.FormatInt(ends.Unix(), 10) + ":" + user
}

// restPassword is the password of such a name: its HMAC.
func restPassword(secret []byte, username string) string {
	mac := hmac.New(sha1.New, secret)
	mac.Write([]byte(username))
	return base64.StdEncoding.EncodeToString(mac.Sum(nil))
}

// longTermKey is the key of a user name and a password in STUN.
func longTermKey(username, realm, password string) []byte {
	sum := md5.Sum([]byte(username + ":" + realm + ":" + password))
	return sum[:]
}

// parseUsername takes "expiry:user" apart. Prosody, and so Jitsi, leaves the user
// out; then each name counts as a user of its own.
func parseUsername(username string) (user string, ends time.Time, ok bool) {
	number, user, named := strings.Cut(username, ":")
	n, err := strconv.ParseInt(number, 10, 64)
	if err != nil || n <= 0 {
		return "", time.Time{}, false
	}
	if !named {
		user = username
	}
	return user, time.Unix(n, 0), true
}

// issuer makes credentials and knows those that it made.
type issuer struct {
	vault    Vault
	realm    string
	lifetime time.Duration
	shared   []string

	mu      sync.RWMutex // tier 3; guards secrets
	secrets []Secret     // the newest first
}

// refresh reads the secrets, and makes one if the newest is old. It is to be
// called at start and from time to time.
func (i *issuer) refresh(ctx context.Context) error {
	secrets, err := i.vault.Secrets(ctx)
	if err != nil {
		return fmt.Errorf("turn secrets: %w", err)
	}
	now := time.Now()
	if len(secrets) == 0 || now.Sub(secrets[0].Made) > max(rotation, i.lifetime) {
		fresh := Secret{Value: []byte(rand.Text() + rand.Text()), Made: now}
		// The one before is in use until its credentials end; older ones are not.
		before := now
		if len(secrets) > 0 {
			before = secrets[0].Made
		}
		if err := i.vault.AddSecret(ctx, fresh, before); err != nil {
			return fmt.Errorf("turn secrets: %w", err)
		}
		secrets = append([]Secret{fresh}, secrets[:min(1, len(secrets))]...)
	}
	i.mu.Lock()
	i.secrets = secrets
	i.mu.Unlock()
	return nil
}

// issue makes credentials for a user.
func (i *issuer) issue(user string) (username, password string) {
	i.mu.RLock()
	defer i.mu.RUnlock()
	username = restUsername(user, time.Now().Add(i.lifetime))
	return username, restPassword(i.secrets[0].Value, username)
}

// keys are those that a user name may have: one for each secret by which it can
// have been signed. There are none if it is no name of ours, or has ended.
func (i *issuer) keys(username string) [][]byte {
	now := time.Now()
	_, ends, ok := parseUsername(username)
	if !ok || !ends.After(now) {
		return nil
	}
	i.mu.RLock()
	defer i.mu.RUnlock()
	var list [][]byte
	add := func(secret []byte) {
		list = append(list, longTermKey(username, i.realm, restPassword(secret, username)))
	}
	for n, s := range i.secrets {
		// An old secret is honoured for what it can have signed while it was new.
		if n == 0 || !ends.After(i.secrets[n-1].Made.Add(i.lifetime)) {
			add(s.Value)
		}
	}
	for _, s := range i.shared {
		add([]byte(s))
	}
	return list
}

// signed gives the key of a user name by which a message is signed, or nil.
func (i *issuer) signed(m *stun.Message, username string) []byte {
	for _, key := range i.keys(username) {
		if stun.MessageIntegrity(key).Check(m) == nil {
			return key
		}
	}
	return nil
}

// memoryVault keeps secrets no longer than the process: for tests and tools.
type memoryVault struct {
	mu      sync.Mutex // tier 3; guards secrets
	secrets []Secret
}

// Secrets implements Vault.
func (v *memoryVault) Secrets(context.Context) ([]Secret, error) {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.secrets), nil
}

// AddSecret implements Vault.
func (v *memoryVault) AddSecret(_ context.Context, s Secret, before time.Time) error {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.secrets = append([]Secret{s}, slices.DeleteFunc(v.secrets, func(old Secret) bool { return old.Made.Before(before) })...)
	return nil
}
