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
	"math"

	scale "golang.org/x/image/draw"
	"golang.org/x/image/webp"
)

// Frame is the size that a thumbnail should have, in pixels.
type Frame struct {
	Width, Height int
	Crop          bool // cut off what is outside, instead of fitting all in
}

// picture is an image of which only the header was read.
type picture struct {
	kind          string // Content-Type
	width, height int    // as stored
	orientation   int    // 1 to 8 as in EXIF; 1 is upright
	animated      bool   // has, or may have, more than one picture in it
	memory        int64  // bytes that decoding takes
	swelling      int64  // and for each byte of the file at most, see codes
	decode        func(io.Reader) (image.Image, error)
}

var errNoImage = errors.New("not an image of a known kind")

// headerLength is how much of a file is looked at to know what it is. Cameras
// put previews before the size.
const headerLength = 256 << 10

// readHeader tells what image a file holds, from its first bytes alone. The
// content decides, not what the client said.
func readHeader(header []byte) (picture, error) {
	p := picture{orientation: 1}
	var config image.Config
	var err error
	switch {
	case bytes.HasPrefix(header, []byte("\xFF\xD8\xFF")):
		p.kind, p.decode = "image/jpeg", decodeJPEG
		config, err = jpeg.DecodeConfig(bytes.NewReader(header))
	case bytes.HasPrefix(header, []byte("\x89PNG\r\n\x1A\n")):
		p.kind, p.decode = "image/png", png.Decode
		p.animated = animatedPNG(header)
		config, err = png.DecodeConfig(bytes.NewReader(header))
	case bytes.HasPrefix(header, []byte("GIF8")):
		p.kind, p.decode, p.animated = "image/gif", gif.Decode, true
		config, err = gif.DecodeConfig(bytes.NewReader(header))
	case len(header) > 20 && string(header[:4]) == "RIFF" && string(header[8:12]) == "WEBP":
		p.kind, p.decode = "image/webp", webp.Decode
		p.animated = string(header[12:16]) == "VP8X" && header[20]&2 != 0
		config, err = webp.DecodeConfig(bytes.NewReader(header))
	default:
		return picture{}, errNoImage
	}
	if err != nil {
		return picture{}, fmt.Errorf("%s: %w", p.kind, err)
	}
	if config.Width <= 0 || config.Height <= 0 {
		return picture{}, errNoImage
	}
	p.width, p.height = config.Width, config.Height
	perPixel := int64(bytesPerPixel(config.ColorModel))
	switch p.kind {
	case "image/jpeg":
		facts := readJPEG(header)
		p.orientation = facts.orientation
		if facts.progressive { // all coefficients, 4 bytes each, stay in memory to the end
			perPixel += 12
		}
	case "image/webp":
		perPixel, p.swelling = webpCost(header)
	}
	p.memory = perPixel * int64(p.width) * int64(p.height)
	return p, nil
}

// animatedPNG tells whether a PNG says that it moves, which it does before its
// first pixels.
func animatedPNG(header []byte) bool {
	c := &chunks{b: header, at: len(pngHead)}
	for kind, _ := c.png(); kind != "" && kind != "IDAT"; kind, _ = c.png() {
		if kind == "acTL" {
			return true
		}
	}
	return false
}

func bytesPerPixel(m color.Model) int {
	switch m {
	case color.GrayModel, color.AlphaModel:
		return 1
	case color.Gray16Model, color.Alpha16Model:
		return 2
	case color.YCbCrModel:
		return 3
	case color.NRGBA64Model, color.RGBA64Model:
		return 8
	}
	if _, ok := m.(color.Palette); ok {
		return 1
	}
	return 4
}

// upright is the size of the picture as it is to be looked at.
func (p picture) upright() (width, height int) {
	if p.orientation >= 5 {
		return p.height, p.width
	}
	return p.width, p.height
}

// fits tells whether the picture needs no thumbnail in the frame.
func (p picture) fits(f Frame) bool {
	w, h := p.upright()
	return w <= f.Width && h <= f.Height
}

// thumbnail decodes the picture from r and makes a thumbnail that fits the
// frame. It is never larger than the picture.
func (p picture) thumbnail(r io.Reader, f Frame) (content []byte, kind string, err error) {
	defer func() {
		if x := recover(); x != nil { // decoders of files made by strangers
			err = fmt.Errorf("decoding %s panicked: %v", p.kind, x)
		}
	}()
	img, err := p.decode(r)
	if err != nil {
		return nil, "", fmt.Errorf("decode %s: %w", p.kind, err)
	}
	if p.orientation >= 5 {
		f.Width, f.Height = f.Height, f.Width
	}
	return p.encode(turn(shrink(img, f), p.orientation))
}

// encode writes a thumbnail of the picture.
func (p picture) encode(small *image.RGBA) (content []byte, kind string, err error) {
	var out bytes.Buffer
	if p.kind != "image/png" && small.Opaque() { // drawings stay sharp
		kind, err = "image/jpeg", jpeg.Encode(&out, small, &jpeg.Options{Quality: 85})
	} else {
		kind, err = "image/png", png.Encode(&out, small)
	}
	if err != nil {
		return nil, "", fmt.Errorf("encode thumbnail: %w", err)
	}
	return out.Bytes(), kind, nil
}

// size is how large a picture becomes in the frame, and by what it is multiplied.
func (f Frame) size(width, height int) (size image.Point, ratio float64) {
	w, h := float64(width), float64(height)
	ratio = min(float64(f.Width)/w, float64(f.Height)/h)
	if f.Crop {
		ratio = max(float64(f.Width)/w, float64(f.Height)/h)
	}
	ratio = min(ratio, 1)
	size = image.Pt(pixels(w*ratio), pixels(h*ratio))
	if f.Crop {
		size = image.Pt(min(size.X, f.Width), min(size.Y, f.Height))
	}
	return size, ratio
}

// shrink scales img down to the frame.
func shrink(img image.Image, f Frame) *image.RGBA {
	b := img.Bounds()
	size, ratio := f.size(b.Dx(), b.Dy())
	if f.Crop {
		cut := image.Pt(min(b.Dx(), pixels(float64(size.X)/ratio)), min(b.Dy(), pixels(float64(size.Y)/ratio)))
		corner := b.Min.Add(image.Pt((b.Dx()-cut.X)/2, (b.Dy()-cut.Y)/2))
		b = image.Rectangle{Min: corner, Max: corner.Add(cut)}
	}
	img, b = average(img, b, max(1, min(b.Dx()/size.X, b.Dy()/size.Y)))
	small := image.NewRGBA(image.Rectangle{Max: size})
	scale.CatmullRom.Scale(small, small.Bounds(), img, b, draw.Src, nil)
	return small
}

func pixels(x float64) int { return max(1, int(math.Round(x))) }

// average makes one pixel of each block of n × n pixels of the part b of img,
// so that the fine scaling behind it has little left to do and needs little
// memory.
func average(img image.Image, b image.Rectangle, n int) (image.Image, image.Rectangle) {
	if n < 2 {
		return img, b
	}
	small := image.NewRGBA(image.Rect(0, 0, b.Dx()/n, b.Dy()/n))
	strip := image.NewRGBA(image.Rect(0, 0, b.Dx(), n))
	sums := make([]uint32, 4*small.Rect.Dx())
	for y := range small.Rect.Dy() {
		draw.Draw(strip, strip.Rect, img, image.Pt(b.Min.X, b.Min.Y+y*n), draw.Src)
		clear(sums)
		for row := range n {
			line := strip.Pix[row*strip.Stride:]
			for x := range small.Rect.Dx() {
				px := line[4*x*n : 4*(x+1)*n]
				for i := 0; i < len(px); i += 4 {
					sums[4*x] += uint32(px[i])
					sums[4*x+1] += uint32(px[i+1])
					sums[4*x+2] += uint32(px[i+2])
					sums[4*x+3] += uint32(px[i+3])
				}
			}
		}
		for i, sum := range sums {
			small.Pix[y*small.Stride+i] = uint8((sum + uint32(n*n)/2) / uint32(n*n))
		}
	}
	return small, small.Rect
}

// turn sets an image upright that was stored with an orientation of EXIF.
func turn(img *image.RGBA, orientation int) *image.RGBA {
	if orientation <= 1 || orientation > 8 {
		return img
	}
	w, h := img.Rect.Dx(), img.Rect.Dy()
	out := image.NewRGBA(image.Rect(0, 0, w, h))
	if orientation >= 5 {
		out = image.NewRGBA(image.Rect(0, 0, h, w))
	}
	for y := range h {
		for x := range w {
			to := image.Pt(x, y)
			switch orientation {
			case 2:
				to = image.Pt(w-1-x, y)
			case 3:
				to = image.Pt(w-1-x, h-1-y)
			case 4:
				to = image.Pt(x, h-1-y)
			case 5:
				to = image.Pt(y, x)
			case 6:
				to = image.Pt(h-1-y, x)
			case 7:
				to = image.Pt(h-1-y, w-1-x)
			case 8:
				to = image.Pt(y, w-1-x)
			}
			from, into := img.PixOffset(x, y), out.PixOffset(to.X, to.Y)
			binary.NativeEndian.PutUint32(out.Pix[into:], binary.NativeEndian.Uint32(img.Pix[from:]))
		}
	}
	return out
}
