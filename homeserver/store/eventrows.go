package store

import (
	"context"
	"encoding/base64"
	"fmt"
	"slices"
	"strings"
	"sync"

	"switchboard/homeserver/database"
	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/packed"
	"switchboard/homeserver/statetree"
)

// hashLength is how long the IDs are that are hashes.
const hashLength = 32

var idBase64 = base64.RawURLEncoding.Strict()

// eventKey is how the database knows an event ID: the bytes of the hash where it
// is one, else its text, before which a zero stands if it is as long as a hash.
func eventKey(id matrix.EventID) []byte {
	if name, ok := strings.CutPrefix(string(id), "$"); ok && len(name) == idBase64.EncodedLen(hashLength) {
		key := make([]byte, 0, hashLength)
		if key, err := idBase64.AppendDecode(key, []byte(name)); err == nil {
			return key
		}
	}
	if len(id) == hashLength {
		return append([]byte{0}, id...)
	}
	return []byte(id)
}

// idOf is the event ID with a key.
func idOf(key []byte) matrix.EventID {
	switch {
	case len(key) == hashLength:
		id := append(make([]byte, 0, 44), '$')
		return matrix.EventID(idBase64.AppendEncode(id, key))
	case len(key) == hashLength+1 && key[0] == 0:
		return matrix.EventID(key[1:])
	}
	return matrix.EventID(key)
}

// idsAtOnce is how many event IDs one question may have.
const idsAtOnce = 64

// The questions for events by their IDs: one, or idsAtOnce.
var (
	eventByID  = `SELECT ` + eventColumns + ` FROM events WHERE event_id = $1`
	eventsByID = `SELECT ` + eventColumns + ` FROM events WHERE event_id IN ` + placeholders(1, idsAtOnce)
)

// eventKeys are the arguments of those questions. Those that are missing repeat
// the last one.
func eventKeys(ids []matrix.EventID) []any {
	if len(ids) == 1 {
		return []any{eventKey(ids[0])}
	}
	keys := make([]any, idsAtOnce)
	for i := range keys {
		if i < len(ids) {
			keys[i] = eventKey(ids[i])
		} else {
			keys[i] = keys[i-1]
		}
	}
	return keys
}

// placeholders is a list of n placeholders in brackets, from the number first on.
func placeholders(first, n int) string {
	var b strings.Builder
	b.WriteByte('(')
	for i := range n {
		if i > 0 {
			b.WriteString(", ")
		}
		fmt.Fprintf(&b, "$%d", first+i)
	}
	b.WriteByte(')')
	return b.String()
}

// known is what a row says of an event beside its JSON.
func known(room matrix.RoomID, sender matrix.UserID) packed.Known {
	return packed.Known{Room: string(room), Sender: string(sender)}
}

// pack is the JSON of an event as it is stored.
func pack(p *event.PDU) []byte {
	return packed.Append(make([]byte, 0, len(p.JSON)*3/4), p.JSON, known(p.Room, p.Sender))
}

// eventRow is a row with eventColumns.
type eventRow struct {
	Event
	id     []byte
	sender matrix.UserID
	json   []byte
}

func (r *eventRow) scan(rows *database.Rows) error {
	var pos, key, current, redaction, replaces *int64
	if err := rows.Scan(&r.Num, &r.id, &r.Room, &pos, &r.Status, &key, &r.sender, &r.State, &current, &redaction, &replaces, &r.json); err != nil {
		return err
	}
	r.Current = r.State
	if pos != nil {
		r.Pos = *pos
	}
	if key != nil {
		r.Key = statetree.Key(*key)
	}
	if current != nil {
		r.Current = statetree.ID(*current)
	}
	if redaction != nil {
		r.RedactedBy = EventNum(*redaction)
	}
	if replaces != nil {
		r.Replaces = EventNum(*replaces)
	}
	return nil
}

// load reads the event of a row.
func (r *eventRow) load(ctx context.Context, s *Store) (*Event, error) {
	e, id := r.Event, idOf(r.id)
	room, err := s.RoomByNum(ctx, e.Room)
	if err != nil {
		return nil, fmt.Errorf("room of event %s: %w", id, err)
	}
	json, err := packed.Expand(make([]byte, 0, len(r.json)*3), r.json, known(room.ID, r.sender))
	if err != nil {
		return nil, fmt.Errorf("event %s: %w", id, err)
	}
	if e.PDU, err = event.Load(room.Version, id, json); err != nil {
		return nil, fmt.Errorf("event %s: %w", id, err)
	}
	return &e, nil
}

// EachText reads the JSON of events, which may be many: nothing of it is kept in
// memory. The numbers ascend; unknown ones are left out. The JSON is good until f
// returns.
func (s *Store) EachText(ctx context.Context, nums []EventNum, f func(num EventNum, id matrix.EventID, json []byte) error) error {
	var buf []byte
	for part := range slices.Chunk(nums, textsAtOnce) {
		texts, err := s.texts(ctx, part)
		if err != nil {
			return fmt.Errorf("read events: %w", err)
		}
		for _, t := range texts {
			room, err := s.RoomByNum(ctx, RoomNum(t.room))
			if err != nil {
				return fmt.Errorf("room of event %d: %w", t.num, err)
			}
			if buf, err = packed.Expand(buf[:0], t.json, packed.Known{Room: string(room.ID), Sender: t.sender}); err != nil {
				return fmt.Errorf("event %d: %w", t.num, err)
			}
			if err := f(EventNum(t.num), idOf(t.id), buf); err != nil {
				return err
			}
		}
	}
	return nil
}

// texts reads some rows for EachText. Events that came together, such as the
// state of a room that was joined, are read in one go and not one by one.
func (s *Store) texts(ctx context.Context, nums []EventNum) ([]eventText, error) {
	const columns = `SELECT num, event_id, room, sender, json FROM events `
	q, args := columns+`WHERE num IN LIST($1) ORDER BY num`, []any{nums}
	first, last := nums[0], nums[len(nums)-1]
	if int(last-first) < 2*len(nums) {
		q, args = columns+`WHERE num BETWEEN $1 AND $2 ORDER BY num`, []any{first, last}
	}
	rows, err := s.db.Query(ctx, q, args...)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	texts := make([]eventText, 0, len(nums))
	for rows.Next() {
		var t eventText
		if err := rows.Scan(&t.num, &t.id, &t.room, &t.sender, &t.json); err != nil {
			return nil, err
		}
		if _, wanted := slices.BinarySearch(nums, EventNum(t.num)); wanted {
			texts = append(texts, t)
		}
	}
	return texts, rows.Err()
}

// textsAtOnce is how many events are read at once, and held packed meanwhile.
const textsAtOnce = 2000

// eventText is a row with what EachText needs.
type eventText struct {
	num, room int64
	id, json  []byte
	sender    string
}

const insertEvents = `INSERT INTO events (num, event_id, room, pos, status, key, sender, state, current, redaction, replaces, json)`

// appendEvents writes events and what refers to others of them.
func (tx *Tx) appendEvents(ctx context.Context, list []*Event) error {
	if err := tx.setKeys(ctx, list); err != nil {
		return err
	}
	args := make([]any, 0, 12*len(list))
	for _, e := range list {
		var current any
		if e.Current != e.State {
			current = int64(e.Current)
		}
		args = append(args, int64(e.Num), eventKey(e.PDU.ID), int64(e.Room), optional(e.Pos), int64(e.Status), optional(int64(e.Key)), string(e.PDU.Sender),
			int64(e.State), current, optional(int64(e.RedactedBy)), optional(int64(e.Replaces)), pack(e.PDU))
	}
	if err := tx.insert(ctx, insertEvents, 12, args, ""); err != nil {
		return fmt.Errorf("append event: %w", err)
	}
	for _, e := range list {
		if err := tx.putRelation(ctx, e); err != nil {
			return err
		}
	}
	return nil
}

// optional is n, NULL for 0.
func optional(n int64) any {
	if n == 0 {
		return nil
	}
	return n
}

// rowsAtOnce is how many rows one statement inserts on PostgreSQL. SQLite gets
// them one by one: it would keep a journal of each statement with several.
const rowsAtOnce = 32

// insert writes rows: into is "INSERT INTO table (columns)", args are the values
// of width columns for each row, onConflict follows.
func (tx *Tx) insert(ctx context.Context, into string, width int, args []any, onConflict string) error {
	if tx.s.db.Dialect() == database.PostgreSQL {
		many := tx.s.inserts.text(into, width, rowsAtOnce, onConflict)
		for ; len(args) >= rowsAtOnce*width; args = args[rowsAtOnce*width:] {
			if err := tx.Exec(ctx, many, args[:rowsAtOnce*width]...); err != nil {
				return err
			}
		}
	}
	one := tx.s.inserts.text(into, width, 1, onConflict)
	for ; len(args) > 0; args = args[width:] {
		if err := tx.Exec(ctx, one, args[:width]...); err != nil {
			return err
		}
	}
	return nil
}

// inserts makes and remembers the texts of statements that insert rows.
type inserts struct{ texts sync.Map }

type insertKey struct {
	into, onConflict string
	rows             int
}

func (i *inserts) text(into string, width, rows int, onConflict string) string {
	k := insertKey{into, onConflict, rows}
	if t, ok := i.texts.Load(k); ok {
		return t.(string)
	}
	var b strings.Builder
	b.WriteString(into + " VALUES ")
	for r := range rows {
		if r > 0 {
			b.WriteString(", ")
		}
		b.WriteString(placeholders(1+r*width, width))
	}
	text := b.String() + " " + onConflict
	i.texts.Store(k, text)
	return text
}
