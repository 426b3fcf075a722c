package account

import (
	"context"
	"errors"
	"strings"
	"testing"
)

// cheap are parameters for tests.
func cheap() Config {
	c := DefaultConfig()
	c.Hash = Argon2{Memory: 64, Time: 1, Threads: 1}
	return c
}

func TestPasswords(t *testing.T) {
	s := &Service{Config: cheap()}
	ctx := t.Context()
	hashed, err := s.hash(ctx, "correct horse")
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := s.hash(ctx, "correct horse"); again == hashed {
		t.Error("no salt")
	}
	if !strings.HasPrefix(hashed, "$argon2id$v=19$m=64,t=1,p=1$") {
		t.Errorf("got %s", hashed)
	}
	for _, tt := range []struct {
		password, hashed string
		ok               bool
	}{
		{"correct horse", hashed, true}, {"Correct horse", hashed, false}, {"", hashed, false},
		{"", "", false}, {"x", "", false}, {strings.Repeat("x", longestPassword+1), hashed, false},
		// From the reference implementation: echo -n password | argon2 somesalt -id -t 2 -k 65536 -p 1 -l 24 -e
		{"password", "$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc", true},
	} {
		ok, stale, err := s.matches(ctx, tt.password, tt.hashed)
		if err != nil || ok != tt.ok {
			t.Errorf("%q against %q: got %v %v", tt.password, tt.hashed, ok, err)
		}
		if wantStale := strings.Contains(tt.hashed, "m=65536"); stale != wantStale {
			t.Errorf("%q: stale %v", tt.hashed, stale)
		}
	}
	if _, _, err := s.matches(ctx, "x", "plain text"); err == nil {
		t.Error("what is no hash was compared")
	}
}

// No more passwords are hashed at a time than there are slots.
func TestHashingIsBounded(t *testing.T) {
	s := &Service{Config: cheap()}
	if _, err := s.hash(t.Context(), "x"); err != nil {
		t.Fatal(err)
	}
	for range cap(s.hashing.slots) {
		s.hashing.slots <- struct{}{}
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.hash(ctx, "x"); !errors.Is(err, context.Canceled) {
		t.Errorf("got %v", err)
	}
}

// FuzzParsePHC checks that an accepted hash comes back the same and costs a
// bounded amount to compare.
func FuzzParsePHC(f *testing.F) {
	f.Add("$argon2id$v=19$m=65536,t=2,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Add("$argon2id$v=19$m=99999999,t=1,p=1$c29tZXNhbHQ$CTFhFdXPJO1aFaMaO6Mm5c8y7cJHAph8ArZWb2GRPPc")
	f.Add("$argon2i$v=19$m=1,t=1,p=1$$")
	f.Fuzz(func(t *testing.T, s string) {
		p, err := parsePHC(s)
		if err != nil {
			return
		}
		if p.String() != s {
			t.Errorf("%q came back as %q", s, p.String())
		}
		if p.Memory > 1<<20 || p.Time > 64 || p.Time < 1 || p.Threads < 1 || len(p.salt) < 8 || len(p.hash) < 16 {
			t.Errorf("%q is out of bounds", s)
		}
	})
}

func TestConfigCheck(t *testing.T) {
	if err := DefaultConfig().Check(); err != nil {
		t.Errorf("the default is wrong: %v", err)
	}
	bad := Config{Mode: "ajar", SharedSecret: "short", PasswordLength: 9999, Terms: []Document{{ID: "x", Version: "1", Texts: map[string]Text{"en": {Name: "X", URL: "nowhere"}}}, {}}}
	err := bad.Check()
	if err == nil {
		t.Fatal("accepted")
	}
	for _, key := range []string{"registration.mode", "registration.shared_secret", "registration.token_lifetime", "registration.password_length", "registration.terms[0].texts.en", "registration.terms[1]", "registration.hash"} {
		if !strings.Contains(err.Error(), key+":") {
			t.Errorf("%s is not named in:\n%v", key, err)
		}
	}
	if strings.Contains(err.Error(), "short") {
		t.Error("the message shows the secret")
	}
}
