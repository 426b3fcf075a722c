package media

import (
	"context"
	"crypto/rand"
	"errors"
	"io"
	"io/fs"
	"mime"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/semaphore"
	"golang.org/x/sync/singleflight"

	"switchboard/homeserver/blob"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/store"
)

// Service is the media of one server. Its methods may be called from several
// goroutines. New makes it.
type Service struct {
	// Client asks other servers for their files; nil asks none. It is set
	// before the first call and not changed afterwards.
	Client *fedclient.Client

	// Web asks pages of which clients want previews; nil asks none. It must refuse
	// private addresses. It is set before the first call and not changed afterwards.
	Web *http.Client

	store  *store.Store
	bell   *notify.Bell
	blobs  told
	server matrix.ServerName
	config Config

	locks   locks
	memory  *semaphore.Weighted
	making  singleflight.Group
	queue   chan struct{} // as many as may wait for a thumbnail
	workers chan struct{} // as many as may be made at once

	previews previews

	fetches fetches
	fetched atomic.Int64 // bytes since the quota was last looked at
}

// mostWaiting is how many requests may wait for thumbnails that are not made
// yet; one more is told to come again.
const mostWaiting = 256

// New makes the service. What it needs stays open for as long as it is used.
func New(st *store.Store, bell *notify.Bell, blobs blob.Store, server matrix.ServerName, c Config) *Service {
	return &Service{
		store: st, bell: bell, blobs: told{blobs}, server: server, config: c,
		memory: semaphore.NewWeighted(c.ThumbnailMemory), queue: make(chan struct{}, mostWaiting),
		workers: make(chan struct{}, runtime.GOMAXPROCS(0)),
	}
}

// Config is the section of the configuration that the service uses.
func (s *Service) Config() Config { return s.config }

// Upload is a file on its way in.
type Upload struct {
	Type   string // Content-Type as the client gave it
	Name   string // of the file; may be ""
	Length int64  // bytes if they are known, or -1
	Body   io.Reader
}

// File is a file on its way out. It must be closed.
type File struct {
	io.ReadSeekCloser
	Type   string // Content-Type, safe to be sent
	Name   string // as uploaded; "" where none was given
	Digest string // of the content, in hexadecimal digits
	Inline bool   // may be shown in a browser, and need not be saved
}

// URI is the address of a file of this server.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#matrix-content-mxc-uris
func (s *Service) URI(id string) string { return "mxc://" + string(s.server) + "/" + id }

// Put stores a file for user and gives its ID. The errors are M_TOO_LARGE, and
// M_FORBIDDEN where the user's quota is used up.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav3upload
func (s *Service) Put(ctx context.Context, user matrix.UserID, u Upload) (id string, err error) {
	now := time.Now().UnixMilli()
	m := store.Media{ID: newID(), Uploader: user, CreatedTS: now}
	err = s.receive(ctx, &m, u, func(tx *store.Tx) error { return tx.AddMedia(ctx, m) })
	return m.ID, err
}

// Create gives an ID for a file that user will upload later, with Fill, and the
// time until when. The error is M_LIMIT_EXCEEDED where too many IDs of the user
// still wait.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav1create
func (s *Service) Create(ctx context.Context, user matrix.UserID) (id string, expires time.Time, err error) {
	now := time.Now()
	expires = now.Add(s.config.UploadExpiry)
	m := store.Media{ID: newID(), Uploader: user, CreatedTS: now.UnixMilli(), ExpiresTS: expires.UnixMilli()}
	err = s.store.Update(ctx, func(tx *store.Tx) error {
		_, waiting, err := tx.MediaUse(ctx, user, now.UnixMilli())
		if err != nil {
			return err
		}
		if waiting >= int64(s.config.PendingUploads) {
			return &matrix.Error{Code: matrix.LimitExceeded, Text: "too many uploads of yours have begun and not ended", RetryAfter: time.Minute}
		}
		return tx.AddMedia(ctx, m)
	})
	return m.ID, expires, err
}

// Fill uploads the file for an ID of Create. The errors are those of Put,
// M_NOT_FOUND for an ID that does not exist or has expired, M_FORBIDDEN for
// another user's, and M_CANNOT_OVERWRITE_MEDIA.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixmediav3uploadservernamemediaid
func (s *Service) Fill(ctx context.Context, user matrix.UserID, id string, u Upload) error {
	may := func(m store.Media, ok bool, err error) error {
		switch {
		case err != nil:
			return err
		case !ok || m.ExpiresTS != 0 && m.ExpiresTS <= time.Now().UnixMilli():
			return matrix.Errorf(matrix.NotFound, "there is no such media, or its upload has expired")
		case m.Uploader != user:
			return matrix.Errorf(matrix.Forbidden, "this media ID is another user's")
		case m.Digest != nil:
			return matrix.Errorf(matrix.CannotOverwriteMedia, "Media ID already has content")
		}
		return nil
	}
	if err := may(s.store.Media(ctx, id)); err != nil { // before the file is read
		return err
	}
	m := store.Media{ID: id, Uploader: user}
	err := s.receive(ctx, &m, u, func(tx *store.Tx) error {
		if err := may(tx.Media(ctx, id)); err != nil {
			return err
		}
		return tx.FillMedia(ctx, m)
	})
	if err == nil {
		s.bell.Ring(bellKey(id))
	}
	return err
}

// bellKey is what those listen for who wait for a file.
func bellKey(id string) string { return "media " + id }

// receive reads an upload, keeps it, and writes its row with add.
func (s *Service) receive(ctx context.Context, m *store.Media, u Upload, add func(tx *store.Tx) error) error {
	limit, refused, err := s.allowance(ctx, m.Uploader)
	if err != nil {
		return err
	}
	if u.Length > limit {
		return refused
	}
	body := &uploading{Reader: u.Body}
	err = s.take(ctx, body, limit, func(digest blob.Digest, size int64) error {
		m.Digest, m.Size, m.Type, m.Name = digest[:], size, cleanType(u.Type), cleanName(u.Name)
		return s.store.Update(ctx, func(tx *store.Tx) error {
			if s.config.Quota > 0 {
				used, _, err := tx.MediaUse(ctx, m.Uploader, 0)
				if err != nil {
					return err
				}
				if used+size > s.config.Quota { // another upload was faster
					return refused
				}
			}
			return add(tx)
		})
	})
	switch {
	case errors.Is(err, blob.ErrTooLarge):
		return refused
	case body.err != nil: // of the client, not of ours
		return &matrix.Error{Code: matrix.Unknown, Status: http.StatusBadRequest, Text: "the upload broke off"}
	}
	return err
}

// allowance is how large the next upload of user may be, and what to answer if
// it is larger.
func (s *Service) allowance(ctx context.Context, user matrix.UserID) (limit int64, refused error, err error) {
	limit = s.config.MaxUpload
	refused = matrix.Errorf(matrix.TooLarge, "the file is larger than %d bytes", limit)
	if s.config.Quota == 0 {
		return limit, refused, nil
	}
	used, _, err := s.store.MediaUse(ctx, user, 0)
	if left := max(s.config.Quota-used, 0); err == nil && left < limit {
		return left, matrix.Errorf(matrix.Forbidden, "you have uploaded %d bytes and may have %d", used, s.config.Quota), nil
	}
	return limit, refused, err
}

// take stores what r yields, up to limit bytes, and has write commit the row
// that needs it. Nobody deletes the blob meanwhile; without a row it does not
// stay.
func (s *Service) take(ctx context.Context, r io.Reader, limit int64, write func(digest blob.Digest, size int64) error) error {
	release := func() {}
	digest, size, err := s.blobs.Put(ctx, r, limit, func(d blob.Digest) { release = s.locks.hold(d) })
	if err != nil {
		release()
		return err
	}
	err = write(digest, size)
	release()
	if err != nil {
		s.discard(ctx, digest)
	}
	return err
}

// discard deletes a blob for which there is no row in the end, unless something
// else needs it. Where that fails, Walk does it.
func (s *Service) discard(ctx context.Context, digest blob.Digest) {
	if _, err := s.remove(context.WithoutCancel(ctx), digest); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("a file that was refused is left for a while")
	}
}

// uploading keeps the error of a client's upload apart from those of the disk.
type uploading struct {
	io.Reader
	err error
}

// Read implements io.Reader.
func (u *uploading) Read(p []byte) (int, error) {
	n, err := u.Reader.Read(p)
	if err != nil && err != io.EOF {
		u.err = err
	}
	return n, err
}

// newID makes a media ID that cannot be guessed: 160 bits.
func newID() string {
	return strings.ToLower(rand.Text()) + strings.ToLower(rand.Text()[:6])
}

// Open opens a file for reading. If it is not uploaded yet, Open waits for it
// for as long as wait says. A file of another server is fetched if it is not
// here. The errors are M_NOT_FOUND and M_NOT_YET_UPLOADED; for files of other
// servers also M_TOO_LARGE, M_LIMIT_EXCEEDED, and M_UNKNOWN with status 502
// where the server does not give it.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid
func (s *Service) Open(ctx context.Context, server matrix.ServerName, id string, wait time.Duration) (*File, error) {
	m, err := s.find(ctx, server, id, wait)
	if err != nil {
		return nil, err
	}
	return s.file(ctx, m.Digest, m.Type, m.Name)
}

// file opens a blob.
func (s *Service) file(ctx context.Context, digest []byte, kind, name string) (*File, error) {
	d := blob.Digest(digest)
	content, _, err := s.blobs.Open(ctx, d)
	if errors.Is(err, fs.ErrNotExist) {
		zerolog.Ctx(ctx).Error().Err(err).Msg("a media file is missing on the disk")
		return nil, errNotFound()
	}
	if err != nil {
		return nil, err
	}
	return &File{ReadSeekCloser: content, Type: kind, Name: name, Digest: d.String(), Inline: inline(kind)}, nil
}

func errNotFound() error { return matrix.Errorf(matrix.NotFound, "there is no such media") }

// find gives the row of a file that was uploaded, perhaps after a while, and is
// not in quarantine.
func (s *Service) find(ctx context.Context, server matrix.ServerName, id string, wait time.Duration) (store.Media, error) {
	if !validID(id) {
		return store.Media{}, errNotFound()
	}
	look := s.own
	if server != s.server {
		look = func(ctx context.Context, id string, _ time.Duration) (store.Media, error) {
			return s.remote(ctx, server, id)
		}
	}
	m, err := look(ctx, id, wait)
	if err != nil {
		return m, err
	}
	return m, s.admit(ctx, Name{server, id}, m.Digest)
}

// admit refuses a file that is in quarantine, by its name or by its content.
func (s *Service) admit(ctx context.Context, name Name, digest []byte) error {
	locked, err := s.store.Quarantined(ctx, name.Server, name.ID, digest)
	if err == nil && locked {
		err = errNotFound()
	}
	return err
}

// own gives the row of a file of this server.
func (s *Service) own(ctx context.Context, id string, wait time.Duration) (store.Media, error) {
	timer := time.NewTimer(wait)
	defer timer.Stop()
	for {
		filled := s.bell.Listen(bellKey(id))
		now := time.Now().UnixMilli()
		m, ok, err := s.store.Media(ctx, id)
		switch {
		case err != nil:
			return m, err
		case !ok:
			return s.ofPreview(ctx, id)
		case m.Digest == nil && m.ExpiresTS <= now:
			return m, errNotFound()
		case m.Digest != nil && now-m.UsedTS > usedStep.Milliseconds():
			return m, s.store.Update(ctx, func(tx *store.Tx) error { return tx.UseMedia(ctx, id, now) })
		case m.Digest != nil:
			return m, nil
		}
		select {
		case <-filled:
		case <-timer.C:
			return m, matrix.Errorf(matrix.NotYetUploaded, "Media has not been uploaded yet")
		case <-ctx.Done():
			return m, ctx.Err()
		}
	}
}

// ofPreview gives the row of an image that belongs to a preview.
func (s *Service) ofPreview(ctx context.Context, id string) (store.Media, error) {
	m, ok, err := s.store.RemoteMedia(ctx, s.server, id)
	if err == nil && !ok {
		err = errNotFound()
	}
	if err != nil {
		return store.Media{}, err
	}
	return asMedia(m), s.use(ctx, m)
}

// validID tells whether an ID has only the characters that one may have.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#content-repo-security-considerations
func validID(s string) bool {
	for _, c := range []byte(s) {
		if !(c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' || c == '_' || c == '-') {
			return false
		}
	}
	return s != "" && len(s) <= 255
}

// cleanType is a Content-Type as it may be sent again.
func cleanType(s string) string {
	const unknown = "application/octet-stream"
	kind, params, err := mime.ParseMediaType(s)
	if err != nil || !strings.Contains(kind, "/") || len(s) > 255 {
		return unknown
	}
	if t := mime.FormatMediaType(kind, params); t != "" {
		return t
	}
	return unknown
}
