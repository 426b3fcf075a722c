package store

import (
	"context"
	"fmt"

	"switchboard/homeserver/matrix"
)

// RemoteMedia is a file of another server that was fetched.
type RemoteMedia struct {
	Server    matrix.ServerName
	ID        string
	Digest    []byte // SHA-256 of the content
	Size      int64  // bytes
	Type      string // Content-Type
	Name      string // of the file; "" where none was given
	FetchedTS int64  // milliseconds
	UsedTS    int64  // when somebody last asked for it, to about a day, milliseconds
}

const remoteMediaColumns = `server, media_id, digest, size, type, name, fetched_ts, used_ts`

// RemoteMedia finds a file of another server. ok is false if it is not here.
func (s *Store) RemoteMedia(ctx context.Context, server matrix.ServerName, id string) (m RemoteMedia, ok bool, err error) {
	return findRemoteMedia(ctx, s.db, server, id)
}

// RemoteMedia finds one as the transaction sees it. ok is false if it is not here.
func (tx *Tx) RemoteMedia(ctx context.Context, server matrix.ServerName, id string) (m RemoteMedia, ok bool, err error) {
	return findRemoteMedia(ctx, tx, server, id)
}

func findRemoteMedia(ctx context.Context, q querier, server matrix.ServerName, id string) (m RemoteMedia, ok bool, err error) {
	list, err := listRemoteMedia(ctx, q, `server = $1 AND media_id = $2`, server, id)
	if err != nil || len(list) == 0 {
		return RemoteMedia{}, false, err
	}
	return list[0], true, nil
}

// PutRemoteMedia writes a file that was fetched.
func (tx *Tx) PutRemoteMedia(ctx context.Context, m RemoteMedia) error {
	const q = `
		INSERT INTO remote_media (server, media_id, digest, size, type, name, fetched_ts, used_ts)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (server, media_id) DO UPDATE SET digest = excluded.digest, size = excluded.size,
			type = excluded.type, name = excluded.name, fetched_ts = excluded.fetched_ts, used_ts = excluded.used_ts`
	err := tx.Exec(ctx, q, m.Server, m.ID, m.Digest, m.Size, m.Type, m.Name, m.FetchedTS, m.UsedTS)
	if err != nil {
		return fmt.Errorf("put remote media: %w", err)
	}
	return nil
}

// UseRemoteMedia notes that somebody asked for a file at a time in milliseconds.
func (tx *Tx) UseRemoteMedia(ctx context.Context, server matrix.ServerName, id string, now int64) error {
	if err := tx.Exec(ctx, `UPDATE remote_media SET used_ts = $3 WHERE server = $1 AND media_id = $2`, server, id, now); err != nil {
		return fmt.Errorf("use remote media: %w", err)
	}
	return nil
}

// RemoteMediaSize is how many bytes the files of other servers have together.
func (s *Store) RemoteMediaSize(ctx context.Context) (bytes int64, err error) {
	const q = `SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM remote_media`
	if err := s.db.QueryRow(ctx, q).Scan(&bytes); err != nil {
		return 0, fmt.Errorf("remote media: %w", err)
	}
	return bytes, nil
}

// LeastUsedMedia lists up to limit files of other servers, those first for
// which nobody has asked for longest.
func (s *Store) LeastUsedMedia(ctx context.Context, limit int) ([]RemoteMedia, error) {
	return listRemoteMedia(ctx, s.db, `TRUE ORDER BY used_ts LIMIT $1`, limit)
}

// RemoteMediaOf lists up to limit files of a server that are here, or of all
// servers for "", the newest first: those for which nobody has asked since a
// time in milliseconds.
func (s *Store) RemoteMediaOf(ctx context.Context, server matrix.ServerName, since int64, limit int) ([]RemoteMedia, error) {
	if server == "" {
		return listRemoteMedia(ctx, s.db, `used_ts < $1 ORDER BY used_ts DESC LIMIT $2`, since, limit)
	}
	return listRemoteMedia(ctx, s.db, `server = $1 AND used_ts < $2 ORDER BY used_ts DESC LIMIT $3`, server, since, limit)
}

// listRemoteMedia reads files of other servers; where is what follows WHERE.
func listRemoteMedia(ctx context.Context, q querier, where string, args ...any) ([]RemoteMedia, error) {
	rows, err := q.Query(ctx, `SELECT `+remoteMediaColumns+` FROM remote_media WHERE `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("remote media: %w", err)
	}
	defer rows.Close()
	var list []RemoteMedia
	for rows.Next() {
		var m RemoteMedia
		if err := rows.Scan(&m.Server, &m.ID, &m.Digest, &m.Size, &m.Type, &m.Name, &m.FetchedTS, &m.UsedTS); err != nil {
			return nil, fmt.Errorf("remote media: %w", err)
		}
		list = append(list, m)
	}
	return list, rows.Err()
}

// DropRemoteMedia forgets a file of another server, and has its blobs deleted
// unless others need them.
func (tx *Tx) DropRemoteMedia(ctx context.Context, m RemoteMedia, now int64) error {
	err := tx.Exec(ctx, `DELETE FROM remote_media WHERE server = $1 AND media_id = $2`, m.Server, m.ID)
	if err == nil {
		err = tx.dropBlobs(ctx, m.Digest, now)
	}
	if err != nil {
		return fmt.Errorf("drop remote media: %w", err)
	}
	return nil
}
