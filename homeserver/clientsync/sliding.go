package clientsync

import (
	"cmp"
	"context"
	"maps"
	"reflect"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"switchboard/homeserver/cache"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// Window is one request of sliding sync: which rooms a client looks at, and what
// it wants to know of them.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/blob/main/proposals/4186-simplified-sliding-sync.md
type Window struct {
	User       matrix.UserID
	Device     matrix.DeviceID
	Conn       string // of several loops of one device, which one
	Pos        string // from the answer before; "" begins
	Timeout    time.Duration
	Lists      map[string]List // up to MostLists
	Rooms      map[matrix.RoomID]RoomConfig
	Extensions Extensions
	Stable     bool // the fields have their names of version 4

	// Text tells windows apart: those of one connection that have the same ask the
	// same, wherever they begin. "" tells nothing.
	Text string
}

// RoomConfig is what a client wants to know of a room.
type RoomConfig struct {
	Limit int // events of the timeline
	State RequiredState
	Text  string // State as the client wrote it, to compare
}

// RequiredState is a set of state events.
type RequiredState struct {
	Include, Exclude []StateMatch

	// Lazy adds the members who occur in the timeline; others only where Include
	// names their type.
	Lazy bool
}

// StateMatch matches state events; nil is for any type or key.
type StateMatch struct {
	Type *string `json:"type"`
	Key  *string `json:"state_key"`
}

// List asks for some of the user's rooms, those with the newest activity first.
type List struct {
	RoomConfig
	Ranges  [][2]int // of places in the list, both included; nil for all
	Filters RoomSieve
}

// connection is what one loop of a device has been told. It is only in memory:
// a client that goes on after a restart begins again.
type connection struct {
	mu     sync.Mutex          // tier 1; guards all below
	serial int64               // of the newest state
	states map[string]*sliding // by the position that the client was given: the one it has, and those it may have
}

type connectionKey struct {
	user   matrix.UserID
	device matrix.DeviceID
	conn   string
}

// sliding is what a client knows at a position. Once given it is never changed.
type sliding struct {
	at     token
	serial int64
	asked  Window // see there
	rooms  toldRooms

	// Of the order of the rooms then, what the client wanted of each place; nil for
	// what it did not look at.
	order   *order
	configs []*combined
	wanted  map[rule]*combined
	counts  []int // of the rooms of each list, in the order of their names
	drops   int   // how many rooms the user had forgotten
}

// size is about how many bytes it takes; what several share counts for each.
func (s *sliding) size() int {
	return 1500 + len(s.asked.Text) + 250*(len(s.rooms.base)+len(s.rooms.over)) + 24*len(s.configs)
}

// toldRooms are the rooms that a client knows. They are never changed: a message
// copies only the few that were told lately.
type toldRooms struct{ base, over map[store.RoomNum]*toldRoom }

func (t toldRooms) of(room store.RoomNum) *toldRoom {
	if r := t.over[room]; r != nil {
		return r
	}
	return t.base[room]
}

// with is t with news.
func (t toldRooms) with(news map[store.RoomNum]*toldRoom) toldRooms {
	if len(news) == 0 {
		return t
	}
	next := toldRooms{t.base, maps.Clone(t.over)}
	if next.over == nil {
		next.over = news
	} else {
		maps.Copy(next.over, news)
	}
	if len(next.over) > 32+len(next.base)/16 {
		base := make(map[store.RoomNum]*toldRoom, len(next.base)+len(next.over))
		maps.Copy(base, next.base)
		maps.Copy(base, next.over)
		next = toldRooms{base: base}
	}
	return next
}

// memoryDefault is what CacheBytes is for 0.
const memoryDefault = 32 << 20

// memories are what was used last.
type memories struct {
	once        sync.Once
	connections *cache.Cache[connectionKey, *connection]
	orders      *cache.Cache[matrix.UserID, *order]
	filters     *cache.Cache[filterKey, *Filter]

	scratch sync.Pool // of *scratch
}

// scratch is what one look at thousands of rooms needs and no answer keeps. It is
// used again, since to collect it would cost more than the look.
type scratch struct {
	seats            []seat
	all, scope, sift []*seat // scope: those that are looked at, in the order of the list
}

// take gives n empty seats, and the lists of them empty.
func (s *scratch) take(n int) []seat {
	s.seats = slices.Grow(s.seats[:0], n)[:n]
	clear(s.seats)
	s.all, s.scope, s.sift = slices.Grow(s.all[:0], n), slices.Grow(s.scope[:0], n), slices.Grow(s.sift[:0], n)
	return s.seats
}

// drop lets go of what the seats hold.
func (s *scratch) drop() { clear(s.seats) }

// memories are made with the first use.
func (s *Service) memories() *memories {
	s.kept.once.Do(func() {
		most := cmp.Or(s.CacheBytes, memoryDefault)
		s.kept.connections = cache.New[connectionKey, *connection](most / 8 * 5)
		s.kept.orders = cache.New[matrix.UserID, *order](most / 4)
		s.kept.scratch.New = func() any { return &scratch{} }
		s.kept.filters = cache.New[filterKey, *Filter](most / 8)
	})
	return &s.kept
}

// Slide answers a request of sliding sync, at once if there is something new,
// else when there is or the time is up. A position that is not known, as after a
// restart, is M_UNKNOWN_POS: the client begins again.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/blob/main/proposals/4186-simplified-sliding-sync.md
func (s *Service) Slide(ctx context.Context, w Window) (*SlidingAnswer, error) {
	key := connectionKey{w.User, w.Device, w.Conn}
	connections := s.memories().connections
	conn, _ := connections.Find(key)
	if conn == nil {
		conn = &connection{states: map[string]*sliding{}}
	}
	now := s.Store.Position()
	known, err := conn.known(w, now)
	if err != nil {
		return nil, err
	}
	has, err := w.toDeviceSince(now)
	if err == nil {
		err = s.Keys.Acknowledge(ctx, w.User, w.Device, has)
	}
	if err != nil {
		return nil, err
	}
	var timer <-chan time.Time
	if w.Timeout > 0 {
		t := time.NewTimer(w.Timeout)
		defer t.Stop()
		timer = t.C
	}
	same := w.asksAs(known.asked)
	for late := w.Pos == "" || w.Timeout <= 0; ; {
		rung := s.Bell.Listen(string(w.User))
		if late || !same || !s.still(known, w, has) {
			sl := &slide{Window: w, known: known, same: same, has: has, reading: &reading{Service: s, ctx: ctx, since: known.at, Request: Request{User: w.User, Device: w.Device, Filter: &Filter{}}}}
			a, next, err := sl.read()
			if err != nil {
				return nil, err
			}
			if late || !a.empty() {
				next.asked = w.asked()
				a.Pos = conn.move(w.Pos, next)
				connections.Put(key, conn, next.size())
				return a, nil
			}
		}
		if late, err = s.await(ctx, rung, timer); err != nil {
			return nil, err
		}
	}
}

// await waits for something that may be new, and tells whether it is too late for
// that.
func (s *Service) await(ctx context.Context, rung <-chan struct{}, timer <-chan time.Time) (late bool, err error) {
	select {
	case <-rung:
		return false, nil
	case <-timer:
	case <-s.Stopping:
	case <-ctx.Done():
		err = ctx.Err()
	}
	return true, err
}

// asked is what of a request decides about its answer, besides the position.
func (w Window) asked() Window {
	w.Pos, w.Timeout, w.Extensions.ToDevice = "", 0, nil
	return w
}

// asksAs tells whether a window asks what was asked before.
func (w Window) asksAs(before Window) bool {
	if w.Text != "" && w.Text == before.Text && w.Stable == before.Stable {
		return true
	}
	before.Text = w.Text
	return reflect.DeepEqual(before, w.asked())
}

// still tells at little cost that there is nothing new for a client which looks at
// what it has looked at before. Of the messages to its device it has all up to has.
func (s *Service) still(known *sliding, w Window, has int64) bool {
	return known.at == token{s.Store.Position(), s.Ephemeral.Serial()} && (w.Extensions.ToDevice == nil || has == known.at.pos)
}

// known gives what the client knows at the position of its request. A loop that
// looks at no rooms needs nothing but the position itself. A position that is not
// of this server's log, up to now, is of another server with its name, or from
// before a backup was put back.
func (c *connection) known(w Window, now int64) (*sliding, error) {
	if w.Pos == "" {
		return &sliding{}, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if st := c.states[w.Pos]; st != nil {
		maps.DeleteFunc(c.states, func(_ string, old *sliding) bool { return old.serial < st.serial })
		return st, nil
	}
	place, _, _ := strings.Cut(w.Pos, ".")
	at, err := parseToken(place)
	if err == nil && len(w.Lists) == 0 && len(w.Rooms) == 0 && 0 < at.pos && at.pos <= now {
		at.typing = 0
		return &sliding{at: at}, nil
	}
	return nil, matrix.Errorf(matrix.UnknownPos, "the position is not known any more: begin again without one")
}

// mostGiven is how many answers to one position are remembered, any of which the
// client may have got.
const mostGiven = 4

// move remembers what the client knows when it has the next answer.
func (c *connection) move(pos string, next *sliding) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.serial++
	next.serial = c.serial
	maps.DeleteFunc(c.states, func(p string, old *sliding) bool { return p != pos && old.serial <= c.serial-mostGiven })
	given := next.at.String() + "." + strconv.FormatInt(c.serial, 10)
	c.states[given] = next
	return given
}

// slide is one look at the log on behalf of a window.
type slide struct {
	*reading
	Window
	known *sliding
	same  bool  // the client asks what it asked before
	has   int64 // position up to which the device has its messages
	next  *sliding
	order *order
	depth int // see findDepth
	*scratch

	// Where settled is set, a place at which the client looked and looks now has
	// nothing new unless its room is among touched.
	settled bool
	touched map[store.RoomNum]bool

	names   []string                    // of the lists, in order
	news    []store.Receipt             // behind what the client knows
	direct  map[matrix.RoomID]bool      // rooms that are direct chats
	asked   int                         // calls of seatOf
	index   map[store.RoomNum]int       // of the order; see seatOf
	deep    map[int]*seat               // below depth; see seatOf
	back    []*seat                     // rooms that the client knows and looks at again
	looked  map[store.RoomNum]bool      // see lookedAt
	told    map[store.RoomNum]*toldRoom // what the client learns
	results map[store.RoomNum]*RoomResult
}

// read collects what is new.
func (sl *slide) read() (*SlidingAnswer, *sliding, error) {
	var err error
	if sl.order, err = sl.orderOf(sl.reading.User); err != nil {
		return nil, nil, err
	}
	pool := &sl.memories().scratch
	sl.scratch = pool.Get().(*scratch)
	defer func() {
		sl.scratch.drop()
		pool.Put(sl.scratch)
	}()
	sl.now.typing = sl.Ephemeral.Serial()
	sl.next = &sliding{at: sl.now, order: sl.order, drops: sl.Store.Forgettings(sl.reading.User)}
	sl.told, sl.results = map[store.RoomNum]*toldRoom{}, map[store.RoomNum]*RoomResult{}
	a := &SlidingAnswer{Lists: map[string]ListResult{}, Rooms: map[matrix.RoomID]*RoomResult{}}
	for _, step := range []func(*SlidingAnswer) error{sl.prepare, sl.readLists, sl.readRooms, sl.readExtensions} {
		if err := step(a); err != nil {
			return nil, nil, err
		}
	}
	sl.next.rooms = sl.known.rooms.with(sl.told)
	return a, sl.next, nil
}

// prepare reads what decides about all rooms.
func (sl *slide) prepare(*SlidingAnswer) (err error) {
	user, since := sl.reading.User, sl.known.at.pos
	sl.names = slices.Sorted(maps.Keys(sl.Lists))
	if sl.ignored, err = sl.reading.Rooms.Ignored(sl.ctx, user); err != nil {
		return err
	}
	if sl.direct, err = sl.directRooms(sl.ctx, user); err != nil {
		return err
	}
	if since == 0 {
		return nil
	}
	if sl.news, err = sl.Store.ReceiptNews(sl.ctx, user, since, sl.now.pos); err != nil {
		return err
	}
	if sl.touched, sl.settled = sl.Store.RoomsChanged(since, sl.now.pos); sl.settled {
		for _, r := range sl.news {
			sl.touched[r.Room] = true
		}
	}
	sl.settled = sl.settled && sl.known.order != nil && !sl.Store.SettingChangedSince(user, "m.direct", since)
	return nil
}
