package clientapi

import (
	"bytes"
	"image"
	"image/color"
	"image/png"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"switchboard/cmd/dev/s3"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/media"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// withMedia gives an API a media service.
func withMedia(t *testing.T, st *store.Store, edit func(*media.Config)) func(*API) {
	t.Helper()
	c := media.DefaultConfig()
	if edit != nil {
		edit(&c)
	}
	blobs, err := c.OpenBlobs(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	return func(a *API) { a.Media = media.New(st, a.Accounts.Bell, blobs, a.ServerName, c) }
}

// upload uploads a file and gives its server and media ID with a slash between.
func (s *server) upload(kind, name, content string) string {
	s.t.Helper()
	r := httptest.NewRequest("POST", "/_matrix/media/v3/upload?filename="+url.QueryEscape(name), strings.NewReader(content))
	r.Header.Set("Authorization", "Bearer "+s.token)
	if kind != "" {
		r.Header.Set("Content-Type", kind)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	_, id, ok := strings.Cut(w.Body.String(), `{"content_uri":"mxc://`)
	if w.Code != http.StatusOK || !ok {
		s.t.Fatalf("upload: %d %s", w.Code, w.Body)
	}
	return strings.TrimSuffix(id, `"}`)
}

// fetch gets something that is no JSON, perhaps with a header "Name: value".
func (s *server) fetch(path string, header ...string) *httptest.ResponseRecorder {
	s.t.Helper()
	r := httptest.NewRequest("GET", path, nil)
	if s.token != "" {
		r.Header.Set("Authorization", "Bearer "+s.token)
	}
	for _, h := range header {
		name, value, _ := strings.Cut(h, ": ")
		r.Header.Set(name, value)
	}
	w := httptest.NewRecorder()
	s.handler.ServeHTTP(w, r)
	return w
}

const (
	download  = "/_matrix/client/v1/media/download/"
	thumbnail = "/_matrix/client/v1/media/thumbnail/"
)

func TestDownload(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st, withMedia(t, st, nil))
		id := s.upload("text/plain; charset=utf-8", "notes \"1\".txt", "0123456789")
		w := s.fetch(download + id)
		want := map[string]string{
			"Content-Type": "text/plain; charset=utf-8", "Content-Disposition": `inline; filename="notes \"1\".txt"`, "Content-Length": "10",
			"Cross-Origin-Resource-Policy": "cross-origin", "X-Content-Type-Options": "nosniff", "Access-Control-Allow-Origin": "*", "Accept-Ranges": "bytes",
		}
		for name, value := range want {
			if got := w.Header().Get(name); got != value {
				t.Errorf("%s: got %q, want %q", name, got, value)
			}
		}
		if csp := w.Header().Get("Content-Security-Policy"); !strings.HasPrefix(csp, "sandbox; default-src 'none'; script-src 'none';") {
			t.Errorf("policy %q", csp)
		}
		if cache := w.Header().Get("Cache-Control"); !strings.HasPrefix(cache, "private,") {
			t.Errorf("others may keep what needs a token: %q", cache)
		}
		if w.Code != 200 || w.Body.String() != "0123456789" {
			t.Errorf("%d %s", w.Code, w.Body)
		}
		if part := s.fetch(download+id, "Range: bytes=2-4"); part.Code != 206 || part.Body.String() != "234" || part.Header().Get("Content-Range") != "bytes 2-4/10" {
			t.Errorf("range: %d %s", part.Code, part.Body)
		}
		if again := s.fetch(download+id, "If-None-Match: "+w.Header().Get("ETag")); again.Code != 304 {
			t.Errorf("unchanged file: %d", again.Code)
		}
		if other := s.fetch(download + id + "/%22%0D%0AX:%20y.txt").Header(); other.Get("Content-Disposition") != `inline; filename="\"X: y.txt"` || other.Get("X") != "" {
			t.Errorf("disposition %q", other.Get("Content-Disposition"))
		}
		html := s.fetch(download + s.upload("text/html", "", "<script>alert(1)</script>"))
		if html.Header().Get("Content-Disposition") != "attachment" || html.Header().Get("Content-Type") != "text/html" {
			t.Errorf("HTML: %v", html.Header())
		}
		if w := s.fetch(download + s.upload("", "", "x")); w.Header().Get("Content-Type") != "application/octet-stream" {
			t.Errorf("type %q", w.Header().Get("Content-Type"))
		}
		s.want(404, `M_NOT_FOUND`, "GET", download+"a.test/nothing", "")
		s.want(404, `M_NOT_FOUND`, "GET", download+"b.test/nothing", "")
		s.want(404, `M_NOT_FOUND`, "GET", download+"a.test/%2e%2e%2f%2e%2e%2fetc%2fpasswd", "")
		s.want(400, `M_INVALID_PARAM`, "GET", download+id+"?timeout_ms=soon", "")
		s.nobody().want(401, `M_MISSING_TOKEN`, "GET", download+id, "")
		s.nobody().want(404, `M_NOT_FOUND`, "GET", "/_matrix/media/v3/download/"+id, "")
		s.nobody().want(404, `M_NOT_FOUND`, "GET", "/_matrix/media/v3/thumbnail/"+id, "")
		s.nobody().want(401, `M_MISSING_TOKEN`, "POST", "/_matrix/media/v3/upload", "x")
	})
}

func TestUnauthenticatedMedia(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st, withMedia(t, st, func(c *media.Config) { c.Unauthenticated, c.MaxUpload = true, 4096 }))
		id := s.upload("text/plain", "", "public")
		w := s.nobody().fetch("/_matrix/media/v3/download/" + id + "/name.txt")
		if w.Code != 200 || w.Body.String() != "public" || !strings.HasPrefix(w.Header().Get("Cache-Control"), "public,") {
			t.Errorf("%d %s %v", w.Code, w.Body, w.Header())
		}
		s.want(200, `{"m.upload.size":4096}`, "GET", "/_matrix/media/v3/config", "")
		s.want(200, `{"m.upload.size":4096}`, "GET", "/_matrix/client/v1/media/config", "")
		s.want(413, `M_TOO_LARGE`, "POST", "/_matrix/media/v3/upload", strings.Repeat("x", 4097))
	})
}

func TestLateUpload(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st, withMedia(t, st, nil))
		created := s.want(200, `"unused_expires_at":`, "POST", "/_matrix/media/v1/create", "")
		id := strings.TrimPrefix(created.text("content_uri"), "mxc://")
		s.want(504, `M_NOT_YET_UPLOADED`, "GET", download+id+"?timeout_ms=0", "")
		s.want(504, `M_NOT_YET_UPLOADED`, "GET", thumbnail+id+"?timeout_ms=0&width=32&height=32", "")
		const put = "/_matrix/media/v3/upload/"
		s.new("bob").want(403, `M_FORBIDDEN`, "PUT", put+id, "x")
		s.want(404, `M_NOT_FOUND`, "PUT", put+"a.test/nothing", "x")
		s.want(403, `M_FORBIDDEN`, "PUT", put+"b.test/nothing", "x")
		s.want(200, `{}`, "PUT", put+id, "here")
		s.want(409, `M_CANNOT_OVERWRITE_MEDIA`, "PUT", put+id, "again")
		if w := s.fetch(download + id); w.Body.String() != "here" {
			t.Errorf("got %s", w.Body)
		}
	})
}

func TestThumbnailEndpoint(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st, withMedia(t, st, nil))
		img := image.NewNRGBA(image.Rect(0, 0, 200, 100))
		for i := range 200 * 100 {
			img.Set(i%200, i/200, color.NRGBA{R: uint8(i), A: 255})
		}
		var b bytes.Buffer
		if err := png.Encode(&b, img); err != nil {
			t.Fatal(err)
		}
		id := s.upload("image/png", "a.png", b.String())
		for query, size := range map[string]image.Point{
			"?width=32&height=32&method=crop":        {X: 32, Y: 32},
			"?width=64&height=64":                    {X: 64, Y: 32},
			"?width=1000&height=1000&animated=false": {X: 200, Y: 100},
		} {
			w := s.fetch(thumbnail + id + query)
			c, _, err := image.DecodeConfig(w.Body)
			if w.Code != 200 || err != nil || c.Width != size.X || c.Height != size.Y || !strings.HasPrefix(w.Header().Get("Content-Disposition"), "inline; filename=thumbnail.") {
				t.Errorf("%s: %d, %v, %d × %d", query, w.Code, err, c.Width, c.Height)
			}
		}
		for query, code := range map[string]string{
			"": "M_INVALID_PARAM", "?width=0&height=1": "M_INVALID_PARAM", "?width=-1&height=1": "M_INVALID_PARAM", "?width=x&height=1": "M_INVALID_PARAM",
			"?width=1&height=1&method=stretch": "M_INVALID_PARAM", "?width=1&height=1&animated=maybe": "M_INVALID_PARAM",
		} {
			s.want(400, code, "GET", thumbnail+id+query, "")
		}
		s.want(400, `M_UNKNOWN`, "GET", thumbnail+s.upload("image/png", "", "no image")+"?width=1&height=1", "")
		s.want(404, `M_NOT_FOUND`, "GET", thumbnail+"a.test/nothing?width=1&height=1", "")
	})
}

// TestRanges asks for parts of a file, on the disk and on S3.
func TestRanges(t *testing.T) {
	const content = "0123456789"
	many := "Range: bytes=0-0" + strings.Repeat(",2-2", mostRanges)
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		for _, place := range []string{"disk", "S3"} {
			s := prepare(t, st, withMedia(t, st, func(c *media.Config) {
				if place == "S3" {
					server := s3.Start(t)
					c.Storage = "s3"
					c.S3.Endpoint, c.S3.Bucket, c.S3.AccessKey, c.S3.SecretKey = server.URL, s3.Bucket, s3.AccessKey, s3.SecretKey
				}
			}))
			s = s.new(strings.ToLower(place))
			id := s.upload("text/plain", "", content)
			etag := s.fetch(download + id).Header().Get("ETag")
			for _, tt := range []struct {
				header  []string
				code    int
				body    string
				content string // Content-Range
			}{
				{[]string{"Range: bytes=0-"}, 206, content, "bytes 0-9/10"},
				{[]string{"Range: bytes=7-"}, 206, "789", "bytes 7-9/10"},
				{[]string{"Range: bytes=-2"}, 206, "89", "bytes 8-9/10"},
				{[]string{"Range: bytes=8-100"}, 206, "89", "bytes 8-9/10"},
				{[]string{"Range: bytes=10-"}, 416, "", "bytes */10"},
				{[]string{"Range: bytes=5-2"}, 416, "", ""},
				{[]string{"Range: lines=1-2"}, 200, content, ""},
				{[]string{"Range: bytes=7-", "If-Range: " + etag}, 206, "789", "bytes 7-9/10"},
				{[]string{"Range: bytes=7-", `If-Range: "another"`}, 200, content, ""},
				{[]string{"Range: bytes=7-", "If-Range: Mon, 02 Jan 2006 15:04:05 GMT"}, 200, content, ""},
				{[]string{"Range: bytes=7-", "If-None-Match: " + etag}, 304, "", ""},
				{[]string{many}, 200, content, ""},
			} {
				w := s.fetch(download+id, tt.header...)
				if w.Code != tt.code || w.Code < 300 && w.Body.String() != tt.body || w.Header().Get("Content-Range") != tt.content {
					t.Errorf("%s: %q: %d %q %q", place, tt.header, w.Code, w.Body, w.Header().Get("Content-Range"))
				}
			}
			parts := s.fetch(download+id, "Range: bytes=0-1,5-6")
			if kind := parts.Header().Get("Content-Type"); parts.Code != 206 || !strings.HasPrefix(kind, "multipart/byteranges") || !strings.Contains(parts.Body.String(), "bytes 5-6/10") {
				t.Errorf("%s: two parts: %d %s %s", place, parts.Code, kind, parts.Body)
			}
		}
	})
}

// TestQuarantineRoom keeps everybody from the files that a room's events name,
// and from no others.
func TestQuarantineRoom(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st, withMedia(t, st, nil))
		icon, sent, sticker, avatar, other := s.upload("image/png", "", "icon"), s.upload("", "", "sent"), s.upload("", "", "sticker"), s.upload("", "", "avatar"), s.upload("", "", "other")
		s.want(200, ``, "PUT", v3+"profile/@alice:a.test/avatar_url", `{"avatar_url":"mxc://`+avatar+`"}`)
		create := `{"initial_state":[{"type":"m.room.avatar","content":{"url":"mxc://` + icon + `"}}]}`
		room := s.want(200, ``, "POST", v3+"createRoom", create).text("room_id")
		s.want(200, ``, "PUT", v3+"rooms/"+room+"/send/m.room.message/1", `{"msgtype":"m.file","body":"x","url":"mxc://`+sent+`"}`)
		s.want(200, ``, "PUT", v3+"rooms/"+room+"/send/m.sticker/2", `{"body":"x","info":{},"url":"mxc://`+sticker+`"}`)
		if n, err := s.api.Media.QuarantineRoom(t.Context(), matrix.RoomID(room)); n != 3 || err != nil {
			t.Errorf("%d files, %v", n, err)
		}
		for _, id := range []string{icon, sent, sticker} {
			s.want(404, `M_NOT_FOUND`, "GET", download+id, "")
		}
		for _, id := range []string{avatar, other} {
			if w := s.fetch(download + id); w.Code != 200 {
				t.Errorf("%s: %d", id, w.Code)
			}
		}
		if _, err := s.api.Media.QuarantineRoom(t.Context(), "!nothing:a.test"); err == nil {
			t.Error("a room that is not known was searched")
		}
	})
}
