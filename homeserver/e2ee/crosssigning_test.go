package e2ee

import (
	"encoding/json"
	"strings"
	"testing"

	"switchboard/homeserver/matrix"
)

func TestCrossSigning(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		keys := crossSigning(t, alice, "alice")
		need := func(c CrossSigning, want bool) {
			t.Helper()
			if got, err := s.NeedsConfirmation(t.Context(), alice, c); err != nil || got != want {
				t.Errorf("needs confirmation: %v, %v; want %v", got, err, want)
			}
		}
		upload := func(c CrossSigning, want matrix.Code) {
			t.Helper()
			if err := s.UploadCrossSigning(t.Context(), alice, c); code(t, err) != want {
				t.Errorf("got %v, want %q", err, want)
			}
		}
		need(keys, false)
		upload(CrossSigning{SelfSigning: keys.SelfSigning}, matrix.MissingParam)
		upload(keys, "")
		need(keys, false)
		need(CrossSigning{Master: keys.Master}, false)
		other := crossSigning(t, alice, "other")
		need(other, true)
		need(CrossSigning{Master: keys.Master, SelfSigning: other.SelfSigning}, true)

		upload(CrossSigning{SelfSigning: other.SelfSigning}, matrix.InvalidSignature)
		upload(CrossSigning{Master: json.RawMessage(crossJSON(bob, "master", "x"))}, matrix.InvalidParam)
		upload(CrossSigning{Master: json.RawMessage(crossJSON(alice, "self_signing", "x"))}, matrix.InvalidParam)
		upload(CrossSigning{Master: json.RawMessage(strings.Replace(crossJSON(alice, "master", "x"), "ed25519:", "ed25519:x", 1))}, matrix.InvalidParam)
		upload(CrossSigning{Master: json.RawMessage(`7`)}, matrix.BadJSON)

		// The user-signing key is seen by its owner alone.
		if got := s.query1(t, alice, alice); got["master"] != string(keys.Master) && got["user"] == "" {
			t.Errorf("got %s", got)
		}
		if got := s.query1(t, bob, alice); got["user"] != "" || got["self"] == "" || got["master"] == "" {
			t.Errorf("got %s", got)
		}
		if err := s.UploadCrossSigning(t.Context(), alice, other); err != nil {
			t.Fatal(err)
		}
		if got := s.query1(t, bob, alice); !strings.Contains(got["master"], public("other master")) {
			t.Errorf("got %s", got["master"])
		}
	})
}

func TestSignatures(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		device := deviceJSON(t, alice, "A1", "a1")
		if _, err := s.Upload(t.Context(), alice, "A1", Upload{DeviceKeys: json.RawMessage(device)}); err != nil {
			t.Fatal(err)
		}
		for _, u := range []matrix.UserID{alice, bob} {
			if err := s.UploadCrossSigning(t.Context(), u, crossSigning(t, u, u.Localpart())); err != nil {
				t.Fatal(err)
			}
		}
		bySelf, byUser := "ed25519:"+public("alice self"), "ed25519:"+public("alice user")
		master := crossJSON(alice, "master", "alice master")
		bobMaster := crossJSON(bob, "master", "bob master")
		tests := []struct {
			name   string
			signer matrix.UserID
			user   matrix.UserID
			key    string
			obj    string
			want   matrix.Code
		}{
			{"device by the self-signing key", alice, alice, "A1", sign(t, device, alice, bySelf, "alice self"), ""},
			{"master by the device", alice, alice, public("alice master"), sign(t, master, alice, "ed25519:A1", "a1"), ""},
			{"another's master by the user-signing key", alice, bob, public("bob master"), sign(t, bobMaster, alice, byUser, "alice user"), ""},
			{"device by the user-signing key", alice, alice, "A1", sign(t, device, alice, byUser, "alice user"), matrix.InvalidSignature},
			{"wrong signature", alice, alice, "A1", sign(t, device, alice, bySelf, "bob self"), matrix.InvalidSignature},
			{"other content", alice, alice, "A1", sign(t, strings.Replace(device, "aes-sha2", "x", 1), alice, bySelf, "alice self"), matrix.InvalidSignature},
			{"unknown device", alice, alice, "A9", sign(t, device, alice, bySelf, "alice self"), matrix.NotFound},
			{"another's device", bob, alice, "A1", sign(t, device, bob, "ed25519:"+public("bob user"), "bob user"), matrix.NotFound},
			{"in another's name", bob, alice, public("alice master"), sign(t, master, alice, "ed25519:A1", "a1"), matrix.InvalidSignature},
			{"no object", alice, alice, "A1", `[]`, matrix.BadJSON},
		}
		for _, tt := range tests {
			failures, err := s.UploadSignatures(t.Context(), tt.signer, Signatures{tt.user: {tt.key: json.RawMessage(tt.obj)}})
			if err != nil {
				t.Fatal(err)
			}
			var got matrix.Code
			if e := failures[tt.user][tt.key]; e != nil {
				got = e.Code
			}
			if got != tt.want {
				t.Errorf("%s: got %v, want %q", tt.name, failures, tt.want)
			}
		}
		has := func(observer, user matrix.UserID, key, keyID string, want bool) {
			t.Helper()
			if got := s.query1(t, observer, user)[key]; strings.Contains(got, `"`+keyID+`":"`) != want {
				t.Errorf("%s sees of %s %s: %s", observer, user, key, got)
			}
		}
		has(bob, alice, "A1", bySelf, true)
		has(bob, alice, "master", "ed25519:A1", true)
		has(alice, bob, "master", byUser, true)
		has(bob, bob, "master", byUser, false) // nobody sees who verified them

		// With a new self-signing key the old one's signatures are gone.
		if err := s.UploadCrossSigning(t.Context(), alice, crossSigning(t, alice, "anew")); err != nil {
			t.Fatal(err)
		}
		has(bob, alice, "A1", bySelf, false)
		has(bob, alice, "A1", "ed25519:A1", true)
		has(alice, bob, "master", byUser, false)
	})
}
