package media

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"switchboard/homeserver/blob"
	"switchboard/homeserver/cache"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// PreviewConfig is the section "media.previews" of the configuration file.
type PreviewConfig struct {
	// Enabled lets clients ask for previews of pages on the web. The server then
	// fetches them, so the owners of the pages learn its address, and not that of
	// the user. It never asks private addresses.
	Enabled bool `yaml:"enabled"`

	// Timeout is how long a page may take with all that belongs to its preview.
	Timeout time.Duration `yaml:"timeout"`

	// MaxPage is how much of a page is read.
	MaxPage int64 `yaml:"max_page" unit:"bytes"`

	// MaxImage is the largest image that a preview may have.
	MaxImage int64 `yaml:"max_image" unit:"bytes"`

	// Keep is how long a preview is given again before the page is read anew.
	Keep time.Duration `yaml:"keep"`
}

func (c PreviewConfig) check(bad func(key, text string)) {
	if c.Timeout < time.Second {
		bad("previews.timeout", "must be at least 1s")
	}
	if c.MaxPage < 1<<10 {
		bad("previews.max_page", "must be at least 1K")
	}
	if c.MaxImage < 1<<10 {
		bad("previews.max_image", "must be at least 1K")
	}
	if c.Keep < 0 {
		bad("previews.keep", "cannot be negative")
	}
}

// previews is what is remembered of pages.
type previews struct {
	once  sync.Once
	known *cache.Cache[string, preview]
	slots *semaphore.Weighted
}

// preview is a page as clients are told of it.
type preview struct {
	graph json.RawMessage
	until time.Time
}

const (
	mostPreviews   = 8 << 20 // bytes of previews that are remembered
	mostFetches    = 8       // pages that are fetched at once
	longestURL     = 2048
	largestOEmbed  = 64 << 10
	previewHeader  = "text/html, application/xhtml+xml, image/*;q=0.8, */*;q=0.1"
	previewVisitor = "Switchboard (Matrix homeserver; preview of a link)"
)

// Preview tells what a page on the web says of itself, as Open Graph properties.
// Its image is fetched, too. The errors are M_INVALID_PARAM, M_FORBIDDEN where
// previews are off, M_LIMIT_EXCEEDED, and M_UNKNOWN with status 502 where the
// page cannot be had.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url
func (s *Service) Preview(ctx context.Context, address string) (json.RawMessage, error) {
	if !s.config.Previews.Enabled || s.Web == nil {
		return nil, matrix.Errorf(matrix.Forbidden, "this server makes no previews of links")
	}
	at, err := parsePage(address)
	if err != nil {
		return nil, err
	}
	s.previews.once.Do(func() {
		s.previews.known, s.previews.slots = cache.New[string, preview](mostPreviews), semaphore.NewWeighted(mostFetches)
	})
	if p, ok := s.previews.known.Find(at.String()); ok && time.Now().Before(p.until) {
		return p.graph, nil
	}
	detached := context.WithoutCancel(ctx) // who asks next gets what was begun
	result := s.making.DoChan("preview "+at.String(), func() (any, error) { return s.preview(detached, at) })
	select {
	case r := <-result:
		if r.Err != nil {
			return nil, previewError(at, r.Err)
		}
		return r.Val.(json.RawMessage), nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// parsePage checks what a client wants a preview of.
func parsePage(address string) (*url.URL, error) {
	at, err := url.Parse(address)
	if err != nil || len(address) > longestURL || at.Scheme != "http" && at.Scheme != "https" || at.Hostname() == "" || at.User != nil || at.Opaque != "" {
		return nil, matrix.Errorf(matrix.InvalidParam, "url must be an address on the web, http:// or https://, with up to %d bytes and no password", longestURL)
	}
	at.Fragment, at.RawFragment = "", ""
	return at, nil
}

// previewError is what the client is told.
func previewError(at *url.URL, err error) error {
	var told *matrix.Error
	switch {
	case errors.As(err, &told):
		return err
	case errors.Is(err, fedclient.ErrRefused):
		return &matrix.Error{Code: matrix.Forbidden, Text: "the address of " + at.Hostname() + " is none on the internet", Cause: err}
	}
	return &matrix.Error{Code: matrix.Unknown, Status: http.StatusBadGateway, Text: at.Hostname() + " does not give the page", Cause: err}
}

// preview reads a page and remembers what it says.
func (s *Service) preview(ctx context.Context, at *url.URL) (json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, s.config.Previews.Timeout)
	defer cancel()
	if !s.previews.slots.TryAcquire(1) {
		return nil, &matrix.Error{Code: matrix.LimitExceeded, Text: "too many pages are being read", RetryAfter: 5 * time.Second}
	}
	defer s.previews.slots.Release(1)
	graph, err := s.look(ctx, at)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(graph)
	if err != nil {
		return nil, err
	}
	s.previews.known.Put(at.String(), preview{b, time.Now().Add(s.config.Previews.Keep)}, len(b)+len(at.String()))
	return b, nil
}

// look fetches a page, or an image, with what belongs to its preview.
func (s *Service) look(ctx context.Context, at *url.URL) (map[string]any, error) {
	r, err := s.visit(ctx, at)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	content := r.Header.Get("Content-Type")
	kind, _, _ := mime.ParseMediaType(content)
	graph := map[string]any{}
	switch {
	case strings.HasPrefix(kind, "image/"):
		return graph, s.addImage(ctx, graph, r)
	case kind != "text/html" && kind != "application/xhtml+xml":
		return graph, nil
	}
	b, err := io.ReadAll(io.LimitReader(r.Body, s.config.Previews.MaxPage))
	if err != nil {
		return nil, err
	}
	p := readPage(b, content, r.Request.URL)
	if p.oembed != "" {
		if b, err := s.read(ctx, p.base, p.oembed, largestOEmbed); err == nil { // without it the page still says something
			p.readOEmbed(b)
		}
	}
	graph, image := p.properties()
	if image == "" {
		return graph, nil
	}
	if u, err := p.base.Parse(image); err == nil {
		if u, err := parsePage(u.String()); err == nil {
			s.fetchImage(ctx, graph, u)
		}
	}
	return graph, nil
}

// visit asks for something on the web. The body must be closed.
func (s *Service) visit(ctx context.Context, at *url.URL) (*http.Response, error) {
	q, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	q.Header.Set("User-Agent", previewVisitor)
	q.Header.Set("Accept", previewHeader)
	r, err := s.Web.Do(q)
	if err != nil {
		return nil, fedclient.WithoutURL(err)
	}
	if r.StatusCode != http.StatusOK {
		r.Body.Close()
		return nil, fmt.Errorf("status %d", r.StatusCode)
	}
	return r, nil
}

// read reads a small document that a page refers to.
func (s *Service) read(ctx context.Context, base *url.URL, link string, most int64) ([]byte, error) {
	u, err := base.Parse(link)
	if err == nil {
		u, err = parsePage(u.String())
	}
	if err != nil {
		return nil, err
	}
	r, err := s.visit(ctx, u)
	if err != nil {
		return nil, err
	}
	defer r.Body.Close()
	return io.ReadAll(io.LimitReader(r.Body, most))
}

// fetchImage adds the image of a page. One that cannot be had is left out.
func (s *Service) fetchImage(ctx context.Context, graph map[string]any, at *url.URL) {
	r, err := s.visit(ctx, at)
	if err != nil {
		return
	}
	defer r.Body.Close()
	if with := (map[string]any{}); s.addImage(ctx, with, r) == nil {
		for k, v := range with {
			graph[k] = v
		}
	}
}

// addImage keeps an image like one of another server: it goes when nobody wants
// it any more. Only what a browser shows and holds no programs is taken.
func (s *Service) addImage(ctx context.Context, graph map[string]any, r *http.Response) error {
	now := time.Now().UnixMilli()
	m := store.RemoteMedia{Server: s.server, ID: newID(), FetchedTS: now, UsedTS: now}
	var p picture
	err := s.take(ctx, r.Body, s.config.Previews.MaxImage, func(digest blob.Digest, size int64) (err error) {
		if p, err = s.header(ctx, digest[:]); err != nil {
			return err
		}
		if err := s.admit(ctx, Name{}, digest[:]); err != nil {
			return err
		}
		m.Digest, m.Size, m.Type = digest[:], size, p.kind
		return s.store.Update(ctx, func(tx *store.Tx) error { return tx.PutRemoteMedia(ctx, m) })
	})
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	width, height := p.upright()
	graph["og:image"], graph["og:image:type"], graph["matrix:image:size"] = s.URI(m.ID), p.kind, m.Size
	graph["og:image:width"], graph["og:image:height"] = width, height
	return nil
}
