package media

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"mime"
	"net/http"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/blob"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

const (
	// mostFetching is how many requests may wait for files of other servers,
	// and mostOfOne for those of one server; one more is told to come again.
	mostFetching = 256
	mostOfOne    = 64

	// remoteWait is how long another server may wait for a file that is still
	// being uploaded there.
	remoteWait = 20 * time.Second

	// usedStep is how often it is written down that a file is still in use.
	usedStep = 24 * time.Hour
)

// fetches counts the requests that wait for files of other servers.
type fetches struct {
	mu       sync.Mutex // tier 1; guards all below
	total    int
	byServer map[matrix.ServerName]int
}

// begin tells whether one more may wait. Whoever may must call end.
func (f *fetches) begin(server matrix.ServerName) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.total >= mostFetching || f.byServer[server] >= mostOfOne {
		return false
	}
	if f.byServer == nil {
		f.byServer = map[matrix.ServerName]int{}
	}
	f.total++
	f.byServer[server]++
	return true
}

func (f *fetches) end(server matrix.ServerName) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.total--
	if f.byServer[server]--; f.byServer[server] == 0 {
		delete(f.byServer, server)
	}
}

// remote gives the row of a file of another server, which is fetched if it is
// not here.
func (s *Service) remote(ctx context.Context, server matrix.ServerName, id string) (store.Media, error) {
	if _, err := matrix.ParseServerName(string(server)); err != nil {
		return store.Media{}, errNotFound()
	}
	m, ok, err := s.kept(ctx, server, id)
	if err != nil {
		return store.Media{}, err
	}
	if ok {
		return asMedia(m), s.use(ctx, m)
	}
	if err := s.admit(ctx, Name{server, id}, nil); err != nil {
		return store.Media{}, err
	}
	if s.Client == nil {
		return store.Media{}, errNotFound()
	}
	if !s.fetches.begin(server) {
		return store.Media{}, &matrix.Error{Code: matrix.LimitExceeded, Text: "too many files are being fetched", RetryAfter: 5 * time.Second}
	}
	defer s.fetches.end(server)
	detached := context.WithoutCancel(ctx) // who asks next gets what was begun
	result := s.making.DoChan("fetch "+string(server)+"/"+id, func() (any, error) { return s.fetch(detached, server, id) })
	select {
	case r := <-result:
		if r.Err != nil {
			return store.Media{}, remoteError(server, r.Err)
		}
		return asMedia(r.Val.(store.RemoteMedia)), nil
	case <-ctx.Done():
		return store.Media{}, ctx.Err()
	}
}

// asMedia is a file of another server in the form of one of ours.
func asMedia(m store.RemoteMedia) store.Media {
	return store.Media{ID: m.ID, Digest: m.Digest, Size: m.Size, Type: m.Type, Name: m.Name, CreatedTS: m.FetchedTS}
}

// kept gives the row of a file of another server, and false if the file is not here.
func (s *Service) kept(ctx context.Context, server matrix.ServerName, id string) (store.RemoteMedia, bool, error) {
	m, ok, err := s.store.RemoteMedia(ctx, server, id)
	if err == nil && ok {
		ok, err = s.has(ctx, m.Digest)
	}
	return m, ok, err
}

// has tells whether a blob is there.
func (s *Service) has(ctx context.Context, digest []byte) (bool, error) {
	f, _, err := s.blobs.Open(ctx, blob.Digest(digest))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	return true, f.Close()
}

// use notes that a file is in use.
func (s *Service) use(ctx context.Context, m store.RemoteMedia) error {
	now := time.Now().UnixMilli()
	if now-m.UsedTS < usedStep.Milliseconds() {
		return nil
	}
	return s.store.Update(ctx, func(tx *store.Tx) error { return tx.UseRemoteMedia(ctx, m.Server, m.ID, now) })
}

// fetch gets a file from its server and keeps it, unless somebody else has done so
// meanwhile.
func (s *Service) fetch(ctx context.Context, server matrix.ServerName, id string) (store.RemoteMedia, error) {
	if m, ok, err := s.kept(ctx, server, id); err != nil || ok {
		return m, err
	}
	from, err := s.Client.Download(ctx, server, id, remoteWait, s.config.MaxRemote)
	if err != nil {
		return store.RemoteMedia{}, err
	}
	defer from.Close()
	body := &uploading{Reader: from}
	now := time.Now().UnixMilli()
	m := store.RemoteMedia{Server: server, ID: id, Type: cleanType(from.Type), Name: dispositionName(from.Disposition), FetchedTS: now, UsedTS: now}
	err = s.take(ctx, body, s.config.MaxRemote, func(digest blob.Digest, size int64) error {
		m.Digest, m.Size = digest[:], size
		return s.store.Update(ctx, func(tx *store.Tx) error { return tx.PutRemoteMedia(ctx, m) })
	})
	if body.err != nil { // of the other server, not of our disk
		return m, &brokenError{body.err}
	}
	if err != nil {
		return m, err
	}
	if quota := s.config.RemoteQuota; quota > 0 && s.fetched.Add(m.Size) > quota/32 {
		s.fetched.Store(0)
		_, err := s.trim(ctx, time.Now(), blob.Digest(m.Digest))
		if err == nil {
			err = s.Reap(ctx, quietly) // so that the disk has room at once
		}
		if err != nil {
			zerolog.Ctx(ctx).Error().Err(err).Msg("dropping files of other servers")
		}
	}
	return m, nil
}

// dispositionName is the file name in a Content-Disposition, "" if there is none.
func dispositionName(s string) string {
	_, params, err := mime.ParseMediaType(s)
	if err != nil {
		return ""
	}
	return cleanName(params["filename"])
}

// brokenError tells that a file broke off on its way here.
type brokenError struct{ err error }

// Error implements error.
func (e *brokenError) Error() string { return "file broke off: " + e.err.Error() }

// Unwrap gives the cause.
func (e *brokenError) Unwrap() error { return e.err }

// remoteError is what a client is told when another server did not give a file.
func remoteError(server matrix.ServerName, err error) error {
	var refused *fedclient.ResponseError
	var away *fedclient.UnreachableError
	var left *fedclient.BackoffError
	var bad *fedclient.AnswerError
	var broken *brokenError
	switch {
	case errors.Is(err, fedclient.ErrAnswerSize):
		return &matrix.Error{Code: matrix.TooLarge, Status: http.StatusBadGateway, Text: "the file is too large to be fetched from its server"}
	case errors.Is(err, fedclient.ErrNotPermitted):
		return errNotFound()
	case errors.As(err, &refused) && refused.Code == matrix.NotYetUploaded:
		return matrix.Errorf(matrix.NotYetUploaded, "Media has not been uploaded yet")
	case errors.As(err, &refused) && refused.Code == matrix.TooLarge:
		return &matrix.Error{Code: matrix.TooLarge, Status: http.StatusBadGateway, Text: "the file is too large for its server"}
	case errors.As(err, &refused) && refused.Status < 500 && refused.Status != http.StatusTooManyRequests:
		return errNotFound()
	case errors.As(err, &refused), errors.As(err, &away), errors.As(err, &left), errors.As(err, &bad), errors.As(err, &broken):
		return &matrix.Error{Code: matrix.Unknown, Status: http.StatusBadGateway, Text: "the file could not be fetched from " + string(server), Cause: err}
	}
	return fmt.Errorf("fetch media: %w", err)
}
