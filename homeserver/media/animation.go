package media

import (
	"bytes"
	"errors"
	"fmt"
	"image"
	"image/draw"
	"image/gif"
	"image/png"
	"io"

	"golang.org/x/image/webp"
)

// animation is a file with pictures that follow each other. Only how it is put
// together was read of it.
type animation struct {
	kind          string // Content-Type
	width, height int    // of all pictures together
	plays         int    // how often it is shown; 0: for ever
	scenes        []scene
}

// scene is one picture of an animation.
type scene struct {
	at      image.Rectangle // within the whole
	delay   int             // milliseconds until the next one
	dispose disposal
	replace bool          // instead of being drawn over what is there
	file    func() []byte // makes a file of this picture alone
}

// disposal is what becomes of a scene before the next one.
type disposal int

const (
	stays disposal = iota
	vanishes
	restores // what was there before
)

const (
	// mostAnimated is the largest file, in bytes, that is made smaller with its
	// movement.
	mostAnimated = 32 << 20
	mostScenes   = 2000

	// mostWork is how many times media.max_pixels may be drawn for one thumbnail.
	mostWork = 4
)

var (
	errStill = errors.New("no animation")
	errScene = errors.New("a picture of the animation does not fit into it")
)

// readAnimation finds the scenes of a file. The error is errStill if there are
// less than two.
func readAnimation(kind string, b []byte) (*animation, error) {
	a := &animation{kind: kind}
	read := map[string]func([]byte) error{"image/gif": a.readGIF, "image/png": a.readPNG, "image/webp": a.readWebP}[kind]
	if read == nil {
		return nil, errStill
	}
	if err := read(b); err != nil {
		return nil, err
	}
	if len(a.scenes) < 2 {
		return nil, errStill
	}
	whole := image.Rect(0, 0, a.width, a.height)
	for _, s := range a.scenes {
		if s.at.Empty() || !s.at.In(whole) {
			return nil, errScene
		}
	}
	return a, nil
}

// work is how many pixels are decoded, drawn and scaled down for a thumbnail.
func (a *animation) work() (pixels int64) {
	for _, s := range a.scenes {
		pixels += int64(s.at.Dx())*int64(s.at.Dy()) + int64(a.width)*int64(a.height)
	}
	return pixels
}

// memory is how many bytes making a thumbnail of a size takes, beside the file.
func (a *animation) memory(size image.Point) int64 {
	const whole, one, out = 4 + 4, 8 + 8, 2 // bytes per pixel
	pixels := int64(a.width) * int64(a.height)
	return whole*pixels + one*pixels + out*int64(len(a.scenes))*int64(size.X)*int64(size.Y)
}

// show draws the scenes one after the other and calls f with each whole picture,
// which is changed afterwards.
func (a *animation) show(f func(whole *image.RGBA, delay int) error) error {
	canvas := image.NewRGBA(image.Rect(0, 0, a.width, a.height))
	var before *image.RGBA
	for _, s := range a.scenes {
		if s.dispose == restores {
			if before == nil {
				before = image.NewRGBA(canvas.Rect)
			}
			draw.Draw(before, s.at, canvas, s.at.Min, draw.Src)
		}
		picture, err := a.decode(s)
		if err != nil {
			return err
		}
		op := draw.Over
		if s.replace {
			op = draw.Src
		}
		draw.Draw(canvas, s.at, picture, picture.Bounds().Min, op)
		if err := f(canvas, s.delay); err != nil {
			return err
		}
		switch s.dispose {
		case vanishes:
			draw.Draw(canvas, s.at, image.Transparent, image.Point{}, draw.Src)
		case restores:
			draw.Draw(canvas, s.at, before, s.at.Min, draw.Src)
		}
	}
	return nil
}

// decode reads the picture of a scene, if it has the size that was announced.
func (a *animation) decode(s scene) (image.Image, error) {
	decoder := map[string]struct {
		config func(io.Reader) (image.Config, error)
		decode func(io.Reader) (image.Image, error)
	}{
		"image/gif": {gif.DecodeConfig, gif.Decode}, "image/png": {png.DecodeConfig, png.Decode}, "image/webp": {webp.DecodeConfig, webp.Decode},
	}[a.kind]
	b := s.file()
	c, err := decoder.config(bytes.NewReader(b))
	if err != nil {
		return nil, err
	}
	if c.Width != s.at.Dx() || c.Height != s.at.Dy() {
		return nil, errScene
	}
	return decoder.decode(bytes.NewReader(b))
}

// errFirst ends a show.
var errFirst = errors.New("first picture")

// first is the picture that the animation begins with.
func (a *animation) first() (picture *image.RGBA, err error) {
	defer a.recovered(&err)
	err = a.show(func(whole *image.RGBA, _ int) error {
		picture = whole
		return errFirst
	})
	if err != errFirst {
		return nil, err
	}
	return picture, nil
}

// thumbnail makes the animation smaller, so that it fits the frame. A GIF stays
// one; the others become animated PNGs.
func (a *animation) thumbnail(f Frame) (content []byte, kind string, err error) {
	defer a.recovered(&err)
	small := func(add func(picture *image.RGBA, delay int) error) error {
		return a.show(func(whole *image.RGBA, delay int) error { return add(shrink(whole, f), delay) })
	}
	if a.kind == "image/gif" {
		content, err = writeGIF(small, a.plays, false)
		if errors.Is(err, errTransparent) {
			content, err = writeGIF(small, a.plays, true)
		}
		return content, "image/gif", err
	}
	content, err = writeAPNG(small, a.plays, len(a.scenes))
	return content, "image/apng", err
}

// recovered makes an error of a panic: the decoders read files of strangers.
func (a *animation) recovered(err *error) {
	if x := recover(); x != nil {
		*err = fmt.Errorf("decoding %s panicked: %v", a.kind, x)
	}
}

// pictures gives pictures of one size to add, in their order.
type pictures func(add func(picture *image.RGBA, delay int) error) error

// changed is the smallest part of a picture outside of which another is equal.
// It has at least one pixel.
func changed(a, b *image.RGBA) image.Rectangle {
	if a == nil {
		return b.Rect
	}
	out := image.Rectangle{}
	for y := range b.Rect.Dy() {
		one, two := a.Pix[y*a.Stride:][:4*b.Rect.Dx()], b.Pix[y*b.Stride:][:4*b.Rect.Dx()]
		if bytes.Equal(one, two) {
			continue
		}
		left, right := 0, b.Rect.Dx()
		for ; [4]byte(one[4*left:]) == [4]byte(two[4*left:]); left++ {
		}
		for ; [4]byte(one[4*right-4:]) == [4]byte(two[4*right-4:]); right-- {
		}
		out = out.Union(image.Rect(left, y, right, y+1))
	}
	if out.Empty() {
		return image.Rect(0, 0, 1, 1)
	}
	return out
}

// chunks reads a file from its beginning to its end.
type chunks struct {
	b  []byte
	at int
}

// take gives the next n bytes, or nil where there are fewer. Then nothing is left.
func (c *chunks) take(n int) []byte {
	if n < 0 || n > len(c.b)-c.at {
		c.at = len(c.b)
		return nil
	}
	c.at += n
	return c.b[c.at-n : c.at : c.at]
}
