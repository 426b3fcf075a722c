package store

import (
	"context"
	"errors"
	"fmt"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
)

// Media is a file under its ID.
type Media struct {
	ID        string
	Uploader  matrix.UserID
	Digest    []byte // SHA-256 of the content; nil where it was not uploaded yet
	Size      int64  // bytes
	Type      string // Content-Type as the client gave it
	Name      string // of the file; "" where none was given
	CreatedTS int64  // milliseconds
	ExpiresTS int64  // until when an ID waits for its content; 0: it has it
}

const mediaColumns = `media_id, uploader, digest, size, type, name, created_ts, expires_ts`

// Media finds a file by its ID. ok is false if there is none.
func (s *Store) Media(ctx context.Context, id string) (m Media, ok bool, err error) {
	return findMedia(ctx, s.db, id)
}

// Media finds a file as the transaction sees it. ok is false if there is none.
func (tx *Tx) Media(ctx context.Context, id string) (m Media, ok bool, err error) {
	return findMedia(ctx, tx, id)
}

func findMedia(ctx context.Context, q querier, id string) (m Media, ok bool, err error) {
	err = q.QueryRow(ctx, `SELECT `+mediaColumns+` FROM media WHERE media_id = $1`, id).
		Scan(&m.ID, &m.Uploader, &m.Digest, &m.Size, &m.Type, &m.Name, &m.CreatedTS, &m.ExpiresTS)
	if errors.Is(err, database.ErrNoRows) {
		return Media{}, false, nil
	}
	if err != nil {
		return Media{}, false, fmt.Errorf("media: %w", err)
	}
	return m, true, nil
}

// MediaUse tells how many bytes a user has uploaded, and how many IDs of the
// user still wait for their content at a time in milliseconds.
func (s *Store) MediaUse(ctx context.Context, user matrix.UserID, now int64) (bytes, waiting int64, err error) {
	return mediaUse(ctx, s.db, user, now)
}

// MediaUse is the same as the transaction sees it.
func (tx *Tx) MediaUse(ctx context.Context, user matrix.UserID, now int64) (bytes, waiting int64, err error) {
	return mediaUse(ctx, tx, user, now)
}

func mediaUse(ctx context.Context, q querier, user matrix.UserID, now int64) (bytes, waiting int64, err error) {
	const sum = `SELECT CAST(COALESCE(SUM(size), 0) AS BIGINT) FROM media WHERE uploader = $1`
	if err = q.QueryRow(ctx, sum, user).Scan(&bytes); err != nil {
		return 0, 0, fmt.Errorf("media use: %w", err)
	}
	const count = `SELECT COUNT(*) FROM media WHERE uploader = $1 AND expires_ts > $2`
	if err = q.QueryRow(ctx, count, user, now).Scan(&waiting); err != nil {
		return 0, 0, fmt.Errorf("media use: %w", err)
	}
	return bytes, waiting, nil
}

// AddMedia writes a new file, or an ID that waits for one.
func (tx *Tx) AddMedia(ctx context.Context, m Media) error {
	const q = `
		INSERT INTO media (media_id, uploader, digest, size, type, name, created_ts, expires_ts)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)`
	err := tx.Exec(ctx, q, m.ID, m.Uploader, m.Digest, m.Size, m.Type, m.Name, m.CreatedTS, m.ExpiresTS)
	if err != nil {
		return fmt.Errorf("add media: %w", err)
	}
	return nil
}

// FillMedia gives an ID that waits its content.
func (tx *Tx) FillMedia(ctx context.Context, m Media) error {
	const q = `UPDATE media SET digest = $2, size = $3, type = $4, name = $5, expires_ts = 0 WHERE media_id = $1`
	if err := tx.Exec(ctx, q, m.ID, m.Digest, m.Size, m.Type, m.Name); err != nil {
		return fmt.Errorf("fill media: %w", err)
	}
	return nil
}

// ExpireMedia deletes the IDs whose content did not come by a time in
// milliseconds.
func (tx *Tx) ExpireMedia(ctx context.Context, now int64) error {
	if err := tx.Exec(ctx, `DELETE FROM media WHERE expires_ts > 0 AND expires_ts <= $1`, now); err != nil {
		return fmt.Errorf("expire media: %w", err)
	}
	return nil
}

// MediaNeeded tells whether the blob with a digest is a file's content or a
// thumbnail.
func (s *Store) MediaNeeded(ctx context.Context, digest []byte) (bool, error) {
	const q = `
		SELECT (SELECT COUNT(*) FROM (SELECT 1 FROM media WHERE digest = $1 LIMIT 1) AS files)
			+ (SELECT COUNT(*) FROM (SELECT 1 FROM remote_media WHERE digest = $1 LIMIT 1) AS fetched)
			+ (SELECT COUNT(*) FROM (SELECT 1 FROM thumbnails WHERE digest = $1 LIMIT 1) AS small)`
	var n int64
	if err := s.db.QueryRow(ctx, q, digest).Scan(&n); err != nil {
		return false, fmt.Errorf("media needed: %w", err)
	}
	return n > 0, nil
}

// Thumbnail is a small version of an image.
type Thumbnail struct {
	Original      []byte // SHA-256 of what it was made of
	Width, Height int    // of the frame that was asked for
	Method        string // "scale" or "crop"
	Digest        []byte // SHA-256
	Size          int64  // bytes
	Type          string
}

// Thumbnail finds a thumbnail of an original. ok is false if it was not made.
func (s *Store) Thumbnail(ctx context.Context, original []byte, width, height int, method string) (t Thumbnail, ok bool, err error) {
	const q = `SELECT digest, size, type FROM thumbnails WHERE original = $1 AND width = $2 AND height = $3 AND method = $4`
	t = Thumbnail{Original: original, Width: width, Height: height, Method: method}
	err = s.db.QueryRow(ctx, q, original, width, height, method).Scan(&t.Digest, &t.Size, &t.Type)
	if errors.Is(err, database.ErrNoRows) {
		return Thumbnail{}, false, nil
	}
	if err != nil {
		return Thumbnail{}, false, fmt.Errorf("thumbnail: %w", err)
	}
	return t, true, nil
}

// PutThumbnail writes a thumbnail that was made.
func (tx *Tx) PutThumbnail(ctx context.Context, t Thumbnail) error {
	const q = `
		INSERT INTO thumbnails (original, width, height, method, digest, size, type)
		VALUES ($1, $2, $3, $4, $5, $6, $7)
		ON CONFLICT (original, width, height, method)
		DO UPDATE SET digest = excluded.digest, size = excluded.size, type = excluded.type`
	if err := tx.Exec(ctx, q, t.Original, t.Width, t.Height, t.Method, t.Digest, t.Size, t.Type); err != nil {
		return fmt.Errorf("put thumbnail: %w", err)
	}
	return nil
}
