package matrix

import (
	"errors"
	"fmt"
	"testing"
)

func TestError(t *testing.T) {
	cause := errors.New("disk full")
	tests := []struct {
		err    *Error
		status int
		text   string
	}{
		{Errorf(Forbidden, "no %s", "way"), 403, "M_FORBIDDEN: no way"},
		{Errorf(BadJSON, "x"), 400, "M_BAD_JSON: x"},
		{Errorf(Exclusive, "x"), 400, "M_EXCLUSIVE: x"},
		{Errorf(TooLarge, "x"), 413, "M_TOO_LARGE: x"},
		{Errorf(UnknownToken, "x"), 401, "M_UNKNOWN_TOKEN: x"},
		{Errorf(ConnectionFailed, "x"), 502, "M_CONNECTION_FAILED: x"},
		{&Error{Code: BadJSON, Text: "x", Status: 405}, 405, "M_BAD_JSON: x"},
		{&Error{Code: Unknown, Text: "x", Cause: cause}, 500, "M_UNKNOWN: x: disk full"},
	}
	for _, tt := range tests {
		if got := tt.err.HTTPStatus(); got != tt.status {
			t.Errorf("%v: status %d, want %d", tt.err, got, tt.status)
		}
		if got := tt.err.Error(); got != tt.text {
			t.Errorf("text %q, want %q", got, tt.text)
		}
	}
	var e *Error
	if err := fmt.Errorf("join: %w", tests[7].err); !errors.Is(err, cause) || !errors.As(err, &e) || e.Code != Unknown {
		t.Errorf("%v lost its cause", err)
	}
}
