package media

import (
	"encoding/binary"
	"image"
)

// readWebP finds the scenes of an animated WebP. What is cut off ends it.
//
// Source: https://developers.google.com/speed/webp/docs/riff_container
func (a *animation) readWebP(b []byte) error {
	c := &chunks{b: b}
	c.take(12)
	for len(a.scenes) < mostScenes {
		kind, body := c.riff()
		switch {
		case kind == "":
			return nil
		case kind == "VP8X" && len(body) >= 10:
			a.width, a.height = 1+number24(body[4:]), 1+number24(body[7:])
		case kind == "ANIM" && len(body) >= 6:
			a.plays = int(binary.LittleEndian.Uint16(body[4:]))
		case kind == "ANMF" && len(body) >= 16:
			a.scenes = append(a.scenes, webpScene(body))
		}
	}
	return nil
}

const (
	// webpCodes is how many bytes the prefix codes of a lossless WebP take at most:
	// the decoder refuses more than 2,600 groups of them, and the trees of one are for
	// 2,328, three times 256, and 40 symbols. A byte of the file makes webpSwelling of
	// them, beside the tables that every tree has, be it of one symbol.
	webpCodes    = 150 << 20
	webpSwelling = 260
	webpTables   = 2600 * 5 * 560

	// webpDearest is what a pixel takes in a lossy image whose transparency is a
	// lossless one.
	webpDearest = 9 + 1 + 2
)

// webpCost is how many bytes decoding a WebP takes for each pixel, and for each byte
// of the file at most. It looks for the chunk with the pixels; where header ends
// before that, it is the dearest one.
func webpCost(header []byte) (perPixel, swelling int64) {
	c := &chunks{b: header}
	c.take(12)
	for head := c.take(8); head != nil; head = c.take(8) {
		size := int(binary.LittleEndian.Uint32(head[4:]))
		first := append(header[c.at:len(header):len(header)], 0)[0] // of the chunk's bytes
		switch string(head[:4]) {
		case "VP8X":
			if first&2 != 0 { // animated: any of its pictures may be of any kind
				return webpDearest, webpSwelling
			}
		case "VP8 ":
			return 3, 0
		case "VP8L": // 4 before colours are looked up in a palette, 4 behind, and a sixteenth of 4 for each of three images inside
			return 9, webpSwelling
		case "ALPH":
			if first&3 == 0 { // not compressed
				return 4, 0
			}
			return webpDearest, webpSwelling
		}
		c.take(size + size%2)
	}
	return webpDearest, webpSwelling
}

// codes is how many bytes the prefix codes in a file of a size take at most.
func (p picture) codes(size int64) int64 {
	if p.swelling == 0 {
		return 0
	}
	return min(webpTables+size*p.swelling, webpCodes)
}

// riff gives the next chunk of a WebP, "" at the end.
func (c *chunks) riff() (kind string, body []byte) {
	head := c.take(8)
	if head == nil {
		return "", nil
	}
	size := int(binary.LittleEndian.Uint32(head[4:]))
	if body = c.take(size); body == nil {
		return "", nil
	}
	c.take(size % 2)
	return string(head[:4]), body
}

func number24(b []byte) int { return int(b[0]) | int(b[1])<<8 | int(b[2])<<16 }

// webpScene makes a scene of a chunk ANMF.
func webpScene(b []byte) scene {
	corner := image.Pt(2*number24(b), 2*number24(b[3:]))
	s := scene{
		at:    image.Rectangle{Min: corner, Max: corner.Add(image.Pt(1+number24(b[6:]), 1+number24(b[9:])))},
		delay: number24(b[12:]), replace: b[15]&2 != 0,
	}
	if b[15]&1 != 0 {
		s.dispose = vanishes
	}
	s.file = func() []byte {
		out := []byte("RIFF\x00\x00\x00\x00WEBP")
		c := &chunks{b: b[16:]}
		for kind, body := c.riff(); kind != ""; kind, body = c.riff() {
			switch kind {
			case "ALPH": // needs a header that announces it
				size := append(append(make([]byte, 0, 6), b[6:9]...), b[9:12]...)
				out = appendRIFF(out, "VP8X", append([]byte{0x10, 0, 0, 0}, size...))
				out = appendRIFF(out, kind, body)
			case "VP8 ", "VP8L":
				out = appendRIFF(out, kind, body)
			}
		}
		binary.LittleEndian.PutUint32(out[4:], uint32(len(out)-8))
		return out
	}
	return s
}

// appendRIFF appends a chunk with its length, and a byte where that is odd.
func appendRIFF(out []byte, kind string, body []byte) []byte {
	out = binary.LittleEndian.AppendUint32(append(out, kind...), uint32(len(body)))
	out = append(out, body...)
	if len(body)%2 == 1 {
		out = append(out, 0)
	}
	return out
}
