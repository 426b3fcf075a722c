package clientsync

import (
	"encoding/json"
	"errors"
	"maps"
	"math"
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

// covers tells whether an extension is asked for a room; not for one at which the
// client does not look, nil.
func (sl *slide) covers(e *Extension, s *seat) bool {
	if s == nil || e.Lists == nil && e.Rooms == nil {
		return s != nil
	}
	in := sl.listNames(s)
	named := func(list string) bool { return slices.Contains(in, list) || list == "*" && len(in) > 0 }
	return slices.ContainsFunc(e.Lists, named) || slices.Contains(e.Rooms, string(s.room.ID)) || slices.Contains(e.Rooms, "*")
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

// toDeviceSince is the position up to which the device has its messages. It has
// none if that is behind now: the position is of another server with this one's
// name, or from before a backup was put back.
func (w *Window) toDeviceSince(now int64) (int64, error) {
	if w.Extensions.ToDevice == nil || w.Extensions.ToDevice.Since == "" {
		return 0, nil
	}
	n, err := strconv.ParseInt(w.Extensions.ToDevice.Since, 10, 64)
	if err != nil || n < 0 {
		return 0, matrix.Errorf(matrix.InvalidParam, "%q is not a since token of this server", w.Extensions.ToDevice.Since)
	}
	if n > now {
		return 0, nil
	}
	return n, nil
}

// mostToDevice is how many messages come at once.
const mostToDevice = 100

// extendToDevice gives the messages that the device has not got. Their position
// is its own: they are dropped when the client names it.
func (sl *slide) extendToDevice(x *extended) error {
	list, err := sl.Keys.Pending(sl.ctx, sl.reading.User, sl.reading.Device, sl.has, sl.now.pos)
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

// fresh lists the rooms that the answer shows for the first time and an extension
// is asked for, and those at which the client looks again.
func (sl *slide) fresh(e *Extension) (first, again []*seat) {
	for num, r := range sl.results {
		if s := sl.seatOf(num); r.Initial && sl.covers(e, s) {
			first = append(first, s)
		}
	}
	for _, s := range sl.back {
		if r := sl.results[s.own.Room]; (r == nil || !r.Initial) && sl.covers(e, s) {
			again = append(again, s)
		}
	}
	return first, again
}

// extendAccountData gives the settings that changed, and all of a room that the
// client sees for the first time.
func (sl *slide) extendAccountData(x *extended) error {
	user, since := sl.reading.User, sl.known.at.pos
	list, err := sl.Store.AccountDataSince(sl.ctx, user, since, sl.now.pos)
	if err != nil {
		return err
	}
	rd := *sl.reading
	rd.Since = sl.Pos
	x.AccountData = &slidingAccountData{Rooms: map[matrix.RoomID][]json.RawMessage{}}
	if x.AccountData.Global, err = rd.defaults(list); err != nil {
		return err
	}
	fresh := map[matrix.RoomID]bool{}
	if first, again := sl.fresh(sl.Extensions.AccountData); since > 0 {
		for _, s := range append(first, again...) {
			fresh[s.room.ID] = true
		}
	}
	if len(fresh) > 0 {
		list = slices.DeleteFunc(list, func(d store.AccountData) bool { return fresh[d.Room] })
		of, err := sl.Store.AccountDataIn(sl.ctx, user, slices.Collect(maps.Keys(fresh)), sl.now.pos)
		if err != nil {
			return err
		}
		for _, d := range of {
			list = append(list, d...)
		}
	}
	for _, d := range list {
		e, err := accountDataEvent(d)
		if err != nil {
			return err
		}
		if d.Room == "" {
			x.AccountData.Global = append(x.AccountData.Global, e)
			continue
		}
		r, err := sl.Store.Room(sl.ctx, d.Room)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return err
		}
		if sl.covers(sl.Extensions.AccountData, sl.seatOf(r.Num)) {
			x.AccountData.Rooms[d.Room] = append(x.AccountData.Rooms[d.Room], e)
		}
	}
	return nil
}

// extendReceipts gives the receipts that changed; of a room that the client sees
// for the first time, or more of than before, the user's own, and those at events
// that it gets.
func (sl *slide) extendReceipts(x *extended) error {
	var nums []store.RoomNum
	for num, r := range sl.results {
		s := sl.seatOf(num)
		if more := r.Initial || r.Expanded || r.OldExpanded; more && s.own.Membership == "join" && sl.covers(sl.Extensions.Receipts, s) {
			nums = append(nums, num)
		}
	}
	list, err := sl.Store.Receipts(sl.ctx, sl.reading.User, nums, 0, sl.now.pos)
	if err != nil {
		return err
	}
	list = slices.DeleteFunc(list, func(r store.Receipt) bool {
		at := func(e room.Seen) bool { return e.PDU.ID == r.Event }
		return r.User != sl.reading.User && !slices.ContainsFunc(sl.results[r.Room].timeline, at)
	})
	_, again := sl.fresh(sl.Extensions.Receipts)
	for _, s := range again {
		since := min(sl.known.rooms.of(s.own.Room).pos, sl.known.at.pos)
		missed, err := sl.Store.Receipts(sl.ctx, sl.reading.User, []store.RoomNum{s.own.Room}, since, sl.now.pos)
		if err != nil {
			return err
		}
		list = append(list, missed...)
	}
	for _, r := range sl.news {
		s := sl.seatOf(r.Room)
		if told := sl.results[r.Room]; sl.covers(sl.Extensions.Receipts, s) && (told == nil || !told.Initial) {
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
		x.Receipts.Rooms[sl.seatOf(num).room.ID] = b
	}
	return nil
}

// extendTyping tells who is typing where that changed.
func (sl *slide) extendTyping(x *extended) error {
	first, again := sl.fresh(sl.Extensions.Typing)
	look := sl.scope
	if nums, sure := sl.Ephemeral.TypingRooms(sl.known.at.typing); sure {
		look = append(first, again...)
		for _, num := range nums {
			if s := sl.seatOf(num); s != nil {
				look = append(look, s)
			}
		}
	}
	for _, s := range look {
		if s.own.Membership != "join" || !sl.covers(sl.Extensions.Typing, s) {
			continue
		}
		since, fresh := sl.known.at.typing, slices.Contains(first, s)
		if fresh {
			since = 0
		} else if slices.Contains(again, s) {
			since = 1 // before all changes: the client may show somebody
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
	for _, p := range sl.order.places {
		if p.at <= sl.known.at.pos || left == 0 {
			break
		}
		if p.own.Membership != "join" || sl.threadsTold(p) {
			continue
		}
		r := p.room
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

// threadsTold tells at little cost that the timelines of the answer tell of all
// threads in which something is new.
func (sl *slide) threadsTold(p *place) bool {
	news, sure := sl.Store.ThreadNews(p.own.Room, sl.known.at.pos, sl.now.pos)
	return sure && !slices.ContainsFunc(news, func(pos int64) bool { return sl.Extensions.Threads.Roots || !sl.inTimeline(p.own.Room, pos) })
}

// inTimeline tells whether the answer has the event at a place of a room.
func (sl *slide) inTimeline(num store.RoomNum, pos int64) bool {
	r := sl.results[num]
	return r != nil && slices.ContainsFunc(r.timeline, func(e room.Seen) bool { return e.Pos == pos })
}

// threadUpdates are the threads of a room in which something is new that the user
// gets to see.
func (sl *slide) threadUpdates(r *store.Room, most int) (map[matrix.EventID]threadUpdate, error) {
	without := slices.Collect(maps.Keys(sl.ignored))
	list, err := sl.Store.Threads(sl.ctx, store.ThreadQuery{Room: r.Num, Before: math.MaxInt64, Without: without}, most)
	if err != nil {
		return nil, err
	}
	updates := map[matrix.EventID]threadUpdate{}
	for _, t := range list {
		if t.Last <= sl.known.at.pos {
			break
		}
		if !sl.Extensions.Threads.Roots && sl.inTimeline(r.Num, t.Last) {
			continue
		}
		news, err := sl.Store.Related(sl.ctx, store.Relating{
			Room: r.Num, Target: t.Root.PDU.ID, RelType: store.Threaded, Depth: 1, Since: sl.known.at.pos, Upto: sl.now.pos, Without: without,
		}, 2)
		if err != nil {
			return nil, err
		}
		if len(news) == 0 || !sl.Extensions.Threads.Roots && sl.inTimeline(r.Num, news[0].Pos) {
			continue
		}
		root, err := sl.reading.Rooms.ThreadRoot(sl.ctx, r, sl.reading.User, t.Root)
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
		if len(news) > 1 {
			u.Prev = room.Token(news[0].Pos - 1)
		}
		updates[t.Root.PDU.ID] = u
	}
	return updates, nil
}
