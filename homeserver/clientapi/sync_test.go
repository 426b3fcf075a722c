package clientapi

import (
	"fmt"
	"net/url"
	"strings"
	"sync"
	"testing"

	"switchboard/homeserver/database/databasetest"
	"switchboard/homeserver/store/storetest"
)

// TestSyncFromMemory checks that requests of a client that keeps up run no query
// at all, from the token on.
func TestSyncFromMemory(t *testing.T) {
	databasetest.EachURL(t, func(t *testing.T, address string) {
		var mu sync.Mutex
		var ran []string
		watch := func(q string) {
			mu.Lock()
			defer mu.Unlock()
			ran = append(ran, strings.Join(strings.Fields(q), " "))
		}
		st := storetest.Watched(t, address, watch)
		s := start(t, st)
		bob := s.new("bob")
		room := s.create(`{"preset":"public_chat"}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		filter := s.want(200, "filter_id", "POST", v3+"user/"+url.PathEscape(string(s.user))+"/filter", `{"room":{"state":{"lazy_load_members":true}}}`)
		since, pos, device := "", "", ""
		follow := func() {
			a := s.want(200, "next_batch", "GET", v3+"sync?filter="+filter.text("filter_id")+"&since="+since, "")
			since = a.text("next_batch")
			body := `{"lists":{"all":{"ranges":[[0,19]],"timeline_limit":1,"required_state":[["m.room.member","$LAZY"],["m.room.create",""]]}},"extensions":{
				"to_device":{"enabled":true` + device + `},"e2ee":{"enabled":true},"account_data":{"enabled":true},"receipts":{"enabled":true},"typing":{"enabled":true}}}`
			b := s.slide(pos, body)
			pos, device = b.text("pos"), fmt.Sprintf(`,"since":%q`, b.text("extensions", "to_device", "next_batch"))
		}
		for i := range 5 {
			bob.said(room, fmt.Sprint(i), `{"msgtype":"m.text","body":"hello"}`)
			mu.Lock()
			ran = nil
			mu.Unlock()
			follow()
			mu.Lock()
			if i > 2 && len(ran) > 0 {
				t.Errorf("%d queries:\n%s", len(ran), strings.Join(ran, "\n"))
			}
			mu.Unlock()
		}
	})
}
