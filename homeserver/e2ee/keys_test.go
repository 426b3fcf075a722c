package e2ee

import (
	"crypto/ed25519"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
)

func TestUploadAndQuery(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		keys := deviceJSON(t, alice, "A1", "a1")
		since := s.Store.Position()
		rung := s.Bell.Listen(string(alice))
		counts, err := s.Upload(t.Context(), alice, "A1", Upload{DeviceKeys: json.RawMessage(keys), OneTimeKeys: oneTime(0, 3)})
		if err != nil || counts["signed_curve25519"] != 3 {
			t.Fatalf("%v %v", counts, err)
		}
		select {
		case <-rung:
		default:
			t.Error("no sync was woken")
		}
		got := s.query1(t, bob, alice)
		if err := signing.VerifyJSON([]byte(got["A1"]), string(alice), "ed25519:A1", key("a1").Public().(ed25519.PublicKey)); err != nil ||
			len(got) != 1 || !strings.Contains(got["A1"], `"unsigned":{"device_display_name":"Phone"}`) {
			t.Errorf("got %s, %v", got, err)
		}
		changed, _, err := s.DeviceLists(t.Context(), alice, since, s.Store.Position())
		if err != nil || len(changed) != 1 || changed[0] != alice {
			t.Errorf("changed %v, %v", changed, err)
		}

		// The same again is no change; other keys of the same device are.
		since = s.Store.Position()
		if _, err := s.Upload(t.Context(), alice, "A1", Upload{DeviceKeys: json.RawMessage(keys)}); err != nil {
			t.Fatal(err)
		}
		if changed, _, _ := s.DeviceLists(t.Context(), alice, since, s.Store.Position()); len(changed) != 0 {
			t.Errorf("changed %v", changed)
		}
		left := func(want int) {
			t.Helper()
			if c, err := s.KeyCounts(t.Context(), alice, "A1"); err != nil || c.OneTime["signed_curve25519"] != want {
				t.Errorf("a sync tells of %v keys, not %d: %v", c.OneTime, want, err)
			}
		}
		left(3)
		counts, err = s.Upload(t.Context(), alice, "A1", Upload{DeviceKeys: json.RawMessage(deviceJSON(t, alice, "A1", "a1 anew"))})
		if err != nil || counts["signed_curve25519"] != 0 {
			t.Errorf("a device that began anew still has one-time keys: %v %v", counts, err)
		}
		left(0)
		if _, err := s.Upload(t.Context(), alice, "A1", Upload{OneTimeKeys: oneTime(0, 2)}); err != nil {
			t.Fatal(err)
		}
		left(2)

		// Only what is asked for; a user without keys has an empty entry.
		k, err := s.Query(t.Context(), bob, map[matrix.UserID][]matrix.DeviceID{alice: {"A2"}, bob: nil, "@c:other.test": nil})
		if err != nil {
			t.Fatal(err)
		}
		b, _ := json.Marshal(k)
		if want := `{"device_keys":{"@alice:a.test":{},"@bob:a.test":{}},"master_keys":{},"self_signing_keys":{},"user_signing_keys":{},"failures":{"other.test":{}}}`; string(b) != want {
			t.Errorf("got %s, want %s", b, want)
		}

		// Of a device that is deleted nothing is left.
		since = s.Store.Position()
		s.write(t, func(tx *store.Tx) error { return tx.DropDeviceKeys(t.Context(), alice, "A1") })
		if got := s.query1(t, bob, alice); len(got) != 0 {
			t.Errorf("got %s", got)
		}
		left(0)
		if changed, _, _ := s.DeviceLists(t.Context(), alice, since, s.Store.Position()); len(changed) != 1 {
			t.Error("nobody learns of the deleted device")
		}
	})
}

func TestUploadRefuses(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		good := deviceJSON(t, alice, "A1", "a1")
		one := func(id, content string) Upload {
			return Upload{OneTimeKeys: map[string]json.RawMessage{id: json.RawMessage(content)}}
		}
		if _, err := s.Upload(t.Context(), alice, "A1", one("signed_curve25519:K1", `{"key":"a","signatures":{}}`)); err != nil {
			t.Fatal(err)
		}
		tests := []struct {
			name   string
			device matrix.DeviceID
			up     Upload
			want   matrix.Code
		}{
			{"another device", "A2", Upload{DeviceKeys: json.RawMessage(good)}, matrix.InvalidParam},
			{"no algorithms", "A1", Upload{DeviceKeys: json.RawMessage(`{"user_id":"@alice:a.test","device_id":"A1","keys":{}}`)}, matrix.BadJSON},
			{"no object", "A1", Upload{DeviceKeys: json.RawMessage(`[]`)}, matrix.BadJSON},
			{"wrong signature", "A1", Upload{DeviceKeys: json.RawMessage(strings.Replace(good, "aes-sha2", "aes-sha3", 1))}, matrix.InvalidSignature},
			{"foreign key name", "A1", Upload{DeviceKeys: json.RawMessage(strings.ReplaceAll(good, "curve25519:A1", "curve25519:A2"))}, matrix.InvalidParam},
			{"short key", "A1", Upload{DeviceKeys: json.RawMessage(strings.ReplaceAll(good, public("a1 curve"), "AAAA"))}, matrix.InvalidParam},
			{"no device", "A3", one("signed_curve25519:K1", `{"key":"a","signatures":{}}`), matrix.UnknownDevice},
			{"no key ID", "A1", one("signed_curve25519", `{"key":"a","signatures":{}}`), matrix.InvalidParam},
			{"NUL", "A1", one("signed_curve25519:\x00", `{"key":"a","signatures":{}}`), matrix.InvalidParam},
			{"unsigned", "A1", one("signed_curve25519:K2", `{"key":"a"}`), matrix.InvalidParam},
			{"float", "A1", one("x:K2", `{"key":1.5}`), matrix.InvalidParam},
			{"number", "A1", one("x:K2", `1`), matrix.InvalidParam},
			{"another one of the same name", "A1", one("signed_curve25519:K1", `{"key":"b","signatures":{}}`), matrix.InvalidParam},
			{"two fallback keys", "A1", Upload{FallbackKeys: oneTime(0, 2)}, matrix.InvalidParam},
			{"too many", "A1", Upload{OneTimeKeys: oneTime(0, mostKeys+1)}, matrix.InvalidParam},
			{"too many in all", "A1", Upload{OneTimeKeys: oneTime(0, mostKeys)}, matrix.InvalidParam},
		}
		for _, tt := range tests {
			_, err := s.Upload(t.Context(), alice, tt.device, tt.up)
			if got := code(t, err); got != tt.want {
				t.Errorf("%s: got %v, want %s", tt.name, err, tt.want)
			}
		}
	})
}

// claim1 claims one key of alice's A1 and gives its ID, "" for none.
func claim1(t *testing.T, s *Service) string {
	t.Helper()
	got, _, err := s.Claim(t.Context(), map[matrix.UserID]map[matrix.DeviceID]string{alice: {"A1": "signed_curve25519"}})
	if err != nil {
		t.Fatal(err)
	}
	for id := range got[alice]["A1"] {
		return id
	}
	return ""
}

func TestClaim(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		upload := func(up Upload) map[string]int {
			t.Helper()
			counts, err := s.Upload(t.Context(), alice, "A1", up)
			if err != nil {
				t.Fatal(err)
			}
			return counts
		}
		counts := func(want string) {
			t.Helper()
			c, err := s.KeyCounts(t.Context(), alice, "A1")
			if err != nil {
				t.Fatal(err)
			}
			if got := fmt.Sprint(c.OneTime, c.Unused); got != want {
				t.Errorf("counts %s, want %s", got, want)
			}
		}
		upload(Upload{OneTimeKeys: oneTime(5, 1)})
		upload(Upload{OneTimeKeys: oneTime(1, 2)})
		upload(Upload{FallbackKeys: map[string]json.RawMessage{"signed_curve25519:F": json.RawMessage(`{"key":"f","signatures":{},"fallback":true}`)}})
		counts("map[signed_curve25519:3] [signed_curve25519]")
		for _, want := range []string{"K005", "K001", "K002", "F", "F"} { // in order of upload
			if got := claim1(t, s); got != "signed_curve25519:"+want {
				t.Errorf("got %s, want %s", got, want)
			}
		}
		counts("map[signed_curve25519:0] []")

		// A claimed key does not come back with a repeated upload; a fallback key
		// that is uploaded again is as used as before, a new one is unused.
		if c := upload(Upload{OneTimeKeys: oneTime(1, 3)}); c["signed_curve25519"] != 1 {
			t.Errorf("counts %v", c)
		}
		if got := claim1(t, s); got != "signed_curve25519:K003" {
			t.Errorf("got %s", got)
		}
		upload(Upload{FallbackKeys: map[string]json.RawMessage{"signed_curve25519:F": json.RawMessage(`{"fallback":true,"signatures":{},"key":"f"}`)}})
		counts("map[signed_curve25519:0] []")
		upload(Upload{FallbackKeys: map[string]json.RawMessage{"signed_curve25519:G": json.RawMessage(`{"fallback":true,"signatures":{},"key":"g"}`)}})
		counts("map[signed_curve25519:0] [signed_curve25519]")

		got, failures, err := s.Claim(t.Context(), map[matrix.UserID]map[matrix.DeviceID]string{
			alice: {"A1": "other", "A2": "signed_curve25519"}, bob: {}, "@c:other.test": {"C": "signed_curve25519"}})
		if err != nil || len(got) != 0 || len(failures) != 1 {
			t.Errorf("%v %v %v", got, failures, err)
		}
	})
}

// TestClaimOnce claims from many sides at once: nobody gets a key of another.
func TestClaimOnce(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		const keys, claims = 60, 100
		if _, err := s.Upload(t.Context(), alice, "A1", Upload{OneTimeKeys: oneTime(0, keys)}); err != nil {
			t.Fatal(err)
		}
		var wg sync.WaitGroup
		ids := make([]string, claims)
		for i := range ids {
			wg.Go(func() { ids[i] = claim1(t, s) })
		}
		wg.Wait()
		seen := map[string]bool{}
		for _, id := range ids {
			if id != "" && seen[id] {
				t.Errorf("%s was given out twice", id)
			}
			seen[id] = true
		}
		if delete(seen, ""); len(seen) != keys {
			t.Errorf("%d keys were given out, want %d", len(seen), keys)
		}
	})
}

// FuzzIdentity checks that identity keys which are taken come out in a form that
// is taken again and stays as it is, so that others check the signatures of
// the same bytes.
func FuzzIdentity(f *testing.F) {
	f.Add(`{"user_id":"@alice:a.test","device_id":"A1","algorithms":[],"keys":{}}`)
	f.Add(`{"unsigned":{"x":1},"user_id":"@alice:a.test","device_id":"A1","algorithms":["m.x"],"keys":{"x:A1":"AAAA"},"more":[1e2,-0]}`)
	f.Add(`{"user_id":"@alice:a.test","device_id":"A1","algorithms":["\u0041"],"keys":{"ed25519:A1":"AAAA"},"signatures":{"@alice:a.test":{"ed25519:A1":"x"}}}`)
	f.Fuzz(func(t *testing.T, raw string) {
		once, err := readIdentity(alice, "A1", json.RawMessage(raw))
		if err != nil || once == nil {
			return
		}
		again, err := readIdentity(alice, "A1", once)
		if err != nil || string(again) != string(once) {
			t.Errorf("%s became %s and then %s, %v", raw, once, again, err)
		}
		if !strings.Contains(string(addUnsigned(once, "")), `"unsigned":{}`) {
			t.Errorf("%s has no unsigned", once)
		}
	})
}

// FuzzOneTimeKeys checks that the name of a key which is taken is the one that
// it is given out under.
func FuzzOneTimeKeys(f *testing.F) {
	f.Add("signed_curve25519:AAAAHg", `{"key":"x","signatures":{}}`)
	f.Add("a:b:c", `"x"`)
	f.Add(":", `{}`)
	f.Fuzz(func(t *testing.T, id, content string) {
		keys, err := readKeys("one_time_keys", map[string]json.RawMessage{id: json.RawMessage(content)})
		if err != nil {
			return
		}
		if k := keys[0]; k.Algorithm+":"+k.ID != id || !json.Valid(k.Content) {
			t.Errorf("%q %s became %+v", id, content, k)
		}
	})
}
