package media

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"image"
	"image/color"
	"image/draw"
	"image/gif"
	"image/jpeg"
	"image/png"
	"io"
	"slices"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// The pictures of the animations of the tests: a background, on which a red and
// then a blue square appear, the red one not for good.
var (
	green = color.RGBA{0, 200, 0, 255}
	red   = color.RGBA{250, 0, 0, 255}
	blue  = color.RGBA{0, 0, 250, 255}
)

const (
	movieWidth, movieHeight = 240, 120
	redAt, blueAt           = 60, 180 // x of the middles, at half of the height
)

// movie gives the three pictures, their places and what becomes of them.
func movie() (list []*image.Paletted, dispose []byte) {
	palette := color.Palette{color.RGBA{}, green, red, blue}
	fill := func(r image.Rectangle, c color.Color) *image.Paletted {
		m := image.NewPaletted(r, palette)
		draw.Draw(m, r, image.NewUniform(c), image.Point{}, draw.Src)
		return m
	}
	whole := fill(image.Rect(0, 0, movieWidth, movieHeight), green)
	// Without noise everything is compressed to nothing.
	for i := range whole.Pix {
		if i*7919%13 == 0 && i/movieWidth < 20 {
			whole.Pix[i] = uint8(1 + i%3)
		}
	}
	return []*image.Paletted{whole, fill(image.Rect(40, 40, 80, 80), red), fill(image.Rect(160, 40, 200, 80), blue)},
		[]byte{gif.DisposalNone, gif.DisposalPrevious, gif.DisposalNone}
}

func movieGIF(t *testing.T) []byte {
	t.Helper()
	list, dispose := movie()
	var out bytes.Buffer
	if err := gif.EncodeAll(&out, &gif.GIF{Image: list, Delay: []int{10, 20, 30}, Disposal: dispose, LoopCount: 4}); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// moviePNG is the same as an animated PNG, whose pictures image/png wrote.
func moviePNG(t *testing.T) []byte {
	t.Helper()
	list, dispose := movie()
	order := binary.BigEndian
	out := []byte(pngHead)
	serial := uint32(0)
	for i, m := range list {
		var one bytes.Buffer
		img := image.NewNRGBA(m.Rect)
		draw.Draw(img, m.Rect, m, m.Rect.Min, draw.Src)
		img.SetNRGBA(m.Rect.Min.X, m.Rect.Min.Y, color.NRGBA{0, 0, 0, 200}) // so that all have alpha
		if err := png.Encode(&one, img); err != nil {
			t.Fatal(err)
		}
		c := &chunks{b: one.Bytes(), at: len(pngHead)}
		for kind, body := c.png(); kind != ""; kind, body = c.png() {
			switch {
			case kind == "IHDR" && i == 0:
				out = appendPNG(out, "IHDR", body)
				out = appendPNG(out, "acTL", []byte{0, 0, 0, byte(len(list)), 0, 0, 0, 5})
			}
			if kind == "IHDR" {
				control := order.AppendUint32(nil, serial)
				serial++
				for _, n := range []int{m.Rect.Dx(), m.Rect.Dy(), m.Rect.Min.X, m.Rect.Min.Y} {
					control = order.AppendUint32(control, uint32(n))
				}
				control = order.AppendUint16(order.AppendUint16(control, uint16(100*(i+1))), 1000)
				op := map[byte]byte{gif.DisposalNone: 0, gif.DisposalPrevious: 2}[dispose[i]]
				out = appendPNG(out, "fcTL", append(control, op, 1))
			}
			if kind == "IDAT" && i == 0 {
				out = appendPNG(out, "IDAT", body)
			} else if kind == "IDAT" {
				out = appendPNG(out, "fdAT", append(order.AppendUint32(nil, serial), body...))
				serial++
			}
		}
	}
	return appendPNG(out, "IEND", nil)
}

// movieWebP is a red picture in the middle of nothing, then one of all.
func movieWebP() []byte {
	number := func(n int) []byte { return []byte{byte(n), byte(n >> 8), byte(n >> 16)} }
	out := []byte("RIFF\x00\x00\x00\x00WEBP")
	out = appendRIFF(out, "VP8X", slices.Concat([]byte{0x12, 0, 0, 0}, number(movieWidth-1), number(movieHeight-1)))
	out = appendRIFF(out, "ANIM", []byte{0, 0, 0, 0, 5, 0})
	for i, r := range []image.Rectangle{image.Rect(40, 40, 80, 80), image.Rect(0, 0, movieWidth, movieHeight)} {
		one := redWebP(r.Dx(), r.Dy())
		out = appendRIFF(out, "ANMF", slices.Concat(number(r.Min.X/2), number(r.Min.Y/2), number(r.Dx()-1), number(r.Dy()-1), number(100*(i+1)), []byte{0}, one[12:]))
	}
	binary.LittleEndian.PutUint32(out[4:], uint32(len(out)-8))
	return out
}

// shown plays a file as a browser does, with our own reader, and gives the
// pictures and delays.
func shown(t *testing.T, kind string, b []byte) (list []*image.RGBA, delays []int, plays int) {
	t.Helper()
	if kind == "image/apng" {
		kind = "image/png"
	}
	a, err := readAnimation(kind, b)
	if err != nil {
		t.Fatal(err)
	}
	err = a.show(func(whole *image.RGBA, delay int) error {
		one := image.NewRGBA(whole.Rect)
		copy(one.Pix, whole.Pix)
		list, delays = append(list, one), append(delays, delay)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return list, delays, a.plays
}

// near tells whether a picture has about a color, or a hole, where the movie has
// x of its width.
func near(m *image.RGBA, x int, want color.RGBA) bool {
	at := m.RGBAAt(x*m.Rect.Dx()/movieWidth, m.Rect.Dy()/2)
	far := func(a, b uint8) bool { return max(a, b)-min(a, b) > 40 }
	return !far(at.R, want.R) && !far(at.G, want.G) && !far(at.B, want.B) && !far(at.A, want.A)
}

// TestAnimation makes animations smaller: they keep their pictures in the right
// places, their times and how often they are shown.
func TestAnimation(t *testing.T) {
	hole := color.RGBA{}
	tests := []struct {
		name, kind string
		content    []byte
		left       []color.RGBA // where the red square is
		right      []color.RGBA // where the blue one is
	}{
		{"gif", "image/gif", movieGIF(t), []color.RGBA{green, red, green}, []color.RGBA{green, green, blue}},
		{"png", "image/apng", moviePNG(t), []color.RGBA{green, red, green}, []color.RGBA{green, green, blue}},
		{"webp", "image/apng", movieWebP(), []color.RGBA{red, red}, []color.RGBA{hole, red}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p, err := readHeader(tt.content)
			if err != nil || !p.animated || p.width != movieWidth || p.height != movieHeight {
				t.Fatalf("read as %+v, %v", p, err)
			}
			a, err := readAnimation(p.kind, tt.content)
			if err != nil {
				t.Fatal(err)
			}
			content, kind, err := a.thumbnail(Frame{Width: 64, Height: 64})
			if err != nil || kind != tt.kind {
				t.Fatalf("%s, %v", kind, err)
			}
			if c, _, err := image.DecodeConfig(bytes.NewReader(content)); err != nil || c.Width != 64 || c.Height != 32 {
				t.Errorf("%d × %d, %v", c.Width, c.Height, err)
			}
			list, delays, plays := shown(t, kind, content)
			if len(list) != len(tt.left) || plays != 5 || !slices.Equal(delays, []int{100, 200, 300}[:len(list)]) {
				t.Fatalf("%d pictures, %d times, %v", len(list), plays, delays)
			}
			for i, m := range list {
				if !near(m, redAt, tt.left[i]) || !near(m, blueAt, tt.right[i]) {
					t.Errorf("picture %d: %v and %v, want %v and %v", i, m.RGBAAt(redAt*64/movieWidth, 16), m.RGBAAt(blueAt*64/movieWidth, 16), tt.left[i], tt.right[i])
				}
			}
		})
	}
}

// TestGIFHoles: where a picture has holes, the one before is not seen through.
func TestGIFHoles(t *testing.T) {
	full, empty := image.NewRGBA(image.Rect(0, 0, 8, 8)), image.NewRGBA(image.Rect(0, 0, 8, 8))
	draw.Draw(full, full.Rect, image.NewUniform(red), image.Point{}, draw.Src)
	list := func(add func(*image.RGBA, int) error) error { return errors.Join(add(full, 10), add(empty, 10)) }
	if _, err := writeGIF(list, 1, false); !errors.Is(err, errTransparent) {
		t.Fatal(err)
	}
	b, err := writeGIF(list, 1, true)
	if err != nil {
		t.Fatal(err)
	}
	got, _, plays := shown(t, "image/gif", b)
	if !near(got[0], movieWidth/2, red) || got[1].RGBAAt(4, 4).A != 0 || plays != 1 {
		t.Errorf("%v, %v, %d times", got[0].RGBAAt(4, 4), got[1].RGBAAt(4, 4), plays)
	}
}

// TestMovingThumbnail asks the service: what moves does so only for who wants it.
func TestMovingThumbnail(t *testing.T) {
	whole := movieGIF(t)
	still := encoded(t, "image/gif", pictureOf(240, 120, 255))
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, _ := start(t, st, nil)
		for _, tt := range []struct {
			name     string
			content  []byte
			animated bool
			kind     string
		}{
			{"gif", whole, true, "image/gif"},
			{"gif standing", whole, false, "image/jpeg"},
			{"gif with one picture", still, true, "image/jpeg"},
			{"gif cut off", whole[:len(whole)-40], true, "image/gif"},
			{"png, which is shorter as it is", moviePNG(t), true, "image/png"},
			{"png standing", moviePNG(t), false, "image/png"},
			{"webp, which is shorter as it is", movieWebP(), true, "image/webp"},
			{"webp standing", movieWebP(), false, "image/png"},
		} {
			id := s.mustPut(t, alice, tt.content)
			for range 2 { // made, then found
				f, err := s.Thumbnail(t.Context(), here, id, Frame{Width: 64, Height: 64}, tt.animated, 0)
				if err != nil {
					t.Fatalf("%s: %v", tt.name, err)
				}
				b, err := io.ReadAll(f)
				if err = errors.Join(err, f.Close()); err != nil {
					t.Fatal(err)
				}
				if moves := tt.animated && tt.kind != "image/jpeg"; f.Type != tt.kind || !f.Inline || moves != (counted(f.Type, b) > 1) {
					t.Errorf("%s: %s with %d pictures", tt.name, f.Type, counted(f.Type, b))
				}
			}
		}
	})
}

// counted is how many pictures a file has.
func counted(kind string, b []byte) int {
	if kind == "image/apng" {
		kind = "image/png"
	}
	a, err := readAnimation(kind, b)
	if err != nil {
		return 1
	}
	return len(a.scenes)
}

// TestAnimationBombs: files that are small and would become large are found out
// before a pixel of them is decoded, and do not move.
func TestAnimationBombs(t *testing.T) {
	scene := func(w, h uint16) []byte { // a picture of a GIF with no pixels
		b := []byte{0x2C, 0, 0, 0, 0}
		return append(binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, w), h), 0, 2, 1, 0, 0)
	}
	header := []byte("GIF89a\xd0\x07\xd0\x07\xf0\x00\x00\x00\x00\x00\xff\xff\xff") // 2000 × 2000
	first := encoded(t, "image/gif", image.NewPaletted(image.Rect(0, 0, 2000, 2000), color.Palette{color.Black, color.White}))
	many := append([]byte{}, first[:len(first)-1]...)
	for range 1990 {
		many = append(many, scene(2000, 2000)...)
	}
	for name, tt := range map[string]struct {
		content []byte
		err     error
	}{
		"large picture": {slices.Concat(header, scene(1, 1), scene(65535, 65535)), errScene},
		"empty picture": {slices.Concat(header, scene(1, 1), scene(0, 5)), errScene},
		"endless":       {slices.Concat(header, bytes.Repeat(scene(1, 1), 3*mostScenes)), nil},
	} {
		a, err := readAnimation("image/gif", tt.content)
		if !errors.Is(err, tt.err) || err == nil && len(a.scenes) != mostScenes {
			t.Errorf("%s: %v", name, err)
		}
	}
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s, _ := start(t, st, nil)
		f, err := s.Thumbnail(t.Context(), here, s.mustPut(t, alice, many), Frame{Width: 32, Height: 32}, true, 0)
		if err != nil {
			t.Fatal(err)
		}
		if f.Close(); f.Type != "image/jpeg" {
			t.Errorf("2,000 pictures of 4 million pixels each became %s", f.Type)
		}
	})
	// A picture that says one size outside and another inside.
	lying := movieWebP()
	i := bytes.Index(lying, []byte("VP8L"))
	lying[i+9], lying[i+10] = 0xff, 0x3f
	a, err := readAnimation("image/webp", lying)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := a.thumbnail(Frame{Width: 8, Height: 8}); !errors.Is(err, errScene) {
		t.Errorf("a lying picture: %v", err)
	}
}

// FuzzAnimation: whatever a file holds, making it smaller ends with an error or
// with an animation that fits the frame.
func FuzzAnimation(f *testing.F) {
	t := new(testing.T)
	f.Add(movieGIF(t))
	f.Add(moviePNG(t))
	f.Add(movieWebP())
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := readHeader(b)
		if err != nil {
			return
		}
		a, err := readAnimation(p.kind, b)
		if err != nil || a.work() > 200_000 {
			return
		}
		content, kind, err := a.thumbnail(Frame{Width: 16, Height: 16})
		if err != nil {
			return
		}
		list, _, _ := shown(t, kind, content)
		if size := list[0].Rect.Size(); size.X > 16 || size.Y > 16 || len(list) != len(a.scenes) {
			t.Error(fmt.Sprint(size, len(list), len(a.scenes)))
		}
	})
}

// BenchmarkThumbnail makes thumbnails of a photo of 12 million pixels, and of an
// animation of 60 pictures.
func BenchmarkThumbnail(b *testing.B) {
	photo := image.NewYCbCr(image.Rect(0, 0, 4000, 3000), image.YCbCrSubsampleRatio420)
	for i := range photo.Y {
		photo.Y[i] = uint8(i*i>>7) ^ uint8(i/4000)
	}
	var jpg, moving bytes.Buffer
	list, dispose := movie()
	m := &gif.GIF{}
	for i := range 60 {
		m.Image, m.Delay, m.Disposal = append(m.Image, list[i%3]), append(m.Delay, 5), append(m.Disposal, dispose[i%3])
	}
	if err := errors.Join(jpeg.Encode(&jpg, photo, nil), gif.EncodeAll(&moving, m)); err != nil {
		b.Fatal(err)
	}
	b.Run("photo", func(b *testing.B) {
		p, err := readHeader(jpg.Bytes())
		for b.Loop() && err == nil {
			_, _, err = p.thumbnail(bytes.NewReader(jpg.Bytes()), Frame{Width: 320, Height: 240})
		}
		if err != nil {
			b.Fatal(err)
		}
	})
	b.Run("animation", func(b *testing.B) {
		a, err := readAnimation("image/gif", moving.Bytes())
		for b.Loop() && err == nil {
			_, _, err = a.thumbnail(Frame{Width: 96, Height: 96})
		}
		if err != nil {
			b.Fatal(err)
		}
	})
}
