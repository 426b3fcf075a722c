package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"switchboard/homeserver/database"
	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
)

// EventNum is the number by which the store knows an event: the position of
// the log at which it was stored.
type EventNum int64

// Status says whether an event counts.
type Status int

// What may become of an event.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#checks-performed-on-receipt-of-a-pdu
const (
	Accepted Status = iota
	SoftFailed
	Rejected
)

// Event is a stored event. It is never changed: a redaction makes a new one.
type Event struct {
	PDU        *event.PDU
	Num        EventNum
	Pos        int64 // place in the room's timeline; 0: not part of it
	Room       RoomNum
	Status     Status
	Key        statetree.Key // number of its type and state key; 0: not a state event
	State      statetree.ID  // root of the state after the event
	Current    statetree.ID  // root of the room's state when the event came
	RedactedBy EventNum      // 0: not redacted
	Replaces   EventNum      // the state event in whose place this one came; 0: none

	// Relay tells, in memory only, that another server's event was let in here, so
	// that the servers in the room get it from this one.
	Relay bool

	// Told tells, in memory only, that the other servers in the room have this
	// server's own event already, such as a join that one of them let in.
	Told bool

	// Request is which client asked for the event, where it was sent here and
	// is still in memory.
	Request *Request
}

const eventColumns = `num, event_id, room, pos, status, key, sender, state, current, redaction, replaces, json`

// Event finds an event by its ID, or answers ErrNotFound.
func (s *Store) Event(ctx context.Context, id matrix.EventID) (*Event, error) {
	if num, ok := s.eventNums.Find(id); ok {
		if e, ok := s.events.Find(num); ok {
			return e, nil
		}
	}
	list, err := s.queryEvents(ctx, `SELECT `+eventColumns+` FROM events WHERE event_id = $1`, eventKey(id))
	if err != nil {
		return nil, err
	}
	if len(list) == 0 {
		return nil, ErrNotFound
	}
	return list[0], nil
}

// EventsByNum finds events by their numbers. Unknown numbers are left out.
func (s *Store) EventsByNum(ctx context.Context, nums []EventNum) (map[EventNum]*Event, error) {
	found := make(map[EventNum]*Event, len(nums))
	var missing []int64
	for _, n := range nums {
		if e, ok := s.events.Find(n); ok {
			found[n] = e
		} else {
			missing = append(missing, int64(n))
		}
	}
	for part := range slices.Chunk(missing, 500) {
		list, err := s.queryEvents(ctx, `SELECT `+eventColumns+` FROM events WHERE num IN LIST($1)`, part)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			found[e.Num] = e
		}
	}
	return found, nil
}

// EventByNum finds an event by its number, or answers ErrNotFound.
func (s *Store) EventByNum(ctx context.Context, num EventNum) (*Event, error) {
	m, err := s.EventsByNum(ctx, []EventNum{num})
	if err != nil {
		return nil, err
	}
	if e := m[num]; e != nil {
		return e, nil
	}
	return nil, ErrNotFound
}

// Newest gives up to limit events of a room behind since and not behind upto,
// the newest ones, in order of the timeline.
func (s *Store) Newest(ctx context.Context, room RoomNum, since, upto int64, limit int) ([]*Event, error) {
	if list, ok := s.log.inRoom(room, since, upto); ok {
		return list[max(0, len(list)-limit):], nil
	}
	if list, ok := s.log.newest(room, upto, limit); ok {
		return list[behind(list, since):], nil
	}
	if nums, ok := s.endings.newest(room, since, upto, limit); ok {
		return s.eventsInOrder(ctx, nums)
	}
	list, err := s.places(ctx, `SELECT num FROM events
		WHERE room = $1 AND pos > $2 AND pos <= $3 ORDER BY pos DESC LIMIT $4`, room, since, upto, limit)
	slices.Reverse(list)
	return list, err
}

// Oldest gives up to limit events of a room behind since and not behind upto,
// the oldest ones, in order of the timeline.
func (s *Store) Oldest(ctx context.Context, room RoomNum, since, upto int64, limit int) ([]*Event, error) {
	if list, ok := s.log.inRoom(room, since, upto); ok {
		return list[:min(len(list), limit)], nil
	}
	return s.places(ctx, `SELECT num FROM events
		WHERE room = $1 AND pos > $2 AND pos <= $3 ORDER BY pos LIMIT $4`, room, since, upto, limit)
}

// Before is the position of the last event before a position, whichever room it
// is in; 0 if there is none.
func (s *Store) Before(ctx context.Context, pos int64) (int64, error) {
	var last int64
	err := s.db.QueryRow(ctx, `SELECT COALESCE(MAX(pos), 0) FROM events WHERE pos < $1 AND pos > 0`, pos).Scan(&last)
	if err != nil {
		return 0, fmt.Errorf("read the log: %w", err)
	}
	return last, nil
}

// Log gives up to limit events of all rooms behind since, in order of the log.
func (s *Store) Log(ctx context.Context, since int64, limit int) ([]*Event, error) {
	upto := s.Position()
	if list, ok := s.log.after(since, upto); ok {
		return list[:min(len(list), limit)], nil
	}
	return s.queryEvents(ctx, `SELECT `+eventColumns+` FROM events
		WHERE pos > $1 AND pos <= $2 ORDER BY pos LIMIT $3`, since, upto, limit)
}

// places reads the events whose numbers a query gives, in its order. The query
// needs only an index; what is in memory is not read again.
func (s *Store) places(ctx context.Context, q string, args ...any) ([]*Event, error) {
	rows, err := s.db.Query(ctx, q, args...)
	if err != nil {
		return nil, fmt.Errorf("read places: %w", err)
	}
	nums, err := scanNums(rows)
	if err != nil {
		return nil, err
	}
	return s.eventsInOrder(ctx, nums)
}

// eventsInOrder reads events in the order of nums.
func (s *Store) eventsInOrder(ctx context.Context, nums []EventNum) ([]*Event, error) {
	found, err := s.EventsByNum(ctx, nums)
	return inOrder(found, nums), err
}

func inOrder(found map[EventNum]*Event, nums []EventNum) []*Event {
	list := make([]*Event, 0, len(nums))
	for _, n := range nums {
		if e := found[n]; e != nil {
			list = append(list, e)
		}
	}
	return list
}

// queryEvents runs a query for eventColumns.
func (s *Store) queryEvents(ctx context.Context, q string, args ...any) ([]*Event, error) {
	rows, err := s.db.Query(ctx, q, args...)
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	defer rows.Close()
	var list []eventRow
	for rows.Next() {
		var r eventRow
		if err := r.scan(rows); err != nil {
			return nil, fmt.Errorf("read events: %w", err)
		}
		list = append(list, r)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	rows.Close() // the connection is free before the rooms are asked for
	events := make([]*Event, len(list))
	for i := range list {
		e, err := list[i].load(ctx, s)
		if err != nil {
			return nil, err
		}
		events[i] = s.keepEvent(e)
	}
	return events, nil
}

// keepEvent caches e and gives the one that is to be used.
func (s *Store) keepEvent(e *Event) *Event {
	s.eventNums.Put(e.PDU.ID, e.Num, 200)
	return s.events.Keep(e.Num, e, e.size(), func(old *Event) bool { return old.RedactedBy != 0 || e.RedactedBy == 0 })
}

func (s *Store) setEvent(e *Event) {
	s.events.Put(e.Num, e, e.size())
	s.eventNums.Put(e.PDU.ID, e.Num, 200)
}

// AppendEvent stores e, whose Num is a fresh position, and sets its Key. With a
// Pos it becomes part of the timeline.
func (tx *Tx) AppendEvent(ctx context.Context, e *Event) error {
	if err := tx.appendEvents(ctx, []*Event{e}); err != nil {
		return err
	}
	if e.Request == nil {
		e.Request = &Request{} // nobody asked for it, which needs no look later
	}
	tx.OnCommit(func() { tx.s.place(e) })
	return nil
}

// place keeps an event that was committed.
func (s *Store) place(e *Event) {
	s.setEvent(e)
	s.endings.Drop(e.Room)
	if e.Pos > 0 {
		s.log.add(e)
	}
}

// AppendAside is AppendEvent for events that are no part of the timeline, such as
// the state of a room that is joined. They may be many: they are not kept in
// memory.
func (tx *Tx) AppendAside(ctx context.Context, list []*Event) error {
	return tx.appendEvents(ctx, list)
}

// Redact puts a redacted form of an event in its place.
func (tx *Tx) Redact(ctx context.Context, e *Event, redacted *event.PDU, by EventNum) error {
	if err := tx.Exec(ctx, `UPDATE events SET redaction = $1, json = $2 WHERE num = $3`, by, pack(redacted), e.Num); err != nil {
		return fmt.Errorf("redact event: %w", err)
	}
	if err := tx.shortenThread(ctx, e); err != nil {
		return err
	}
	if err := tx.again(ctx, e); err != nil {
		return err
	}
	tx.OnCommit(func() {
		c := *e
		c.PDU, c.RedactedBy = redacted, by
		tx.s.setEvent(&c)
		tx.s.log.replace(&c)
	})
	return nil
}

// PutRedaction remembers that an event which is not known is redacted.
func (tx *Tx) PutRedaction(ctx context.Context, target matrix.EventID, by EventNum) error {
	if err := tx.Exec(ctx, `INSERT INTO redactions (target, event) VALUES ($1, $2)`, target, by); err != nil {
		return fmt.Errorf("put redaction: %w", err)
	}
	return nil
}

func scanNums(rows *database.Rows) ([]EventNum, error) {
	defer rows.Close()
	var list []EventNum
	for rows.Next() {
		var n EventNum
		if err := rows.Scan(&n); err != nil {
			return nil, fmt.Errorf("read numbers: %w", err)
		}
		list = append(list, n)
	}
	return list, rows.Err()
}

// Request identifies what a client asked for, so that a repetition is known.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#transaction-identifiers
type Request struct {
	User     matrix.UserID
	Device   matrix.DeviceID
	Endpoint string
	Txn      string
}

// Answered gives the event that r made when it came before, or ErrNotFound.
func (s *Store) Answered(ctx context.Context, r Request) (matrix.EventID, error) {
	var id []byte
	err := s.db.QueryRow(ctx, `SELECT e.event_id FROM requests r JOIN events e ON e.num = r.event
		WHERE r.user_id = $1 AND r.device = $2 AND r.endpoint = $3 AND r.txn = $4`, r.User, r.Device, r.Endpoint, r.Txn).Scan(&id)
	if errors.Is(err, database.ErrNoRows) {
		return "", ErrNotFound
	}
	if err != nil {
		return "", fmt.Errorf("read request: %w", err)
	}
	return idOf(id), nil
}

// PutRequest remembers that r made an event at a time (ms), also in e.
func (tx *Tx) PutRequest(ctx context.Context, r Request, e *Event, at int64) error {
	e.Request = &r
	const q = `INSERT INTO requests (user_id, device, endpoint, txn, event, at) VALUES ($1, $2, $3, $4, $5, $6)`
	if err := tx.Exec(ctx, q, r.User, r.Device, r.Endpoint, r.Txn, e.Num, at); err != nil {
		return fmt.Errorf("put request: %w", err)
	}
	return nil
}

// DropRequests forgets the requests before a time (ms).
func (tx *Tx) DropRequests(ctx context.Context, before int64) error {
	if err := tx.Exec(ctx, `DELETE FROM requests WHERE at < $1`, before); err != nil {
		return fmt.Errorf("drop requests: %w", err)
	}
	return nil
}

// HasRequests tells whether a device has made an event by a request with a
// transaction ID, as far as that is remembered.
func (s *Store) HasRequests(ctx context.Context, user matrix.UserID, device matrix.DeviceID) (bool, error) {
	var n int64
	err := s.db.QueryRow(ctx, `SELECT COUNT(*) FROM (SELECT 1 FROM requests WHERE user_id = $1 AND device = $2 LIMIT 1) AS found`, user, device).Scan(&n)
	if err != nil {
		return false, fmt.Errorf("read requests: %w", err)
	}
	return n > 0, nil
}

// Sent is how an event was sent, as its sender may know.
type Sent struct {
	Txn   string // transaction ID, for the device that sent it; "" for none
	Delay string // ID of the delayed event that it was; "" for none
}

// sent is what a device of the user may know of r.
func (r *Request) sent(device matrix.DeviceID) Sent {
	switch {
	case r.Endpoint == DelayedEndpoint:
		return Sent{Delay: r.Txn}
	case r.Device == device:
		return Sent{Txn: r.Txn}
	}
	return Sent{}
}

// Transactions tells how those of events were sent that a user sent, as a device
// of the user may know.
func (s *Store) Transactions(ctx context.Context, user matrix.UserID, device matrix.DeviceID, events []*Event) (map[EventNum]Sent, error) {
	found := map[EventNum]Sent{}
	delays := s.Delays(user)
	var missing []int64
	for _, e := range events {
		switch {
		case e.PDU.Sender != user:
		case e.Request != nil:
			if e.Request.User == user {
				found[e.Num] = e.Request.sent(device)
			}
		case delays || !e.PDU.IsState(): // other requests for state name no transaction
			missing = append(missing, int64(e.Num))
		}
	}
	if len(missing) == 0 {
		return found, nil
	}
	rows, err := s.db.Query(ctx, `SELECT event, device, endpoint, txn FROM requests WHERE event IN LIST($1) AND user_id = $2`, missing, user)
	if err != nil {
		return nil, fmt.Errorf("read transactions: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		var n EventNum
		var r Request
		if err := rows.Scan(&n, &r.Device, &r.Endpoint, &r.Txn); err != nil {
			return nil, fmt.Errorf("read transactions: %w", err)
		}
		found[n] = r.sent(device)
	}
	return found, rows.Err()
}

// EventsOf finds those events with the given numbers that belong to a room, in
// the order of the numbers.
func (s *Store) EventsOf(ctx context.Context, room RoomNum, nums []EventNum) ([]*Event, error) {
	m, err := s.EventsByNum(ctx, nums)
	if err != nil {
		return nil, err
	}
	list := make([]*Event, 0, len(m))
	for _, n := range nums {
		if e := m[n]; e != nil && e.Room == room {
			list = append(list, e)
		}
	}
	return list, nil
}

// EventsByID finds events by their IDs. Unknown IDs are left out.
func (s *Store) EventsByID(ctx context.Context, ids []matrix.EventID) (map[matrix.EventID]*Event, error) {
	found := make(map[matrix.EventID]*Event, len(ids))
	var missing []matrix.EventID
	for _, id := range ids {
		if num, ok := s.eventNums.Find(id); ok {
			if e, ok := s.events.Find(num); ok {
				found[id] = e
				continue
			}
		}
		missing = append(missing, id)
	}
	for len(missing) > 0 {
		some, q := missing[:1], eventByID
		if len(missing) > 1 {
			some, q = missing[:min(len(missing), idsAtOnce)], eventsByID
		}
		missing = missing[len(some):]
		list, err := s.queryEvents(ctx, q, eventKeys(some)...)
		if err != nil {
			return nil, err
		}
		for _, e := range list {
			found[e.PDU.ID] = e
		}
	}
	return found, nil
}

// Redacting lists the events that were to redact one which was not known.
func (s *Store) Redacting(ctx context.Context, target matrix.EventID) ([]EventNum, error) {
	rows, err := s.db.Query(ctx, `SELECT event FROM redactions WHERE target = $1 ORDER BY event`, target)
	if err != nil {
		return nil, fmt.Errorf("read redactions: %w", err)
	}
	return scanNums(rows)
}

// PlaceEvent makes an event that was kept aside part of the timeline, or
// changes what became of it.
func (tx *Tx) PlaceEvent(ctx context.Context, e *Event) error {
	var pos, current *int64
	if e.Pos != 0 {
		pos = &e.Pos
	}
	if e.Current != e.State {
		current = (*int64)(&e.Current)
	}
	var replaces *int64
	if e.Replaces != 0 {
		replaces = (*int64)(&e.Replaces)
	}
	const q = `UPDATE events SET pos = $1, status = $2, state = $3, current = $4, replaces = $5 WHERE num = $6`
	if err := tx.Exec(ctx, q, pos, e.Status, e.State, current, replaces, e.Num); err != nil {
		return fmt.Errorf("place event: %w", err)
	}
	if err := tx.putRelation(ctx, e); err != nil {
		return err
	}
	if err := tx.again(ctx, e); err != nil {
		return err
	}
	tx.OnCommit(func() { tx.s.place(e) })
	return nil
}
