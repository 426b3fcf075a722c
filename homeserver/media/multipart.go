package media

import (
	"fmt"
	"io"
	"mime/multipart"
	"net/http"
	"net/textproto"
	"strconv"
)

// WriteMultipart answers another server with the file: in two parts, of which
// the first is an empty object that is there for what may be said of a file one
// day. Whether all arrived, nobody knows.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1mediadownloadmediaid
func (f *File) WriteMultipart(w http.ResponseWriter) error {
	size, err := f.Seek(0, io.SeekEnd)
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		return fmt.Errorf("media: %w", err)
	}
	parts := multipart.NewWriter(w)
	w.Header().Set("Content-Type", "multipart/mixed; boundary="+parts.Boundary())
	w.WriteHeader(http.StatusOK)
	about, err := parts.CreatePart(textproto.MIMEHeader{"Content-Type": {"application/json"}})
	if err != nil {
		return err
	}
	if _, err := io.WriteString(about, "{}"); err != nil {
		return err
	}
	content, err := parts.CreatePart(textproto.MIMEHeader{
		"Content-Type":        {f.Type},
		"Content-Disposition": {f.Disposition("")},
		"Content-Length":      {strconv.FormatInt(size, 10)},
	})
	if err != nil {
		return err
	}
	if _, err := io.Copy(content, f); err != nil {
		return err
	}
	return parts.Close()
}
