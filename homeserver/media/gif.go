package media

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"errors"
	"image"
	"image/color"
	"image/gif"
	"slices"
)

// readGIF finds the scenes of a GIF. What is cut off or unknown ends it.
//
// Source: https://www.w3.org/Graphics/GIF/spec-gif89a.txt
func (a *animation) readGIF(b []byte) error {
	c := &chunks{b: b}
	head := c.take(13)
	if head == nil {
		return errStill
	}
	a.width, a.height, a.plays = int(binary.LittleEndian.Uint16(head[6:])), int(binary.LittleEndian.Uint16(head[8:])), 1
	palette := c.take(paletteSize(head[10]))
	var control []byte
	for len(a.scenes) < mostScenes {
		kind := c.take(1)
		if kind == nil {
			return nil
		}
		switch kind[0] {
		case 0x21: // an extension
			label := c.take(1)
			body, whole := c.blocks()
			switch {
			case label == nil || !whole:
			case label[0] == 0xF9 && len(body) >= 5:
				control = body[1:5]
			case label[0] == 0xFF && len(body) >= 16 && string(body[1:12]) == "NETSCAPE2.0" && body[13] == 1:
				if a.plays = int(binary.LittleEndian.Uint16(body[14:])); a.plays > 0 {
					a.plays++ // it counts repetitions
				}
			}
		case 0x2C: // a picture
			where := c.take(9)
			if where == nil {
				return nil
			}
			own := c.take(paletteSize(where[8]))
			start := c.at
			c.take(1)
			if _, whole := c.blocks(); !whole {
				return nil
			}
			a.scenes = append(a.scenes, gifScene(where, palette, own, control, b[start:c.at]))
			control = nil
		default: // the end
			return nil
		}
	}
	return nil
}

// paletteSize is how many bytes the palette has that flags announce.
func paletteSize(flags byte) int {
	if flags&0x80 == 0 {
		return 0
	}
	return 3 << (flags&7 + 1)
}

// blocks gives a row of blocks with their lengths, up to the empty one. Whole
// tells that this was there.
func (c *chunks) blocks() (b []byte, whole bool) {
	start := c.at
	n := c.take(1)
	for ; n != nil && n[0] != 0; n = c.take(1) {
		c.take(int(n[0]))
	}
	return c.b[start:c.at], n != nil
}

// gifScene makes a scene of a picture's descriptor, the palettes of the file and
// of the picture, the control block and the pixels.
func gifScene(where, palette, own, control, pixels []byte) scene {
	at := func(i int) int { return int(binary.LittleEndian.Uint16(where[2*i:])) }
	s := scene{at: image.Rect(at(0), at(1), at(0)+at(2), at(1)+at(3))}
	if control != nil {
		s.delay = 10 * int(binary.LittleEndian.Uint16(control[1:]))
		s.dispose = map[byte]disposal{2: vanishes, 3: restores}[control[0]>>2&7]
	}
	if len(own) == 0 {
		own = palette
	}
	s.file = func() []byte {
		out := append([]byte("GIF89a"), where[4:8]...)
		out = append(out, 0, 0, 0)
		if control != nil {
			out = append(out, 0x21, 0xF9, 4, control[0]&1, 0, 0, control[3], 0)
		}
		out = append(append(out, 0x2C, 0, 0, 0, 0), where[4:8]...)
		flags := where[8] & 0x40 // interlaced
		for size := byte(0); size < 8 && len(own) > 0; size++ {
			if paletteSize(0x80|size) == len(own) {
				flags |= 0x80 | size
			}
		}
		return append(append(append(append(out, flags), own...), pixels...), 0x3B)
	}
	return s
}

// errTransparent tells that a picture has holes where the one before has none.
var errTransparent = errors.New("a picture has holes")

// writeGIF writes pictures as a GIF. Whole tells to write each from its edge to
// its edge and to remove it before the next one, as pictures with holes need.
func writeGIF(list pictures, plays int, whole bool) ([]byte, error) {
	g := &gif.GIF{LoopCount: plays - 1}
	switch plays {
	case 0:
		g.LoopCount = 0
	case 1:
		g.LoopCount = -1
	}
	var before *image.RGBA
	err := list(func(picture *image.RGBA, delay int) error {
		if !whole && !picture.Opaque() {
			return errTransparent
		}
		part, dispose := picture.Rect, byte(gif.DisposalBackground)
		if !whole {
			part, dispose = changed(before, picture), gif.DisposalNone
		}
		g.Image = append(g.Image, quantize(picture.SubImage(part).(*image.RGBA)))
		g.Delay, g.Disposal = append(g.Delay, (delay+5)/10), append(g.Disposal, dispose)
		before = picture
		return nil
	})
	if err != nil {
		return nil, err
	}
	if before != nil { // the first picture may be smaller than the whole
		g.Config = image.Config{Width: before.Rect.Dx(), Height: before.Rect.Dy()}
	}
	var out bytes.Buffer
	err = gif.EncodeAll(&out, g)
	return out.Bytes(), err
}

// shade is a color of five bits for each of red, green and blue, and how many
// pixels have it.
type shade struct {
	value [3]uint8
	count int
}

func shadeOf(r, g, b uint8) int { return int(r>>3)<<10 | int(g>>3)<<5 | int(b>>3) }

// quantize draws a picture with at most 255 colors and a hole: those that divide
// its own into parts with about as many pixels each (median cut).
func quantize(m *image.RGBA) *image.Paletted {
	counts := make([]int, 1<<15)
	each(m, func(_ int, px []uint8) {
		if px[3] >= 128 {
			counts[shadeOf(px[0], px[1], px[2])]++
		}
	})
	var all []shade
	for i, n := range counts {
		if n > 0 {
			all = append(all, shade{[3]uint8{uint8(i >> 10), uint8(i >> 5 & 31), uint8(i & 31)}, n})
		}
	}
	boxes := cut(all, 255)
	index := make([]uint8, len(counts))
	palette := color.Palette{color.RGBA{}}
	for _, box := range boxes {
		var sum [3]int
		total := 0
		for _, s := range box {
			for i, v := range s.value {
				sum[i] += int(v) * s.count
			}
			total += s.count
			index[int(s.value[0])<<10|int(s.value[1])<<5|int(s.value[2])] = uint8(len(palette))
		}
		mean := func(i int) uint8 { return uint8(min(255, (sum[i]*255/31+total/2)/total)) }
		palette = append(palette, color.RGBA{mean(0), mean(1), mean(2), 255})
	}
	out := image.NewPaletted(m.Rect, palette)
	each(m, func(i int, px []uint8) {
		if px[3] >= 128 {
			out.Pix[i] = index[shadeOf(px[0], px[1], px[2])]
		}
	})
	return out
}

// each calls f for each pixel in its order.
func each(m *image.RGBA, f func(i int, px []uint8)) {
	w := m.Rect.Dx()
	for y := range m.Rect.Dy() {
		line := m.Pix[y*m.Stride:]
		for x := range w {
			f(y*w+x, line[4*x:4*x+4])
		}
	}
}

// cut divides shades into at most n boxes.
func cut(all []shade, n int) [][]shade {
	if len(all) == 0 {
		return nil
	}
	type box struct {
		shades []shade
		axis   int // along which it is longest
		length int
	}
	measure := func(shades []shade) box {
		b := box{shades: shades}
		for axis := range 3 {
			low, high := uint8(31), uint8(0)
			for _, s := range shades {
				low, high = min(low, s.value[axis]), max(high, s.value[axis])
			}
			if length := int(high - low); length > b.length {
				b.axis, b.length = axis, length
			}
		}
		return b
	}
	boxes := []box{measure(all)}
	for len(boxes) < n {
		longest := 0
		for i, b := range boxes {
			if b.length > boxes[longest].length {
				longest = i
			}
		}
		b := boxes[longest]
		if b.length == 0 {
			break
		}
		slices.SortFunc(b.shades, func(x, y shade) int { return cmp.Compare(x.value[b.axis], y.value[b.axis]) })
		half := 0
		for _, s := range b.shades {
			half += s.count
		}
		half /= 2
		middle := 0
		for left := 0; middle < len(b.shades)-1 && (middle == 0 || left < half); middle++ {
			left += b.shades[middle].count
		}
		boxes[longest] = measure(b.shades[:middle])
		boxes = append(boxes, measure(b.shades[middle:]))
	}
	out := make([][]shade, len(boxes))
	for i, b := range boxes {
		out[i] = b.shades
	}
	return out
}
