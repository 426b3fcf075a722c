package account

import (
	"context"
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"

	"switchboard/homeserver/matrix"
)

// longestPassword bounds what a password costs to hash, in bytes.
const longestPassword = 512

// Argon2 is what it costs to try a password with argon2id.
type Argon2 struct {
	// Memory is how much memory one try takes, in KiB.
	Memory uint32 `yaml:"memory"`

	// Time is how often the memory is gone through.
	Time uint32 `yaml:"time"`

	// Threads is how many threads work at one try.
	Threads uint8 `yaml:"threads"`
}

const (
	saltLength = 16
	hashLength = 32
)

// phc is a hashed password, of which String is the PHC form:
// "$argon2id$v=19$m=7168,t=5,p=1$salt$hash".
type phc struct {
	Argon2
	salt, hash []byte
}

func (p phc) String() string {
	b64 := base64.RawStdEncoding.EncodeToString
	return fmt.Sprintf("$argon2id$v=%d$m=%d,t=%d,p=%d$%s$%s", argon2.Version, p.Memory, p.Time, p.Threads, b64(p.salt), b64(p.hash))
}

// parsePHC reads what String writes, and refuses what would cost too much to
// compare.
func parsePHC(s string) (phc, error) {
	var p phc
	parts := strings.Split(s, "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != fmt.Sprintf("v=%d", argon2.Version) {
		return p, fmt.Errorf("not an argon2id hash")
	}
	if _, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.Memory, &p.Time, &p.Threads); err != nil {
		return p, fmt.Errorf("parameters of argon2id: %w", err)
	}
	var err error
	if p.salt, err = base64.RawStdEncoding.Strict().DecodeString(parts[4]); err != nil {
		return p, fmt.Errorf("salt: %w", err)
	}
	if p.hash, err = base64.RawStdEncoding.Strict().DecodeString(parts[5]); err != nil {
		return p, fmt.Errorf("hash: %w", err)
	}
	if p.Memory > 1<<20 || p.Time < 1 || p.Time > 64 || p.Threads < 1 || len(p.salt) < 8 || len(p.salt) > 64 || len(p.hash) < 16 || len(p.hash) > 64 || p.String() != s {
		return p, fmt.Errorf("argon2id with parameters out of range")
	}
	return p, nil
}

// hasher bounds how many passwords are hashed at a time, because each takes
// its memory and a processor.
type hasher struct {
	once  sync.Once
	slots chan struct{}
}

// run computes an argon2id hash when there is room for it.
func (h *hasher) run(ctx context.Context, password string, p phc) ([]byte, error) {
	h.once.Do(func() { h.slots = make(chan struct{}, runtime.GOMAXPROCS(0)) })
	select {
	case h.slots <- struct{}{}:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	defer func() { <-h.slots }()
	return argon2.IDKey([]byte(password), p.salt, p.Time, p.Memory, p.Threads, uint32(len(p.hash))), nil
}

// hash makes the PHC string of a new password.
func (s *Service) hash(ctx context.Context, password string) (string, error) {
	p := phc{Argon2: s.Config.Hash, salt: make([]byte, saltLength), hash: make([]byte, hashLength)}
	rand.Read(p.salt) // never fails
	var err error
	if p.hash, err = s.hashing.run(ctx, password, p); err != nil {
		return "", err
	}
	return p.String(), nil
}

// matches tells whether password is the one that was hashed, and whether it
// should be hashed anew because the parameters have changed. Where nothing was
// hashed it takes as long and says no, so that the time does not tell who has
// an account.
func (s *Service) matches(ctx context.Context, password, hashed string) (ok, stale bool, err error) {
	none := hashed == "" || len(password) > longestPassword
	p := phc{Argon2: s.Config.Hash, salt: make([]byte, saltLength), hash: make([]byte, hashLength)}
	if none {
		password = ""
	} else if p, err = parsePHC(hashed); err != nil {
		return false, false, err
	}
	got, err := s.hashing.run(ctx, password, p)
	if err != nil {
		return false, false, err
	}
	same := subtle.ConstantTimeCompare(got, p.hash) == 1
	return same && !none, p.Argon2 != s.Config.Hash, nil
}

// acceptable tells what is wrong with a new password.
func (s *Service) acceptable(password string) error {
	switch {
	case password == "":
		return matrix.Errorf(matrix.MissingParam, "a password is needed")
	case len(password) > longestPassword:
		return matrix.Errorf(matrix.InvalidParam, "the password is longer than %d bytes", longestPassword)
	case utf8.RuneCountInString(password) < s.Config.PasswordLength:
		return matrix.Errorf(matrix.WeakPassword, "the password needs at least %d characters", s.Config.PasswordLength)
	}
	return nil
}
