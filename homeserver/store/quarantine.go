package store

import (
	"context"
	"fmt"

	"switchboard/homeserver/matrix"
)

// Quarantined is a file that nobody may fetch, nor any with the same content.
type Quarantined struct {
	Server matrix.ServerName
	ID     string
	Digest []byte // SHA-256 of the content; nil if it was not here
	TS     int64  // when it was put into quarantine, milliseconds
}

// Quarantined tells whether nobody may fetch a file. Digest is that of its
// content, nil if that is not here.
func (s *Store) Quarantined(ctx context.Context, server matrix.ServerName, id string, digest []byte) (ok bool, err error) {
	const q = `SELECT EXISTS (SELECT 1 FROM quarantined_media WHERE server = $1 AND media_id = $2)
		OR EXISTS (SELECT 1 FROM quarantined_media WHERE digest = $3)`
	if err := s.db.QueryRow(ctx, q, server, id, digest).Scan(&ok); err != nil {
		return false, fmt.Errorf("quarantine: %w", err)
	}
	return ok, nil
}

// PutQuarantined puts a file into quarantine.
func (tx *Tx) PutQuarantined(ctx context.Context, m Quarantined) error {
	const q = `INSERT INTO quarantined_media (server, media_id, digest, ts) VALUES ($1, $2, $3, $4)
		ON CONFLICT (server, media_id) DO UPDATE SET digest = COALESCE(excluded.digest, quarantined_media.digest)`
	if err := tx.Exec(ctx, q, m.Server, m.ID, m.Digest, m.TS); err != nil {
		return fmt.Errorf("quarantine: %w", err)
	}
	return nil
}

// DropQuarantined ends the quarantine of a file and of all with the same
// content. It answers of how many.
func (tx *Tx) DropQuarantined(ctx context.Context, server matrix.ServerName, id string, digest []byte) (n int64, err error) {
	const where = ` FROM quarantined_media WHERE server = $1 AND media_id = $2 OR digest = $3
		OR digest = (SELECT digest FROM quarantined_media WHERE server = $1 AND media_id = $2)`
	err = tx.QueryRow(ctx, `SELECT COUNT(*)`+where, server, id, digest).Scan(&n)
	if err == nil {
		err = tx.Exec(ctx, `DELETE`+where, server, id, digest)
	}
	if err != nil {
		return 0, fmt.Errorf("quarantine: %w", err)
	}
	return n, nil
}

// QuarantinedMedia lists up to limit files in quarantine, the newest first.
func (s *Store) QuarantinedMedia(ctx context.Context, limit int) ([]Quarantined, error) {
	rows, err := s.db.Query(ctx, `SELECT server, media_id, digest, ts FROM quarantined_media ORDER BY ts DESC LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("quarantine: %w", err)
	}
	defer rows.Close()
	var list []Quarantined
	for rows.Next() {
		var m Quarantined
		if err := rows.Scan(&m.Server, &m.ID, &m.Digest, &m.TS); err != nil {
			return nil, fmt.Errorf("quarantine: %w", err)
		}
		list = append(list, m)
	}
	return list, rows.Err()
}
