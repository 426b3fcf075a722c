package fedclient

import (
	"context"
	"errors"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"switchboard/homeserver/matrix"
)

// Media is a file of another server. It must be closed. Type and Disposition are
// what that server says.
type Media struct {
	Type        string // Content-Type
	Disposition string // Content-Disposition
	Size        int64  // bytes; -1 where the server does not say

	body   io.Reader
	left   int64
	failed func(err error) error // makes what a reader gets out of an error of the body
	close  func()
}

// Read implements io.Reader. The error is ErrAnswerSize where the file is
// larger than was asked for, and an UnreachableError where it breaks off.
func (m *Media) Read(p []byte) (int, error) {
	if m.left < 0 {
		return 0, ErrAnswerSize
	}
	if int64(len(p)) > m.left {
		p = p[:m.left+1] // one more, to see whether there is one
	}
	n, err := m.body.Read(p)
	if m.left -= int64(n); m.left < 0 {
		return n + int(m.left), ErrAnswerSize
	}
	if err != nil && err != io.EOF {
		err = m.failed(err)
	}
	return n, err
}

// Close implements io.Closer.
func (m *Media) Close() error {
	m.close()
	return nil
}

// ThumbnailSize is which thumbnail is wanted.
type ThumbnailSize struct {
	Width, Height int
	Method        string // "scale" or "crop"
	Animated      bool
}

// Download asks the server of a file for it: mxc://server/id. Wait is how long
// the server may wait for a file that is still being uploaded. A file larger
// than limit bytes is ErrAnswerSize, at once or while it is read. Servers that
// only know the old form are asked in that.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediadownloadmediaid
func (c *Client) Download(ctx context.Context, server matrix.ServerName, id string, wait time.Duration, limit int64) (*Media, error) {
	query := values("timeout_ms", strconv.FormatInt(wait.Milliseconds(), 10))
	m, err := c.media(ctx, server, call{
		op: "getContent", method: http.MethodGet, path: path("/_matrix/federation/v1/media/download/{}", id), query: query,
	}, limit)
	if onlyOldMedia(err) {
		return c.oldMedia(ctx, server, path("/_matrix/media/v3/download/{}/{}", string(server), id), query, limit)
	}
	return m, err
}

// Thumbnail is Download for a thumbnail of an image, which may have another
// size than is wanted.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediathumbnailmediaid
func (c *Client) Thumbnail(ctx context.Context, server matrix.ServerName, id string, size ThumbnailSize, wait time.Duration, limit int64) (*Media, error) {
	query := values(
		"width", strconv.Itoa(size.Width), "height", strconv.Itoa(size.Height), "method", size.Method,
		"timeout_ms", strconv.FormatInt(wait.Milliseconds(), 10),
	)
	if size.Animated {
		query.Set("animated", "true")
	}
	m, err := c.media(ctx, server, call{
		op: "getContentThumbnail", method: http.MethodGet, path: path("/_matrix/federation/v1/media/thumbnail/{}", id), query: query,
	}, limit)
	if onlyOldMedia(err) {
		return c.oldMedia(ctx, server, path("/_matrix/media/v3/thumbnail/{}/{}", string(server), id), query, limit)
	}
	return m, err
}

// onlyOldMedia tells whether a server seems not to know the operation. Some
// answer 400 to what they take for an old path.
func onlyOldMedia(err error) bool {
	var refused *ResponseError
	return errors.As(err, &refused) && (refused.unknownOperation() || refused.Status == http.StatusBadRequest && refused.Code == "")
}

// media makes a call whose answer has two parts: what is said of the file, and
// the file or where it is.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#content-repository
func (c *Client) media(ctx context.Context, server matrix.ServerName, k call, limit int64) (*Media, error) {
	k.accept = "multipart/mixed"
	resp, m, err := c.openMedia(ctx, server, k, limit)
	if err != nil {
		return nil, err
	}
	body := m.body.(*watched)
	err = func() error {
		kind, params, err := mime.ParseMediaType(resp.Header.Get("Content-Type"))
		if err != nil || kind != "multipart/mixed" || params["boundary"] == "" {
			return errors.New("no multipart/mixed")
		}
		parts := multipart.NewReader(m.body, params["boundary"])
		about, err := parts.NextRawPart()
		if err != nil {
			return err
		}
		if _, err := readAll(about, maxErrorAnswer); err != nil {
			return err
		}
		file, err := parts.NextRawPart()
		if err != nil {
			return err
		}
		if location := file.Header.Get("Location"); location != "" {
			return c.redirected(resp.Request.Context(), m, location)
		}
		m.body, m.Size = file, -1
		if n, err := strconv.ParseInt(file.Header.Get("Content-Length"), 10, 63); err == nil && n >= 0 {
			m.Size = n
		}
		m.Type, m.Disposition = file.Header.Get("Content-Type"), file.Header.Get("Content-Disposition")
		if m.Disposition == "" { // Dendrite puts it at the head of both parts
			m.Disposition = resp.Header.Get("Content-Disposition")
		}
		return nil
	}()
	if err == nil && m.Size > limit {
		err = ErrAnswerSize
	}
	if err != nil {
		m.close()
		if body.broke(err) {
			return nil, wrap(k.op, m.failed(err))
		}
		return nil, wrap(k.op, &AnswerError{server, err})
	}
	return m, nil
}

// oldMedia asks in the old form, whose answer is the file itself.
func (c *Client) oldMedia(ctx context.Context, server matrix.ServerName, path string, query url.Values, limit int64) (*Media, error) {
	query.Set("allow_remote", "false")
	k := call{op: "getContent", method: http.MethodGet, path: path, query: query, unsigned: true, accept: "*/*"}
	resp, m, err := c.openMedia(ctx, server, k, limit)
	if err != nil {
		return nil, err
	}
	if resp.ContentLength > limit {
		m.close()
		return nil, wrap(k.op, &AnswerError{server, ErrAnswerSize})
	}
	m.Size, m.Type, m.Disposition = resp.ContentLength, resp.Header.Get("Content-Type"), resp.Header.Get("Content-Disposition")
	return m, nil
}

// openMedia makes a call whose answer may take long but must not stand still.
func (c *Client) openMedia(ctx context.Context, server matrix.ServerName, k call, limit int64) (*http.Response, *Media, error) {
	ctx, cancel := context.WithTimeout(ctx, c.config.LongTimeout)
	resp, err := c.send(ctx, server, k)
	if err != nil {
		cancel()
		return nil, nil, wrap(k.op, err)
	}
	body := &watched{r: resp.Body}
	stop := body.watch(c.tick(), cancel)
	m := &Media{body: body, left: limit}
	m.failed = func(err error) error {
		if body.stalled.Load() {
			return c.unreachable(context.WithoutCancel(ctx), server, k, errStall)
		}
		return &UnreachableError{server, err}
	}
	m.close = func() {
		stop()
		cancel()
		_ = resp.Body.Close()
	}
	return resp, m, nil
}

// redirected gets the file of m from another host, which is no Matrix server.
func (c *Client) redirected(ctx context.Context, m *Media, location string) error {
	u, err := url.Parse(location)
	if err != nil || u.Scheme != "https" || u.Host == "" {
		return errors.New("the file is at no https address")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return err
	}
	r.Header.Set("User-Agent", userAgent)
	resp, err := c.files.Do(r)
	if err != nil {
		return fmt.Errorf("%s does not give the file: %w", u.Host, WithoutURL(err))
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		return fmt.Errorf("%s answered %d", u.Host, resp.StatusCode)
	}
	first := m.close
	m.close = func() {
		_ = resp.Body.Close()
		first()
	}
	m.body.(*watched).r = resp.Body
	m.Size, m.Type, m.Disposition = resp.ContentLength, resp.Header.Get("Content-Type"), resp.Header.Get("Content-Disposition")
	return nil
}
