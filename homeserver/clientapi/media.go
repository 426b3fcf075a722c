package clientapi

import (
	"net/http"
	"strings"
	"time"

	"switchboard/homeserver/edge"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/media"
)

var mediaRoutes = []route{
	{"uploadContent", "POST /_matrix/media/v3/upload", users, (*API).uploadContent},
	{"createContent", "POST /_matrix/media/v1/create", users, (*API).createContent},
	{"uploadContentToMXC", "PUT /_matrix/media/v3/upload/{serverName}/{mediaId}", users, (*API).uploadContentToMXC},
	{"getConfigAuthed", "GET /_matrix/client/v1/media/config", guests, (*API).getConfig},
	{"getContentAuthed", "GET /_matrix/client/v1/media/download/{serverName}/{mediaId}", guests, (*API).getContent},
	{"getContentOverrideNameAuthed", "GET /_matrix/client/v1/media/download/{serverName}/{mediaId}/{fileName}", guests, (*API).getContent},
	{"getContentThumbnailAuthed", "GET /_matrix/client/v1/media/thumbnail/{serverName}/{mediaId}", guests, (*API).getContentThumbnail},
	{"getUrlPreviewAuthed", "GET /_matrix/client/v1/media/preview_url", users, (*API).getUrlPreview},
	{"getUrlPreview", "GET /_matrix/media/v3/preview_url", users, (*API).getUrlPreview},
	{"getConfig", "GET /_matrix/media/v3/config", guests, (*API).getConfig},
	{"getContent", "GET /_matrix/media/v3/download/{serverName}/{mediaId}", public, unauthenticated((*API).getContent)},
	{"getContentOverrideName", "GET /_matrix/media/v3/download/{serverName}/{mediaId}/{fileName}", public, unauthenticated((*API).getContent)},
	{"getContentThumbnail", "GET /_matrix/media/v3/thumbnail/{serverName}/{mediaId}", public, unauthenticated((*API).getContentThumbnail)},
}

// How long a request waits for a file that is not uploaded yet, at first and at
// most.
const (
	mediaWait     = 20 * time.Second
	mediaMostWait = 2 * time.Minute
)

// unauthenticated serves a route without a token, if the operator wants that.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#content-repo-client-behaviour
func unauthenticated(handle func(*API, *request) (any, error)) func(*API, *request) (any, error) {
	return func(a *API, r *request) (any, error) {
		if !a.Media.Config().Unauthenticated {
			return nil, matrix.Errorf(matrix.NotFound, "media cannot be fetched without an access token here")
		}
		return handle(a, r)
	}
}

// upload is the file in the body of a request.
func upload(r *request) media.Upload {
	kind := r.Header.Get("Content-Type")
	return media.Upload{Type: kind, Name: r.URL.Query().Get("filename"), Length: r.ContentLength, Body: r.Body}
}

// uploadContent stores a file.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav3upload
func (a *API) uploadContent(r *request) (any, error) {
	if err := r.active(); err != nil {
		return nil, err
	}
	id, err := a.Media.Put(r.Context(), r.User, upload(r))
	if err != nil {
		return nil, err
	}
	return map[string]string{"content_uri": a.Media.URI(id)}, nil
}

// createContent gives a media ID for a file that comes later.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixmediav1create
func (a *API) createContent(r *request) (any, error) {
	if err := r.active(); err != nil {
		return nil, err
	}
	id, expires, err := a.Media.Create(r.Context(), r.User)
	if err != nil {
		return nil, err
	}
	return map[string]any{"content_uri": a.Media.URI(id), "unused_expires_at": expires.UnixMilli()}, nil
}

// uploadContentToMXC stores the file for a media ID.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixmediav3uploadservernamemediaid
func (a *API) uploadContentToMXC(r *request) (any, error) {
	if err := r.active(); err != nil {
		return nil, err
	}
	if matrix.ServerName(r.PathValue("serverName")) != a.ServerName {
		return nil, matrix.Errorf(matrix.Forbidden, "this media ID is another server's")
	}
	return edge.Empty{}, a.Media.Fill(r.Context(), r.User, r.PathValue("mediaId"), upload(r))
}

// getConfig tells how large a file may be.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediaconfig
func (a *API) getConfig(*request) (any, error) {
	return map[string]int64{"m.upload.size": a.Media.Config().MaxUpload}, nil
}

// getContent sends a file, under another name if the path has one.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediadownloadservernamemediaid
func (a *API) getContent(r *request) (any, error) {
	wait, err := r.mediaWait()
	if err != nil {
		return nil, err
	}
	server, err := a.mediaServer(r)
	if err != nil {
		return nil, err
	}
	f, err := a.Media.Open(r.Context(), server, r.PathValue("mediaId"), wait)
	if err != nil {
		return nil, err
	}
	return &fileAnswer{f, f.Disposition(r.PathValue("fileName"))}, nil
}

// getContentThumbnail sends a small version of an image.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediathumbnailservernamemediaid
func (a *API) getContentThumbnail(r *request) (any, error) {
	wait, err := r.mediaWait()
	if err != nil {
		return nil, err
	}
	const most = 1 << 16
	var frame media.Frame
	if frame.Width, err = r.Number("width", 0, most); err != nil {
		return nil, err
	}
	if frame.Height, err = r.Number("height", 0, most); err != nil {
		return nil, err
	}
	if frame.Width == 0 || frame.Height == 0 {
		return nil, matrix.Errorf(matrix.InvalidParam, "width and height must be numbers above 0")
	}
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
	server, err := a.mediaServer(r)
	if err != nil {
		return nil, err
	}
	f, err := a.Media.Thumbnail(r.Context(), server, r.PathValue("mediaId"), frame, animated, wait)
	if err != nil {
		return nil, err
	}
	return &fileAnswer{f, f.Disposition("")}, nil
}

// mediaServer is the server of a file. Who wants nothing of other servers gets
// nothing of theirs: so ask old servers, which take us for the file's own.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixmediav3downloadservernamemediaid
func (a *API) mediaServer(r *request) (matrix.ServerName, error) {
	server := matrix.ServerName(r.PathValue("serverName"))
	if server != a.ServerName && r.URL.Query().Get("allow_remote") == "false" {
		return "", matrix.Errorf(matrix.NotFound, "this is not the server of the file")
	}
	return server, nil
}

// mediaWait is how long the client wants to wait for a file that is not
// uploaded yet.
func (r *request) mediaWait() (time.Duration, error) {
	ms, err := r.Number("timeout_ms", int(mediaWait.Milliseconds()), int(mediaMostWait.Milliseconds()))
	return time.Duration(ms) * time.Millisecond, err
}

// fileAnswer sends a file, or the part of it that is asked for.
type fileAnswer struct {
	file        *media.File
	disposition string
}

// mostRanges is how many parts of a file may be asked for at once. Who asks for
// more gets all of it.
const mostRanges = 16

// mediaPolicy keeps a browser from running anything that is in a file.
const mediaPolicy = "sandbox; default-src 'none'; script-src 'none'; plugin-types application/pdf; style-src 'unsafe-inline'; media-src 'self'; object-src 'self';"

func (f *fileAnswer) Respond(w http.ResponseWriter, r *http.Request) {
	defer f.file.Close()
	h := w.Header()
	h.Set("Content-Type", f.file.Type)
	h.Set("Content-Disposition", f.disposition)
	h.Set("Content-Security-Policy", mediaPolicy)
	h.Set("Cross-Origin-Resource-Policy", "cross-origin")
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("X-Robots-Tag", "noindex, nofollow, noarchive, noimageindex")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("ETag", `"`+f.file.Digest+`"`)
	h.Set("Cache-Control", cacheMedia(r))
	ranges := r.Header.Get("Range")
	if !strings.HasPrefix(ranges, "bytes=") || strings.Count(ranges, ",") >= mostRanges { // another unit is to be ignored (RFC 9110, 14.2); each part may be a request to S3
		r.Header.Del("Range")
	}
	http.ServeContent(w, r, "", time.Time{}, f.file)
}

// cacheMedia says who may keep a file: it never changes, but where a token was
// needed only the browser itself may have it.
func cacheMedia(r *http.Request) string {
	const year = "max-age=31536000, immutable"
	if strings.HasPrefix(r.URL.Path, "/_matrix/media/") {
		return "public, " + year
	}
	return "private, " + year
}

// getUrlPreview tells what a page on the web says of itself.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mediapreview_url
func (a *API) getUrlPreview(r *request) (any, error) {
	if !r.URL.Query().Has("url") {
		return nil, matrix.Errorf(matrix.MissingParam, "url is missing")
	}
	return a.Media.Preview(r.Context(), r.URL.Query().Get("url"))
}
