package federation

import (
	"context"
	"encoding/json"
	"errors"
	"testing"

	"switchboard/homeserver/account"
	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
	"switchboard/registrations"
)

// TestPanickingEvent has the work on an event panic: that is its result, so that
// those behind it get theirs.
func TestPanickingEvent(t *testing.T) {
	s := &Service{} // without what it needs
	err := s.takeIn(t.Context(), "b.test", incoming{pdu: &event.PDU{}, room: &store.Room{}})
	if !verdict(err) {
		t.Errorf("%v is none to tell the sender", err)
	}
}

// TestLateTransaction has the time of a transaction be up: no event is refused for
// that, and a message to a device is taken, as neither would come again.
func TestLateTransaction(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		bell := &notify.Bell{}
		accounts := &account.Service{Store: st, Bell: bell, ServerName: "a.test", Appservices: registrations.NewSet("a.test")}
		s := &Service{Store: st, Bell: bell, ServerName: "a.test", Config: DefaultConfig(), Encryption: &e2ee.Service{Store: st, Bell: bell, ServerName: "a.test"}}
		alice, err := accounts.CreateUser(t.Context(), account.NewUser{Localpart: "alice"})
		if err == nil {
			_, err = accounts.SetDevice(t.Context(), alice, "PHONE", nil, true)
		}
		if err != nil {
			t.Fatal(err)
		}
		late, end := context.WithCancel(t.Context())
		end()
		results, _, err := s.receiveAll(late, "b.test", []json.RawMessage{json.RawMessage(`{"room_id":"!r:b.test","event_id":"$e:b.test"}`)})
		if !errors.Is(err, context.Canceled) || len(results) > 0 {
			t.Errorf("results %v, error %v", results, err)
		}
		s.receiveEDUs(late, "b.test", []EDU{{eduToDevice, json.RawMessage(`{"sender":"@bob:b.test","type":"m.test","message_id":"1","messages":{"` + string(alice) + `":{"*":{}}}}`)}})
		list, err := s.Encryption.Pending(t.Context(), alice, matrix.DeviceID("PHONE"), 0, st.Position())
		if len(list) != 1 || err != nil {
			t.Errorf("the device got %v, %v", list, err)
		}
	})
}

// TestLateInvitation has the time for an invitation be up before it is known whether
// its server is banned from the room: that is no refusal, and no leave.
func TestLateInvitation(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		key, err := signing.Generate()
		if err != nil {
			t.Fatal(err)
		}
		v, _ := matrix.Version("11")
		alice := "@alice:a.test"
		p, err := event.Build(v, event.Draft{Room: "!r:b.test", Type: event.TypeMember, StateKey: &alice, Sender: "@bob:b.test",
			Content: json.RawMessage(`{"membership":"invite"}`)}, "b.test", key)
		if err != nil {
			t.Fatal(err)
		}
		late, end := context.WithCancel(t.Context())
		end()
		s := &Service{Store: st, ServerName: "a.test"} // nothing else is asked
		if err := s.checkInvitation(late, "b.test", p.Room, p.ID, p); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
	})
}
