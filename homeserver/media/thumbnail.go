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
// small enough. It moves only if animated is true and the image does; one that
// would take too much to be made smaller stands still then, too. If the image is
// not uploaded yet, Thumbnail waits as Open does. The errors are M_NOT_FOUND,
// M_NOT_YET_UPLOADED, M_TOO_LARGE, M_LIMIT_EXCEEDED, and M_UNKNOWN with status
// 400 for what is no image.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#thumbnails
func (s *Service) Thumbnail(ctx context.Context, server matrix.ServerName, id string, f Frame, animated bool, wait time.Duration) (*File, error) {
	m, err := s.find(ctx, server, id, wait)
	if err != nil {
		return nil, err
	}
	f = f.round()
	want := store.Thumbnail{Original: m.Digest, Width: f.Width, Height: f.Height, Method: f.method(), Animated: animated}
	t, ok, err := s.store.Thumbnail(ctx, want)
	if err != nil {
		return nil, err
	}
	if ok {
		return s.thumbnailFile(ctx, t)
	}
	p, err := s.header(ctx, m.Digest)
	if err != nil {
		return nil, err
	}
	if p.fits(f) && (animated || !p.animated) {
		return s.file(ctx, m.Digest, p.kind, "thumbnail"+extensions[p.kind])
	}
	if t, err = s.make(ctx, want, p, f); err != nil {
		return nil, err
	}
	return s.thumbnailFile(ctx, t)
}

var extensions = map[string]string{"image/jpeg": ".jpg", "image/png": ".png", "image/apng": ".png", "image/gif": ".gif", "image/webp": ".webp"}

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
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return picture{}, fmt.Errorf("thumbnail: %w", err)
	}
	p.memory = s.atMost(p.memory + p.codes(size))
	return p, nil
}

// atMost is how much memory is set aside for an image that may take some: all
// that there is, if that is less, because few take as much as they could.
func (s *Service) atMost(memory int64) int64 { return min(memory, s.config.ThumbnailMemory) }

func errNoThumbnail() error {
	return &matrix.Error{Code: matrix.Unknown, Status: http.StatusBadRequest, Text: "no thumbnail can be made of this file"}
}

// make makes the thumbnail that t describes and stores it. Requests for the same
// one wait for one making of it, which goes on when the first of them goes away.
func (s *Service) make(ctx context.Context, t store.Thumbnail, p picture, f Frame) (store.Thumbnail, error) {
	select {
	case s.queue <- struct{}{}:
		defer func() { <-s.queue }()
	default:
		return t, &matrix.Error{Code: matrix.LimitExceeded, Text: "too many thumbnails are being made", RetryAfter: 2 * time.Second}
	}
	key := fmt.Sprintf("%x %d %d %s %v", t.Original, t.Width, t.Height, t.Method, t.Animated)
	detached := context.WithoutCancel(ctx)
	result := s.making.DoChan(key, func() (any, error) { return s.makeOne(detached, t, p, f) })
	select {
	case r := <-result:
		t, _ := r.Val.(store.Thumbnail)
		return t, r.Err
	case <-ctx.Done():
		return t, ctx.Err()
	}
}

// makeOne makes one thumbnail when there is a processor for it.
func (s *Service) makeOne(ctx context.Context, t store.Thumbnail, p picture, f Frame) (store.Thumbnail, error) {
	s.workers <- struct{}{}
	defer func() { <-s.workers }()
	src, err := s.file(ctx, t.Original, "", "")
	if err != nil {
		return t, err
	}
	content, kind, err := s.render(ctx, src, t.Animated, p, f)
	if err = errors.Join(err, src.Close()); err != nil {
		zerolog.Ctx(ctx).Debug().Err(err).Msg("thumbnail")
		return t, errNoThumbnail()
	}
	t.Type = kind
	write := func(digest blob.Digest, size int64) error {
		t.Digest, t.Size = digest[:], size
		return s.store.Update(ctx, func(tx *store.Tx) error { return tx.PutThumbnail(ctx, t) })
	}
	if content == nil { // the image itself is shorter
		err = write(blob.Digest(t.Original), 0)
	} else {
		err = s.take(ctx, bytes.NewReader(content), -1, write)
	}
	if errors.Is(err, store.ErrNotFound) { // the image was deleted meanwhile
		err = errNotFound()
	}
	return t, err
}

// render makes the thumbnail of the image in r when there is memory for it. The
// content is nil if the image itself should be taken: its movement takes more
// bytes in a smaller picture.
func (s *Service) render(ctx context.Context, r io.ReadSeeker, moves bool, p picture, f Frame) (content []byte, kind string, err error) {
	if p.animated && (moves || p.kind == "image/webp") { // whose first picture the decoder does not know
		content, kind, err = s.renderAnimation(ctx, r, moves, p, f)
		if !errors.Is(err, errStill) {
			return content, kind, err
		}
		if _, err := r.Seek(0, io.SeekStart); err != nil {
			return nil, "", err
		}
	}
	if err := s.memory.Acquire(ctx, p.memory); err != nil {
		return nil, "", err
	}
	defer s.memory.Release(p.memory)
	return p.thumbnail(r, f)
}

// renderAnimation is render for what may move. It is errStill for what does not,
// or would take too much.
func (s *Service) renderAnimation(ctx context.Context, r io.Reader, moves bool, p picture, f Frame) (content []byte, kind string, err error) {
	b, err := io.ReadAll(io.LimitReader(r, mostAnimated+1))
	if err != nil {
		return nil, "", err
	}
	if len(b) > mostAnimated {
		return nil, "", errStill
	}
	a, err := readAnimation(p.kind, b)
	if err != nil {
		return nil, "", errors.Join(errStill, err)
	}
	size, _ := f.size(a.width, a.height)
	memory := int64(len(b)) + a.memory(size)
	if memory > s.config.ThumbnailMemory || moves && a.work() > mostWork*s.config.MaxPixels {
		return nil, "", errStill
	}
	memory = s.atMost(memory + p.codes(int64(len(b))))
	if err := s.memory.Acquire(ctx, memory); err != nil {
		return nil, "", err
	}
	defer s.memory.Release(memory)
	if !moves {
		whole, err := a.first()
		if err != nil {
			return nil, "", err
		}
		return p.encode(shrink(whole, f))
	}
	content, kind, err = a.thumbnail(f)
	switch {
	case err != nil: // perhaps only behind the first picture
		return nil, "", errors.Join(errStill, err)
	case len(content) >= len(b):
		return nil, p.kind, nil
	}
	return content, kind, nil
}
