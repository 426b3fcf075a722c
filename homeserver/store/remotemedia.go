package store

import (
	"context"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
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
	err = s.db.QueryRow(ctx, `SELECT `+remoteMediaColumns+` FROM remote_media WHERE server = $1 AND media_id = $2`, server, id).
		Scan(&m.Server, &m.ID, &m.Digest, &m.Size, &m.Type, &m.Name, &m.FetchedTS, &m.UsedTS)
	if errors.Is(err, database.ErrNoRows) {
		return RemoteMedia{}, false, nil
	}
	if err != nil {
		return RemoteMedia{}, false, fmt.Errorf("remote media: %w", err)
	}
	return m, true, nil
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
	rows, err := s.db.Query(ctx, `SELECT `+remoteMediaColumns+` FROM remote_media ORDER BY used_ts LIMIT $1`, limit)
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

// DropRemoteMedia forgets a file of another server. If no file has that content
// any more, its thumbnails are forgotten too. It answers the blobs that may have
// become unneeded.
func (tx *Tx) DropRemoteMedia(ctx context.Context, m RemoteMedia) (digests [][]byte, err error) {
	if err := tx.Exec(ctx, `DELETE FROM remote_media WHERE server = $1 AND media_id = $2`, m.Server, m.ID); err != nil {
		return nil, fmt.Errorf("drop remote media: %w", err)
	}
	digests = [][]byte{m.Digest}
	const others = `
		SELECT (SELECT COUNT(*) FROM (SELECT 1 FROM media WHERE digest = $1 LIMIT 1) AS ours)
			+ (SELECT COUNT(*) FROM (SELECT 1 FROM remote_media WHERE digest = $1 LIMIT 1) AS theirs)`
	var n int64
	if err := tx.QueryRow(ctx, others, m.Digest).Scan(&n); err != nil || n > 0 {
		return digests, wrapDrop(err)
	}
	rows, err := tx.Query(ctx, `SELECT digest FROM thumbnails WHERE original = $1`, m.Digest)
	if err != nil {
		return nil, wrapDrop(err)
	}
	defer rows.Close()
	for rows.Next() {
		var d []byte
		if err := rows.Scan(&d); err != nil {
			return nil, wrapDrop(err)
		}
		digests = append(digests, d)
	}
	if err := rows.Err(); err != nil {
		return nil, wrapDrop(err)
	}
	rows.Close()
	return digests, wrapDrop(tx.Exec(ctx, `DELETE FROM thumbnails WHERE original = $1`, m.Digest))
}

func wrapDrop(err error) error {
	if err != nil {
		return fmt.Errorf("drop remote media: %w", err)
	}
	return nil
}
