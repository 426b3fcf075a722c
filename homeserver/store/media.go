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
	UsedTS    int64  // when somebody last asked for it, or it was made, to about a day, milliseconds
}

const mediaColumns = `media_id, uploader, digest, size, type, name, created_ts, expires_ts, used_ts`

// Media finds a file by its ID. ok is false if there is none.
func (s *Store) Media(ctx context.Context, id string) (m Media, ok bool, err error) {
	return findMedia(ctx, s.db, id)
}

// Media finds a file as the transaction sees it. ok is false if there is none.
func (tx *Tx) Media(ctx context.Context, id string) (m Media, ok bool, err error) {
	return findMedia(ctx, tx, id)
}

func findMedia(ctx context.Context, q querier, id string) (Media, bool, error) {
	list, err := listMedia(ctx, q, `media_id = $1`, id)
	if err != nil || len(list) == 0 {
		return Media{}, false, err
	}
	return list[0], true, nil
}

// listMedia reads files; where is what follows WHERE.
func listMedia(ctx context.Context, q querier, where string, args ...any) ([]Media, error) {
	rows, err := q.Query(ctx, `SELECT `+mediaColumns+` FROM media WHERE `+where, args...)
	if err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	defer rows.Close()
	var list []Media
	for rows.Next() {
		var m Media
		if err := rows.Scan(&m.ID, &m.Uploader, &m.Digest, &m.Size, &m.Type, &m.Name, &m.CreatedTS, &m.ExpiresTS, &m.UsedTS); err != nil {
			return nil, fmt.Errorf("media: %w", err)
		}
		list = append(list, m)
	}
	return list, rows.Err()
}

// MediaOf lists up to limit files of a user, or of all for "", the newest first:
// those made before a time in milliseconds.
func (s *Store) MediaOf(ctx context.Context, user matrix.UserID, before int64, limit int) ([]Media, error) {
	if user == "" {
		return listMedia(ctx, s.db, `created_ts < $1 ORDER BY created_ts DESC LIMIT $2`, before, limit)
	}
	return listMedia(ctx, s.db, `uploader = $1 AND created_ts < $2 ORDER BY created_ts DESC LIMIT $3`, user, before, limit)
}

// MediaBehind lists up to limit files of a user whose IDs stand behind one, in
// the order of the IDs.
func (s *Store) MediaBehind(ctx context.Context, user matrix.UserID, id string, limit int) ([]Media, error) {
	return listMedia(ctx, s.db, `uploader = $1 AND media_id > $2 ORDER BY media_id LIMIT $3`, user, id, limit)
}

// UnusedMedia lists up to limit files for which nobody has asked since a time in
// milliseconds, without those that are the avatar of a user of the server, and
// those that wait for their content.
func (s *Store) UnusedMedia(ctx context.Context, server matrix.ServerName, since int64, limit int) ([]Media, error) {
	const where = `used_ts < $1 AND expires_ts = 0 AND NOT EXISTS (
		SELECT 1 FROM profile_fields WHERE name = 'avatar_url' AND user_id = uploader AND value = '"mxc://' || $2 || '/' || media_id || '"')
		ORDER BY used_ts LIMIT $3`
	return listMedia(ctx, s.db, where, since, string(server), limit)
}

// UseMedia notes that somebody asked for a file at a time in milliseconds.
func (tx *Tx) UseMedia(ctx context.Context, id string, now int64) error {
	if err := tx.Exec(ctx, `UPDATE media SET used_ts = $2 WHERE media_id = $1`, id, now); err != nil {
		return fmt.Errorf("use media: %w", err)
	}
	return nil
}

// DropMedia forgets a file, and has its blobs deleted unless others need them.
func (tx *Tx) DropMedia(ctx context.Context, m Media, now int64) error {
	err := tx.Exec(ctx, `DELETE FROM media WHERE media_id = $1`, m.ID)
	if err == nil && m.Digest != nil {
		err = tx.dropBlobs(ctx, m.Digest, now)
	}
	if err != nil {
		return fmt.Errorf("drop media: %w", err)
	}
	return nil
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
		INSERT INTO media (media_id, uploader, digest, size, type, name, created_ts, expires_ts, used_ts)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $7)`
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

// Thumbnail is a small version of an image.
type Thumbnail struct {
	Original      []byte // SHA-256 of what it was made of
	Width, Height int    // of the frame that was asked for
	Method        string // "scale" or "crop"
	Animated      bool   // may move
	Digest        []byte // SHA-256
	Size          int64  // bytes
	Type          string
}

// Thumbnail finds what was made of t.Original for the frame, the method and the
// movement of t. ok is false if it was not made.
func (s *Store) Thumbnail(ctx context.Context, t Thumbnail) (found Thumbnail, ok bool, err error) {
	const q = `SELECT digest, size, type FROM thumbnails WHERE original = $1 AND width = $2 AND height = $3 AND method = $4 AND animated = $5`
	err = s.db.QueryRow(ctx, q, t.Original, t.Width, t.Height, t.Method, t.Animated).Scan(&t.Digest, &t.Size, &t.Type)
	if errors.Is(err, database.ErrNoRows) {
		return Thumbnail{}, false, nil
	}
	if err != nil {
		return Thumbnail{}, false, fmt.Errorf("thumbnail: %w", err)
	}
	return t, true, nil
}

// PutThumbnail writes a thumbnail that was made. It is ErrNotFound if the
// original was deleted meanwhile.
func (tx *Tx) PutThumbnail(ctx context.Context, t Thumbnail) error {
	there, err := original(ctx, tx, t.Original)
	if err == nil && !there {
		return ErrNotFound
	}
	const q = `
		INSERT INTO thumbnails (original, width, height, method, animated, digest, size, type)
		VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
		ON CONFLICT (original, width, height, method, animated)
		DO UPDATE SET digest = excluded.digest, size = excluded.size, type = excluded.type`
	if err == nil {
		err = tx.Exec(ctx, q, t.Original, t.Width, t.Height, t.Method, t.Animated, t.Digest, t.Size, t.Type)
	}
	if err != nil {
		return fmt.Errorf("put thumbnail: %w", err)
	}
	return nil
}
