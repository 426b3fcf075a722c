package media

import (
	"context"
	"errors"
	"regexp"
	"strings"
	"time"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// Name is what a file is called everywhere: its server and its ID there.
type Name struct {
	Server matrix.ServerName
	ID     string
}

// String gives the mxc:// URI.
func (n Name) String() string { return "mxc://" + string(n.Server) + "/" + n.ID }

// ParseURI reads an mxc:// URI.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#matrix-content-mxc-uris
func ParseURI(uri string) (Name, error) {
	rest, ok := strings.CutPrefix(uri, "mxc://")
	server, id, _ := strings.Cut(rest, "/")
	if _, err := matrix.ParseServerName(server); !ok || err != nil || !validID(id) {
		return Name{}, matrix.Errorf(matrix.InvalidParam, "%q is no address of a file, such as mxc://example.org/abc", uri)
	}
	return Name{matrix.ServerName(server), id}, nil
}

// Delete deletes a file with all that was made of it. One of another server is
// fetched again when somebody asks for it; Quarantine prevents that. The blob
// goes when no other file has the same content: at once, or when its place can
// be reached again. The error is M_NOT_FOUND.
func (s *Service) Delete(ctx context.Context, name Name) error {
	err := s.store.Update(ctx, func(tx *store.Tx) error {
		now := time.Now().UnixMilli()
		if name.Server == s.server {
			if m, ok, err := tx.Media(ctx, name.ID); err != nil || ok {
				return errors.Join(err, tx.DropMedia(ctx, m, now))
			}
		}
		m, ok, err := tx.RemoteMedia(ctx, name.Server, name.ID)
		if err == nil && !ok {
			return errNotFound()
		}
		return errors.Join(err, tx.DropRemoteMedia(ctx, m, now))
	})
	if err == nil {
		s.bell.Ring(bellDropped)
	}
	return err
}

// DeleteOf deletes all files that a user of this server uploaded before a time,
// answers how many, and tells so as it goes on.
func (s *Service) DeleteOf(ctx context.Context, user matrix.UserID, before time.Time, tell func(n int)) (int, error) {
	return dropAll(ctx, s, all,
		func() ([]store.Media, error) { return s.store.MediaOf(ctx, user, before.UnixMilli(), atOnce) },
		func(tx *store.Tx, m store.Media, now int64) error { return tx.DropMedia(ctx, m, now) }, tell)
}

// all is no bound.
const all = 1<<31 - 1

// PurgeRemote deletes the files of another server, or of all for "", for which
// nobody has asked since a time, answers how many, and tells so as it goes on.
func (s *Service) PurgeRemote(ctx context.Context, server matrix.ServerName, since time.Time, tell func(n int)) (int, error) {
	return dropAll(ctx, s, all,
		func() ([]store.RemoteMedia, error) {
			return s.store.RemoteMediaOf(ctx, server, since.UnixMilli(), atOnce)
		},
		func(tx *store.Tx, m store.RemoteMedia, now int64) error { return tx.DropRemoteMedia(ctx, m, now) }, tell)
}

// Quarantine keeps everybody from fetching files, as they are, as thumbnails and
// by other servers; and all others with the same content, whoever uploads or
// sends them. They need not be here.
func (s *Service) Quarantine(ctx context.Context, names ...Name) error {
	return s.store.Update(ctx, func(tx *store.Tx) error {
		for _, name := range names {
			digest, err := s.digest(ctx, tx, name)
			if err != nil {
				return err
			}
			if err := tx.PutQuarantined(ctx, store.Quarantined{Server: name.Server, ID: name.ID, Digest: digest, TS: time.Now().UnixMilli()}); err != nil {
				return err
			}
		}
		return nil
	})
}

// digest is that of the content of a file, nil if that is not here.
func (s *Service) digest(ctx context.Context, tx *store.Tx, name Name) ([]byte, error) {
	if name.Server == s.server {
		if m, ok, err := tx.Media(ctx, name.ID); err != nil || ok {
			return m.Digest, err
		}
	}
	m, _, err := tx.RemoteMedia(ctx, name.Server, name.ID)
	return m.Digest, err
}

// Unquarantine lets everybody fetch a file again, and all with the same content.
// It answers how many were in quarantine.
func (s *Service) Unquarantine(ctx context.Context, name Name) (n int64, err error) {
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		digest, err := s.digest(ctx, tx, name)
		if err == nil {
			n, err = tx.DropQuarantined(ctx, name.Server, name.ID, digest)
		}
		return err
	})
	return n, err
}

// QuarantineOf puts all files that a user of this server uploaded into
// quarantine, and answers how many.
func (s *Service) QuarantineOf(ctx context.Context, user matrix.UserID) (n int, err error) {
	for after := ""; ; {
		list, err := s.store.MediaBehind(ctx, user, after, atOnce)
		if err != nil || len(list) == 0 {
			return n, err
		}
		names := make([]Name, len(list))
		for i, m := range list {
			names[i], after = Name{s.server, m.ID}, m.ID
		}
		if err := s.Quarantine(ctx, names...); err != nil {
			return n, err
		}
		n += len(list)
	}
}

// QuarantineRoom puts the files into quarantine that the events of a room name,
// and answers how many. Avatars of members are no files of the room, and what
// was encrypted names none. The error is M_NOT_FOUND.
func (s *Service) QuarantineRoom(ctx context.Context, room matrix.RoomID) (int, error) {
	r, err := s.store.Room(ctx, room)
	if errors.Is(err, store.ErrNotFound) {
		return 0, matrix.Errorf(matrix.NotFound, "this server knows no room %s", room)
	}
	if err != nil {
		return 0, err
	}
	found := map[Name]bool{}
	for since := int64(0); ; {
		list, err := s.store.Oldest(ctx, r.Num, since, s.store.Position(), atOnce)
		if err != nil {
			return len(found), err
		}
		if len(list) == 0 {
			return len(found), nil
		}
		var fresh []Name
		for _, e := range list {
			since = e.Pos
			for _, name := range filesOf(e.PDU) {
				if !found[name] {
					found[name] = true
					fresh = append(fresh, name)
				}
			}
		}
		if err := s.Quarantine(ctx, fresh...); err != nil {
			return len(found), err
		}
	}
}

// uriPattern finds addresses of files in JSON, also inside HTML.
var uriPattern = regexp.MustCompile(`mxc://[0-9A-Za-z.:\[\]-]{1,255}/[0-9A-Za-z_-]{1,255}`)

// filesOf lists the files that an event names.
func filesOf(e *event.PDU) (names []Name) {
	if e.Type == "m.room.member" {
		return nil
	}
	for _, uri := range uriPattern.FindAllString(string(e.Content), -1) {
		if name, err := ParseURI(uri); err == nil {
			names = append(names, name)
		}
	}
	return names
}

// InQuarantine lists up to limit files in quarantine, the newest first.
func (s *Service) InQuarantine(ctx context.Context, limit int) ([]store.Quarantined, error) {
	return s.store.QuarantinedMedia(ctx, limit)
}
