package push

import (
	"encoding/json"
	"net/http"
	"testing"
	"time"

	"switchboard/homeserver/room"
)

// TestCalls makes a phone ring: by the event with which a call begins, at once
// and with the sound of a call, and by no other of a call.
func TestCalls(t *testing.T) {
	each(t, func(w *world) {
		id := w.room()
		w.pusher("key", "")
		for _, typ := range []string{"m.call.invite", "m.call.candidates", "m.call.negotiate", "m.call.hangup"} {
			_, err := w.Rooms.Send(w.Context(), room.Sending{User: alice, Room: id, Type: typ, Content: json.RawMessage(`{"version":"1","call_id":"1","party_id":"2","lifetime":90000}`)})
			w.ok(err)
		}
		w.say(alice, id, "sorry, wrong number")
		if n := w.want(0); n.Type != "m.call.invite" || n.Prio != "high" || string(n.Devices[0].Tweaks["sound"]) != `"ring"` {
			w.Errorf("of a call the gateway is told %+v", n)
		}
		if n := w.want(1); n.Type != "m.room.message" {
			w.Errorf("then the gateway is told %+v", n)
		}
	})
}

// TestCallRangOut has the gateway fail until nobody can take a call any more: the
// phone does not ring then, but counts it.
func TestCallRangOut(t *testing.T) {
	each(t, func(w *world) {
		id := w.room()
		w.gateway.answer(http.StatusServiceUnavailable)
		w.pusher("key", "")
		const lifetime = 500
		_, err := w.Rooms.Send(w.Context(), room.Sending{User: alice, Room: id, Type: "m.call.invite", Content: json.RawMessage(`{"version":"1","call_id":"1","party_id":"2","lifetime":500}`)})
		w.ok(err)
		over := time.Now().Add(lifetime * time.Millisecond)
		w.until("a try", func(g *gateway) bool { return g.asked > 0 })
		time.Sleep(time.Until(over.Add(time.Second)))
		w.gateway.answer(0)
		w.say(alice, id, "call me back")
		if n := w.want(0); n.Event != "" || n.Type != "" || n.Counts.Unread == 0 {
			w.Errorf("of a call that is over the gateway is told %+v", n)
		}
		if n := w.want(1); n.Type != "m.room.message" {
			w.Errorf("then the gateway is told %+v", n)
		}
	})
}
