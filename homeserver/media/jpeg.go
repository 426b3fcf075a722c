package media

import (
	"encoding/binary"
	"errors"
	"image"
	"image/jpeg"
	"io"
)

// mostScans is how often a JPEG may go over all its pixels. Usual are ten; each
// takes a few bytes of the file and much time.
const mostScans = 100

var errScans = errors.New("the JPEG has too many scans")

// decodeJPEG is jpeg.Decode with a bound on the scans.
func decodeJPEG(r io.Reader) (image.Image, error) { return jpeg.Decode(&scans{r: r}) }

// scans counts the marks of scans in what is read. In pixels they cannot be.
type scans struct {
	r    io.Reader
	last byte
	n    int
}

// Read implements io.Reader.
func (s *scans) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	for _, c := range p[:n] {
		if s.last == 0xFF && c == 0xDA {
			s.n++
		}
		s.last = c
	}
	if s.n > mostScans {
		return 0, errScans
	}
	return n, err
}

// jpegFacts is what the header of a JPEG says that image/jpeg does not tell.
type jpegFacts struct {
	progressive bool
	orientation int // 1 to 8 as in EXIF; 1 is upright
}

// readJPEG looks through the segments of a JPEG up to its frame header, as far
// as b goes.
func readJPEG(b []byte) jpegFacts {
	facts := jpegFacts{orientation: 1}
	for i := 2; i+4 <= len(b) && b[i] == 0xFF; {
		marker := b[i+1]
		if marker == 0xFF { // a fill byte
			i++
			continue
		}
		length := int(binary.BigEndian.Uint16(b[i+2:]))
		if length < 2 || marker == 0xDA { // start of the scan
			break
		}
		content := b[i+4 : min(i+2+length, len(b))]
		switch {
		case marker == 0xE1:
			if o := exifOrientation(content); o != 0 {
				facts.orientation = o
			}
		case marker >= 0xC0 && marker <= 0xCF && marker != 0xC4 && marker != 0xC8 && marker != 0xCC: // a frame
			facts.progressive = marker == 0xC2
			return facts
		}
		i += 2 + length
	}
	return facts
}

// exifOrientation finds the orientation in an APP1 segment, 0 if there is none.
func exifOrientation(b []byte) int {
	const head = "Exif\x00\x00"
	if len(b) < len(head)+8 || string(b[:len(head)]) != head {
		return 0
	}
	b = b[len(head):]
	var order binary.ByteOrder
	switch string(b[:4]) {
	case "II*\x00":
		order = binary.LittleEndian
	case "MM\x00*":
		order = binary.BigEndian
	default:
		return 0
	}
	at := int64(order.Uint32(b[4:]))
	if at+2 > int64(len(b)) {
		return 0
	}
	entries := b[at+2:]
	for range order.Uint16(b[at:]) {
		if len(entries) < 12 {
			return 0
		}
		const orientation, short = 0x0112, 3
		if order.Uint16(entries) == orientation {
			value := int(order.Uint16(entries[8:]))
			if order.Uint16(entries[2:]) != short || value < 1 || value > 8 {
				return 0
			}
			return value
		}
		entries = entries[12:]
	}
	return 0
}
