package store

import (
	"context"
	"fmt"
	"strconv"

	"switchboard/homeserver/database"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/words"
)

// The index of words holds a row for each event that is found by its text, under
// the event's place. It knows neither the text nor where in it a word stands, but
// the room, and under which of the keys of a content the text is. Package search
// follows the log and writes it.

// Indexed is a row of the index of words.
type Indexed struct {
	Event *Event
	Key   string // of the content: "body"
	Words []string
}

// Signs for what is no word of a text: no word begins with them.
const (
	roomSign = "!"
	keySign  = "#"
)

func roomWord(room RoomNum) string { return roomSign + strconv.FormatInt(int64(room), 10) }

// PutWords puts events into the index of words, in which they are not yet.
func (tx *Tx) PutWords(ctx context.Context, list []Indexed) error {
	args := make([]any, 0, 2*len(list))
	for _, i := range list {
		args = append(args, i.Event.Pos, tx.s.db.Dialect().Words(append(i.Words, roomWord(i.Event.Room), keySign+i.Key)))
	}
	for ; len(args) > 0; args = args[2:] {
		if err := tx.Exec(ctx, `INSERT INTO search (rowid, words) VALUES ($1, WORDS($2))`, args[:2]...); err != nil {
			return fmt.Errorf("put words: %w", err)
		}
	}
	return nil
}

// DropWords takes what stands at a place out of the index of words.
func (tx *Tx) DropWords(ctx context.Context, pos int64) error {
	if err := tx.Exec(ctx, `DELETE FROM search WHERE rowid = $1`, pos); err != nil {
		return fmt.Errorf("drop words: %w", err)
	}
	return nil
}

// again remembers that the words of an event are to be looked at anew.
func (tx *Tx) again(ctx context.Context, e *Event) error {
	if err := tx.Exec(ctx, `INSERT INTO search_again (event) VALUES ($1) ON CONFLICT DO NOTHING`, e.Num); err != nil {
		return fmt.Errorf("note changed words: %w", err)
	}
	return nil
}

// Again lists up to limit events whose words are to be looked at anew.
func (s *Store) Again(ctx context.Context, limit int) ([]EventNum, error) {
	rows, err := s.db.Query(ctx, `SELECT event FROM search_again ORDER BY event LIMIT $1`, limit)
	if err != nil {
		return nil, fmt.Errorf("read changed words: %w", err)
	}
	return scanNums(rows)
}

// DropAgain forgets that the words of an event are to be looked at.
func (tx *Tx) DropAgain(ctx context.Context, num EventNum) error {
	if err := tx.Exec(ctx, `DELETE FROM search_again WHERE event = $1`, num); err != nil {
		return fmt.Errorf("forget changed words: %w", err)
	}
	return nil
}

// Span says which events have been put into the index of words: those with numbers
// behind Below and not behind Above.
type Span struct{ Below, Above EventNum }

// Span is how far the index of words is made. At first that is the end of the log.
func (s *Store) Span(ctx context.Context) (Span, error) {
	var sp Span
	err := s.db.QueryRow(ctx, `SELECT below, above FROM search_span WHERE one = 1`).Scan(&sp.Below, &sp.Above)
	if err != nil {
		return sp, fmt.Errorf("read span of words: %w", err)
	}
	return sp, nil
}

// PutSpan writes down how far the index of words is made.
func (tx *Tx) PutSpan(ctx context.Context, sp Span) error {
	if err := tx.Exec(ctx, `UPDATE search_span SET below = $1, above = $2`, sp.Below, sp.Above); err != nil {
		return fmt.Errorf("put span of words: %w", err)
	}
	return nil
}

// StoredAfter gives up to limit numbers of events of timelines behind since and
// not behind upto, in order.
func (s *Store) StoredAfter(ctx context.Context, since, upto EventNum, limit int) ([]EventNum, error) {
	rows, err := s.db.Query(ctx, `SELECT num FROM events WHERE num > $1 AND num <= $2 AND pos IS NOT NULL ORDER BY num LIMIT $3`, since, upto, limit)
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return scanNums(rows)
}

// StoredBefore gives up to limit numbers of events of timelines not behind upto,
// the last first.
func (s *Store) StoredBefore(ctx context.Context, upto EventNum, limit int) ([]EventNum, error) {
	rows, err := s.db.Query(ctx, `SELECT num FROM events WHERE num <= $1 AND pos IS NOT NULL ORDER BY num DESC LIMIT $2`, upto, limit)
	if err != nil {
		return nil, fmt.Errorf("read the log: %w", err)
	}
	return scanNums(rows)
}

// Searching are the events that have words.
type Searching struct {
	Words      []words.Key
	Keys       []string        // of the content; nil for all
	Rooms      []RoomNum       // nil for all
	Senders    []matrix.UserID // nil for all
	NotSenders []matrix.UserID

	Since, Upto int64 // places behind the one and not behind the other
}

// WithWords gives up to limit events that have words, the newest first.
func (s *Store) WithWords(ctx context.Context, q Searching, limit int) ([]*Event, error) {
	const (
		found = `SELECT e.num FROM search JOIN events e ON e.pos = search.rowid
			WHERE search.words HOLD $1 AND search.rowid > $2 AND search.rowid <= $3 AND e.sender NOT IN LIST($4)`
		from   = ` AND e.sender IN LIST($6)`
		newest = ` ORDER BY search.rowid DESC LIMIT $5`
	)
	args := []any{s.db.Dialect().Question(q.asked()), q.Since, q.Upto, q.NotSenders, limit}
	if q.Senders == nil {
		return s.places(ctx, found+newest, args...)
	}
	return s.places(ctx, found+from+newest, append(args, q.Senders)...)
}

// asked is what the index is asked for.
func (q Searching) asked() [][]database.Word {
	var all [][]database.Word
	for _, w := range q.Words {
		all = append(all, []database.Word{{Text: w.Text, Prefix: w.Prefix}})
	}
	either := func(list []database.Word) {
		if len(list) > 0 {
			all = append(all, list)
		}
	}
	var rooms, keys []database.Word
	for _, r := range q.Rooms {
		rooms = append(rooms, database.Word{Text: roomWord(r)})
	}
	for _, k := range q.Keys {
		keys = append(keys, database.Word{Text: keySign + k})
	}
	either(rooms)
	either(keys)
	return all
}
