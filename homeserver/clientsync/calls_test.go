package clientsync

import (
	"encoding/json"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// TestCallsUnread counts the events of a call: the one that rings counts, unless
// its user does not want to be called, and nothing else of a call does.
func TestCallsUnread(t *testing.T) {
	each(t, func(w *world) {
		id := w.create(room.Creation{}, bob, carol)
		w.ok(w.Store.Update(w.ctx(), putRules(w, carol, `{"global":{"underride":[{"rule_id":".m.rule.call","default":true,"enabled":true,"actions":[]}]}}`)))
		called, quiet := w.counter(bob, id, ""), w.counter(carol, id, "")
		event := func(from matrix.UserID, typ string) {
			w.Helper()
			_, err := w.Rooms.Send(w.ctx(), room.Sending{User: from, Room: id, Type: typ, Content: json.RawMessage(`{"version":"1","call_id":"1","party_id":"2"}`)})
			w.ok(err)
		}
		called.want("nothing", "0/0")
		quiet.want("nothing", "0/0")
		event(alice, "m.call.invite")
		called.wantAfterRestart("it rings", "1/0")
		quiet.want("it does not ring", "0/0")
		for _, typ := range []string{"m.call.candidates", "m.call.select_answer", "m.call.negotiate", "m.call.sdp_stream_metadata_changed", "m.call.answer", "m.call.reject", "m.call.hangup"} {
			event(alice, typ)
		}
		called.wantAfterRestart("the rest of the call", "1/0")
		event(bob, "m.call.answer")
		called.want("the answer", "0/0") // who answers has read
		event(bob, "m.call.invite")
		called.want("a call of one's own", "0/0")
	})
}
