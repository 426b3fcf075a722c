package clientsync

import (
	"encoding/json"
	"maps"
	"slices"
	"strconv"

	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
)

// Extensions are what a client wants to know besides rooms; nil is for no.
type Extensions struct {
	ToDevice    *ToDeviceExtension
	E2EE        *Extension
	AccountData *Extension
	Receipts    *Extension
	Typing      *Extension
	Threads     *ThreadsExtension
}

// Extension says for which of the rooms that the window shows a client wants to
// know something: those of lists, and others. Without both it is all of them; "*"
// stands for all lists or rooms.
type Extension struct {
	Lists []string `json:"lists"`
	Rooms []string `json:"rooms"`
}

// ToDeviceExtension asks for the messages to the device.
type ToDeviceExtension struct {
	Since string `json:"since"` // from the answer before
	Limit *int   `json:"limit"`
}

// ThreadsExtension asks for threads in which something is new.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/pull/4360
type ThreadsExtension struct {
	Roots bool `json:"include_roots"`
	Limit *int `json:"limit"`
}

// SlidingAnswer is the answer to a Window.
type SlidingAnswer struct {
	Pos        string                        `json:"pos"`
	Lists      map[string]ListResult         `json:"lists"`
	Rooms      map[matrix.RoomID]*RoomResult `json:"rooms"`
	Extensions extended                      `json:"extensions"`
}

type extended struct {
	ToDevice    *slidingToDevice    `json:"to_device,omitempty"`
	E2EE        *slidingE2EE        `json:"e2ee,omitempty"`
	AccountData *slidingAccountData `json:"account_data,omitempty"`
	Receipts    *slidingRooms       `json:"receipts,omitempty"`
	Typing      *slidingRooms       `json:"typing,omitempty"`
	Threads     *slidingThreads     `json:"io.element.msc4360.threads,omitempty"`
}

type slidingToDevice struct {
	Next   string            `json:"next_batch"`
	Events []json.RawMessage `json:"events,omitempty"`
}

type slidingE2EE struct {
	DeviceLists  *deviceLists   `json:"device_lists,omitempty"`
	OneTimeKeys  map[string]int `json:"device_one_time_keys_count"`
	FallbackKeys []string       `json:"device_unused_fallback_key_types"`
}

type slidingAccountData struct {
	Global []json.RawMessage                   `json:"global,omitempty"`
	Rooms  map[matrix.RoomID][]json.RawMessage `json:"rooms,omitempty"`
}

type slidingRooms struct {
	Rooms map[matrix.RoomID]json.RawMessage `json:"rooms"`
}

type slidingThreads struct {
	Updates map[matrix.RoomID]map[matrix.EventID]threadUpdate `json:"updates"`
}

type threadUpdate struct {
	Root json.RawMessage `json:"thread_root,omitempty"`
	Prev string          `json:"prev_batch,omitempty"`
}

// empty tells whether there is nothing new.
func (a *SlidingAnswer) empty() bool {
	x := a.Extensions
	return len(a.Rooms) == 0 && (x.ToDevice == nil || len(x.ToDevice.Events) == 0) && (x.E2EE == nil || x.E2EE.DeviceLists == nil) &&
		(x.AccountData == nil || len(x.AccountData.Global)+len(x.AccountData.Rooms) == 0) && x.Receipts == nil && x.Typing == nil && x.Threads == nil
}

// covers tells whether an extension is asked for a room.
func (e *Extension) covers(s *seat) bool {
	if e.Lists == nil && e.Rooms == nil {
		return true
	}
	in := func(name string) bool { return slices.Contains(s.lists, name) }
	return slices.ContainsFunc(e.Lists, in) || len(s.lists) > 0 && slices.Contains(e.Lists, "*") ||
		slices.Contains(e.Rooms, string(s.room.ID)) || slices.Contains(e.Rooms, "*")
}

// readExtensions adds what the extensions ask for.
func (sl *slide) readExtensions(a *SlidingAnswer) error {
	x := sl.Extensions
	for _, step := range []struct {
		wanted bool
		read   func(*extended) error
	}{
		{x.ToDevice != nil, sl.extendToDevice}, {x.E2EE != nil, sl.extendE2EE}, {x.AccountData != nil, sl.extendAccountData},
		{x.Receipts != nil, sl.extendReceipts}, {x.Typing != nil, sl.extendTyping}, {x.Threads != nil, sl.extendThreads},
	} {
		if !step.wanted {
			continue
		}
		if err := step.read(&a.Extensions); err != nil {
			return err
		}
	}
	return nil
}

// toDeviceSince is the position up to which the device has its messages.
func (w *Window) toDeviceSince() (int64, error) {
	if w.Extensions.ToDevice == nil || w.Extensions.ToDevice.Since == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(w.Extensions.ToDevice.Since, 10, 64)
	if err != nil || n < 0 {
		return 0, matrix.Errorf(matrix.InvalidParam, "%q is not a since token of this server", w.Extensions.ToDevice.Since)
	}
	return n, nil
}

// mostToDevice is how many messages come at once.
const mostToDevice = 100

// extendToDevice gives the messages that the device has not got. Their position
// is its own: they are dropped when the client names it.
func (sl *slide) extendToDevice(x *extended) error {
	since, err := sl.toDeviceSince()
	if err != nil {
		return err
	}
	list, err := sl.Keys.Pending(sl.ctx, sl.reading.User, sl.reading.Device, since, sl.now.pos)
	if err != nil {
		return err
	}
	most := mostToDevice
	if l := sl.Extensions.ToDevice.Limit; l != nil {
		most = max(1, min(most, *l))
	}
	next := sl.now.pos
	if len(list) > most {
		for most < len(list) && list[most].Pos == list[most-1].Pos {
			most++ // what has one position cannot be told apart
		}
		list, next = list[:most], list[most-1].Pos
	}
	x.ToDevice = &slidingToDevice{Next: strconv.FormatInt(next, 10)}
	x.ToDevice.Events, err = toDeviceEvents(list)
	return err
}

// extendE2EE tells whose devices changed, and of the device's own keys.
func (sl *slide) extendE2EE(x *extended) error {
	a := &Answer{}
	rd := *sl.reading
	rd.Since = sl.Pos
	if err := rd.readDevices(a); err != nil {
		return err
	}
	x.E2EE = &slidingE2EE{a.DeviceLists, a.OneTimeKeys, a.FallbackKeys}
	return nil
}

// extendAccountData gives the settings that changed, and all of a room that the
// client sees for the first time.
func (sl *slide) extendAccountData(x *extended) error {
	user, since := sl.reading.User, sl.known.at.pos
	list, err := sl.Store.AccountDataSince(sl.ctx, user, since, sl.now.pos)
	if err != nil {
		return err
	}
	news := map[matrix.RoomID][]store.AccountData{}
	for _, d := range list {
		news[d.Room] = append(news[d.Room], d)
	}
	x.AccountData = &slidingAccountData{Rooms: map[matrix.RoomID][]json.RawMessage{}}
	var fresh []matrix.RoomID
	for _, s := range sl.scope {
		if !sl.Extensions.AccountData.covers(s) {
			delete(news, s.room.ID)
		} else if r := sl.results[s.room.Num]; r != nil && r.Initial && since > 0 {
			fresh = append(fresh, s.room.ID)
		}
	}
	if len(fresh) > 0 {
		of, err := sl.Store.AccountDataIn(sl.ctx, user, fresh, sl.now.pos)
		if err != nil {
			return err
		}
		maps.Copy(news, of)
	}
	rd := *sl.reading
	rd.Since = sl.Pos
	if x.AccountData.Global, err = rd.defaults(list); err != nil {
		return err
	}
	for _, d := range news[""] {
		e, err := accountDataEvent(d)
		if err != nil {
			return err
		}
		x.AccountData.Global = append(x.AccountData.Global, e)
	}
	for _, s := range sl.scope {
		for _, d := range news[s.room.ID] {
			e, err := accountDataEvent(d)
			if err != nil {
				return err
			}
			x.AccountData.Rooms[s.room.ID] = append(x.AccountData.Rooms[s.room.ID], e)
		}
	}
	return nil
}

// extendReceipts gives the receipts that changed; of a room that the client sees
// for the first time the user's own, and those at events that it gets.
func (sl *slide) extendReceipts(x *extended) error {
	var known, fresh []store.RoomNum
	ids := map[store.RoomNum]matrix.RoomID{}
	for _, s := range sl.scope {
		if s.membership.Membership != "join" || !sl.Extensions.Receipts.covers(s) {
			continue
		}
		ids[s.room.Num] = s.room.ID
		if r := sl.results[s.room.Num]; r != nil && r.Initial {
			fresh = append(fresh, s.room.Num)
		} else {
			known = append(known, s.room.Num)
		}
	}
	list, err := sl.Store.Receipts(sl.ctx, sl.reading.User, known, sl.known.at.pos, sl.now.pos)
	if err != nil {
		return err
	}
	all, err := sl.Store.Receipts(sl.ctx, sl.reading.User, fresh, 0, sl.now.pos)
	if err != nil {
		return err
	}
	for _, r := range all {
		at := func(e room.Seen) bool { return e.PDU.ID == r.Event }
		if r.User == sl.reading.User || slices.ContainsFunc(sl.results[r.Room].timeline, at) {
			list = append(list, r)
		}
	}
	rooms := map[store.RoomNum]ephemeral.ReceiptContent{}
	for _, r := range list {
		if sl.ignored[r.User] {
			continue
		}
		if rooms[r.Room] == nil {
			rooms[r.Room] = ephemeral.ReceiptContent{}
		}
		rooms[r.Room].Add(r)
	}
	for num, content := range rooms {
		b, err := json.Marshal(map[string]any{"type": "m.receipt", "content": content})
		if err != nil {
			return err
		}
		if x.Receipts == nil {
			x.Receipts = &slidingRooms{map[matrix.RoomID]json.RawMessage{}}
		}
		x.Receipts.Rooms[ids[num]] = b
	}
	return nil
}

// extendTyping tells who is typing where that changed.
func (sl *slide) extendTyping(x *extended) error {
	for _, s := range sl.scope {
		if s.membership.Membership != "join" || !sl.Extensions.Typing.covers(s) {
			continue
		}
		since, fresh := sl.known.at.typing, false
		if r := sl.results[s.room.Num]; r != nil && r.Initial {
			since, fresh = 0, true
		}
		e, err := sl.typing(s.room, since, fresh)
		if err != nil {
			return err
		}
		if e == nil {
			continue
		}
		if x.Typing == nil {
			x.Typing = &slidingRooms{map[matrix.RoomID]json.RawMessage{}}
		}
		x.Typing.Rooms[s.room.ID] = e
	}
	return nil
}

// mostThreads is how many threads come at once.
const mostThreads = 100

// extendThreads tells of threads in which something is new that is in no timeline
// of the answer, or of all where the client wants their roots.
func (sl *slide) extendThreads(x *extended) error {
	if sl.known.at.pos == 0 {
		return nil
	}
	left := mostThreads
	if l := sl.Extensions.Threads.Limit; l != nil {
		left = max(0, min(left, *l))
	}
	for _, m := range sl.memberships {
		if m.Membership != "join" || left == 0 {
			continue
		}
		r, err := sl.Store.RoomByNum(sl.ctx, m.Room)
		if err != nil {
			return err
		}
		if r.Last <= sl.known.at.pos {
			continue
		}
		updates, err := sl.threadUpdates(r, left)
		if err != nil {
			return err
		}
		if len(updates) == 0 {
			continue
		}
		if x.Threads == nil {
			x.Threads = &slidingThreads{map[matrix.RoomID]map[matrix.EventID]threadUpdate{}}
		}
		x.Threads.Updates[r.ID] = updates
		left -= len(updates)
	}
	return nil
}

// threadUpdates are the threads of a room in which something is new.
func (sl *slide) threadUpdates(r *store.Room, most int) (map[matrix.EventID]threadUpdate, error) {
	list, err := sl.Store.Threads(sl.ctx, store.ThreadQuery{Room: r.Num, Before: sl.now.pos + 1}, most)
	if err != nil {
		return nil, err
	}
	updates := map[matrix.EventID]threadUpdate{}
	for _, t := range list {
		if t.Last <= sl.known.at.pos {
			break
		}
		if res := sl.results[r.Num]; res != nil && !sl.Extensions.Threads.Roots && slices.ContainsFunc(res.timeline, func(e room.Seen) bool { return e.Pos == t.Last }) {
			continue
		}
		root, err := sl.reading.Rooms.Visible(sl.ctx, r, sl.reading.User, []*store.Event{t.Root})
		if err != nil {
			return nil, err
		}
		if len(root) == 0 {
			continue
		}
		var u threadUpdate
		if sl.Extensions.Threads.Roots {
			shaped, err := sl.clients(root, true)
			if err != nil {
				return nil, err
			}
			u.Root = shaped[0]
		}
		others, err := sl.Store.Related(sl.ctx, store.Relating{
			Room: r.Num, Target: t.Root.PDU.ID, RelType: store.Threaded, Depth: 1, Since: sl.known.at.pos, Upto: t.Last - 1,
		}, 1)
		if err != nil {
			return nil, err
		}
		if len(others) > 0 {
			u.Prev = room.Token(t.Last - 1)
		}
		updates[t.Root.PDU.ID] = u
	}
	return updates, nil
}
