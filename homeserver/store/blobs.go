package store

import (
	"context"
	"fmt"
)

// MediaNeeded tells whether the blob with a digest is a file's content or a
// thumbnail.
func (s *Store) MediaNeeded(ctx context.Context, digest []byte) (bool, error) {
	needed, err := original(ctx, s.db, digest)
	if err == nil && !needed {
		err = s.db.QueryRow(ctx, `SELECT EXISTS (SELECT 1 FROM thumbnails WHERE digest = $1)`, digest).Scan(&needed)
	}
	if err != nil {
		return false, fmt.Errorf("media needed: %w", err)
	}
	return needed, nil
}

// original tells whether a file has a content.
func original(ctx context.Context, q querier, digest []byte) (ok bool, err error) {
	const exists = `SELECT EXISTS (SELECT 1 FROM media WHERE digest = $1) OR EXISTS (SELECT 1 FROM remote_media WHERE digest = $1)`
	return ok, q.QueryRow(ctx, exists, digest).Scan(&ok)
}

// dropBlobs has the blob of a file that was forgotten deleted unless others need
// it. If no file has that content any more, its thumbnails are forgotten too.
func (tx *Tx) dropBlobs(ctx context.Context, digest []byte, now int64) error {
	const drop = ` ON CONFLICT (digest) DO UPDATE SET dropped_ts = excluded.dropped_ts`
	err := tx.Exec(ctx, `INSERT INTO dropped_blobs (digest, dropped_ts) VALUES ($1, $2)`+drop, digest, now)
	if err != nil {
		return err
	}
	if still, err := original(ctx, tx, digest); err != nil || still {
		return err
	}
	const thumbnails = `INSERT INTO dropped_blobs (digest, dropped_ts) SELECT DISTINCT digest, CAST($2 AS BIGINT) FROM thumbnails WHERE original = $1`
	if err := tx.Exec(ctx, thumbnails+drop, digest, now); err != nil {
		return err
	}
	return tx.Exec(ctx, `DELETE FROM thumbnails WHERE original = $1`, digest)
}

// DroppedBlob is a blob that is to be deleted unless something needs it.
type DroppedBlob struct {
	Digest []byte // SHA-256
	TS     int64  // when it lost a row that needed it, milliseconds
}

// DroppedBlobs lists up to limit of them, the oldest first.
func (s *Store) DroppedBlobs(ctx context.Context, limit int) ([]DroppedBlob, error) {
	rows, err := s.db.Query(ctx, `SELECT digest, dropped_ts FROM dropped_blobs ORDER BY dropped_ts LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("dropped blobs: %w", err)
	}
	defer rows.Close()
	var list []DroppedBlob
	for rows.Next() {
		var b DroppedBlob
		if err := rows.Scan(&b.Digest, &b.TS); err != nil {
			return nil, fmt.Errorf("dropped blobs: %w", err)
		}
		list = append(list, b)
	}
	return list, rows.Err()
}

// ForgetBlobs notes that blobs were deleted, or are needed again. Those that were
// dropped once more meanwhile stay on the list.
func (tx *Tx) ForgetBlobs(ctx context.Context, list []DroppedBlob) error {
	for _, b := range list {
		if err := tx.Exec(ctx, `DELETE FROM dropped_blobs WHERE digest = $1 AND dropped_ts = $2`, b.Digest, b.TS); err != nil {
			return fmt.Errorf("forget blobs: %w", err)
		}
	}
	return nil
}
