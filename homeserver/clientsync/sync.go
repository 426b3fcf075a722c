// Package clientsync answers /sync: it reads the log behind the client's
// position and waits for the bell where there is nothing new. It changes
// nothing but what a client acknowledges by its position.
package clientsync

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sync/errgroup"

	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/room"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
	"switchboard/homeserver/unread"
)

// Service answers syncs. Its methods may be called from several goroutines.
type Service struct {
	Store     *store.Store
	Rooms     *room.Service
	Unread    *unread.Service
	Bell      *notify.Bell
	Keys      *e2ee.Service
	Ephemeral *ephemeral.Service

	// CacheBytes is about how much memory may be taken by what is remembered of
	// clients, most of it the connections of sliding sync; 0 for a usual amount. A
	// client whose connection was forgotten begins again.
	CacheBytes int

	// Stopping is closed when the server stops, so that waiting syncs end.
	Stopping <-chan struct{}

	heroes   store.Recent[statetree.ID, heroes]
	tellings store.Recent[toldKey, *told]
	directs  store.Recent[matrix.UserID, directs]
	out      store.Recent[store.EventNum, bool] // whether an end of a membership was somebody else's doing

	kept   memories
	tags   store.Recent[matrix.UserID, tags]
	spaces store.Recent[statetree.ID, []store.EventNum] // the events by which spaces name rooms, by their state
}

// Request is one call of /sync.
type Request struct {
	User       matrix.UserID
	Device     matrix.DeviceID
	Since      string
	Timeout    time.Duration
	FullState  bool
	StateAfter bool // state as it is after the timeline, not before
	MSC4222    bool // the same, under its name before v1.16
	Filter     *Filter
}

// token is a place in the log, and in the changes of who is typing.
type token struct{ pos, typing int64 }

// String implements fmt.Stringer.
func (t token) String() string {
	return "s" + strconv.FormatInt(t.pos, 10) + "_" + strconv.FormatInt(t.typing, 10)
}

func parseToken(s string) (token, error) {
	if s == "" {
		return token{}, nil
	}
	var t token
	a, b, _ := strings.Cut(strings.TrimPrefix(s, "s"), "_")
	var err error
	if t.pos, err = strconv.ParseInt(a, 10, 64); err == nil && b != "" {
		t.typing, err = strconv.ParseInt(b, 10, 64)
	}
	if err != nil || s[0] != 's' || t.pos < 0 {
		return token{}, matrix.Errorf(matrix.InvalidParam, "%q is not a since token of this server", s)
	}
	return t, nil
}

// Sync answers with what is new, at once if there is something, else when there
// is or the time is up. A token from the future, as clients have after a server
// got its data back from a backup, is answered as if there was none.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
func (s *Service) Sync(ctx context.Context, r Request) (*Answer, error) {
	since, err := parseToken(r.Since)
	if err != nil {
		return nil, err
	}
	if since.pos > s.Store.Position() {
		since, r.Since = token{}, ""
	}
	if err := s.Keys.Acknowledge(ctx, r.User, r.Device, since.pos); err != nil {
		return nil, err
	}
	var timer <-chan time.Time
	for first := true; ; first = false {
		rung := s.Bell.Listen(string(r.User))
		a, err := s.read(ctx, r, since)
		if err != nil {
			return nil, err
		}
		if !a.empty() || r.Since == "" || r.Timeout <= 0 || first && r.FullState {
			return a, nil
		}
		if timer == nil {
			t := time.NewTimer(r.Timeout)
			defer t.Stop()
			timer = t.C
		}
		select {
		case <-rung:
		case <-timer:
			return a, nil
		case <-s.Stopping:
			return a, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// reading is one look at the log on behalf of one client.
type reading struct {
	*Service
	Request
	ctx   context.Context
	since token
	now   token

	ignored     map[matrix.UserID]bool
	memberships []store.Membership
	accountData map[matrix.RoomID][]json.RawMessage // changed, "" for global
	receipts    map[store.RoomNum][]json.RawMessage // changed
	read        map[store.RoomNum][]store.Receipt   // of the user, changed
	rooms       rooms
	behind      bool            // memory does not reach back to since
	plain       []unshaped      // events without what refers to them
	related     []unshaped      // and with that
	newcomers   []matrix.UserID // who came into view
	unheard     bool            // the device has sent nothing yet
}

// read collects what is behind since.
func (s *Service) read(ctx context.Context, r Request, since token) (*Answer, error) {
	rd := &reading{Service: s, Request: r, ctx: ctx, since: since,
		now: token{pos: s.Store.Position(), typing: s.Ephemeral.Serial()}}
	if rd.Filter == nil {
		rd.Filter = &Filter{}
	}
	var err error
	if rd.ignored, err = s.Rooms.Ignored(ctx, r.User); err != nil {
		return nil, err
	}
	if rd.initial() {
		heard, err := s.Store.HasRequests(ctx, r.User, r.Device)
		if err != nil {
			return nil, err
		}
		rd.unheard = !heard
	}
	a := &Answer{NextBatch: rd.now.String()}
	steps := []func(*Answer) error{rd.readAccountData, rd.readReceipts, rd.readMemberships, rd.readRooms, rd.readToDevice, rd.readDevices, rd.readPresence}
	for _, step := range steps {
		if err := step(a); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (rd *reading) initial() bool { return rd.Since == "" }

// readAccountData collects the settings that changed.
func (rd *reading) readAccountData(a *Answer) error {
	list, err := rd.Store.AccountDataSince(rd.ctx, rd.User, rd.since.pos, rd.now.pos)
	if err != nil {
		return err
	}
	rd.accountData = map[matrix.RoomID][]json.RawMessage{}
	for _, d := range list {
		f := &rd.Filter.AccountData
		if d.Room != "" {
			f = &rd.Filter.Room.AccountData
		}
		if !f.wants(d.Type, "", d.Room) {
			continue
		}
		e, err := accountDataEvent(d)
		if err != nil {
			return err
		}
		rd.accountData[d.Room] = append(rd.accountData[d.Room], e)
	}
	global, err := rd.defaults(list)
	if err != nil {
		return err
	}
	a.AccountData = some(append(global, rd.accountData[""]...))
	delete(rd.accountData, "")
	return nil
}

// readMemberships finds out what the user was at now in each room in which
// something may be new; the store may be ahead of that.
func (rd *reading) readMemberships(*Answer) error {
	var list []store.Membership
	rooms, sure, err := rd.touched()
	if err != nil {
		return err
	}
	if rd.behind = !sure || rd.initial() || rd.FullState; rd.behind {
		list = rd.Store.Memberships(rd.User)
	} else {
		list = rd.Store.MembershipNews(rd.User, rooms, rd.since.pos)
	}
	rd.memberships, err = rd.asOf(list)
	return err
}

// touched lists the rooms in which something may be new, other than that the user
// became something in them; false if memory does not reach back that far.
func (rd *reading) touched() (map[store.RoomNum]bool, bool, error) {
	rooms, sure := rd.Store.RoomsChanged(rd.since.pos, rd.now.pos)
	if !sure {
		return nil, false, nil
	}
	typing, sure := rd.Ephemeral.TypingRooms(rd.since.typing)
	for _, num := range typing {
		rooms[num] = true
	}
	for num := range rd.receipts {
		rooms[num] = true
	}
	for id := range rd.accountData {
		r, err := rd.Store.Room(rd.ctx, id)
		if errors.Is(err, store.ErrNotFound) {
			continue
		}
		if err != nil {
			return nil, false, err
		}
		rooms[r.Num] = true
	}
	return rooms, sure, nil
}

// asOf changes memberships to what they were at now.
func (rd *reading) asOf(list []store.Membership) ([]store.Membership, error) {
	was := list[:0]
	for _, m := range list {
		if m.Pos > rd.now.pos {
			r, err := rd.Store.RoomByNum(rd.ctx, m.Room)
			if err != nil {
				return nil, err
			}
			e, err := rd.memberAt(r, rd.now.pos)
			if err != nil {
				return nil, err
			}
			if e == nil {
				continue
			}
			m.Event, m.Pos, m.Membership, m.Forgotten = e.Num, e.Pos, e.PDU.Membership(), false
		}
		was = append(was, m)
	}
	return was, nil
}

// memberAt is the user's member event in a room at a position of the log; nil
// if there was none.
func (rd *reading) memberAt(r *store.Room, pos int64) (*store.Event, error) {
	root, err := rd.rootAt(r, pos)
	if err != nil || root == 0 {
		return nil, err
	}
	return rd.Rooms.StateEvent(rd.ctx, root, "m.room.member", string(rd.User))
}

// past is how a user came to be what they are in a room.
type past struct {
	was   string // the membership at since; "" for none
	until int64  // where the last membership "join" ended; 0 for who is in or never was
}

// past finds out what the user was in a room at since and, for who is out, when
// they were in.
func (rd *reading) past(m store.Membership, r *store.Room) (past, error) {
	p := past{was: m.Membership}
	switch {
	case rd.initial():
		p.was = ""
	case m.Pos > rd.since.pos:
		e, err := rd.memberAt(r, rd.since.pos)
		if err != nil {
			return p, err
		}
		if p.was = ""; e != nil {
			p.was = e.PDU.Membership()
		}
	}
	if m.Membership == "join" {
		return p, nil
	}
	for num, pos := m.Event, m.Pos; ; {
		e, err := rd.Store.EventByNum(rd.ctx, num)
		if err == nil && e.PDU.Membership() == "join" { // a fork took it out of the state
			p.until = pos
			return p, nil
		}
		if err != nil || e.Replaces == 0 {
			return p, err
		}
		before, err := rd.Store.EventByNum(rd.ctx, e.Replaces)
		if err != nil {
			return p, err
		}
		if before.PDU.Membership() == "join" {
			p.until = pos
			return p, nil
		}
		num, pos = before.Num, before.Pos
	}
}

// readRooms collects the rooms in which something changed. While it works on some
// of many, the next ones are read.
func (rd *reading) readRooms(a *Answer) error {
	rd.rooms = rooms{Join: map[matrix.RoomID]*joined{}, Invite: map[matrix.RoomID]*outside{},
		Knock: map[matrix.RoomID]*outside{}, Leave: map[matrix.RoomID]*joined{}}
	parts := slices.Collect(slices.Chunk(slices.DeleteFunc(rd.memberships, rd.silent), partSize(rd.timelineLimit())))
	var ahead errgroup.Group
	defer func() { _ = ahead.Wait() }() // its error is that of the next part, which nobody wants any more
	for i := range len(parts) + 1 {
		if err := ahead.Wait(); err != nil {
			return err
		}
		if rd.behind && i < len(parts) {
			ahead.Go(func() error { return rd.readAhead(parts[i]) })
		}
		if i > 0 {
			if err := rd.readPart(parts[i-1]); err != nil {
				return err
			}
		}
	}
	if !rd.rooms.empty() {
		a.Rooms = &rd.rooms
	}
	return nil
}

// silent tells whether a room cannot be part of the answer, because of what the
// user is in it.
func (rd *reading) silent(m store.Membership) bool {
	news := m.Pos > rd.since.pos || rd.initial()
	return !news && (m.Membership != "join" || m.Forgotten) || m.Forgotten && rd.initial()
}

// readPart reads some of the rooms.
func (rd *reading) readPart(part []store.Membership) error {
	for _, m := range part {
		r, err := rd.Store.RoomByNum(rd.ctx, m.Room)
		if err != nil {
			return err
		}
		if !rd.Filter.Room.wants(r.ID) {
			continue
		}
		if err := rd.readRoom(m, r); err != nil {
			return err
		}
	}
	return rd.shape()
}

// readRoom puts a room where the user's membership says.
func (rd *reading) readRoom(m store.Membership, r *store.Room) error {
	switch {
	case m.Membership == "invite" || m.Membership == "knock":
		return rd.readOutside(m, r)
	case m.Membership != "join" && rd.initial() && !rd.Filter.Room.IncludeLeave:
		if out, err := rd.putOut(m); err != nil || !out {
			return err
		}
	}
	p, err := rd.past(m, r)
	if err != nil {
		return err
	}
	if m.Membership == "join" {
		j, err := rd.readJoined(r, p)
		if err == nil && j != nil {
			rd.rooms.Join[r.ID] = j
		}
		return err
	}
	j, err := rd.readLeft(m, r, p)
	if err == nil {
		rd.rooms.Leave[r.ID] = j
	}
	return err
}

// readOutside adds a room to which the user is invited, or on whose door they knocked.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3sync
func (rd *reading) readOutside(m store.Membership, r *store.Room) error {
	e, err := rd.Store.EventByNum(rd.ctx, m.Event)
	if errors.Is(err, store.ErrNotFound) {
		return nil
	}
	if err != nil {
		return err
	}
	if m.Membership == "invite" {
		if hidden, err := rd.Rooms.HidesInvite(rd.ctx, rd.User, e.PDU.Sender); err != nil || hidden {
			return err
		}
	}
	list, err := rd.Rooms.OutsideState(rd.ctx, e, rd.User)
	if err != nil {
		return err
	}
	if m.Membership == "invite" {
		rd.rooms.Invite[r.ID] = &outside{Invite: &events{list}}
	} else {
		rd.rooms.Knock[r.ID] = &outside{Knock: &events{list}}
	}
	return nil
}
