package media

import (
	"mime"
	"strings"
	"unicode"
	"unicode/utf8"
)

// inlineTypes can be shown in a browser without running anything.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#serving-inline-content
var inlineTypes = map[string]bool{
	"text/css": true, "text/plain": true, "text/csv": true, "application/json": true, "application/ld+json": true,
	"image/jpeg": true, "image/gif": true, "image/png": true, "image/apng": true, "image/webp": true, "image/avif": true,
	"video/mp4": true, "video/webm": true, "video/ogg": true, "video/quicktime": true,
	"audio/mp4": true, "audio/webm": true, "audio/aac": true, "audio/mpeg": true, "audio/ogg": true, "audio/wave": true,
	"audio/wav": true, "audio/x-wav": true, "audio/x-pn-wav": true, "audio/flac": true, "audio/x-flac": true,
}

// inline tells whether a Content-Type may be shown in a browser.
func inline(kind string) bool {
	kind, _, _ = strings.Cut(kind, ";")
	return inlineTypes[strings.ToLower(strings.TrimSpace(kind))]
}

// Disposition is the Content-Disposition of the file, with another file name if
// name is not "".
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#serving-inline-content
func (f *File) Disposition(name string) string {
	kind := "attachment"
	if f.Inline {
		kind = "inline"
	}
	if name == "" {
		name = f.Name
	}
	if name = cleanName(name); name == "" {
		return kind
	}
	if d := mime.FormatMediaType(kind, map[string]string{"filename": name}); d != "" {
		return d
	}
	return kind
}

// cleanName is a file name without what could deceive a user or a program:
// folders, control characters, and characters that turn the direction of
// writing around.
func cleanName(s string) string {
	s = strings.Map(func(c rune) rune {
		switch {
		case c == '/' || c == '\\':
			return '_'
		case c == utf8.RuneError || unicode.IsControl(c) || unicode.Is(unicode.Bidi_Control, c) || c == '\u2028' || c == '\u2029':
			return -1
		}
		return c
	}, s)
	for len(s) > 255 {
		_, n := utf8.DecodeLastRuneInString(s)
		s = s[:len(s)-n]
	}
	return strings.TrimSpace(s)
}
