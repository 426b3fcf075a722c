package media

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/blob"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// sides are the widths and heights that thumbnails have. What is asked for is
// rounded up, so that nobody can fill the disk with sizes.
var sides = []int{32, 48, 64, 96, 128, 160, 240, 320, 480, 640, 800}

// round gives the frame that is made for one that is asked for.
func (f Frame) round() Frame {
	return Frame{roundSide(f.Width), roundSide(f.Height), f.Crop}
}

func roundSide(n int) int {
	for _, side := range sides {
		if n <= side {
			return side
		}
	}
	return sides[len(sides)-1]
}

func (f Frame) method() string {
	if f.Crop {
		return "crop"
	}
	return "scale"
}

// Thumbnail opens a small version of an image, or the image itself where that is
// small enough. It never moves, unless animated is true and the image itself is
// small enough. If the image is not uploaded yet, Thumbnail waits as Open does.
// The errors are M_NOT_FOUND, M_NOT_YET_UPLOADED, M_TOO_LARGE, M_LIMIT_EXCEEDED,
// and M_UNKNOWN with status 400 for what is no image.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#thumbnails
func (s *Service) Thumbnail(ctx context.Context, server matrix.ServerName, id string, f Frame, animated bool, wait time.Duration) (*File, error) {
	m, err := s.find(ctx, server, id, wait)
	if err != nil {
		return nil, err
	}
	f = f.round()
	t, ok, err := s.store.Thumbnail(ctx, store.Thumbnail{Original: m.Digest, Width: f.Width, Height: f.Height, Method: f.method()})
	if err != nil {
		return nil, err
	}
	if ok && !animated {
		return s.thumbnailFile(ctx, t)
	}
	p, err := s.header(ctx, m.Digest)
	if err != nil {
		return nil, err
	}
	if p.fits(f) && (animated || !p.animated) {
		return s.file(ctx, m.Digest, p.kind, "thumbnail"+extensions[p.kind])
	}
	if !ok {
		if t, err = s.make(ctx, m.Digest, p, f); err != nil {
			return nil, err
		}
	}
	return s.thumbnailFile(ctx, t)
}

var extensions = map[string]string{"image/jpeg": ".jpg", "image/png": ".png", "image/gif": ".gif", "image/webp": ".webp"}

func (s *Service) thumbnailFile(ctx context.Context, t store.Thumbnail) (*File, error) {
	return s.file(ctx, t.Digest, t.Type, "thumbnail"+extensions[t.Type])
}

// header reads what image a blob is, and refuses those that are too large.
func (s *Service) header(ctx context.Context, digest []byte) (picture, error) {
	f, err := s.file(ctx, digest, "", "")
	if err != nil {
		return picture{}, err
	}
	defer f.Close()
	b, err := io.ReadAll(io.LimitReader(f, headerLength))
	if err != nil {
		return picture{}, fmt.Errorf("thumbnail: %w", err)
	}
	p, err := readHeader(b)
	if err != nil {
		return picture{}, errNoThumbnail()
	}
	if int64(p.width)*int64(p.height) > s.config.MaxPixels || p.memory > s.config.ThumbnailMemory {
		return picture{}, matrix.Errorf(matrix.TooLarge, "the image is too large to make thumbnails of it")
	}
	return p, nil
}

func errNoThumbnail() error {
	return &matrix.Error{Code: matrix.Unknown, Status: http.StatusBadRequest, Text: "no thumbnail can be made of this file"}
}

// make makes a thumbnail and stores it. Requests for the same one wait for one
// making of it, which goes on when the first of them goes away.
func (s *Service) make(ctx context.Context, original []byte, p picture, f Frame) (store.Thumbnail, error) {
	select {
	case s.queue <- struct{}{}:
		defer func() { <-s.queue }()
	default:
		return store.Thumbnail{}, &matrix.Error{Code: matrix.LimitExceeded, Text: "too many thumbnails are being made", RetryAfter: 2 * time.Second}
	}
	key := fmt.Sprintf("%x %d %d %s", original, f.Width, f.Height, f.method())
	detached := context.WithoutCancel(ctx)
	result := s.making.DoChan(key, func() (any, error) { return s.makeOne(detached, original, p, f) })
	select {
	case r := <-result:
		t, _ := r.Val.(store.Thumbnail)
		return t, r.Err
	case <-ctx.Done():
		return store.Thumbnail{}, ctx.Err()
	}
}

// makeOne makes one thumbnail when there is memory for it.
func (s *Service) makeOne(ctx context.Context, original []byte, p picture, f Frame) (store.Thumbnail, error) {
	if err := s.memory.Acquire(ctx, p.memory); err != nil {
		return store.Thumbnail{}, fmt.Errorf("thumbnail: %w", err)
	}
	defer s.memory.Release(p.memory)
	src, err := s.file(ctx, original, "", "")
	if err != nil {
		return store.Thumbnail{}, err
	}
	content, kind, err := p.thumbnail(src, f)
	if err = errors.Join(err, src.Close()); err != nil {
		zerolog.Ctx(ctx).Debug().Err(err).Msg("thumbnail")
		return store.Thumbnail{}, errNoThumbnail()
	}
	t := store.Thumbnail{Original: original, Width: f.Width, Height: f.Height, Method: f.method(), Type: kind}
	err = s.take(ctx, bytes.NewReader(content), -1, func(digest blob.Digest, size int64) error {
		t.Digest, t.Size = digest[:], size
		return s.store.Update(ctx, func(tx *store.Tx) error { return tx.PutThumbnail(ctx, t) })
	})
	if errors.Is(err, store.ErrNotFound) { // the image was deleted meanwhile
		err = errNotFound()
	}
	return t, err
}
