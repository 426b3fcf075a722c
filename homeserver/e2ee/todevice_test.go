package e2ee

import (
	"encoding/json"
	"fmt"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// sync takes what one sync with a token gets, and the next token.
func syncOnce(t *testing.T, s *Service, user matrix.UserID, device matrix.DeviceID, since int64) ([]store.ToDevice, int64) {
	t.Helper()
	if err := s.Acknowledge(t.Context(), user, device, since); err != nil {
		t.Fatal(err)
	}
	upto := s.Store.Position()
	list, err := s.Pending(t.Context(), user, device, since, upto)
	if err != nil {
		t.Fatal(err)
	}
	return list, upto
}

func texts(list []store.ToDevice) string {
	out := ""
	for _, m := range list {
		out += string(m.Content)
	}
	return out
}

func TestToDevice(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		send := func(txn string, m Messages, want matrix.Code) {
			t.Helper()
			if err := s.SendToDevice(t.Context(), bob, "B1", "m.test", txn, m); code(t, err) != want {
				t.Errorf("%s: got %v, want %q", txn, err, want)
			}
		}
		rung := s.Bell.Listen(string(alice))
		send("1", Messages{alice: {"*": json.RawMessage(`{"n":1}`), "A2": json.RawMessage(`{"n":2}`), "gone": json.RawMessage(`{}`)},
			"@c:other.test": {"*": json.RawMessage(`{}`)}}, "")
		send("1", Messages{alice: {"*": json.RawMessage(`{"n":3}`)}}, "") // repeated: not sent again
		send("2", Messages{alice: {"A1": json.RawMessage(`7`)}}, matrix.BadJSON)
		send("\x00", Messages{}, matrix.InvalidParam)
		send("3", Messages{"alice": {"A1": json.RawMessage(`{}`)}}, matrix.InvalidParam)
		select {
		case <-rung:
		default:
			t.Error("no sync was woken")
		}

		list, token := syncOnce(t, s, alice, "A1", 0)
		if texts(list) != `{"n":1}` || list[0].Sender != bob || list[0].Type != "m.test" {
			t.Errorf("got %+v", list)
		}
		if again, _ := syncOnce(t, s, alice, "A1", 0); texts(again) != `{"n":1}` { // the answer was lost
			t.Errorf("got %+v", again)
		}
		send("4", Messages{alice: {"A1": json.RawMessage(`{"n":4}`)}}, "")
		list, token = syncOnce(t, s, alice, "A1", token)
		if texts(list) != `{"n":4}` {
			t.Errorf("got %+v", list)
		}
		if list, _ = syncOnce(t, s, alice, "A1", token); len(list) != 0 {
			t.Errorf("got %+v", list)
		}
		if list, _ = syncOnce(t, s, alice, "A1", 0); len(list) != 0 {
			t.Errorf("acknowledged messages came back: %+v", list)
		}
		if list, _ = syncOnce(t, s, alice, "A2", 0); texts(list) != `{"n":2}` {
			t.Errorf("got %+v", list)
		}
	})
}

// TestToDeviceOrder sends a message while a sync that gets many reads them: it comes
// behind those that the sync puts off.
func TestToDeviceOrder(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		const n = batch + 50
		var upto int64
		for i := range n {
			upto = s.Store.Position()
			if err := s.SendToDevice(t.Context(), bob, "B1", "m.test", fmt.Sprint(i), Messages{alice: {"A1": json.RawMessage(fmt.Sprint(`{"n":`, i, `}`))}}); err != nil {
				t.Fatal(err)
			}
		}
		got, err := s.Pending(t.Context(), alice, "A1", 0, upto)
		if err != nil {
			t.Fatal(err)
		}
		for range 3 {
			var list []store.ToDevice
			list, upto = syncOnce(t, s, alice, "A1", upto)
			got = append(got, list...)
		}
		for i, m := range got {
			if string(m.Content) != fmt.Sprint(`{"n":`, i, `}`) {
				t.Fatalf("message %d is %s", i, m.Content)
			}
		}
		if len(got) != n {
			t.Errorf("%d messages of %d came", len(got), n)
		}
	})
}

// TestToDeviceMany sends more than fits into one sync: all of it comes once and
// in order, also when an answer is lost on the way.
func TestToDeviceMany(t *testing.T) {
	each(t, func(t *testing.T, s *Service) {
		const n = 2*batch + 50
		for i := range n {
			if err := s.SendToDevice(t.Context(), bob, "B1", "m.test", fmt.Sprint(i), Messages{alice: {"A1": json.RawMessage(fmt.Sprint(`{"n":`, i, `}`))}}); err != nil {
				t.Fatal(err)
			}
		}
		var got []store.ToDevice
		var token int64
		for range 10 {
			lost, _ := syncOnce(t, s, alice, "A1", token)
			list, next := syncOnce(t, s, alice, "A1", token)
			if texts(lost) != texts(list) {
				t.Errorf("a repeated sync gets %s instead of %s", texts(list), texts(lost))
			}
			if len(list) > batch {
				t.Errorf("%d messages at once", len(list))
			}
			got, token = append(got, list...), next
		}
		if len(got) != n {
			t.Fatalf("%d messages of %d came", len(got), n)
		}
		for i, m := range got {
			if string(m.Content) != fmt.Sprint(`{"n":`, i, `}`) {
				t.Fatalf("message %d is %s", i, m.Content)
			}
		}
		all, err := s.Store.ToDeviceLog(t.Context(), 0, 10)
		if err != nil || len(all) != 0 {
			t.Errorf("%d are still there, %v", len(all), err)
		}
	})
}
