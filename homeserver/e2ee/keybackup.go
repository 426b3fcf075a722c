package e2ee

import (
	"context"
	"encoding/json"
	"strconv"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// mostSessionBytes is how large the data of one session may be.
const mostSessionBytes = 64 << 10

// Backup is a backup of room keys, as it is stored.
type Backup = store.KeyBackup

// BackedUpKey is the key of one session in a backup, as it is stored.
type BackedUpKey = store.BackedUpKey

// BackupKeys are keys of a backup, by room and session.
type BackupKeys map[matrix.RoomID]map[string]BackedUpKey

// CreateBackup begins a new, empty backup of room keys and returns its version.
// The errors are M_BAD_JSON and M_MISSING_PARAM.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3room_keysversion
func (s *Service) CreateBackup(ctx context.Context, user matrix.UserID, algorithm string, auth json.RawMessage) (string, error) {
	if algorithm == "" || auth == nil {
		return "", matrix.Errorf(matrix.MissingParam, "a backup needs an algorithm and auth_data")
	}
	if err := name("the algorithm", algorithm); err != nil {
		return "", err
	}
	if err := checkObject("auth_data", auth); err != nil {
		return "", err
	}
	var version int64
	err := s.Store.Update(ctx, func(tx *store.Tx) (err error) {
		version, err = tx.AddKeyBackup(ctx, Backup{User: user, Algorithm: algorithm, AuthData: auth})
		return err
	})
	return strconv.FormatInt(version, 10), err
}

func checkObject(what string, raw json.RawMessage) error {
	if canonjson.Valid(raw) != nil || raw[0] != '{' || len(raw) > mostSessionBytes {
		return matrix.Errorf(matrix.BadJSON, "%s must be an object of at most %d bytes", what, mostSessionBytes)
	}
	return nil
}

// parseVersion reads the version of a backup; what is no number is no version
// that exists.
func parseVersion(s string) int64 {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n <= 0 || strconv.FormatInt(n, 10) != s {
		return -1
	}
	return n
}

// Backup finds a version of a user's backup; "" is the newest one. The error is
// M_NOT_FOUND.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keysversionversion
func (s *Service) Backup(ctx context.Context, user matrix.UserID, version string) (Backup, error) {
	var n int64
	if version != "" {
		n = parseVersion(version)
	}
	b, ok, err := s.Store.KeyBackup(ctx, user, n)
	if err == nil && !ok {
		err = errNoBackup()
	}
	return b, err
}

func errNoBackup() error { return matrix.Errorf(matrix.NotFound, "there is no such backup") }

// SetBackupAuth replaces the auth data of a version. The algorithm must be the
// backup's. The errors are M_NOT_FOUND, M_INVALID_PARAM and M_BAD_JSON.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3room_keysversionversion
func (s *Service) SetBackupAuth(ctx context.Context, user matrix.UserID, version, algorithm string, auth json.RawMessage) error {
	if auth == nil {
		return matrix.Errorf(matrix.MissingParam, "a backup needs auth_data")
	}
	if err := checkObject("auth_data", auth); err != nil {
		return err
	}
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		b, ok, err := tx.KeyBackup(ctx, user, parseVersion(version))
		switch {
		case err != nil:
			return err
		case !ok:
			return errNoBackup()
		case b.Algorithm != algorithm:
			return matrix.Errorf(matrix.InvalidParam, "the algorithm of a backup cannot change")
		}
		b.AuthData = auth
		return tx.SetKeyBackup(ctx, b)
	})
}

// DeleteBackup deletes a version with all its keys. The error is M_NOT_FOUND.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keysversionversion
func (s *Service) DeleteBackup(ctx context.Context, user matrix.UserID, version string) error {
	n := parseVersion(version)
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		if _, ok, err := tx.KeyBackup(ctx, user, n); err != nil || !ok {
			if err == nil {
				err = errNoBackup()
			}
			return err
		}
		return tx.DeleteKeyBackup(ctx, user, n)
	})
}

// PutBackupKeys stores keys in the newest version, which must be the one that
// is named, and returns the backup as it is then. Of two keys for a session the
// better one stays. The errors are M_NOT_FOUND, M_WRONG_ROOM_KEYS_VERSION,
// M_BAD_JSON and M_INVALID_PARAM.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#server-side-key-backups
func (s *Service) PutBackupKeys(ctx context.Context, user matrix.UserID, version string, keys BackupKeys) (Backup, error) {
	var b Backup
	for room, sessions := range keys {
		if _, err := matrix.ParseRoomID(string(room)); err != nil {
			return b, err
		}
		for session, k := range sessions {
			if err := name("a session ID", session); err != nil {
				return b, err
			}
			if k.SessionData == nil || k.FirstMessageIndex < 0 || k.ForwardedCount < 0 {
				return b, matrix.Errorf(matrix.BadJSON, "a key needs session_data, and counts that are not negative")
			}
			if err := checkObject("session_data", k.SessionData); err != nil {
				return b, err
			}
		}
	}
	err := s.Store.Update(ctx, func(tx *store.Tx) (err error) {
		b, err = putBackupKeys(ctx, tx, user, version, keys)
		return err
	})
	return b, err
}

func putBackupKeys(ctx context.Context, tx *store.Tx, user matrix.UserID, version string, keys BackupKeys) (Backup, error) {
	b, ok, err := tx.KeyBackup(ctx, user, 0)
	switch {
	case err != nil:
		return b, err
	case !ok:
		return b, errNoBackup()
	case version != strconv.FormatInt(b.Version, 10):
		return b, &matrix.Error{Code: matrix.WrongRoomKeysVersion, Text: "this is not the newest version of the backup",
			Extra: map[string]any{"current_version": strconv.FormatInt(b.Version, 10)}}
	}
	changes := false
	for room, sessions := range keys {
		for session, k := range sessions {
			k.Room, k.Session = room, session
			added, changed, err := tx.PutBackedUpKey(ctx, user, b.Version, k)
			if err != nil {
				return b, err
			}
			if added {
				b.Keys++
			}
			changes = changes || changed
		}
	}
	if !changes {
		return b, nil
	}
	b.Etag++
	return b, tx.SetKeyBackup(ctx, b)
}

// BackupKeys gives keys of a version: all, those of a room, or one session's.
// Room and session may be "". The error is M_NOT_FOUND where there is no such
// version.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3room_keyskeys
func (s *Service) BackupKeys(ctx context.Context, user matrix.UserID, version string, room matrix.RoomID, session string) (BackupKeys, error) {
	if version == "" {
		return nil, matrix.Errorf(matrix.MissingParam, "the query needs a version")
	}
	b, err := s.Backup(ctx, user, version)
	if err != nil {
		return nil, err
	}
	list, err := s.Store.BackedUpKeys(ctx, user, b.Version, room, session)
	if err != nil {
		return nil, err
	}
	keys := BackupKeys{}
	for _, k := range list {
		if keys[k.Room] == nil {
			keys[k.Room] = map[string]BackedUpKey{}
		}
		keys[k.Room][k.Session] = k
	}
	return keys, nil
}

// DeleteBackupKeys deletes keys of a version, see BackupKeys, and returns the
// backup as it is then.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#delete_matrixclientv3room_keyskeys
func (s *Service) DeleteBackupKeys(ctx context.Context, user matrix.UserID, version string, room matrix.RoomID, session string) (Backup, error) {
	if version == "" {
		return Backup{}, matrix.Errorf(matrix.MissingParam, "the query needs a version")
	}
	var b Backup
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		var ok bool
		var err error
		if b, ok, err = tx.KeyBackup(ctx, user, parseVersion(version)); err != nil || !ok {
			if err == nil {
				err = errNoBackup()
			}
			return err
		}
		n, err := tx.DeleteBackedUpKeys(ctx, user, b.Version, room, session)
		if err != nil || n == 0 {
			return err
		}
		b.Keys -= n
		b.Etag++
		return tx.SetKeyBackup(ctx, b)
	})
	return b, err
}
