package store

import (
	"cmp"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strings"

	"switchboard/homeserver/matrix"
)

// The types of relations that are aggregated.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#aggregations-of-child-events
const (
	Threaded  = "m.thread"
	Replacing = "m.replace"
	Referring = "m.reference"
)

// relation is the part of a content that refers to another event.
type relation struct {
	RelatesTo struct {
		Type  string         `json:"rel_type"`
		Event matrix.EventID `json:"event_id"`
	} `json:"m.relates_to"`
}

// longestRelation bounds the length of what is indexed, as databases do.
const longestRelation = 255

// putRelation indexes an event of a timeline under the event that it refers to.
// Relations that could not be asked for are left out.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#forming-relationships-between-events
func (tx *Tx) putRelation(ctx context.Context, e *Event) error {
	typ, target := e.relation()
	if typ == "" {
		return nil
	}
	err := tx.Exec(ctx, `INSERT INTO relations (target, pos, event, rel_type) VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING`,
		eventKey(target), e.Pos, e.Num, typ)
	if err == nil && typ == Threaded {
		err = tx.Exec(ctx, `INSERT INTO threads (room, root, last) VALUES ($1, $2, $3)
			ON CONFLICT (room, root) DO UPDATE SET last = excluded.last WHERE threads.last < excluded.last`, e.Room, eventKey(target), e.Pos)
	}
	if err != nil {
		return fmt.Errorf("put relation: %w", err)
	}
	return nil
}

// ThreadNews gives the places of the newest events of threads of a room behind since
// and not behind upto, and false if memory does not reach back that far.
func (s *Store) ThreadNews(room RoomNum, since, upto int64) (places []int64, sure bool) {
	events, sure := s.log.inRoom(room, since, upto)
	last := map[matrix.EventID]int64{}
	for _, e := range events {
		if typ, root := e.relation(); typ == Threaded {
			last[root] = e.Pos
		}
	}
	return slices.Collect(maps.Values(last)), sure
}

// relation is how an event of a timeline relates to which other one, empty if it
// does not or can not be asked for.
func (e *Event) relation() (typ string, target matrix.EventID) {
	var r relation
	if e.Pos == 0 || e.PDU.ContentValue("m.relates_to") == nil || json.Unmarshal(e.PDU.Content, &r) != nil ||
		r.RelatesTo.Type == "" || r.RelatesTo.Event == "" {
		return "", ""
	}
	for _, text := range []string{r.RelatesTo.Type, string(r.RelatesTo.Event)} {
		if len(text) > longestRelation || strings.IndexByte(text, 0) >= 0 {
			return "", ""
		}
	}
	return r.RelatesTo.Type, r.RelatesTo.Event
}

// shortenThread takes an event out of the thread that it was in.
func (tx *Tx) shortenThread(ctx context.Context, e *Event) error {
	typ, root := e.relation()
	if typ != Threaded {
		return nil
	}
	key := eventKey(root)
	err := tx.Exec(ctx, `UPDATE threads SET last = COALESCE((SELECT MAX(f.pos) FROM relations f JOIN events r ON r.num = f.event
		WHERE f.target = $2 AND f.rel_type = $3 AND r.room = $1 AND r.redaction IS NULL), 0) WHERE room = $1 AND root = $2`, e.Room, key, Threaded)
	if err == nil {
		err = tx.Exec(ctx, `DELETE FROM threads WHERE room = $1 AND root = $2 AND last = 0`, e.Room, key)
	}
	if err != nil {
		return fmt.Errorf("shorten thread: %w", err)
	}
	return nil
}

// Relating are the events of a room's timeline that refer to another event.
type Relating struct {
	Room    RoomNum
	Target  matrix.EventID
	RelType string // "" for every type
	Depth   int    // 1: only those that refer to the target itself; 2: also, with any type, those that refer to these; and so on

	Since, Upto int64 // places behind the one and not behind the other
	Forward     bool  // the oldest first

	Without []matrix.UserID // who sent them
}

// What the questions for related events have in common: where they are looked
// for, and which of them count.
const (
	relatingDirectly = `SELECT f.event FROM relations f JOIN events e ON e.num = f.event
		WHERE f.target = $1 AND ($2 = '' OR f.rel_type = $2) AND ` + relatingCounts
	relatingDeeply = `WITH RECURSIVE found (event, pos, depth) AS (
			SELECT event, pos, 1 FROM relations WHERE target = $1 AND ($2 = '' OR rel_type = $2)
			UNION
			SELECT r.event, r.pos, f.depth + 1 FROM found f JOIN events e ON e.num = f.event JOIN relations r ON r.target = e.event_id
			WHERE e.room = $3 AND f.depth < $8
		)
		SELECT f.event FROM found f JOIN events e ON e.num = f.event WHERE ` + relatingCounts + ` GROUP BY f.event, f.pos`
	relatingCounts = `e.room = $3 AND e.redaction IS NULL AND f.pos > $4 AND f.pos <= $5 AND e.sender NOT IN LIST($7)`
)

// Related gives up to limit events that refer to another and are not redacted, the
// newest first unless q says otherwise.
func (s *Store) Related(ctx context.Context, q Relating, limit int) ([]*Event, error) {
	text, order := relatingDirectly, ` ORDER BY f.pos DESC LIMIT $6`
	args := []any{eventKey(q.Target), q.RelType, q.Room, q.Since, q.Upto, limit, q.Without}
	if q.Depth > 1 {
		text, args = relatingDeeply, append(args, q.Depth)
	}
	if q.Forward {
		order = ` ORDER BY f.pos LIMIT $6`
	}
	return s.places(ctx, text+order, args...)
}

// Children are the events that refer to another one by one type of relation.
type Children struct {
	Count int
	Last  int64 // the place of the newest
	Own   bool  // some are of the user who asks
}

// ChildrenOf counts the events that refer to others, and are not redacted, by
// the types of relations that are aggregated. What users in without sent does
// not count, nor what stands behind the place upto.
func (s *Store) ChildrenOf(ctx context.Context, parents []EventNum, user matrix.UserID, without []matrix.UserID, upto int64) (map[EventNum]map[string]Children, error) {
	rows, err := s.db.Query(ctx, `SELECT p.num, f.rel_type, COUNT(*), MAX(f.pos), MAX(CASE WHEN e.sender = $2 THEN 1 ELSE 0 END)
		FROM events p JOIN relations f ON f.target = p.event_id JOIN events e ON e.num = f.event
		WHERE p.num IN LIST($1) AND f.rel_type IN ('m.thread', 'm.replace', 'm.reference')
			AND e.room = p.room AND e.redaction IS NULL AND e.sender NOT IN LIST($3) AND f.pos <= $4
		GROUP BY p.num, f.rel_type`, parents, user, without, upto)
	if err != nil {
		return nil, fmt.Errorf("count relations: %w", err)
	}
	defer rows.Close()
	found := map[EventNum]map[string]Children{}
	for rows.Next() {
		var parent EventNum
		var typ string
		var c Children
		var own int
		if err := rows.Scan(&parent, &typ, &c.Count, &c.Last, &own); err != nil {
			return nil, fmt.Errorf("count relations: %w", err)
		}
		c.Own = own > 0
		if found[parent] == nil {
			found[parent] = map[string]Children{}
		}
		found[parent][typ] = c
	}
	return found, rows.Err()
}

// ChildrenBy gives up to limit events that refer to others by a type of relation
// and are not redacted, the newest first.
func (s *Store) ChildrenBy(ctx context.Context, parents []EventNum, typ string, limit int) ([]*Event, error) {
	return s.places(ctx, `SELECT f.event FROM events p JOIN relations f ON f.target = p.event_id JOIN events e ON e.num = f.event
		WHERE p.num IN LIST($1) AND f.rel_type = $2 AND e.room = p.room AND e.redaction IS NULL
		ORDER BY f.pos DESC LIMIT $3`, parents, typ, limit)
}

// Annotations gives the events by which user annotates another one and which are
// not redacted.
func (s *Store) Annotations(ctx context.Context, e *Event, user matrix.UserID) ([]*Event, error) {
	return s.places(ctx, `SELECT f.event FROM relations f JOIN events e ON e.num = f.event
		WHERE f.target = $1 AND f.rel_type = 'm.annotation' AND e.room = $2 AND e.sender = $3 AND e.redaction IS NULL`,
		eventKey(e.PDU.ID), e.Room, user)
}

// ThreadQuery asks for threads of a room.
type ThreadQuery struct {
	Room   RoomNum
	Before int64         // threads whose newest event stands before this place
	Of     matrix.UserID // only threads in which the user wrote, or whose root they did; "" for all

	Without []matrix.UserID // whose events do not count
	Upto    int64           // nor do those behind this place; 0 for none
}

// The place of the newest event of a thread t: of all, and of those that count.
const (
	threadLast         = `t.last`
	threadLastCounting = `CASE WHEN EXISTS (SELECT 1 FROM events n WHERE n.room = $1 AND n.pos = t.last AND n.pos <= $6 AND n.sender NOT IN LIST($5)) THEN t.last
		ELSE (SELECT MAX(f.pos) FROM relations f JOIN events e ON e.num = f.event
			WHERE f.target = t.root AND f.rel_type = 'm.thread' AND e.room = $1 AND e.redaction IS NULL AND f.pos <= $6 AND e.sender NOT IN LIST($5)) END`
)

// Thread is a thread of a room.
type Thread struct {
	Root *Event
	Last int64 // the place of its newest event that counts
}

// Threads gives up to limit threads whose roots are known, those with the newest
// events first. One without events that count is none.
func (s *Store) Threads(ctx context.Context, q ThreadQuery, limit int) ([]Thread, error) {
	last, args := threadLast, []any{q.Room, q.Before, q.Of, limit}
	if len(q.Without) > 0 || q.Upto != 0 {
		last, args = threadLastCounting, append(args, q.Without, cmp.Or(q.Upto, math.MaxInt64))
	}
	rows, err := s.db.Query(ctx, `SELECT num, last FROM (SELECT p.num, `+last+` AS last FROM threads t JOIN events p ON p.event_id = t.root
		WHERE t.room = $1 AND p.room = $1 AND p.pos IS NOT NULL AND ($3 = '' OR p.sender = $3 OR EXISTS (
			SELECT 1 FROM relations f JOIN events e ON e.num = f.event
			WHERE f.target = t.root AND f.rel_type = 'm.thread' AND e.room = $1 AND e.redaction IS NULL AND e.sender = $3))) found
		WHERE last < $2 ORDER BY last DESC LIMIT $4`, args...)
	if err != nil {
		return nil, fmt.Errorf("read threads: %w", err)
	}
	defer rows.Close()
	var list []Thread
	var roots []EventNum
	for rows.Next() {
		var t Thread
		var root EventNum
		if err := rows.Scan(&root, &t.Last); err != nil {
			return nil, fmt.Errorf("read threads: %w", err)
		}
		list, roots = append(list, t), append(roots, root)
	}
	if err := rows.Err(); err != nil {
		return nil, fmt.Errorf("read threads: %w", err)
	}
	rows.Close() // the connection is free before the events are asked for
	found, err := s.EventsByNum(ctx, roots)
	for i := range list {
		list[i].Root = found[roots[i]]
	}
	return list, err
}
