package media

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// web is a site on this computer: pages by their paths.
type web map[string]func(w http.ResponseWriter)

func (s web) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if page := s[r.URL.Path]; page != nil {
		page(w)
		return
	}
	http.NotFound(w, r)
}

func newSite(t *testing.T, pages web) *httptest.Server {
	t.Helper()
	server := httptest.NewServer(pages)
	t.Cleanup(server.Close)
	return server
}

// text is a page of a type.
func text(kind, body string) func(http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", kind)
		_, _ = io.WriteString(w, body)
	}
}

func previewing(c *Config) { c.Previews.Enabled, c.Previews.Timeout = true, 10*time.Minute }

func TestPreview(t *testing.T) {
	picture := string(encoded(t, "image/png", pictureOf(30, 20, 255)))
	site := web{
		"/page": text("text/html", `<html><head><title>Head</title><meta property="og:title" content="Graph &amp; co"><meta property="og:type" content="article">
			<meta name="description" content="About"><meta property="og:image" content="pic.png"><meta property="og:image:width" content="5000"></head><body><title>late</title></body></html>`),
		"/plain":     text("text/html; charset=iso-8859-1", "<title>\n  Gr\xfc\xdfe </title><p>text"),
		"/twitter":   text("text/html", `<meta name="twitter:title" content="T"><meta name="twitter:description" content="D">`),
		"/hostile":   text("text/html", `<meta property="og:title" content="<script>alert(1)</script>`+"\u202e\u0007"+`x"><meta property="og:image" content="javascript:alert(1)"><base href="file:///etc/">`),
		"/long":      text("text/html", "<title>"+strings.Repeat("y", 5000)+"</title>"),
		"/pic.png":   text("image/png", picture),
		"/wrong":     text("image/png", "<svg onload=alert(1)>"),
		"/file":      text("application/zip", "PK"),
		"/badimage":  text("text/html", `<title>ok</title><meta property="og:image" content="/wrong">`),
		"/noimage":   text("text/html", `<title>ok</title><meta property="og:image" content="/gone">`),
		"/video":     text("text/html", `<title>raw</title><link rel="alternate" type="application/json+oembed" href="/oembed">`),
		"/oembed":    text("application/json", `{"type":"video","title":"Film","provider_name":"Tube","author_name":"Ann","thumbnail_url":"/pic.png","html":"<iframe src=x>"}`),
		"/oembedbad": text("text/html", `<title>raw</title><link rel="alternate" type="application/json+oembed" href="file:///etc/passwd">`),
	}
	server := httptest.NewServer(site)
	defer server.Close()
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, _ := start(t, st, previewing)
		s.Web = server.Client()
		look := func(path string) map[string]any {
			t.Helper()
			b, err := s.Preview(t.Context(), server.URL+path)
			if err != nil {
				t.Fatalf("%s: %v", path, err)
			}
			var graph map[string]any
			if err := json.Unmarshal(b, &graph); err != nil {
				t.Fatal(err)
			}
			return graph
		}
		g := look("/page#part")
		uri, _ := g["og:image"].(string)
		if g["og:title"] != "Graph & co" || g["og:type"] != "article" || g["og:description"] != "About" || g["og:image:width"] != 30.0 || g["og:image:height"] != 20.0 ||
			g["matrix:image:size"] != float64(len(picture)) || g["og:image:type"] != "image/png" || !strings.HasPrefix(uri, "mxc://") {
			t.Errorf("page: %v", g)
		}
		id := uri[strings.LastIndex(uri, "/")+1:]
		f, err := s.Open(t.Context(), here, id, 0)
		if err != nil {
			t.Fatal(err)
		}
		if b, _ := io.ReadAll(f); string(b) != picture {
			t.Error("the image of the preview is another one")
		}
		f.Close()
		for path, want := range map[string]string{
			"/plain":     `map[og:title:Grüße]`,
			"/twitter":   `map[og:description:D og:title:T]`,
			"/hostile":   `map[og:title:<script>alert(1)</script>x]`,
			"/file":      `map[]`,
			"/badimage":  `map[og:title:ok]`,
			"/noimage":   `map[og:title:ok]`,
			"/oembedbad": `map[og:title:raw]`,
		} {
			if got := fmt.Sprint(look(path)); got != want {
				t.Errorf("%s: %s, want %s", path, got, want)
			}
		}
		if g := look("/video"); g["og:title"] != "Film" || g["og:site_name"] != "Tube" || g["og:description"] != "Ann" || g["og:image"] == nil || strings.Contains(fmt.Sprint(g), "iframe") {
			t.Errorf("oEmbed: %v", g)
		}
		if n := len([]rune(look("/long")["og:title"].(string))); n != longestText+1 {
			t.Errorf("a long title has %d characters", n)
		}
		if g := look("/pic.png"); g["og:image:width"] != 30.0 || g["og:title"] != nil {
			t.Errorf("image alone: %v", g)
		}
		for _, bad := range []string{"", "x", "file:///etc/passwd", "ftp://a.test/", "http://", "http://user:pw@a.test/", "http://" + strings.Repeat("a", 3000), "javascript:alert(1)"} {
			_, err := s.Preview(t.Context(), bad)
			wantCode(t, err, matrix.InvalidParam)
		}
		_, err = s.Preview(t.Context(), server.URL+"/gone")
		wantCode(t, err, matrix.Unknown)
		_, err = s.Preview(t.Context(), server.URL+"/wrong")
		wantCode(t, err, matrix.Unknown)
	})
}

// TestPreviewRemembers: a page is read once for many who look.
func TestPreviewRemembers(t *testing.T) {
	var asked atomic.Int64
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		asked.Add(1)
		text("text/html", "<title>x</title>")(w)
	}))
	defer server.Close()
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		asked.Store(0)
		s, _ := start(t, st, previewing)
		s.Web = server.Client()
		for range 3 {
			if _, err := s.Preview(t.Context(), server.URL+"/x"); err != nil {
				t.Fatal(err)
			}
		}
		if n := asked.Load(); n != 1 {
			t.Errorf("the page was read %d times", n)
		}
		s, _ = start(t, st, nil)
		s.Web = server.Client()
		_, err := s.Preview(t.Context(), server.URL+"/x")
		wantCode(t, err, matrix.Forbidden)
	})
}

// TestPreviewTellsNoAddress: a link that leads nowhere may stand in an encrypted
// room, so no error, which would be logged, has it.
func TestPreviewTellsNoAddress(t *testing.T) {
	const gone = "http://127.0.0.1:1" // where nobody listens
	moved := httptest.NewServer(web{"/moved": func(w http.ResponseWriter) {
		w.Header().Set("Location", gone+"/share?key=sesame")
		w.WriteHeader(http.StatusFound)
	}})
	defer moved.Close()
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, _ := start(t, st, previewing)
		s.Web = &http.Client{}
		for _, at := range []string{gone + "/share?key=sesame", moved.URL + "/moved"} {
			_, err := s.Preview(t.Context(), at)
			var told *matrix.Error
			if !errors.As(err, &told) || told.Cause == nil || strings.Contains(fmt.Sprint(err, told.Cause), "sesame") {
				t.Errorf("%s: got %v", at, err)
			}
		}
	})
}

// names answers every name with one address.
type names struct{ *net.Resolver }

func (names) LookupNetIP(context.Context, string, string) ([]netip.Addr, error) {
	return []netip.Addr{netip.MustParseAddr("127.0.0.1")}, nil
}

// TestPreviewPrivate: no page, redirect or name makes the server ask its own
// network.
func TestPreviewPrivate(t *testing.T) {
	var asked atomic.Int64
	inner := httptest.NewServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) { asked.Add(1) }))
	defer inner.Close()
	outer := httptest.NewServer(web{
		"/page":  text("text/html", `<title>ok</title><meta property="og:image" content="`+inner.URL+`/x.png"><link rel="alternate" type="application/json+oembed" href="`+inner.URL+`/o">`),
		"/moved": func(w http.ResponseWriter) { w.Header().Set("Location", inner.URL); w.WriteHeader(http.StatusFound) },
	})
	defer outer.Close()
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, _ := start(t, st, previewing)
		s.Web = fedclient.NewDialer(fedclient.DefaultOutboundConfig(), names{net.DefaultResolver}).Client(time.Minute)
		port := inner.URL[strings.LastIndex(inner.URL, ":"):]
		for _, at := range []string{inner.URL, "http://inner.test" + port, "http://[::1]" + port, "http://2130706433" + port, "http://0x7f.1" + port, "http://[::ffff:127.0.0.1]" + port, "http://169.254.169.254/latest"} {
			_, err := s.Preview(t.Context(), at)
			wantCode(t, err, matrix.Forbidden)
		}
		// The outer site may be asked, the inner one not.
		guarded := s.Web
		s.Web = &http.Client{Transport: split{outer.Listener.Addr().String(), guarded.Transport}, CheckRedirect: guarded.CheckRedirect}
		if b, err := s.Preview(t.Context(), outer.URL+"/page"); err != nil || string(b) != `{"og:title":"ok"}` {
			t.Errorf("page with an image on this computer: %s, %v", b, err)
		}
		_, err := s.Preview(t.Context(), outer.URL+"/moved")
		wantCode(t, err, matrix.Forbidden)
	})
	if n := asked.Load(); n > 0 {
		t.Errorf("the server's own network was asked %d times", n)
	}
}

// split lets one address pass and sends all others through the guard.
type split struct {
	open    string
	guarded http.RoundTripper
}

func (s split) RoundTrip(r *http.Request) (*http.Response, error) {
	if r.URL.Host == s.open {
		return http.DefaultTransport.RoundTrip(r)
	}
	return s.guarded.RoundTrip(r)
}

// TestPreviewBounds: what is too large, too slow or a bomb costs little.
func TestPreviewBounds(t *testing.T) {
	stop := make(chan struct{})
	defer close(stop)
	endless := func(w http.ResponseWriter) {
		w.Header().Set("Content-Type", "text/html")
		for {
			if _, err := io.WriteString(w, strings.Repeat("<p>", 1000)); err != nil {
				return
			}
		}
	}
	bomb := encoded(t, "image/png", pictureOf(10, 10, 255))
	copy(bomb[16:24], "\x00\x00\xff\xff\x00\x00\xff\xff") // its header says 65535 by 65535
	server := httptest.NewServer(web{
		"/endless":  endless,
		"/slow":     func(http.ResponseWriter) { <-stop },
		"/huge":     text("text/html", `<title>ok</title><meta property="og:image" content="/huge.png">`),
		"/huge.png": text("image/png", string(encoded(t, "image/png", pictureOf(60, 60, 255)))+strings.Repeat("x", 5000)),
		"/bomb.png": text("image/png", string(bomb)),
	})
	server.Config.ErrorLog = nil
	defer server.CloseClientConnections()
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, _ := start(t, st, func(c *Config) {
			previewing(c)
			c.Previews.MaxPage, c.Previews.MaxImage = 1<<10, 2<<10
		})
		s.Web = server.Client()
		if b, err := s.Preview(t.Context(), server.URL+"/endless"); err != nil || string(b) != "{}" {
			t.Errorf("endless page: %s, %v", b, err)
		}
		if b, err := s.Preview(t.Context(), server.URL+"/huge"); err != nil || string(b) != `{"og:title":"ok"}` {
			t.Errorf("page with a huge image: %s, %v", b, err)
		}
		_, err := s.Preview(t.Context(), server.URL+"/bomb.png")
		wantCode(t, err, matrix.Unknown)
		s.config.Previews.Timeout = time.Second
		_, err = s.Preview(t.Context(), server.URL+"/slow")
		wantCode(t, err, matrix.Unknown)
	})
}

// FuzzPage reads any page; what comes out is short plain text.
func FuzzPage(f *testing.F) {
	f.Add(`<title>x</title><meta property="og:title" content="y">`, "text/html; charset=utf-16")
	f.Add(`<base href="//[::1"><meta property=og:image content=http://%zz>`, "text/html")
	at, _ := parsePage("https://a.test/x")
	f.Fuzz(func(t *testing.T, s, content string) {
		graph, _ := readPage([]byte(s), content, at).properties()
		if len(graph) > mostProperties+2 {
			t.Errorf("%d properties", len(graph))
		}
		for k, v := range graph {
			if text := v.(string); len([]rune(text)) > longestText+1 || strings.ContainsAny(text, "\n\r\x00\u202e") || len(k) > 64 {
				t.Errorf("%q: %q", k, text)
			}
		}
	})
}
