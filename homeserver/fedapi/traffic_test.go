package fedapi

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/federation"
	"switchboard/homeserver/matrix"
)

func TestTraffic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := federation.DefaultConfig()
		c.MaxRequests, c.RequestsPerSecond = 20, 2
		var tr traffic
		enter := func(want bool, from matrix.ServerName, operation string) func() {
			t.Helper()
			leave, err := tr.enter(from, operation, c)
			var refused *matrix.Error
			if (err == nil) != want || err != nil && (!errors.As(err, &refused) || refused.Code != matrix.LimitExceeded || refused.RetryAfter <= 0) {
				t.Fatalf("%v", err)
			}
			return leave
		}
		first, second := enter(true, "a.test", "getRoomState"), enter(true, "a.test", "sendJoinV2")
		enter(false, "a.test", "getEvent") // two long answers are all that one server gets at a time
		enter(true, "b.test", "getEvent")()
		first()
		second()
		for range 18 {
			enter(true, "a.test", "getEvent")()
		}
		enter(false, "a.test", "getEvent") // ten seconds' worth is used up
		enter(true, "b.test", "getEvent")()
		time.Sleep(time.Second)
		enter(true, "a.test", "getEvent")()
		enter(true, "a.test", "getEvent")()
		enter(false, "a.test", "getEvent")
		for i := range mostCallers {
			enter(true, matrix.ServerName(fmt.Sprint(i, ".test")), "getEvent")()
		}
		time.Sleep(time.Minute)
		enter(true, "c.test", "getEvent")()
		if len(tr.callers) != 1 {
			t.Errorf("%d callers are remembered", len(tr.callers))
		}
	})
}

// TestBodies has large bodies fill the memory that there is for them.
func TestBodies(t *testing.T) {
	var tr traffic
	const most = 3 << 20
	read := func(size int) (*body, error) {
		b := &body{ReadCloser: io.NopCloser(strings.NewReader(strings.Repeat("x", size))), t: &tr, most: most}
		_, err := io.ReadAll(b)
		return b, err
	}
	first, err := read(3 << 20)
	if err != nil {
		t.Fatal(err)
	}
	second, err := read(3 << 20)
	var refused *matrix.Error
	if !errors.As(err, &refused) || refused.Code != matrix.LimitExceeded {
		t.Fatalf("%v", err)
	}
	if _, err := read(1 << 20); err != nil {
		t.Errorf("a small body: %v", err)
	}
	second.done()
	first.done()
	if _, err = read(4 << 20); err != nil || tr.large != most {
		t.Errorf("%v, %d bytes are counted", err, tr.large)
	}
}

// TestLimits is what one request may ask for.
func TestLimits(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		alice, bob := a.user("alice"), b.user("bob")
		a.fed.Config.MaxEntries = 3
		query := func(n int) string {
			var users []string
			for i := range n {
				users = append(users, fmt.Sprintf(`"@%d:%s":[]`, i, a.name))
			}
			return `{"device_keys":{` + strings.Join(users, ",") + `}}`
		}
		const keys = "/_matrix/federation/v1/user/keys/"
		b.want(a, 200, "", "POST", keys+"query", query(3))
		b.want(a, 413, matrix.TooLarge, "POST", keys+"query", query(4))
		b.want(a, 413, matrix.TooLarge, "POST", keys+"claim", fmt.Sprintf(`{"one_time_keys":{%q:{"A":"x","B":"x","C":"x"}}}`, alice))
		b.push(a, nil, fedclient.EDU{Type: "m.direct_to_device", Content: json.RawMessage(fmt.Sprintf(`{"sender":%q,"type":"t","message_id":"1","messages":{%q:{"A":{},"B":{},"C":{},"D":{}}}}`, bob, alice))})
		if list, err := a.st.ToDeviceLog(a.ctx(), 0, 10); err != nil || len(list) != 0 {
			t.Errorf("%d messages, %v", len(list), err)
		}
		a.fed.Config.RequestMemory = 1 << 20
		if status, answer := b.ask(a, "PUT", "/_matrix/federation/v1/send/large", `{"x":"`+strings.Repeat("x", 2<<20)+`"}`); status != http.StatusTooManyRequests || answer["retry_after_ms"] == nil {
			t.Errorf("status %d, %s", status, answer["errcode"])
		}
		a.fed.Config.RequestsPerSecond = 1
		status := 0
		for n := 0; status != http.StatusTooManyRequests; n++ { // meanwhile, each second allows one more
			if n == 300 {
				t.Fatal("one may ask as often as one likes")
			}
			status, _ = b.ask(a, "GET", "/_matrix/federation/v1/query/profile?user_id="+string(alice), "")
		}
	})
}
