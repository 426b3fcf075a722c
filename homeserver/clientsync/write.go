package clientsync

import (
	"encoding/json"
	"strconv"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
)

// JSON gives the answer as it goes to the client. Events, which are most of it,
// are copied as they are; json.Marshal would read each of them once more.
func (a *Answer) JSON() (json.RawMessage, error) {
	w := &writer{b: make([]byte, 0, a.size())}
	w.open()
	w.text("next_batch", a.NextBatch)
	w.events("account_data", a.AccountData)
	w.events("presence", a.Presence)
	w.events("to_device", a.ToDevice)
	if a.DeviceLists != nil {
		w.small("device_lists", a.DeviceLists)
	}
	w.small("device_one_time_keys_count", a.OneTimeKeys)
	w.small("device_unused_fallback_key_types", a.FallbackKeys)
	if a.Rooms != nil {
		w.key("rooms")
		w.rooms(a.Rooms)
	}
	w.close()
	return w.b, w.err
}

// size is about how many bytes the answer takes.
func (a *Answer) size() int {
	n := 1024 + a.AccountData.size() + a.Presence.size() + a.ToDevice.size()
	if a.Rooms == nil {
		return n
	}
	for _, part := range []map[matrix.RoomID]*joined{a.Rooms.Join, a.Rooms.Leave} {
		for _, j := range part {
			n += 600 + j.State.size() + j.StateAfter.size() + j.MSC4222.size() + j.Ephemeral.size() + j.AccountData.size()
			if j.Timeline != nil {
				n += (&events{j.Timeline.Events}).size()
			}
		}
	}
	return n + 4000*(len(a.Rooms.Invite)+len(a.Rooms.Knock))
}

func (e *events) size() int {
	if e == nil {
		return 0
	}
	n := 40
	for _, raw := range e.Events {
		n += len(raw) + 1
	}
	return n
}

// writer writes JSON objects with members that may be absent.
type writer struct {
	b   []byte
	err error
}

func (w *writer) open()  { w.b = append(w.b, '{') }
func (w *writer) close() { w.b = append(w.b, '}') }

func (w *writer) key(key string) {
	if w.b[len(w.b)-1] != '{' {
		w.b = append(w.b, ',')
	}
	w.b = canonjson.AppendText(w.b, key)
	w.b = append(w.b, ':')
}

func (w *writer) text(key, value string) {
	w.key(key)
	w.b = canonjson.AppendText(w.b, value)
}

// small writes a value that is not worth code of its own.
func (w *writer) small(key string, value any) {
	b, err := json.Marshal(value)
	if err != nil && w.err == nil {
		w.err = err
	}
	w.key(key)
	w.b = append(w.b, b...)
}

func (w *writer) list(events []json.RawMessage) {
	w.key("events")
	w.b = append(w.b, '[')
	for i, e := range events {
		if i > 0 {
			w.b = append(w.b, ',')
		}
		w.b = append(w.b, e...)
	}
	w.b = append(w.b, ']')
}

// events writes a list of events, nothing for nil.
func (w *writer) events(key string, e *events) {
	if e == nil {
		return
	}
	w.key(key)
	w.open()
	w.list(e.Events)
	w.close()
}

func (w *writer) rooms(r *rooms) {
	w.open()
	w.joined("join", r.Join)
	w.outside("invite", r.Invite)
	w.outside("knock", r.Knock)
	w.joined("leave", r.Leave)
	w.close()
}

func (w *writer) outside(key string, list map[matrix.RoomID]*outside) {
	if len(list) == 0 {
		return
	}
	w.key(key)
	w.open()
	for id, o := range list {
		w.key(string(id))
		w.open()
		w.events("invite_state", o.Invite)
		w.events("knock_state", o.Knock)
		w.close()
	}
	w.close()
}

func (w *writer) joined(key string, list map[matrix.RoomID]*joined) {
	if len(list) == 0 {
		return
	}
	w.key(key)
	w.open()
	for id, j := range list {
		w.key(string(id))
		w.room(j)
	}
	w.close()
}

func (w *writer) room(j *joined) {
	w.open()
	if j.Summary != nil {
		w.small("summary", j.Summary)
	}
	w.events("state", j.State)
	w.events("state_after", j.StateAfter)
	w.events("org.matrix.msc4222.state_after", j.MSC4222)
	if t := j.Timeline; t != nil {
		w.key("timeline")
		w.open()
		w.list(t.Events)
		w.key("limited")
		w.b = strconv.AppendBool(w.b, t.Limited)
		if t.PrevBatch != "" {
			w.text("prev_batch", t.PrevBatch)
		}
		w.close()
	}
	w.events("ephemeral", j.Ephemeral)
	w.events("account_data", j.AccountData)
	if j.Unread != nil {
		w.unread("unread_notifications", j.Unread)
	}
	if len(j.Threads) > 0 {
		w.key("unread_thread_notifications")
		w.open()
		for id, u := range j.Threads {
			w.unread(string(id), u)
		}
		w.close()
	}
	w.close()
}

func (w *writer) unread(key string, u *unreadCounts) {
	w.key(key)
	w.b = append(w.b, `{"highlight_count":`...)
	w.b = strconv.AppendInt(w.b, int64(u.Highlight), 10)
	w.b = append(w.b, `,"notification_count":`...)
	w.b = strconv.AppendInt(w.b, int64(u.Notify), 10)
	w.b = append(w.b, '}')
}
