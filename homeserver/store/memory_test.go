package store

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
)

// sized makes an event of a room at a place.
func sized(room RoomNum, pos int64, n int) *Event {
	return &Event{PDU: &event.PDU{JSON: make([]byte, n)}, Num: EventNum(pos), Pos: pos, Room: room}
}

func places(list []*Event) []int64 {
	all := []int64{}
	for _, e := range list {
		all = append(all, e.Pos)
	}
	return all
}

func TestLog(t *testing.T) {
	l := newLog(10, 1<<20)
	for pos := int64(11); pos <= 30; pos++ {
		l.add(sized(RoomNum(pos%3), pos, 100))
	}
	tests := []struct {
		name        string
		since, upto int64
		want        []int64
	}{
		{"some", 15, 18, []int64{16, 17, 18}},
		{"up to the end", 28, 30, []int64{29, 30}},
		{"beyond the end", 29, 99, []int64{30}},
		{"none", 30, 30, []int64{}},
		{"backwards", 20, 15, []int64{}},
		{"behind everything", math.MaxInt64, 30, []int64{}},
		{"to the end of numbers", 28, math.MaxInt64, []int64{29, 30}},
		{"from the floor", 10, 12, []int64{11, 12}},
		{"behind the floor", 9, 12, nil},
	}
	for _, tt := range tests {
		got, ok := l.after(tt.since, tt.upto)
		if ok != (tt.want != nil) || ok && !slices.Equal(places(got), tt.want) {
			t.Errorf("%s: got %v, %v, want %v", tt.name, places(got), ok, tt.want)
		}
	}
	if got, ok := l.inRoom(1, 15, 23); !ok || !slices.Equal(places(got), []int64{16, 19, 22}) {
		t.Errorf("in a room: %v, %v", places(got), ok)
	}
	if got, ok := l.inRoom(7, 15, 23); !ok || len(got) != 0 {
		t.Errorf("in a quiet room: %v, %v", places(got), ok)
	}
	for _, tt := range []struct {
		upto  int64
		limit int
		want  []int64
	}{{30, 2, []int64{25, 28}}, {27, 2, []int64{22, 25}}, {28, 1, []int64{28}}, {30, 6, []int64{13, 16, 19, 22, 25, 28}}, {30, 7, nil}, {12, 1, nil}} {
		got, ok := l.newest(1, tt.upto, tt.limit)
		if ok != (tt.want != nil) || ok && !slices.Equal(places(got), tt.want) {
			t.Errorf("newest %d up to %d: %v, %v, want %v", tt.limit, tt.upto, places(got), ok, tt.want)
		}
	}
	got, _ := l.after(10, 12)
	got[0] = nil // the caller's own
	if again, _ := l.after(10, 12); again[0] == nil {
		t.Error("the log gives away its own list")
	}
}

// TestLogBound checks that the log keeps its bound and says what it forgot, over
// random events.
func TestLogBound(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	const most = 20_000
	l := newLog(0, most)
	var all []*Event
	pos := int64(0)
	for range 3000 {
		pos += 1 + r.Int64N(3) // other rows take positions, too
		e := sized(RoomNum(r.IntN(5)), pos, r.IntN(2000))
		all = append(all, e)
		l.add(e)
		if l.bytes > most && len(l.events) > 1 {
			t.Fatalf("%d bytes in %d events", l.bytes, len(l.events))
		}
		if r.IntN(10) == 0 {
			i := len(all) - 1 - r.IntN(min(len(all), 20))
			all[i] = sized(all[i].Room, all[i].Pos, r.IntN(2000))
			l.replace(all[i])
		}
		since := max(0, pos-r.Int64N(60))
		var want []*Event
		for _, e := range all {
			if e.Pos > since {
				want = append(want, e)
			}
		}
		if got, ok := l.after(since, pos); ok && !slices.Equal(got, want) {
			t.Fatalf("behind %d: %v, want %v", since, places(got), places(want))
		}
		room := RoomNum(r.IntN(5))
		want = slices.DeleteFunc(want, func(e *Event) bool { return e.Room != room })
		if got, ok := l.inRoom(room, since, pos); ok && !slices.Equal(got, want) {
			t.Fatalf("room %d behind %d: %v, want %v", room, since, places(got), places(want))
		}
	}
	sum := 0
	n := 0
	for _, e := range l.events {
		sum += e.size()
	}
	for _, list := range l.rooms {
		n += len(list)
	}
	if sum != l.bytes || n != len(l.events) {
		t.Errorf("%d bytes are counted as %d, %d events are %d by rooms", sum, l.bytes, len(l.events), n)
	}
	if _, ok := l.after(l.floor-1, pos); ok {
		t.Error("the log claims to know what it forgot")
	}
}

func TestLogReplace(t *testing.T) {
	l := newLog(0, 1<<20)
	for pos := int64(1); pos <= 5; pos++ {
		l.add(sized(1, pos, 100))
	}
	redacted := sized(1, 3, 10)
	l.replace(redacted)
	l.replace(sized(1, 99, 10)) // not here
	if got, _ := l.after(2, 3); got[0] != redacted {
		t.Error("the log has the old event")
	}
	if got, _ := l.inRoom(1, 2, 3); got[0] != redacted {
		t.Error("the room has the old event")
	}
	if len(l.events) != 5 {
		t.Errorf("%d events", len(l.events))
	}
}

func TestNotes(t *testing.T) {
	s := &Store{memory: memory{log: newLog(100, 1<<20)}}
	l := s.log
	if s.ChangedSince(AccountDataChanged, "a", 100) || !s.ChangedSince(AccountDataChanged, "a", 99) {
		t.Error("what was before the start is unknown, what is behind it is not")
	}
	l.note(AccountDataChanged, "a", 105)
	for since, want := range map[int64]bool{104: true, 105: false, 106: false} {
		if got := s.ChangedSince(AccountDataChanged, "a", since); got != want {
			t.Errorf("behind %d: %v", since, got)
		}
	}
	if s.ChangedSince(AccountDataChanged, "b", 101) || s.ChangedSince(ReceiptsChanged, "a", 101) {
		t.Error("another's change")
	}
	for i := range mostNotes {
		l.note(ReceiptsChanged, fmt.Sprint(i), int64(200+i))
	}
	if len(l.noted) > mostNotes {
		t.Errorf("%d notes", len(l.noted))
	}
	if !s.ChangedSince(AccountDataChanged, "a", 104) || !s.ChangedSince(AccountDataChanged, "b", 104) {
		t.Error("a change was forgotten and denied")
	}
	last := int64(200 + mostNotes - 1)
	if !s.ChangedSince(ReceiptsChanged, fmt.Sprint(mostNotes-1), last-1) || s.ChangedSince(ReceiptsChanged, "x", last) {
		t.Error("the newest changes are not known")
	}
}

func TestRoomsChanged(t *testing.T) {
	s := &Store{memory: memory{log: newLog(10, 1<<20)}}
	for pos := int64(11); pos <= 13; pos++ {
		s.log.add(sized(RoomNum(pos), pos, 10))
	}
	if rooms, ok := s.RoomsChanged(11, 13); !ok || len(rooms) != 2 || !rooms[12] || !rooms[13] {
		t.Errorf("%v, %v", rooms, ok)
	}
	if _, ok := s.RoomsChanged(9, 13); ok {
		t.Error("claims to know what was before the start")
	}
}

func TestRecent(t *testing.T) {
	var r Recent[int, int]
	if _, ok := r.Find(1); ok {
		t.Error("an empty one has something")
	}
	for i := range 3 * recentMost {
		r.Put(i, -i)
		r.Put(0, i) // used all the time
	}
	if v, ok := r.Find(0); !ok || v != 3*recentMost-1 {
		t.Errorf("what is used all the time: %d, %v", v, ok)
	}
	for i := 2*recentMost + 2; i < 3*recentMost; i++ {
		if v, ok := r.Find(i); !ok || v != -i {
			t.Fatalf("%d of the newest: %d, %v", i, v, ok)
		}
	}
	if n := len(r.young) + len(r.old); n > 2*recentMost {
		t.Errorf("%d values", n)
	}
	if _, ok := r.Find(1); ok {
		t.Error("what was not used for long is still there")
	}
}

func TestMembersInMemory(t *testing.T) {
	s := &Store{memory: memory{members: members{byUser: map[matrix.UserID]*residence{}, joined: map[RoomNum]map[matrix.UserID]struct{}{}}}}
	set := func(u matrix.UserID, room RoomNum, what string) {
		s.members.set(Membership{User: u, Room: room, Membership: what, Local: true})
	}
	set("@a:x", 1, "join")
	set("@b:x", 1, "invite")
	set("@c:x", 2, "join")
	if s.ShareRoom("@a:x", "@b:x") || s.ShareRoom("@a:x", "@c:x") || s.ShareRoom("@a:x", "@nobody:x") {
		t.Error("they share no room")
	}
	set("@b:x", 1, "join")
	if !s.ShareRoom("@a:x", "@b:x") || !s.ShareRoom("@b:x", "@a:x") {
		t.Error("they share a room")
	}
	neighbours := s.Neighbours("@a:x")
	slices.Sort(neighbours)
	if !slices.Equal(neighbours, []matrix.UserID{"@a:x", "@b:x"}) {
		t.Errorf("neighbours %v", neighbours)
	}
	set("@a:x", 1, "ban")
	set("@b:x", 1, "leave")
	if len(s.LocalMembers(1)) != 0 || len(s.members.joined) != 1 || s.Membership("@a:x", 1).Membership != "ban" || len(s.Memberships("@b:x")) != 1 {
		t.Error("who left is still there")
	}
	for room := RoomNum(2); room < 9; room++ {
		s.members.set(Membership{User: "@a:x", Room: room, Membership: "join", Pos: int64(10 * room)})
	}
	for since, want := range map[int64][]RoomNum{90: {3}, 70: {3, 8}, 60: {3, 7, 8}} {
		var got []RoomNum
		for _, m := range s.MembershipNews("@a:x", map[RoomNum]bool{3: true, 99: true}, since) {
			got = append(got, m.Room)
		}
		if slices.Sort(got); !slices.Equal(got, want) {
			t.Errorf("news behind %d: %v, want %v", since, got, want)
		}
	}
}

// TestLateEvent checks that memory does not hide an event that fills a gap.
func TestLateEvent(t *testing.T) {
	s := &Store{memory: memory{log: newLog(10, 1<<20)}}
	for _, pos := range []int64{11, 12, 20, 21} {
		s.log.add(sized(1, pos, 10))
	}
	s.log.add(sized(1, 15, 10))
	if _, ok := s.log.inRoom(1, 12, 21); ok {
		t.Error("claims to know what is before the late event")
	}
	if _, ok := s.log.newest(1, 21, 3); ok {
		t.Error("claims that the late event is not there")
	}
	if list, ok := s.log.after(15, 21); !ok || len(list) != 2 {
		t.Errorf("behind it there are %d events, %v", len(list), ok)
	}
	s.log.add(sized(1, 13, 10)) // what has left memory stays away
	if list, ok := s.log.after(15, 21); !ok || len(list) != 2 {
		t.Errorf("then there are %d events, %v", len(list), ok)
	}
}

// TestTail checks that a reader inside gets all that is wanted, and one outside is
// told so.
func TestTail(t *testing.T) {
	tl := newTail(10, 1000, func(r *Receipt) int64 { return r.Pos }, func(*Receipt) int { return 100 })
	for pos := int64(11); pos <= 18; pos++ {
		tl.add(Receipt{Room: RoomNum(pos % 2), Pos: pos})
	}
	odd := func(r *Receipt) bool { return r.Room == 1 }
	check := func(since int64, want ...int64) {
		t.Helper()
		list, sure := tl.after(since, odd)
		var got []int64
		for _, r := range list {
			got = append(got, r.Pos)
		}
		if !sure || !slices.Equal(got, want) {
			t.Errorf("behind %d: %v %v, want %v", since, got, sure, want)
		}
	}
	check(10, 11, 13, 15, 17)
	check(13, 15, 17)
	check(18)
	for pos := int64(19); pos <= 25; pos++ {
		tl.add(Receipt{Room: 1, Pos: pos, Thread: fmt.Sprint(pos % 3)})
	}
	if _, sure := tl.after(14, odd); sure {
		t.Error("what has left is not missed")
	}
	check(15, 17, 19, 20, 21, 22, 23, 24, 25)
	list, _ := rows(tl, 18, 24, odd, func(r *Receipt) string { return r.Thread })
	if len(list) != 2 || list[0].Pos != 23 || list[1].Pos != 24 {
		t.Errorf("one of each key: %v", list)
	}
	tl.forget()
	if _, sure := tl.after(24, odd); sure {
		t.Error("what was forgotten is not missed")
	}
	check(25)
}
