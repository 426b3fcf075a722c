// Package e2ee is what the server does for end-to-end encryption: it keeps the
// public keys of devices and users and gives them out, keeps encrypted backups
// of room keys, carries messages from device to device, and knows whose keys
// changed. It never sees a private key. Keys of users of other servers it asks
// for, and keeps them as long as those servers tell it of changes.
package e2ee

import (
	"context"
	"strings"
	"time"
	"unicode/utf8"

	"golang.org/x/sync/singleflight"

	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/store"
)

// Service is the end-to-end encryption of one server. Its exported fields are
// set before the first call and not changed afterwards; its methods may be
// called from several goroutines.
type Service struct {
	Store      *store.Store
	Bell       *notify.Bell
	ServerName matrix.ServerName

	// Client asks other servers; nil asks none.
	Client *fedclient.Client

	asking  asking
	resyncs singleflight.Group

	counts store.Recent[deviceKey, counted]
	acked  store.Recent[deviceKey, int64]
}

// deviceKey names a device of a user.
type deviceKey struct {
	user   matrix.UserID
	device matrix.DeviceID
}

// local tells whether a user is one of this server.
func (s *Service) local(user matrix.UserID) bool { return user.Server() == s.ServerName }

// changed wakes all whose syncs tell of a change of a user's keys.
func (s *Service) changed(user matrix.UserID) {
	keys := []string{string(user), store.LogBell}
	for _, u := range s.Store.Neighbours(user) {
		keys = append(keys, string(u))
	}
	s.Bell.Ring(keys...)
}

// now is the time in milliseconds.
func now() int64 { return time.Now().UnixMilli() }

// longest is how many bytes an ID or a name of an algorithm may have.
const longest = 255

// name checks a word that a client chose: not empty, not too long, and of
// characters that can be stored.
func name(what, s string) error {
	if s == "" || len(s) > longest || !utf8.ValidString(s) || strings.IndexByte(s, 0) >= 0 {
		return matrix.Errorf(matrix.InvalidParam, "%s must be text of 1 to %d bytes", what, longest)
	}
	return nil
}

// device is the device that a request must come from.
func (s *Service) device(ctx context.Context, tx *store.Tx, user matrix.UserID, id matrix.DeviceID) error {
	_, ok, err := tx.Device(ctx, user, id)
	if err == nil && !ok {
		err = matrix.Errorf(matrix.UnknownDevice, "there is no such device")
	}
	return err
}
