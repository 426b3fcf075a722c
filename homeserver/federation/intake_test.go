package federation

import (
	"errors"
	"fmt"
	"slices"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
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

// TestWithout has the newest stand first of a long chain whose oldest lacks an event,
// beside a circle that hangs on it and events that have nothing to do with it.
func TestWithout(t *testing.T) {
	const length = 50_000 // in the time of the square of that, nobody waits
	pdu := func(id string, auth ...matrix.EventID) *event.PDU {
		return &event.PDU{ID: matrix.EventID(id), AuthEvents: auth}
	}
	list := []*event.PDU{pdu("$create"), pdu("$x", "$y", "$1"), pdu("$y", "$x"), pdu("$free", "$create")}
	for i := length; i > 0; i-- {
		list = append(list, pdu(fmt.Sprint("$", i), "$create", matrix.EventID(fmt.Sprint("$", i-1))))
	}
	var left []matrix.EventID
	for _, p := range without(list, []matrix.EventID{"$0", "$elsewhere"}) {
		left = append(left, p.ID)
	}
	if !slices.Equal(left, []matrix.EventID{"$create", "$free"}) {
		t.Errorf("left are %d events: %.100q", len(left), left)
	}
}
