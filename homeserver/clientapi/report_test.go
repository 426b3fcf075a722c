package clientapi

import (
	"net/url"
	"strings"
	"testing"

	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

func TestReport(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := start(t, st)
		bob, eve := s.new("bob"), s.new("eve")
		room, other := s.create(`{"preset":"public_chat"}`), s.create(`{}`)
		bob.want(200, "room_id", "POST", room+"/join", "{}")
		event, elsewhere := s.said(room, "1", `{"body":"rude"}`), s.said(other, "1", `{"body":"rude"}`)
		bob.want(200, "{}", "POST", room+"/report/"+event, `{"reason":"rude"}`)
		bob.want(200, "{}", "POST", room+"/report/"+event, `{"reason":"very rude","score":-100}`)
		bob.want(200, "{}", "POST", room+"/report/"+event, `{}`) // takes nothing back
		bob.want(200, "{}", "POST", room+"/report", `{"reason":"spam"}`)
		const unstable = "/_matrix/client/unstable/org.matrix."
		eve.want(200, "{}", "POST", unstable+"msc4151/"+strings.TrimPrefix(room, v3)+"/report", `{"reason":"odd"}`)
		eve.want(200, "{}", "POST", unstable+"msc4260/users/"+url.PathEscape(string(s.user))+"/report", `{"reason":"ill"}`)
		eve.want(200, "{}", "POST", v3+"users/"+url.PathEscape(string(s.user))+"/report", `{"reason":""}`)
		eve.want(404, "M_NOT_FOUND", "POST", room+"/report/"+event, `{"reason":"rude"}`)
		bob.want(404, "M_NOT_FOUND", "POST", room+"/report/"+elsewhere, `{"reason":"rude"}`)
		bob.want(404, "M_NOT_FOUND", "POST", v3+"rooms/!none:a.test/report", `{"reason":"spam"}`)
		bob.want(404, "M_NOT_FOUND", "POST", room+"/report/$none", `{"reason":"rude"}`)
		bob.want(400, "M_INVALID_PARAM", "POST", v3+"users/nobody/report", `{"reason":"rude"}`)
		bob.want(413, "M_TOO_LARGE", "POST", room+"/report", `{"reason":"`+strings.Repeat("x", 5000)+`"}`)
		list, err := st.Reports(t.Context(), 10)
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]string{}
		for _, r := range list {
			got[string(r.Reporter)+" "+string(r.Room)+" "+string(r.Event)+" "+string(r.User)] = r.Reason
		}
		plain, _ := url.PathUnescape(event)
		for key, want := range map[string]string{
			"@bob:a.test " + id(room) + " " + plain + " @alice:a.test": "very rude",
			"@bob:a.test " + id(room) + "  ":                           "spam",
			"@eve:a.test " + id(room) + "  ":                           "odd",
			"@eve:a.test   @alice:a.test":                              "ill",
		} {
			if reason, ok := got[key]; !ok || reason != want {
				t.Errorf("%s: %q; all reports: %v", key, reason, got)
			}
		}
		if len(got) != 4 {
			t.Errorf("reports: %v", got)
		}
	})
}
