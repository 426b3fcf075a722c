package irc

import (
	"testing"

	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
)

// TestLeaveOffline leaves a channel while there is no connection: whoever is thrown
// out of it later did not want that.
func TestLeaveOffline(t *testing.T) {
	n := New(Config{Networks: []Network{{ID: "net", Name: "Net", Address: "127.0.0.1:1"}}}).networks[0]
	meta := &LoginMetadata{loginData: loginData{Network: "net", Nick: "alice"}}
	s, err := newSession(n, meta)
	if err != nil {
		t.Fatal(err)
	}
	s.login = &bridgev2.UserLogin{UserLogin: &database.UserLogin{ID: "net.alice", Metadata: meta}}
	if err := s.leave(t.Context(), "#go", ""); err != nil {
		t.Fatal(err)
	}
	if len(s.leaving) != 0 {
		t.Errorf("a channel is still about to be left: %v", s.leaving)
	}
}
