package fedapi

import (
	"net/http/httptest"
	"strings"
	"testing"

	"switchboard/homeserver/media"
)

// contents is an open file.
type contents struct{ *strings.Reader }

func (contents) Close() error { return nil }

// TestFileName writes the name of a file where each other server looks for it:
// with the file, behind its type, and before both parts.
func TestFileName(t *testing.T) {
	const disposition = "inline; filename*=utf-8''%F0%9F%90%94"
	w := httptest.NewRecorder()
	(&fileAnswer{&media.File{ReadSeekCloser: contents{strings.NewReader("PNG")}, Type: "image/png"}, disposition}).Respond(w, nil)
	if got := w.Header().Get("Content-Disposition"); got != disposition {
		t.Errorf("before both parts: %q", got)
	}
	if want := "Content-Type: image/png\r\ncontent-disposition: " + disposition + "\r\n\r\nPNG\r\n"; !strings.Contains(w.Body.String(), want) {
		t.Errorf("got %q, want %q in it", w.Body, want)
	}
}
