package blob

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net/http"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/minio/minio-go/v7"
	"github.com/minio/minio-go/v7/pkg/credentials"
)

// S3 keeps blobs in a bucket of a server that speaks Amazon's S3: the object of
// a blob is called ab/cdef… by its digest, as its file on a Disk would be. Its
// methods may be called from several goroutines and processes.
type S3 struct {
	client *minio.Core
	config S3Config
	spool  string
}

const (
	partSize      = 16 << 20 // bytes of the parts of a large object
	partsAtOnce   = 4
	attempts      = 3              // of one request
	slowest       = 128 << 10      // bytes per second: an upload that is slower is given up
	mostSilence   = time.Minute    // beside it
	unfinished    = 24 * time.Hour // after which an upload in parts counts as crashed
	listedAtOnce  = 1000
	reopenedInRow = 2 // how often reading begins again without having got a byte
)

// OpenS3 returns the blobs in a bucket. It asks nobody yet: Reach does. Uploads
// pass through files without a name in the folder spool, which is made with mode
// 0700 if needed, because what a blob is called shows when all of it is there.
func OpenS3(c S3Config, spool string) (*S3, error) {
	if err := os.MkdirAll(spool, 0o700); err != nil {
		return nil, fmt.Errorf("spool of S3: %w", err)
	}
	u, err := url.Parse(c.Endpoint)
	if err != nil {
		return nil, fmt.Errorf("open S3: %w", err)
	}
	client, err := minio.NewCore(u.Host, &minio.Options{
		Creds:      credentials.NewStaticV4(c.AccessKey, c.SecretKey, ""),
		Secure:     u.Scheme == "https",
		Region:     c.Region,
		MaxRetries: attempts,
	})
	if err != nil {
		return nil, fmt.Errorf("open S3: %w", err)
	}
	return &S3{client: client, config: c, spool: spool}, nil
}

// Reach tells whether the server can be reached and lets us see the bucket. The
// error is ErrUnavailable or ErrRefused, wrapped with what to do.
func (s *S3) Reach(ctx context.Context) error {
	for o := range s.client.ListObjectsIter(ctx, s.config.Bucket, minio.ListObjectsOptions{Prefix: s.config.Prefix, MaxKeys: 1}) {
		return s.wrap(ctx, "reach S3", o.Err)
	}
	return nil
}

// key is the name of the object of a blob.
func (s *S3) key(name Digest) string {
	d := name.String()
	return s.config.Prefix + d[:2] + "/" + d[2:]
}

// name undoes key.
func (s *S3) name(key string) (Digest, bool) {
	d, ok := strings.CutPrefix(key, s.config.Prefix)
	if !ok || len(d) < 3 || d[2] != '/' {
		return Digest{}, false
	}
	name, err := ParseDigest(d[:2] + d[3:])
	return name, err == nil
}

// Put implements Store. What crashes leaves nothing on the disk. Of a large blob
// a few parts are on their way at once.
func (s *S3) Put(ctx context.Context, r io.Reader, limit int64, known func(Digest)) (Digest, int64, error) {
	f, err := os.CreateTemp(s.spool, "*") // mode 0600
	if err != nil {
		return Digest{}, 0, fmt.Errorf("put blob: %w", err)
	}
	defer f.Close()
	if err := os.Remove(f.Name()); err != nil { // it lives for as long as it is open
		return Digest{}, 0, fmt.Errorf("put blob: %w", err)
	}
	name, size, err := fill(ctx, f, r, limit)
	if err != nil {
		return Digest{}, 0, fmt.Errorf("put blob: %w", err)
	}
	if known != nil {
		known(name)
	}
	bounded, cancel := context.WithTimeout(ctx, mostSilence+time.Duration(size/slowest)*time.Second)
	defer cancel()
	_, err = s.client.Client.PutObject(bounded, s.config.Bucket, s.key(name), io.NewSectionReader(f, 0, size), size, minio.PutObjectOptions{
		ContentType: "application/octet-stream", PartSize: partSize, NumThreads: partsAtOnce,
	})
	return name, size, s.wrap(ctx, "put blob", err)
}

// Open implements Store. Reading begins again where a connection breaks.
func (s *S3) Open(ctx context.Context, name Digest) (io.ReadSeekCloser, int64, error) {
	info, err := s.client.StatObject(ctx, s.config.Bucket, s.key(name), minio.StatObjectOptions{})
	if err != nil {
		return nil, 0, s.wrap(ctx, "open blob", err)
	}
	return &object{ctx: ctx, s3: s, key: s.key(name), etag: info.ETag, size: info.Size}, info.Size, nil
}

// Delete implements Store.
func (s *S3) Delete(ctx context.Context, name Digest) error {
	err := s.wrap(ctx, "delete blob", s.client.RemoveObject(ctx, s.config.Bucket, s.key(name), minio.RemoveObjectOptions{}))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// Walk implements Store, in the order of the digests.
func (s *S3) Walk(ctx context.Context, f func(Info) error) error {
	for o := range s.client.ListObjectsIter(ctx, s.config.Bucket, minio.ListObjectsOptions{Prefix: s.config.Prefix, Recursive: true}) {
		if o.Err != nil {
			return s.wrap(ctx, "walk blobs", o.Err)
		}
		name, ok := s.name(o.Key)
		if !ok {
			continue
		}
		if err := f(Info{Digest: name, Size: o.Size, Put: o.LastModified.UnixMilli()}); err != nil {
			return err
		}
	}
	return ctx.Err()
}

// Clean implements Store: it gives up uploads in parts that were begun long ago.
func (s *S3) Clean(ctx context.Context, now time.Time) error {
	for key, upload := "", ""; ; {
		page, err := s.client.ListMultipartUploads(ctx, s.config.Bucket, s.config.Prefix, key, upload, "", listedAtOnce)
		if err != nil {
			return s.wrap(ctx, "list unfinished uploads", err)
		}
		for _, u := range page.Uploads {
			if _, ours := s.name(u.Key); !ours || now.Sub(u.Initiated) < unfinished {
				continue
			}
			err := s.wrap(ctx, "give up an upload", s.client.AbortMultipartUpload(ctx, s.config.Bucket, u.Key, u.UploadID))
			if err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
		if key, upload = page.NextKeyMarker, page.NextUploadIDMarker; !page.IsTruncated || key == "" {
			return nil
		}
	}
}

// wrap tells what was tried and what to do about an error of the server.
func (s *S3) wrap(ctx context.Context, op string, err error) error {
	if err == nil {
		return nil
	}
	if ctx.Err() != nil { // whoever asked went away
		return fmt.Errorf("%s: %w", op, ctx.Err())
	}
	var said minio.ErrorResponse
	if !errors.As(err, &said) || said.StatusCode >= http.StatusInternalServerError || said.StatusCode == http.StatusTooManyRequests {
		return fmt.Errorf("%s: %w: %s: %w", op, ErrUnavailable, s.config.Endpoint, err)
	}
	advice := map[string]string{
		"NoSuchBucket":                 "the bucket " + s.config.Bucket + " does not exist: make it, or correct bucket",
		"InvalidAccessKeyId":           "the server does not know access_key",
		"SignatureDoesNotMatch":        "secret_key does not belong to access_key",
		"AccessDenied":                 "access_key may not do this in the bucket " + s.config.Bucket + ", or the keys are wrong: it must read, write, delete and list",
		"AuthorizationHeaderMalformed": "region is wrong",
		"RequestTimeTooSkewed":         "the clocks of the two servers differ",
	}[said.Code]
	switch {
	case said.Code == "NoSuchKey" || said.Code == "NoSuchUpload":
		return fmt.Errorf("%s: %w", op, fs.ErrNotExist)
	case advice != "":
		return fmt.Errorf("%s: %w: %s: %s (%s)", op, ErrRefused, s.config.Endpoint, advice, said.Code)
	}
	return fmt.Errorf("%s: %w: %s: %w", op, ErrRefused, s.config.Endpoint, err)
}

// object reads an object from any offset.
type object struct {
	ctx      context.Context //nolint:containedctx // of who opened it
	s3       *S3
	key      string
	etag     string
	size, at int64
	body     io.ReadCloser // from at on; nil: not begun
	reopened int           // since the last byte
}

// Read implements io.Reader.
func (o *object) Read(p []byte) (int, error) {
	if o.at >= o.size {
		return 0, io.EOF
	}
	for {
		n, err := o.read(p)
		o.at += int64(n)
		switch {
		case n > 0:
			o.reopened = 0
			return n, nil
		case err == nil:
			return 0, nil
		}
		o.stop()
		if o.reopened++; o.reopened > reopenedInRow || o.ctx.Err() != nil || errors.Is(err, fs.ErrNotExist) || errors.Is(err, ErrRefused) {
			return 0, err
		}
	}
}

// read reads from the body, which it begins if needed.
func (o *object) read(p []byte) (int, error) {
	if o.body == nil {
		var opts minio.GetObjectOptions
		err := opts.SetMatchETag(o.etag)
		if err == nil && o.at > 0 {
			err = opts.SetRange(o.at, 0)
		}
		if err != nil {
			return 0, err
		}
		body, _, _, err := o.s3.client.GetObject(o.ctx, o.s3.config.Bucket, o.key, opts)
		if err != nil {
			return 0, o.s3.wrap(o.ctx, "read blob", err)
		}
		o.body = body
	}
	n, err := o.body.Read(p)
	if n == 0 && err != nil {
		if err == io.EOF {
			err = io.ErrUnexpectedEOF // at is below size
		}
		err = o.s3.wrap(o.ctx, "read blob", err)
	}
	return n, err
}

// Seek implements io.Seeker.
func (o *object) Seek(offset int64, whence int) (int64, error) {
	at := offset
	switch whence {
	case io.SeekCurrent:
		at += o.at
	case io.SeekEnd:
		at += o.size
	}
	if at < 0 {
		return 0, fs.ErrInvalid
	}
	if at != o.at {
		o.stop()
		o.at = at
	}
	return at, nil
}

// stop ends the answer that is being read.
func (o *object) stop() {
	if o.body != nil {
		_ = o.body.Close()
		o.body = nil
	}
}

// Close implements io.Closer.
func (o *object) Close() error {
	o.stop()
	return nil
}
