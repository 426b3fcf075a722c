package chromium

import (
	"encoding/json"
	"testing"
)

// TestMessage keeps what the protocol of the browser says.
func TestMessage(t *testing.T) {
	var m message
	if err := json.Unmarshal([]byte(`{"id":7,"result":{"a":1},"params":{"b":2}}`), &m); err != nil || m.ID != 7 || string(m.Result) != `{"a":1}` || string(m.RawParams) != `{"b":2}` {
		t.Errorf("got %+v, %v", m, err)
	}
}
