package e2ee

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// A device ID as clients make it: base64 with all that it may hold.
const dried = "Kd3/8Jx+Zq1"

var driedData = json.RawMessage(`{"algorithm":"org.matrix.msc3814.v2","device_pickle":"x","nonce":"y"}`)

// dehydrate makes a dehydrated device of alice with a one-time and a fallback
// key.
func (s *Service) dehydrate(t *testing.T, id string) error {
	t.Helper()
	keys := strings.Replace(deviceJSON(t, alice, id, "dried "+id), `{"algorithms"`, `{"dehydrated":true,"algorithms"`, 1)
	var fresh map[string]any
	if err := json.Unmarshal([]byte(keys), &fresh); err != nil {
		t.Fatal(err)
	}
	delete(fresh, "signatures")
	unsigned, err := json.Marshal(fresh)
	if err != nil {
		t.Fatal(err)
	}
	return s.Dehydrate(t.Context(), alice, Dehydrated{matrix.DeviceID(id), driedData}, "Dehydrated device", Upload{
		DeviceKeys:   json.RawMessage(sign(t, string(unsigned), alice, "ed25519:"+id, "dried "+id)),
		OneTimeKeys:  oneTime(0, 1),
		FallbackKeys: map[string]json.RawMessage{"signed_curve25519:F": json.RawMessage(`{"key":"fallback","fallback":true,"signatures":{}}`)},
	})
}

// TestDehydrated: the device is one like others for everybody else; what it is
// sent waits until the device is replaced, however often it is read.
func TestDehydrated(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		ctx := t.Context()
		_, err := s.Dehydrated(ctx, alice)
		if c := code(t, err); c != matrix.NotFound {
			t.Errorf("without one: %s", c)
		}
		before := s.Store.Position()
		if err := s.dehydrate(t, dried); err != nil {
			t.Fatal(err)
		}
		if d, err := s.Dehydrated(ctx, alice); err != nil || d.Device != dried || string(d.Data) != string(driedData) {
			t.Errorf("dehydrated: %+v (%v)", d, err)
		}
		if got := s.query1(t, bob, alice)[dried]; !strings.Contains(got, `"dehydrated":true`) || !strings.Contains(got, "Dehydrated device") {
			t.Errorf("bob sees the keys %s", got)
		}
		if changed, _, err := s.DeviceLists(ctx, alice, before, s.Store.Position()); err != nil || len(changed) != 1 {
			t.Errorf("changed %v (%v)", changed, err)
		}
		for _, want := range []string{"signed_curve25519:K000", "signed_curve25519:F", "signed_curve25519:F"} {
			claimed, _, err := s.Claim(ctx, map[matrix.UserID]map[matrix.DeviceID]string{alice: {dried: "signed_curve25519"}})
			if err != nil || claimed[alice][dried][want] == nil {
				t.Errorf("claimed %v, want %s (%v)", claimed, want, err)
			}
		}
		const n = batch + 5
		for i := range n {
			err := s.SendToDevice(ctx, bob, "B1", "m.room.encrypted", fmt.Sprint(i), Messages{alice: {"*": json.RawMessage(fmt.Sprintf(`{"n":%d}`, i))}})
			if err != nil {
				t.Fatal(err)
			}
		}
		for range 2 { // the second time another device begins anew
			var got []store.ToDevice
			for next := int64(0); ; {
				list, to, err := s.DehydratedMessages(ctx, alice, dried, next)
				if err != nil {
					t.Fatal(err)
				}
				if got, next = append(got, list...), to; len(list) == 0 {
					break
				}
			}
			if len(got) != n {
				t.Fatalf("%d messages, want %d", len(got), n)
			}
			for i, m := range got {
				if string(m.Content) != fmt.Sprintf(`{"n":%d}`, i) || m.Sender != bob || m.Type != "m.room.encrypted" {
					t.Fatalf("message %d is %+v", i, m)
				}
			}
		}
		for _, user := range []matrix.UserID{bob, alice} {
			_, _, err := s.DehydratedMessages(ctx, user, "A1", 0)
			if c := code(t, err); c != matrix.Forbidden {
				t.Errorf("messages of another device: %s", c)
			}
		}
	})
}

// TestDehydratedEnds: there is one at a time, and nothing of it stays.
func TestDehydratedEnds(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		ctx := t.Context()
		gone := func(when string, id matrix.DeviceID) {
			t.Helper()
			if got := s.query1(t, bob, alice)[string(id)]; got != "" {
				t.Errorf("%s: the keys are still there: %s", when, got)
			}
			claimed, _, err := s.Claim(ctx, map[matrix.UserID]map[matrix.DeviceID]string{alice: {id: "signed_curve25519"}})
			if err != nil || len(claimed) > 0 {
				t.Errorf("%s: claimed %v (%v)", when, claimed, err)
			}
			if _, ok, err := s.Store.Device(ctx, alice, id); err != nil || ok {
				t.Errorf("%s: the device is still there (%v)", when, err)
			}
		}
		for _, id := range []string{dried, dried, "Other"} {
			if err := s.dehydrate(t, id); err != nil {
				t.Fatal(err)
			}
		}
		gone("replaced", dried)
		if err := s.dehydrate(t, "A1"); code(t, err) != matrix.InvalidParam {
			t.Errorf("one with the ID of a device in use: %v", err)
		}
		if d, err := s.Dehydrated(ctx, alice); err != nil || d.Device != "Other" {
			t.Errorf("after a failure: %+v (%v)", d, err)
		}
		before := s.Store.Position()
		if id, err := s.DropDehydrated(ctx, alice); err != nil || id != "Other" {
			t.Errorf("deleted %s (%v)", id, err)
		}
		gone("deleted", "Other")
		if changed, _, err := s.DeviceLists(ctx, alice, before, s.Store.Position()); err != nil || len(changed) != 1 {
			t.Errorf("changed %v (%v)", changed, err)
		}
		_, err := s.DropDehydrated(ctx, alice)
		if c := code(t, err); c != matrix.NotFound {
			t.Errorf("deleted twice: %s", c)
		}
	})
}

func TestDehydrateWrong(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		good := json.RawMessage(deviceJSON(t, alice, "D", "dried"))
		for name, tt := range map[string]struct {
			d    Dehydrated
			keys json.RawMessage
			want matrix.Code
		}{
			"no ID":           {Dehydrated{"", driedData}, good, matrix.InvalidParam},
			"no data":         {Dehydrated{"D", nil}, good, matrix.MissingParam},
			"no keys":         {Dehydrated{"D", driedData}, nil, matrix.MissingParam},
			"null keys":       {Dehydrated{"D", driedData}, json.RawMessage(`null`), matrix.MissingParam},
			"no algorithm":    {Dehydrated{"D", json.RawMessage(`{}`)}, good, matrix.BadJSON},
			"no object":       {Dehydrated{"D", json.RawMessage(`"x"`)}, good, matrix.BadJSON},
			"large":           {Dehydrated{"D", json.RawMessage(`{"algorithm":"x","y":"` + strings.Repeat("x", mostDehydrated) + `"}`)}, good, matrix.TooLarge},
			"another device":  {Dehydrated{"E", driedData}, good, matrix.InvalidParam},
			"wrong signature": {Dehydrated{"D", driedData}, json.RawMessage(strings.Replace(string(good), `"algorithms":[`, `"algorithms":["x",`, 1)), matrix.InvalidSignature},
		} {
			if c := code(t, s.Dehydrate(t.Context(), alice, tt.d, "", Upload{DeviceKeys: tt.keys})); c != tt.want {
				t.Errorf("%s: %s, want %s", name, c, tt.want)
			}
		}
	})
}
