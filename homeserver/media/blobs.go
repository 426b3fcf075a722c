package media

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"time"

	"switchboard/homeserver/blob"
	"switchboard/homeserver/matrix"
)

// told is a store of blobs whose failures clients are told: that it is not
// their fault, and that it may go well later.
type told struct{ blob.Store }

// Put implements blob.Store.
func (b told) Put(ctx context.Context, r io.Reader, limit int64, known func(blob.Digest)) (blob.Digest, int64, error) {
	name, size, err := b.Store.Put(ctx, r, limit, known)
	return name, size, tell(err)
}

// Open implements blob.Store.
func (b told) Open(ctx context.Context, name blob.Digest) (io.ReadSeekCloser, int64, error) {
	r, size, err := b.Store.Open(ctx, name)
	return r, size, tell(err)
}

func tell(err error) error {
	if !errors.Is(err, blob.ErrUnavailable) && !errors.Is(err, blob.ErrRefused) {
		return err
	}
	return &matrix.Error{
		Code: matrix.Unknown, Status: http.StatusServiceUnavailable, RetryAfter: 10 * time.Second,
		Text: "files cannot be stored or fetched at the moment, try again later", Cause: err,
	}
}

// Reach tells whether the place of the files is there and lets us in. The error
// is blob.ErrUnavailable or blob.ErrRefused.
func (s *Service) Reach(ctx context.Context) error {
	var errs []error
	for _, place := range s.places() {
		if far, ok := place.(*blob.S3); ok {
			errs = append(errs, far.Reach(ctx))
		}
	}
	return errors.Join(errs...)
}

// Probe stores a file, reads, lists and deletes it, in each place where files
// are.
func (s *Service) Probe(ctx context.Context) error {
	var errs []error
	for _, place := range s.places() {
		errs = append(errs, blob.Probe(ctx, place))
	}
	return errors.Join(errs...)
}

// places are the stores of blobs, the one for new ones first.
func (s *Service) places() []blob.Store {
	if both, ok := s.blobs.Store.(blob.Both); ok {
		return []blob.Store{both.Main, both.Other}
	}
	return []blob.Store{s.blobs.Store}
}

// Move brings files from the other place to where new ones are kept, and
// answers how many and how many bytes they have; it tells so as it goes on.
// Everything stays reachable.
func (s *Service) Move(ctx context.Context, tell func(files int, bytes int64)) (files int, bytes int64, err error) {
	both, ok := s.blobs.Store.(blob.Both)
	if !ok {
		return 0, 0, nil
	}
	err = both.Other.Walk(ctx, func(i blob.Info) error {
		defer s.locks.hold(i.Digest)()
		if err := both.Move(ctx, i.Digest); errors.Is(err, fs.ErrNotExist) { // deleted meanwhile
			return nil
		} else if err != nil {
			return err
		}
		files++
		bytes += i.Size
		tell(files, bytes)
		return nil
	})
	return files, bytes, err
}
