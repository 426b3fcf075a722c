package media

import (
	"bytes"
	"context"
	"errors"
	"image"
	"image/color"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"mime"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"switchboard/homeserver/blob"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

const (
	here  = matrix.ServerName("a.test")
	alice = matrix.UserID("@alice:a.test")
	bob   = matrix.UserID("@bob:a.test")
)

// start makes a service on a fresh store. dir is the folder of its blobs.
func start(t *testing.T, st *store.Store, edit func(*Config)) (s *Service, dir string) {
	t.Helper()
	dir = t.TempDir()
	blobs, err := blob.OpenDisk(dir)
	if err != nil {
		t.Fatal(err)
	}
	c := DefaultConfig()
	if edit != nil {
		edit(&c)
	}
	return New(st, &notify.Bell{}, blobs, here, c), dir
}

func (s *Service) mustPut(t *testing.T, user matrix.UserID, content []byte) string {
	t.Helper()
	id, err := s.Put(t.Context(), user, Upload{Type: "application/octet-stream", Length: -1, Body: bytes.NewReader(content)})
	if err != nil {
		t.Fatal(err)
	}
	return id
}

// wantCode checks that err is an error of the protocol.
func wantCode(t *testing.T, err error, code matrix.Code) {
	t.Helper()
	var e *matrix.Error
	if !errors.As(err, &e) || e.Code != code {
		t.Errorf("got %v, want %s", err, code)
	}
}

// countFiles tells how many blobs there are.
func countFiles(t *testing.T, dir string) int {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(dir, "[0-9a-f][0-9a-f]", "*"))
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

func TestPutAndOpen(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, dir := start(t, st, nil)
		id, err := s.Put(t.Context(), alice, Upload{Type: "text/html; charset=utf-8", Name: "a/b.html", Length: -1, Body: strings.NewReader("<p>hello")})
		if err != nil {
			t.Fatal(err)
		}
		if s.URI(id) != "mxc://a.test/"+id || !validID(id) {
			t.Errorf("wrong ID %q", id)
		}
		f, err := s.Open(t.Context(), here, id, 0)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		b, err := io.ReadAll(f)
		if err != nil || string(b) != "<p>hello" || f.Type != "text/html; charset=utf-8" || f.Name != "a_b.html" || f.Inline {
			t.Errorf("got %q, %+v, %v", b, f, err)
		}
		if d := f.Disposition(""); d != "attachment; filename=a_b.html" {
			t.Errorf("got %s", d)
		}

		// Equal content is stored once.
		s.mustPut(t, bob, []byte("<p>hello"))
		if n := countFiles(t, dir); n != 1 {
			t.Errorf("%d files for equal content", n)
		}

		for _, server := range []matrix.ServerName{"b.test", "", "../a.test"} {
			_, err = s.Open(t.Context(), server, id, 0)
			wantCode(t, err, matrix.NotFound)
		}
		for _, id := range []string{"", "..", "../../etc/passwd", strings.Repeat("a", 256), "nothing"} {
			_, err = s.Open(t.Context(), here, id, 0)
			wantCode(t, err, matrix.NotFound)
		}
	})
}

// broken is a client that goes away in the middle.
type broken struct{ io.Reader }

func (b broken) Read(p []byte) (int, error) {
	n, err := b.Reader.Read(p)
	if err == io.EOF {
		err = io.ErrUnexpectedEOF
	}
	return n, err
}

func TestLimits(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, dir := start(t, st, func(c *Config) { c.MaxUpload, c.Quota = 1000, 1500 })
		put := func(user matrix.UserID, n int, length int64) error {
			_, err := s.Put(t.Context(), user, Upload{Length: length, Body: strings.NewReader(strings.Repeat(string(user), n)[:n])})
			return err
		}
		wantCode(t, put(alice, 1001, -1), matrix.TooLarge)
		wantCode(t, put(alice, 0, 1001), matrix.TooLarge) // refused before it is read
		if err := put(alice, 1000, -1); err != nil {
			t.Fatal(err)
		}
		wantCode(t, put(alice, 501, -1), matrix.Forbidden)
		if err := put(alice, 500, 500); err != nil {
			t.Error(err)
		}
		wantCode(t, put(alice, 1, 1), matrix.Forbidden)
		if err := put(bob, 1000, -1); err != nil {
			t.Error("one user's quota is another's")
		}
		_, err := s.Put(t.Context(), bob, Upload{Length: -1, Body: broken{strings.NewReader("half a file")}})
		var e *matrix.Error
		if !errors.As(err, &e) || e.HTTPStatus() != 400 {
			t.Errorf("an upload that broke off gives %v", err)
		}
		if n := countFiles(t, dir); n != 3 {
			t.Errorf("%d files stayed, want 3", n)
		}
	})
}

func TestCreateAndFill(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, _ := start(t, st, func(c *Config) { c.PendingUploads = 2 })
		id, expires, err := s.Create(t.Context(), alice)
		if err != nil {
			t.Fatal(err)
		}
		if left := time.Until(expires); left < 23*time.Hour || left > 24*time.Hour {
			t.Errorf("expires in %s", left)
		}
		_, err = s.Open(t.Context(), here, id, 0)
		wantCode(t, err, matrix.NotYetUploaded)

		up := func(user matrix.UserID, id string) error {
			return s.Fill(t.Context(), user, id, Upload{Type: "text/plain", Length: -1, Body: strings.NewReader("late")})
		}
		wantCode(t, up(bob, id), matrix.Forbidden)
		wantCode(t, up(alice, "nothing"), matrix.NotFound)

		// Who waits for the file gets it when it comes.
		got := make(chan error, 1)
		go func() {
			f, err := s.Open(context.WithoutCancel(t.Context()), here, id, 10*time.Minute)
			if err == nil {
				err = f.Close()
			}
			got <- err
		}()
		if err := up(alice, id); err != nil {
			t.Fatal(err)
		}
		if err := <-got; err != nil {
			t.Error(err)
		}
		wantCode(t, up(alice, id), matrix.CannotOverwriteMedia)

		// IDs without a file are bounded, and are forgotten in the end.
		var waiting string
		for range 2 {
			if waiting, _, err = s.Create(t.Context(), alice); err != nil {
				t.Fatal(err)
			}
		}
		_, _, err = s.Create(t.Context(), alice)
		wantCode(t, err, matrix.LimitExceeded)
		if err := s.Sweep(t.Context(), time.Now().Add(25*time.Hour)); err != nil {
			t.Fatal(err)
		}
		wantCode(t, up(alice, waiting), matrix.NotFound)
		if _, err := s.Open(t.Context(), here, id, 0); err != nil {
			t.Errorf("a file that came was swept: %v", err)
		}
		if _, _, err = s.Create(t.Context(), alice); err != nil {
			t.Error(err)
		}
	})
}

func TestWalk(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, dir := start(t, st, nil)
		id := s.mustPut(t, alice, []byte("needed"))
		if _, _, err := s.blobs.Put(t.Context(), strings.NewReader("nobody's"), -1, nil); err != nil {
			t.Fatal(err)
		}
		if err := s.Walk(t.Context(), time.Now()); err != nil {
			t.Fatal(err)
		}
		if n := countFiles(t, dir); n != 2 {
			t.Errorf("a young blob was deleted")
		}
		if err := s.Walk(t.Context(), time.Now().Add(25*time.Hour)); err != nil {
			t.Fatal(err)
		}
		if n := countFiles(t, dir); n != 1 {
			t.Errorf("%d blobs stayed, want 1", n)
		}
		f, err := s.Open(t.Context(), here, id, 0)
		if err != nil {
			t.Fatal(err)
		}
		f.Close()
	})
}

// pictureOf paints left half red and right half blue.
func pictureOf(w, h int, alpha uint8) *image.NRGBA {
	img := image.NewNRGBA(image.Rect(0, 0, w, h))
	for y := range h {
		for x := range w {
			c := color.NRGBA{R: 250, A: alpha}
			if x >= w/2 {
				c = color.NRGBA{B: 250, A: alpha}
			}
			img.SetNRGBA(x, y, c)
		}
	}
	return img
}

func encoded(t *testing.T, kind string, img image.Image) []byte {
	t.Helper()
	var b bytes.Buffer
	var err error
	switch kind {
	case "image/jpeg":
		err = jpeg.Encode(&b, img, nil)
	case "image/png":
		err = png.Encode(&b, img)
	case "image/gif":
		err = gif.Encode(&b, img, nil)
	}
	if err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

// redWebP writes a red picture as lossless WebP: each of its five prefix codes
// has one symbol, so that the pixels take no bits at all.
func redWebP(w, h int) []byte {
	b := newWebP(w, h)
	b.put(0, 3)                                          // no transform, no colour cache, no meta prefix codes
	for _, symbol := range []uint64{0, 250, 0, 255, 0} { // green, red, blue, alpha, distance
		b.simple(symbol)
	}
	return b.file()
}

func TestThumbnail(t *testing.T) {
	tests := []struct {
		name       string
		content    []byte
		frame      Frame
		animated   bool
		kind       string
		w, h       int
		sameAsFile bool
	}{
		{"jpeg scaled", encoded(t, "image/jpeg", pictureOf(900, 600, 255)), Frame{320, 240, false}, false, "image/jpeg", 320, 213, false},
		{"tall", encoded(t, "image/jpeg", pictureOf(300, 900, 255)), Frame{320, 240, false}, false, "image/jpeg", 80, 240, false},
		{"cropped", encoded(t, "image/jpeg", pictureOf(900, 600, 255)), Frame{96, 96, true}, false, "image/jpeg", 96, 96, false},
		{"rounded up", encoded(t, "image/jpeg", pictureOf(900, 600, 255)), Frame{60, 60, true}, false, "image/jpeg", 64, 64, false},
		{"never larger", encoded(t, "image/jpeg", pictureOf(900, 60, 255)), Frame{96, 96, true}, false, "image/jpeg", 96, 60, false},
		{"with alpha", encoded(t, "image/png", pictureOf(500, 500, 100)), Frame{96, 96, false}, false, "image/png", 96, 96, false},
		{"png without alpha", encoded(t, "image/png", pictureOf(500, 500, 255)), Frame{96, 96, false}, false, "image/png", 96, 96, false},
		{"small enough", encoded(t, "image/png", pictureOf(50, 40, 255)), Frame{96, 96, false}, false, "image/png", 50, 40, true},
		{"gif stands still", encoded(t, "image/gif", pictureOf(50, 40, 255)), Frame{96, 96, false}, false, "image/jpeg", 50, 40, false},
		{"gif may move", encoded(t, "image/gif", pictureOf(50, 40, 255)), Frame{96, 96, false}, true, "image/gif", 50, 40, true},
		{"webp", redWebP(128, 64), Frame{32, 32, false}, false, "image/jpeg", 32, 16, false},
		{"huge frame", encoded(t, "image/jpeg", pictureOf(1700, 900, 255)), Frame{60000, 60000, false}, false, "image/jpeg", 800, 424, false},
	}
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, _ := start(t, st, nil)
		for _, tt := range tests {
			t.Run(tt.name, func(t *testing.T) {
				id := s.mustPut(t, alice, tt.content)
				for range 2 { // made, then found
					f, err := s.Thumbnail(t.Context(), here, id, tt.frame, tt.animated, 0)
					if err != nil {
						t.Fatal(err)
					}
					b, err := io.ReadAll(f)
					if err = errors.Join(err, f.Close()); err != nil {
						t.Fatal(err)
					}
					img, _, err := image.Decode(bytes.NewReader(b))
					if err != nil {
						t.Fatal(err)
					}
					if size := img.Bounds().Size(); f.Type != tt.kind || size.X != tt.w || size.Y != tt.h || bytes.Equal(b, tt.content) != tt.sameAsFile {
						t.Errorf("got %s of %v", f.Type, size)
					}
					if left, _, right, _ := img.At(2, tt.h/2).RGBA(); left <= right {
						t.Error("the left side is not red")
					}
					if d := f.Disposition(""); !strings.HasPrefix(d, "inline; filename=thumbnail.") {
						t.Errorf("disposition %s", d)
					}
				}
			})
		}
	})
}

func TestNoThumbnail(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, _ := start(t, st, func(c *Config) { c.MaxPixels, c.ThumbnailMemory = 1_000_000, 2<<20 })
		bomb := encoded(t, "image/png", image.NewPaletted(image.Rect(0, 0, 2000, 600), color.Palette{color.Black}))
		heavy := encoded(t, "image/png", image.NewNRGBA(image.Rect(0, 0, 900, 900))) // 4 bytes a pixel
		whole := encoded(t, "image/jpeg", pictureOf(900, 600, 255))
		for name, tt := range map[string]struct {
			content []byte
			code    matrix.Code
		}{
			"text":          {[]byte("hello"), matrix.Unknown},
			"nothing":       {nil, matrix.Unknown},
			"too many":      {bomb, matrix.TooLarge},
			"too heavy":     {heavy, matrix.TooLarge},
			"cut off":       {whole[:len(whole)/2], matrix.Unknown},
			"header alone":  {whole[:20], matrix.Unknown},
			"jpeg bomb":     {[]byte("\xFF\xD8\xFF\xC0\x00\x0B\x08\xFF\xFF\xFF\xFF\x01\x01\x11\x00\xFF\xDA\x00\x08\x01\x01\x00\x00\x3F\x00"), matrix.TooLarge},
			"webp bomb":     {redWebP(16384, 16384), matrix.TooLarge},
			"moving bomb":   {bytes.Replace(movieWebP(), []byte{239, 0, 0, 119, 0, 0}, []byte{0xff, 0x7f, 0, 0xff, 0x7f, 0}, 1), matrix.TooLarge},
			"many scans":    {scanned(mostScans + 1), matrix.Unknown},
			"lying gif":     {[]byte("GIF89a\xff\xff\xff\xff\x00\x00\x00"), matrix.TooLarge},
			"svg":           {[]byte(`<svg xmlns="http://www.w3.org/2000/svg"/>`), matrix.Unknown},
			"RIFF, no WebP": {[]byte("RIFF\x00\x00\x00\x00WEBPxxxxxxxxxxxxxxx"), matrix.Unknown},
		} {
			t.Run(name, func(t *testing.T) {
				_, err := s.Thumbnail(t.Context(), here, s.mustPut(t, alice, tt.content), Frame{32, 32, false}, false, 0)
				wantCode(t, err, tt.code)
				var e *matrix.Error
				if errors.As(err, &e) && e.HTTPStatus() >= 500 {
					t.Errorf("status %d", e.HTTPStatus())
				}
			})
		}
	})
}

// scanned is a JPEG of one gray pixel that goes over it again and again: the DC
// coefficient first, and then the same bit of an AC coefficient, which is zero.
func scanned(n int) []byte {
	out := []byte("\xFF\xD8\xFF\xDB\x00\x43\x00" + strings.Repeat("\x01", 64))
	out = append(out, "\xFF\xC2\x00\x0B\x08\x00\x80\x00\x80\x01\x01\x11\x00"...)                // progressive, 128 × 128
	out = append(out, "\xFF\xC4\x00\x14\x00\x01"+strings.Repeat("\x00", 15)+"\x00"...)          // DC: one code of one bit
	out = append(out, "\xFF\xC4\x00\x14\x10\x01"+strings.Repeat("\x00", 15)+"\x70"...)          // AC: runs of up to 255 blocks
	out = append(out, "\xFF\xDA\x00\x08\x01\x01\x00\x00\x00\x00"+strings.Repeat("\x00", 32)...) // 256 blocks
	for range n - 1 {
		out = append(out, "\xFF\xDA\x00\x08\x01\x01\x00\x01\x3F\x00\x7F\x00"...)
	}
	return append(out, "\xFF\xD9"...)
}

// TestScans: as many as there usually are go.
func TestScans(t *testing.T) {
	for n, want := range map[int]error{10: nil, mostScans + 1: errScans} {
		if _, err := decodeJPEG(bytes.NewReader(scanned(n))); !errors.Is(err, want) {
			t.Errorf("%d scans: %v, want %v", n, err, want)
		}
	}
}

// exif puts an orientation into a JPEG.
func exif(b []byte, orientation byte) []byte {
	segment := []byte("\xFF\xE1\x00\x22Exif\x00\x00MM\x00*\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x00\x00")
	segment[len(segment)-7] = orientation
	return append(append(append([]byte{}, b[:2]...), segment...), b[2:]...)
}

func TestOrientation(t *testing.T) {
	plain := encoded(t, "image/jpeg", pictureOf(400, 200, 255))
	for orientation := byte(1); orientation <= 8; orientation++ {
		p, err := readHeader(exif(plain, orientation))
		if err != nil || p.orientation != int(orientation) {
			t.Fatalf("orientation %d is read as %d, %v", orientation, p.orientation, err)
		}
		content, _, err := p.thumbnail(bytes.NewReader(exif(plain, orientation)), Frame{Width: 100, Height: 100})
		if err != nil {
			t.Fatal(err)
		}
		img, err := jpeg.Decode(bytes.NewReader(content))
		if err != nil {
			t.Fatal(err)
		}
		// Where the left side, which is red, must be afterwards.
		red := map[byte]image.Point{1: {5, 25}, 2: {95, 25}, 3: {95, 25}, 4: {5, 25}, 5: {25, 5}, 6: {25, 5}, 7: {25, 95}, 8: {25, 95}}[orientation]
		if r, _, b, _ := img.At(red.X, red.Y).RGBA(); r < b {
			t.Errorf("orientation %d: %v is not red in %v", orientation, red, img.Bounds())
		}
	}
}

func TestDisposition(t *testing.T) {
	tests := []struct{ kind, name, want, wantName string }{
		{"image/png", "", "inline", ""},
		{"image/png; charset=x", "a.png", "inline; filename=a.png", "a.png"},
		{"IMAGE/PNG", "a.png", "inline; filename=a.png", "a.png"},
		{"image/svg+xml", "a.svg", "attachment; filename=a.svg", "a.svg"},
		{"text/html", `a"b;c.html`, `attachment; filename="a\"b;c.html"`, `a"b;c.html`},
		{"text/plain", "a\r\nSet-Cookie: x=y.txt", `inline; filename="aSet-Cookie: x=y.txt"`, "aSet-Cookie: x=y.txt"},
		{"text/plain", "../../etc/passwd", "inline; filename=.._.._etc_passwd", ".._.._etc_passwd"},
		{"text/plain", `C:\boot.ini`, `inline; filename="C:_boot.ini"`, "C:_boot.ini"},
		{"text/plain", "\u202Egpj.exe", "inline; filename=gpj.exe", "gpj.exe"},
		{"text/plain", "grüße 🐔.txt", "inline; filename*=utf-8''gr%C3%BC%C3%9Fe%20%F0%9F%90%94.txt", "grüße 🐔.txt"},
		{"text/plain", "\xff\xfe\x00", "inline", ""},
	}
	for _, tt := range tests {
		f := &File{Type: tt.kind, Inline: inline(tt.kind)}
		got := f.Disposition(tt.name)
		if got != tt.want {
			t.Errorf("%q: got %s, want %s", tt.name, got, tt.want)
		}
		if _, params, err := mime.ParseMediaType(got); err != nil || params["filename"] != tt.wantName {
			t.Errorf("%q is read as %q, %v", got, params["filename"], err)
		}
	}
}

func TestCleanType(t *testing.T) {
	for in, want := range map[string]string{
		"":                          "application/octet-stream",
		"image/png":                 "image/png",
		"Text/HTML; Charset=utf-8":  "text/html; charset=utf-8",
		"text/html\r\nX: y":         "application/octet-stream",
		"nonsense":                  "application/octet-stream",
		strings.Repeat("a/b", 1000): "application/octet-stream",
	} {
		if got := cleanType(in); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

// FuzzDisposition checks that no file name breaks out of the header, and that
// what comes out is read back as the cleaned name.
func FuzzDisposition(f *testing.F) {
	for _, s := range []string{"a.txt", "a\"b", "\r\n", "ü", "\u202e", strings.Repeat("x", 300), "a;b=c", "%41", `\`} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, name string) {
		d := (&File{}).Disposition(name)
		if strings.ContainsFunc(d, func(c rune) bool { return c < ' ' || c > '~' }) {
			t.Errorf("%q gives %q", name, d)
		}
		_, params, err := mime.ParseMediaType(d)
		if err != nil || params["filename"] != cleanName(name) {
			t.Errorf("%q gives %q, which is read as %q, %v", name, d, params["filename"], err)
		}
	})
}

// FuzzImage checks that no file makes the reader of headers or a decoder fail
// in another way than with an error, and that thumbnails fit their frame.
func FuzzImage(f *testing.F) {
	small := pictureOf(40, 30, 255)
	for _, kind := range []string{"image/jpeg", "image/png", "image/gif"} {
		var b bytes.Buffer
		switch kind {
		case "image/jpeg":
			jpeg.Encode(&b, small, nil)
		case "image/png":
			png.Encode(&b, small)
		default:
			gif.Encode(&b, small, nil)
		}
		f.Add(b.Bytes())
		f.Add(exif(b.Bytes(), 6))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := readHeader(b)
		if err != nil || p.width*p.height > 100_000 {
			return
		}
		content, _, err := p.thumbnail(bytes.NewReader(b), Frame{Width: 16, Height: 16})
		if err != nil {
			return
		}
		c, _, err := image.DecodeConfig(bytes.NewReader(content))
		if err != nil || c.Width > 16 || c.Height > 16 {
			t.Errorf("thumbnail of %d × %d, %v", c.Width, c.Height, err)
		}
	})
}
