package e2ee

import (
	"encoding/json"
	"fmt"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

const backupAlgorithm = "m.megolm_backup.v1.curve25519-aes-sha2"

func TestKeyBackup(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		create := func(user matrix.UserID) string {
			t.Helper()
			v, err := s.CreateBackup(t.Context(), user, backupAlgorithm, json.RawMessage(`{"public_key":"x"}`))
			if err != nil {
				t.Fatal(err)
			}
			return v
		}
		first := create(alice)
		k := store.BackedUpKey{FirstMessageIndex: 1, SessionData: json.RawMessage(`{"n":1}`)}
		b, err := s.PutBackupKeys(t.Context(), alice, first, BackupKeys{"!a:x": {"s1": k, "s2": k}, "!b:x": {"s1": k}})
		if err != nil || b.Keys != 3 || b.Etag != 1 {
			t.Fatalf("%+v %v", b, err)
		}
		if b, err = s.PutBackupKeys(t.Context(), alice, first, BackupKeys{"!a:x": {"s1": k}}); err != nil || b.Keys != 3 || b.Etag != 1 {
			t.Errorf("the same again: %+v %v", b, err)
		}
		got, err := s.BackupKeys(t.Context(), alice, first, "!a:x", "")
		if err != nil || len(got) != 1 || len(got["!a:x"]) != 2 || string(got["!a:x"]["s1"].SessionData) != `{"n":1}` {
			t.Errorf("%v %v", got, err)
		}
		if b, err = s.DeleteBackupKeys(t.Context(), alice, first, "!a:x", "s2"); err != nil || b.Keys != 2 || b.Etag != 2 {
			t.Errorf("%+v %v", b, err)
		}

		second := create(alice)
		_, err = s.PutBackupKeys(t.Context(), alice, first, BackupKeys{"!a:x": {"s3": k}})
		if code(t, err) != matrix.WrongRoomKeysVersion || err.(*matrix.Error).Extra["current_version"] != second {
			t.Errorf("got %v", err)
		}
		if b, err = s.Backup(t.Context(), alice, ""); err != nil || fmt.Sprint(b.Version) != second || b.Keys != 0 {
			t.Errorf("%+v %v", b, err)
		}
		for name, err := range map[string]error{
			"auth":             s.SetBackupAuth(t.Context(), alice, second, backupAlgorithm, json.RawMessage(`{"y":1}`)),
			"other algorithm":  s.SetBackupAuth(t.Context(), alice, second, "x", json.RawMessage(`{}`)),
			"another's":        s.SetBackupAuth(t.Context(), bob, second, backupAlgorithm, json.RawMessage(`{}`)),
			"no object":        s.SetBackupAuth(t.Context(), alice, second, backupAlgorithm, json.RawMessage(`[]`)),
			"unknown":          s.DeleteBackup(t.Context(), alice, "0"+second),
			"delete":           s.DeleteBackup(t.Context(), alice, second),
			"delete again":     s.DeleteBackup(t.Context(), alice, second),
			"delete another's": s.DeleteBackup(t.Context(), bob, first),
		} {
			want := map[string]matrix.Code{"other algorithm": matrix.InvalidParam, "another's": matrix.NotFound, "no object": matrix.BadJSON,
				"unknown": matrix.NotFound, "delete again": matrix.NotFound, "delete another's": matrix.NotFound}[name]
			if code(t, err) != want {
				t.Errorf("%s: got %v, want %q", name, err, want)
			}
		}
		if b, err = s.Backup(t.Context(), alice, ""); err != nil || fmt.Sprint(b.Version) != first {
			t.Errorf("the older version is the newest again: %+v %v", b, err)
		}
		if third := create(alice); third == second || third == first {
			t.Errorf("version %s came back", third)
		}
	})
}

func TestKeyBackupKeepsTheBetterKey(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		key := func(verified bool, index, forwarded int64) store.BackedUpKey {
			return store.BackedUpKey{IsVerified: verified, FirstMessageIndex: index, ForwardedCount: forwarded, SessionData: json.RawMessage(`{}`)}
		}
		old := key(false, 10, 5)
		tests := []struct {
			k      store.BackedUpKey
			better bool
		}{
			{key(true, 20, 9), true}, {key(false, 9, 9), true}, {key(false, 10, 4), true},
			{key(false, 10, 5), false}, {key(false, 11, 0), false}, {key(false, 10, 6), false},
		}
		version, err := s.CreateBackup(t.Context(), alice, backupAlgorithm, json.RawMessage(`{}`))
		if err != nil {
			t.Fatal(err)
		}
		for i, tt := range tests {
			session := fmt.Sprint("s", i)
			for _, k := range []store.BackedUpKey{old, tt.k} {
				if _, err := s.PutBackupKeys(t.Context(), alice, version, BackupKeys{"!a:x": {session: k}}); err != nil {
					t.Fatal(err)
				}
			}
			got, err := s.BackupKeys(t.Context(), alice, version, "!a:x", session)
			if err != nil {
				t.Fatal(err)
			}
			k := got["!a:x"][session]
			replaced := k.IsVerified == tt.k.IsVerified && k.FirstMessageIndex == tt.k.FirstMessageIndex && k.ForwardedCount == tt.k.ForwardedCount
			if replaced != (tt.better || i == 3) {
				t.Errorf("%+v over %+v: got %+v", tt.k, old, k)
			}
		}
		for _, keys := range []BackupKeys{
			{"nothing": {"s": old}}, {"!a:x": {"": old}}, {"!a:x": {"s": {}}}, {"!a:x": {"s": key(false, -1, 0)}},
		} {
			if _, err := s.PutBackupKeys(t.Context(), alice, version, keys); code(t, err) == "" {
				t.Errorf("%v was taken", keys)
			}
		}
	})
}
