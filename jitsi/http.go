package jitsi

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
)

// maxAnswer is how much of an answer is read, in bytes.
const maxAnswer = 1 << 20

// fetch makes a request and reads the whole answer, which must be a good one.
func fetch(client *http.Client, r *http.Request) ([]byte, http.Header, error) {
	resp, err := client.Do(r)
	if err != nil {
		var inner *url.Error
		if errors.As(err, &inner) { // whose text has the token in it
			err = inner.Err
		}
		return nil, nil, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, nil, &statusError{r.URL.Path, resp.StatusCode}
	}
	body, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	return body, resp.Header, err
}

// statusError is an answer that is none.
type statusError struct {
	path   string
	status int
}

// Error implements error.
func (e *statusError) Error() string {
	return fmt.Sprintf("%s answers with status %d", e.path, e.status)
}
