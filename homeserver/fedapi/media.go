package fedapi

import (
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/media"
)

var mediaRoutes = []route{
	{"getContent", "GET /_matrix/federation/v1/media/download/{mediaId}", servers, small, (*API).getContent},
	{"getContentThumbnail", "GET /_matrix/federation/v1/media/thumbnail/{mediaId}", servers, small, (*API).getContentThumbnail},
}

const (
	mediaWait     = 20 * time.Second // for a file that is still being uploaded
	mediaMostWait = time.Minute
)

// getContent sends a file of this server.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediadownloadmediaid
func (a *API) getContent(r *request) (any, error) {
	wait, err := r.mediaWait()
	if err != nil {
		return nil, err
	}
	f, err := a.Media.Open(r.Context(), a.ServerName, r.PathValue("mediaId"), wait)
	if err != nil {
		return nil, err
	}
	return &fileAnswer{f, f.Disposition("")}, nil
}

// getContentThumbnail sends a small version of an image of this server.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediathumbnailmediaid
func (a *API) getContentThumbnail(r *request) (any, error) {
	wait, err := r.mediaWait()
	if err != nil {
		return nil, err
	}
	const most = 1 << 16
	width, err := r.Number("width", 0, most)
	if err != nil {
		return nil, err
	}
	height, err := r.Number("height", 0, most)
	if err != nil {
		return nil, err
	}
	if width == 0 || height == 0 {
		return nil, matrix.Errorf(matrix.InvalidParam, "width and height must be numbers above 0")
	}
	frame := media.Frame{Width: width, Height: height}
	switch r.URL.Query().Get("method") {
	case "", "scale":
	case "crop":
		frame.Crop = true
	default:
		return nil, matrix.Errorf(matrix.InvalidParam, "method must be scale or crop")
	}
	animated, err := r.Flag("animated")
	if err != nil {
		return nil, err
	}
	f, err := a.Media.Thumbnail(r.Context(), a.ServerName, r.PathValue("mediaId"), frame, animated, wait)
	if err != nil {
		return nil, err
	}
	return &fileAnswer{f, f.Disposition("")}, nil
}

// mediaWait is how long the server wants to wait for a file that is not
// uploaded yet.
func (r *request) mediaWait() (time.Duration, error) {
	ms, err := r.Number("timeout_ms", int(mediaWait.Milliseconds()), int(mediaMostWait.Milliseconds()))
	return time.Duration(ms) * time.Millisecond, err
}

// fileAnswer sends a file as servers do: in two parts, of which the first one
// is for what may once be told of it.
type fileAnswer struct {
	file        *media.File
	disposition string
}

func (f *fileAnswer) Respond(w http.ResponseWriter, _ *http.Request) {
	defer f.file.Close()
	parts := multipart.NewWriter(w)
	w.Header().Set("Content-Type", fmt.Sprintf("multipart/mixed; boundary=%s", parts.Boundary()))
	w.Header().Set("Content-Disposition", f.disposition) // where Dendrite looks for it
	if err := f.write(parts); err != nil {
		panic(http.ErrAbortHandler) // the answer has begun: it must not look whole
	}
}

func (f *fileAnswer) write(parts *multipart.Writer) error {
	about, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/json"}})
	if err != nil {
		return err
	}
	if _, err := io.WriteString(about, "{}"); err != nil {
		return err
	}
	// Synapse overlooks a Content-Disposition before the Content-Type; in lower case it comes behind.
	content, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {f.file.Type}, "content-disposition": {f.disposition}})
	if err != nil {
		return err
	}
	if _, err := io.Copy(content, f.file); err != nil {
		return err
	}
	return parts.Close()
}
