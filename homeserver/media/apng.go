package media

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"hash/crc32"
	"image"
	"slices"
)

const pngHead = "\x89PNG\r\n\x1A\n"

// readPNG finds the scenes of an animated PNG. What is cut off ends it.
//
// Source: https://www.w3.org/TR/png-3/#apng-frame-based-animation
func (a *animation) readPNG(b []byte) error {
	c := &chunks{b: b}
	c.take(len(pngHead))
	var head []byte
	var shared []byte // chunks that go for all scenes
	var pixels *[][]byte
	for len(a.scenes) < mostScenes {
		start := c.at
		kind, body := c.png()
		switch {
		case kind == "" || kind == "IEND":
			return nil
		case kind == "IHDR" && len(body) == 13:
			head = body
			a.width, a.height = int(binary.BigEndian.Uint32(body)), int(binary.BigEndian.Uint32(body[4:]))
		case kind == "acTL" && len(body) == 8:
			a.plays = int(binary.BigEndian.Uint32(body[4:]))
		case kind == "PLTE" || kind == "tRNS":
			shared = append(shared, b[start:c.at]...)
		case kind == "fcTL" && len(body) == 26 && head != nil:
			pixels = new([][]byte)
			a.scenes = append(a.scenes, pngScene(head, &shared, body, pixels))
		case kind == "IDAT" && pixels != nil:
			*pixels = append(*pixels, body)
		case kind == "fdAT" && pixels != nil && len(body) > 4:
			*pixels = append(*pixels, body[4:])
		}
	}
	return nil
}

// png gives the next chunk of a PNG, "" at the end.
func (c *chunks) png() (kind string, body []byte) {
	head := c.take(8)
	if head == nil {
		return "", nil
	}
	body = c.take(int(binary.BigEndian.Uint32(head)))
	if c.take(4) == nil { // the checksum
		return "", nil
	}
	return string(head[4:]), body
}

// pngScene makes a scene of the header of the file, the chunks that go for all,
// the control chunk and the pixels, which come later.
func pngScene(head []byte, shared *[]byte, control []byte, pixels *[][]byte) scene {
	at := func(i int) int { return int(int32(binary.BigEndian.Uint32(control[4*i:]))) }
	s := scene{at: image.Rectangle{Min: image.Pt(at(3), at(4))}, replace: control[25] == 0}
	s.at.Max = s.at.Min.Add(image.Pt(at(1), at(2)))
	parts := int(binary.BigEndian.Uint16(control[22:]))
	if parts == 0 {
		parts = 100
	}
	s.delay = int(binary.BigEndian.Uint16(control[20:])) * 1000 / parts
	s.dispose = map[byte]disposal{1: vanishes, 2: restores}[control[24]]
	s.file = func() []byte {
		own := slices.Concat(control[4:12], head[8:])
		out := appendPNG([]byte(pngHead), "IHDR", own)
		out = append(out, *shared...)
		return appendPNG(appendPNG(out, "IDAT", slices.Concat(*pixels...)), "IEND", nil)
	}
	return s
}

// appendPNG appends a chunk with its length and checksum.
func appendPNG(out []byte, kind string, body []byte) []byte {
	out = binary.BigEndian.AppendUint32(out, uint32(len(body)))
	start := len(out)
	out = append(append(out, kind...), body...)
	return binary.BigEndian.AppendUint32(out, crc32.ChecksumIEEE(out[start:]))
}

// writeAPNG writes pictures as an animated PNG, of each but the first only what
// is different from the one before.
func writeAPNG(list pictures, plays, count int) ([]byte, error) {
	out := []byte(pngHead)
	order := binary.BigEndian
	var before *image.RGBA
	var serial uint32
	z := zlib.NewWriter(nil) // takes a megabyte, so one is enough
	err := list(func(picture *image.RGBA, delay int) error {
		if before == nil {
			size := order.AppendUint32(order.AppendUint32(nil, uint32(picture.Rect.Dx())), uint32(picture.Rect.Dy()))
			out = appendPNG(out, "IHDR", append(size, 8, 6, 0, 0, 0)) // eight bits of red, green, blue and alpha
			out = appendPNG(out, "acTL", order.AppendUint32(order.AppendUint32(nil, uint32(count)), uint32(plays)))
		}
		part := changed(before, picture)
		var control []byte
		for _, n := range []int{part.Dx(), part.Dy(), part.Min.X, part.Min.Y} {
			control = order.AppendUint32(control, uint32(n))
		}
		control = order.AppendUint16(order.AppendUint16(control, uint16(min(delay, 1<<16-1))), 1000)
		out = appendPNG(out, "fcTL", append(append(order.AppendUint32(nil, serial), control...), 0, 0)) // it stays, and replaces
		serial++
		pixels, err := packPNG(z, picture.SubImage(part).(*image.RGBA))
		if err != nil {
			return err
		}
		if before == nil {
			out = appendPNG(out, "IDAT", pixels)
		} else {
			out = appendPNG(out, "fdAT", append(order.AppendUint32(nil, serial), pixels...))
			serial++
		}
		before = picture
		return nil
	})
	return appendPNG(out, "IEND", nil), err
}

// packPNG compresses the lines of a picture with z. Each is written as what differs from
// the pixel to its left, or from the line above, whichever seems shorter.
func packPNG(z *zlib.Writer, m *image.RGBA) ([]byte, error) {
	var out bytes.Buffer
	z.Reset(&out)
	width := 4 * m.Rect.Dx()
	line, above := make([]byte, width), make([]byte, width)
	sub, up := make([]byte, 1+width), make([]byte, 1+width)
	sub[0], up[0] = 1, 2
	for y := range m.Rect.Dy() {
		spread(line, m.Pix[y*m.Stride:][:width])
		costs := [2]int{}
		for i, v := range line {
			left := byte(0)
			if i >= 4 {
				left = line[i-4]
			}
			sub[1+i], up[1+i] = v-left, v-above[i]
			costs[0] += magnitude(sub[1+i])
			costs[1] += magnitude(up[1+i])
		}
		best := sub
		if costs[1] < costs[0] {
			best = up
		}
		if _, err := z.Write(best); err != nil {
			return nil, err
		}
		line, above = above, line
	}
	err := z.Close()
	return out.Bytes(), err
}

func magnitude(v byte) int {
	n := int(int8(v))
	return max(n, -n)
}

// spread takes the alpha out of the colors of pixels.
func spread(to, from []byte) {
	copy(to, from)
	for i := 0; i < len(to); i += 4 {
		if alpha := int(to[i+3]); alpha != 0 && alpha != 255 {
			for k := i; k < i+3; k++ {
				to[k] = byte(min(255, (int(to[k])*255+alpha/2)/alpha))
			}
		}
	}
}
