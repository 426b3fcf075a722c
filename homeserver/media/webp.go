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
