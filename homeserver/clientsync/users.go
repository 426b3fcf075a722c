package clientsync

import (
	"encoding/json"

	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// readReceipts collects the receipts that changed in the user's rooms, as one
// m.receipt event for each room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mreceipt
func (rd *reading) readReceipts(*Answer) error {
	list, err := rd.Store.ReceiptNews(rd.ctx, rd.User, rd.since.pos, rd.now.pos)
	if err != nil {
		return err
	}
	rd.read = map[store.RoomNum][]store.Receipt{}
	for _, r := range list {
		if r.User == rd.User {
			rd.read[r.Room] = append(rd.read[r.Room], r)
		}
	}
	rd.receipts, err = rd.receiptEvents(list)
	return err
}

// receiptEvents makes m.receipt events, one for each room and thread.
func (rd *reading) receiptEvents(list []store.Receipt) (map[store.RoomNum][]json.RawMessage, error) {
	rooms := map[store.RoomNum][]store.Receipt{}
	for _, r := range list {
		if !rd.ignored[r.User] {
			rooms[r.Room] = append(rooms[r.Room], r)
		}
	}
	events := make(map[store.RoomNum][]json.RawMessage, len(rooms))
	for num, receipts := range rooms {
		for _, content := range ephemeral.Contents(receipts) {
			b, err := json.Marshal(map[string]any{"type": "m.receipt", "content": content})
			if err != nil {
				return nil, err
			}
			events[num] = append(events[num], b)
		}
	}
	return events, nil
}

// readEphemeral gives who is typing in a room and who has read what, where that
// changed. With whole the client knows nothing of the room yet.
func (rd *reading) readEphemeral(r *store.Room, whole bool) ([]json.RawMessage, error) {
	f := &rd.Filter.Room.Ephemeral
	var list []json.RawMessage
	receipts := rd.receipts[r.Num]
	if whole && !rd.initial() {
		all, err := rd.Store.Receipts(rd.ctx, rd.User, []store.RoomNum{r.Num}, 0, rd.now.pos)
		if err != nil {
			return nil, err
		}
		events, err := rd.receiptEvents(all)
		if err != nil {
			return nil, err
		}
		receipts = events[r.Num]
	}
	if f.wants("m.receipt", "", r.ID) {
		list = append(list, receipts...)
	}
	since := rd.since.typing
	if whole {
		since = 0
	}
	if f.wants("m.typing", "", r.ID) {
		e, err := rd.typing(r, since, whole)
		if err != nil {
			return nil, err
		}
		if e != nil {
			list = append(list, e)
		}
	}
	return list, nil
}

// typing tells who is typing in a room, nil if that has not changed. To somebody
// who knows nothing of the room nobody need be named.
func (rd *reading) typing(r *store.Room, since int64, whole bool) (json.RawMessage, error) {
	users, changed := rd.Ephemeral.Typing(r.ID, since, rd.ignored)
	if !changed || whole && len(users) == 0 {
		return nil, nil
	}
	return json.Marshal(map[string]any{"type": "m.typing", "content": map[string]any{"user_ids": users}})
}

// allAccountData gives all settings of the user for a room.
func (rd *reading) allAccountData(room matrix.RoomID) (*events, error) {
	list, err := rd.Store.AccountDataSince(rd.ctx, rd.User, 0, rd.now.pos)
	if err != nil {
		return nil, err
	}
	var of []json.RawMessage
	for _, d := range list {
		if d.Room == room && rd.Filter.Room.AccountData.wants(d.Type, "", room) {
			e, err := accountDataEvent(d)
			if err != nil {
				return nil, err
			}
			of = append(of, e)
		}
	}
	return some(of), nil
}

func accountDataEvent(d store.AccountData) (json.RawMessage, error) {
	return json.Marshal(struct {
		Type    string          `json:"type"`
		Content json.RawMessage `json:"content"`
	}{d.Type, d.Content})
}

// readToDevice collects the messages for the device.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#send-to-device-messaging
func (rd *reading) readToDevice(a *Answer) error {
	list, err := rd.Keys.Pending(rd.ctx, rd.User, rd.Device, rd.since.pos, rd.now.pos)
	if err != nil {
		return err
	}
	of, err := toDeviceEvents(list)
	a.ToDevice = some(of)
	return err
}

// toDeviceEvents gives messages to a device the shape that clients want.
func toDeviceEvents(list []store.ToDevice) ([]json.RawMessage, error) {
	var of []json.RawMessage
	for _, m := range list {
		b, err := json.Marshal(struct {
			Type    string          `json:"type"`
			Sender  matrix.UserID   `json:"sender"`
			Content json.RawMessage `json:"content"`
		}{m.Type, m.Sender, m.Content})
		if err != nil {
			return nil, err
		}
		of = append(of, b)
	}
	return of, nil
}

// readDevices tells whose devices changed, and how many of the device's own
// one-time keys are left.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#e2e-extensions-to-sync
func (rd *reading) readDevices(a *Answer) error {
	counts, err := rd.Keys.KeyCounts(rd.ctx, rd.User, rd.Device)
	if err != nil {
		return err
	}
	a.OneTimeKeys, a.FallbackKeys = counts.OneTime, counts.Unused
	if a.FallbackKeys == nil {
		a.FallbackKeys = []string{}
	}
	if rd.initial() {
		return nil
	}
	changed, left, err := rd.Keys.DeviceLists(rd.ctx, rd.User, rd.since.pos, rd.now.pos)
	if err != nil {
		return err
	}
	if len(changed)+len(left) > 0 {
		a.DeviceLists = &deviceLists{changed, left}
	}
	return nil
}

// mostNewcomers bounds how many people's presence a newly joined room brings.
const mostNewcomers = 1000

// readPresence tells who came and went, of those who share a room with the user.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mpresence
func (rd *reading) readPresence(a *Answer) error {
	all, err := rd.Ephemeral.Presences(rd.ctx, rd.User, rd.since.pos, rd.now.pos, rd.newcomers[:min(len(rd.newcomers), mostNewcomers)]...)
	if err != nil {
		return err
	}
	var of []json.RawMessage
	for user, status := range all {
		if rd.ignored[user] || !rd.Filter.Presence.wants("m.presence", user, "") {
			continue
		}
		of = append(of, status.Event(user))
	}
	a.Presence = some(of)
	return nil
}
