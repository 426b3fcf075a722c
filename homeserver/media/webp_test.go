package media

import (
	"bytes"
	"encoding/binary"
	"io"
	"math/bits"
	"runtime"
	"slices"
	"testing"
)

// losslessWebP writes a lossless WebP.
//
// Source: https://developers.google.com/speed/webp/docs/webp_lossless_bitstream_specification
type losslessWebP struct {
	out  []byte
	bits uint64
	n    int
}

func newWebP(w, h int) *losslessWebP {
	b := &losslessWebP{out: []byte("RIFF\x00\x00\x00\x00WEBPVP8L\x00\x00\x00\x00\x2f")}
	b.put(uint64(w-1), 14)
	b.put(uint64(h-1), 14)
	b.put(0, 1+3) // no alpha, version 0
	return b
}

func (b *losslessWebP) put(value uint64, width int) {
	b.bits |= value << b.n
	for b.n += width; b.n >= 8; b.n -= 8 {
		b.out = append(b.out, byte(b.bits))
		b.bits >>= 8
	}
}

// code puts a prefix code, which begins with its highest bit.
func (b *losslessWebP) code(code uint32, width int) {
	b.put(uint64(bits.Reverse32(code)>>(32-width)), width)
}

// simple puts a tree of one symbol, which takes no bits.
func (b *losslessWebP) simple(symbol uint64) {
	b.put(1, 1) // simple code
	b.put(0, 1) // one symbol
	b.put(1, 1) // of eight bits
	b.put(symbol, 8)
}

// tree puts a tree with n symbols whose codes have a length and, behind them, more
// whose codes are one longer.
func (b *losslessWebP) tree(length, n, more int) {
	const order = "\x11\x12\x00\x01\x02\x03\x04\x05\x10\x06\x07\x08\x09\x0a\x0b\x0c\x0d\x0e\x0f"
	b.put(0, 1)
	b.put(uint64(len(order)-4), 4)
	for _, symbol := range []byte(order) { // the lengths themselves are coded
		switch int(symbol) {
		case 16: // as before, three to six times
			b.put(1, 3)
		case length, length + 1:
			b.put(2, 3)
		default:
			b.put(0, 3)
		}
	}
	b.put(0, 1) // a length for all
	for i, left := range []int{n, more} {
		for first := true; left > 0; first = false {
			if first || left < 3 {
				b.code(uint32(2+i), 2)
				left--
				continue
			}
			times := min(left, 6)
			b.code(0, 1)
			b.put(uint64(times-3), 2)
			left -= times
		}
	}
}

func (b *losslessWebP) file() []byte {
	b.put(0, 7)
	out := b.out
	binary.LittleEndian.PutUint32(out[16:], uint32(len(out)-20))
	if len(out)%2 == 1 {
		out = append(out, 0)
	}
	binary.LittleEndian.PutUint32(out[4:], uint32(len(out)-8))
	return out
}

// manyCodes is a lossless WebP of 208 × 208 pixels that has a number of groups of
// prefix codes, as large as they can be, and ends behind them.
func manyCodes(groups int) []byte {
	b := newWebP(208, 208)
	b.put(0, 1)  // no transform
	b.put(1, 1)  // a colour cache
	b.put(11, 4) // of 2,048 colours
	b.put(1, 1)  // more than one group: an image of 52 × 52 says which is where
	b.put(0, 3)
	b.put(0, 1)
	b.tree(8, 256-24, 48) // green, which also has 24 lengths
	b.tree(8, 256, 0)
	for range 3 {
		b.simple(0)
	}
	for i := range 52 * 52 {
		i %= groups
		if green := i & 255; green < 256-24 {
			b.code(uint32(green), 8)
		} else {
			b.code(uint32(green-(256-24)+2*(256-24)), 9)
		}
		b.code(uint32(i>>8), 8)
	}
	for range groups {
		b.tree(11, 1768, 560) // 256 + 24 + 2,048 symbols
		for range 3 {
			b.tree(8, 256, 0)
		}
		b.tree(5, 24, 16)
	}
	out := b.file()
	for _, at := range []int{4, 16} { // lengths, with pixels that are missing
		binary.LittleEndian.PutUint32(out[at:], binary.LittleEndian.Uint32(out[at:])+1<<20)
	}
	return out
}

// TestCodes: prefix codes take no more memory than is set aside for them.
func TestCodes(t *testing.T) {
	heap := func() int64 {
		var now runtime.MemStats
		for range 2 { // pools keep what is in them for one more
			runtime.GC()
		}
		runtime.ReadMemStats(&now)
		return int64(now.HeapAlloc)
	}
	live := func(b []byte) int64 { // at the end of the file
		var most int64
		before := heap()
		p, err := readHeader(b)
		if err != nil {
			t.Fatal(err)
		}
		end := readerFunc(func([]byte) (int, error) {
			most = heap() - before
			return 0, io.EOF
		})
		if _, err := p.decode(io.MultiReader(bytes.NewReader(b), end)); err == nil {
			t.Error("an image without pixels was decoded")
		}
		if may := p.memory + p.codes(int64(len(b))); most > may {
			t.Errorf("%d bytes of a file take %d of memory, and %d were set aside", len(b), most, may)
		}
		return most
	}
	for _, groups := range []int{100, 2600} {
		if n := live(manyCodes(groups)); n < int64(groups)*45_000 {
			t.Errorf("%d groups take %d bytes: these are none of the largest", groups, n)
		}
	}
	if n := live(manyCodes(2601)); n > 1<<20 {
		t.Errorf("2,601 groups are taken, and %d bytes for them", n)
	}
}

type readerFunc func([]byte) (int, error)

func (f readerFunc) Read(b []byte) (int, error) { return f(b) }

// TestWebPCost: what is in a WebP, and not what it says of itself, tells how much
// decoding it takes.
func TestWebPCost(t *testing.T) {
	chunk := func(kind string, body ...byte) []byte { return appendRIFF(nil, kind, body) }
	vp8x := func(flags byte) []byte { return chunk("VP8X", flags, 0, 0, 0, 1, 0, 0, 1, 0, 0) }
	for name, tt := range map[string]struct {
		chunks             [][]byte
		perPixel, swelling int64
	}{
		"lossy":                        {[][]byte{chunk("VP8 ", 0)}, 3, 0},
		"lossless":                     {[][]byte{chunk("VP8L", 0)}, 9, webpSwelling},
		"lossy photo":                  {[][]byte{vp8x(8), chunk("ICCP", 1, 2, 3), chunk("VP8 ", 0)}, 3, 0},
		"lossless that tells nothing":  {[][]byte{vp8x(0), chunk("VP8L", 0)}, 9, webpSwelling},
		"lossless behind a strange":    {[][]byte{chunk("XXXX", 1), chunk("VP8L", 0)}, 9, webpSwelling},
		"lossy with transparency":      {[][]byte{vp8x(0x10), chunk("ALPH", 0), chunk("VP8 ", 0)}, 4, 0},
		"its transparency is lossless": {[][]byte{vp8x(0x10), chunk("ALPH", 1), chunk("VP8 ", 0)}, 12, webpSwelling},
		"moving":                       {[][]byte{vp8x(2), chunk("VP8 ", 0)}, 12, webpSwelling},
		"cut off":                      {[][]byte{vp8x(0), chunk("ICCP", 1)[:8]}, 12, webpSwelling},
		"nothing":                      {nil, 12, webpSwelling},
	} {
		header := slices.Concat([]byte("RIFF\x00\x00\x00\x00WEBP"), slices.Concat(tt.chunks...))
		if perPixel, swelling := webpCost(header); perPixel != tt.perPixel || swelling != tt.swelling {
			t.Errorf("%s: %d bytes a pixel and %d a byte, want %d and %d", name, perPixel, swelling, tt.perPixel, tt.swelling)
		}
	}
}
