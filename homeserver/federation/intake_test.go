package federation

import (
	"errors"
	"fmt"
	"testing"

	"switchboard/homeserver/fedclient"
)

// TestSilence tells who does not answer from who has nothing to give: only the
// former is asked again as soon as it is heard.
func TestSilence(t *testing.T) {
	for _, tt := range []struct {
		err            error
		later, silence bool
	}{
		{&fedclient.UnreachableError{}, true, true},
		{fmt.Errorf("getEvent: %w", &fedclient.BackoffError{}), true, true},
		{&fedclient.ResponseError{Status: 502}, true, true},
		{&fedclient.ResponseError{Status: 500, Code: "M_UNKNOWN"}, true, false},
		{&fedclient.ResponseError{Status: 429, Code: "M_LIMIT_EXCEEDED"}, true, false},
		{&fedclient.SignatureError{Err: fedclient.ErrNoKey}, true, false},
		{&fedclient.ResponseError{Status: 404, Code: "M_NOT_FOUND"}, false, false},
		{&fedclient.AnswerError{Err: errors.New("no JSON")}, false, false},
	} {
		if passing(tt.err) != tt.later || silence(tt.err) != tt.silence {
			t.Errorf("%v: later %v, silence %v", tt.err, passing(tt.err), silence(tt.err))
		}
	}
}
