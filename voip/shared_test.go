package voip

import (
	"bytes"
	"fmt"
	"testing"
	"time"
)

// TestSharedSecret knows credentials of programs that share a secret with us:
// Prosody's have no user in the name.
func TestSharedSecret(t *testing.T) {
	now := time.Now()
	i := &issuer{realm: "example.org", shared: []string{"of Jitsi", "of another"}, secrets: []Secret{{Value: []byte("ours"), Made: now}}}
	for _, c := range []struct {
		username, secret string
		user             string
		known            bool
	}{
		{fmt.Sprint(now.Add(time.Hour).Unix()), "of Jitsi", fmt.Sprint(now.Add(time.Hour).Unix()), true},
		{fmt.Sprintf("%d:alice", now.Add(time.Hour).Unix()), "of another", "alice", true},
		{fmt.Sprintf("%d:alice", now.Add(time.Hour).Unix()), "of nobody", "alice", false},
		{fmt.Sprint(now.Add(-time.Hour).Unix()), "of Jitsi", fmt.Sprint(now.Add(-time.Hour).Unix()), false},
		{"alice", "of Jitsi", "", false},
		{"-5", "of Jitsi", "", false},
		{"", "of Jitsi", "", false},
	} {
		if user, _, _ := parseUsername(c.username); user != c.user {
			t.Errorf("%q is of user %q, want %q", c.username, user, c.user)
		}
		key, known := longTermKey(c.username, i.realm, restPassword([]byte(c.secret), c.username)), false
		for _, k := range i.keys(c.username) {
			known = known || bytes.Equal(k, key)
		}
		if known != c.known {
			t.Errorf("%q with the secret %s: known is %v, want %v", c.username, c.secret, known, c.known)
		}
	}
}
