package blob

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"strings"
	"time"
)

// Store is a place of blobs: Disk, S3, or Both. Its methods may be called from
// several goroutines and processes.
type Store interface {
	// Put stores all that r yields and returns its digest and size in bytes. When
	// Put returns, the blob is safe. More than limit bytes are ErrTooLarge; a limit
	// below 0 is none. An error of r is returned as it is, wrapped. Known, if it is
	// not nil, is called with the digest before the blob is there.
	//
	// A blob that exists already is written anew, so that its time of change says
	// when it was last put.
	Put(ctx context.Context, r io.Reader, limit int64, known func(Digest)) (Digest, int64, error)

	// Open returns the blob for reading from any offset, and its size in bytes. The
	// caller must close it, and ctx must live until then. A blob that does not exist
	// is fs.ErrNotExist, wrapped.
	Open(ctx context.Context, name Digest) (io.ReadSeekCloser, int64, error)

	// Delete removes the blob. One that does not exist is no error.
	Delete(ctx context.Context, name Digest) error

	// Walk calls f for each blob until f returns an error, which Walk returns. Blobs
	// that are put or deleted meanwhile may be among them or not. What is no blob is
	// passed over.
	Walk(ctx context.Context, f func(Info) error) error

	// Clean removes what crashed uploads left behind: what nobody has written to
	// for a while before now.
	Clean(ctx context.Context, now time.Time) error
}

// The errors of all stores.
var (
	// ErrTooLarge is returned by Put for a blob with more bytes than allowed.
	ErrTooLarge = errors.New("too large")

	// ErrUnavailable is in the errors of a store that cannot be reached now. The
	// same may go well later.
	ErrUnavailable = errors.New("the store of files cannot be reached")

	// ErrRefused is in the errors of a store that does not let us in, or not do what
	// is asked: its configuration or ours must be changed.
	ErrRefused = errors.New("the store of files refuses")
)

// Info is what is known of a stored blob.
type Info struct {
	Digest Digest
	Size   int64 // bytes
	Put    int64 // when it was last put, in milliseconds since 1970
}

// Both keeps blobs in Main, and still has those that lie in Other.
type Both struct{ Main, Other Store }

// Put implements Store: the blob is in Main.
func (b Both) Put(ctx context.Context, r io.Reader, limit int64, known func(Digest)) (Digest, int64, error) {
	return b.Main.Put(ctx, r, limit, known)
}

// Open implements Store.
func (b Both) Open(ctx context.Context, name Digest) (io.ReadSeekCloser, int64, error) {
	r, size, err := b.Main.Open(ctx, name)
	if errors.Is(err, fs.ErrNotExist) {
		r, size, err = b.Other.Open(ctx, name)
	}
	if errors.Is(err, fs.ErrNotExist) { // moved meanwhile
		r, size, err = b.Main.Open(ctx, name)
	}
	return r, size, err
}

// Delete implements Store: the blob is in neither.
func (b Both) Delete(ctx context.Context, name Digest) error {
	return errors.Join(b.Main.Delete(ctx, name), b.Other.Delete(ctx, name))
}

// Walk implements Store. A blob that is in both comes twice.
func (b Both) Walk(ctx context.Context, f func(Info) error) error {
	if err := b.Main.Walk(ctx, f); err != nil {
		return err
	}
	return b.Other.Walk(ctx, f)
}

// Clean implements Store.
func (b Both) Clean(ctx context.Context, now time.Time) error {
	return errors.Join(b.Main.Clean(ctx, now), b.Other.Clean(ctx, now))
}

// Move brings a blob from Other to Main. It is never in neither. Bytes that do
// not have the digest any more stay where they are, and are an error.
func (b Both) Move(ctx context.Context, name Digest) error {
	r, _, err := b.Other.Open(ctx, name)
	if err != nil {
		return err
	}
	arrived, _, err := b.Main.Put(ctx, r, -1, nil)
	if err = errors.Join(err, r.Close()); err != nil {
		return err
	}
	if arrived != name {
		return errors.Join(fmt.Errorf("blob %s is damaged: its bytes have the digest %s", name, arrived), b.Main.Delete(ctx, arrived))
	}
	return b.Other.Delete(ctx, name)
}

// Probe tries everything that a store must do, with a blob of its own that is
// gone afterwards. The error says what went wrong.
func Probe(ctx context.Context, s Store) (err error) {
	content := rand.Text()
	name, _, err := s.Put(ctx, strings.NewReader(content), -1, nil)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.Delete(ctx, name)) }()
	r, size, err := s.Open(ctx, name)
	if err != nil {
		return err
	}
	defer r.Close()
	const half = 13
	if _, err := r.Seek(half, io.SeekStart); err != nil {
		return err
	}
	if got, err := io.ReadAll(r); err != nil || string(got) != content[half:] || size != int64(len(content)) {
		return errors.Join(fmt.Errorf("%w: what was stored comes back changed", ErrRefused), err)
	}
	listed := errors.New("listed")
	err = s.Walk(ctx, func(i Info) error {
		if i.Digest == name {
			return listed
		}
		return nil
	})
	switch {
	case err == listed:
		return nil
	case err == nil:
		return fmt.Errorf("%w: what was stored is not listed", ErrRefused)
	}
	return err
}
