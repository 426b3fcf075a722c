package store

import (
	"context"
	"fmt"
	"sync"
)

// gaps are the events of all rooms before which others are missing: one for most
// rooms that other servers are in.
type gaps struct {
	mu     sync.RWMutex // tier 1; guards events
	events map[EventNum]struct{}
}

func (g *gaps) set(event EventNum, open bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if open {
		g.events[event] = struct{}{}
	} else {
		delete(g.events, event)
	}
}

func (s *Store) loadGaps(ctx context.Context) error {
	rows, err := s.db.Query(ctx, `SELECT event FROM gaps`)
	if err != nil {
		return fmt.Errorf("read gaps: %w", err)
	}
	list, err := scanNums(rows)
	s.gaps.events = make(map[EventNum]struct{}, len(list))
	for _, n := range list {
		s.gaps.events[n] = struct{}{}
	}
	return err
}

// BehindGap tells whether events before this one of a timeline are missing here.
func (s *Store) BehindGap(event EventNum) bool {
	s.gaps.mu.RLock()
	defer s.gaps.mu.RUnlock()
	_, found := s.gaps.events[event]
	return found
}

// Gaps lists the events of a room's timeline before which others are missing
// here.
func (s *Store) Gaps(ctx context.Context, room RoomNum) ([]EventNum, error) {
	rows, err := s.db.Query(ctx, `SELECT event FROM gaps WHERE room = $1 ORDER BY event`, room)
	if err != nil {
		return nil, fmt.Errorf("read gaps: %w", err)
	}
	return scanNums(rows)
}

// PutGap remembers that events before one are missing, or with open false that
// none are any more.
func (tx *Tx) PutGap(ctx context.Context, room RoomNum, event EventNum, open bool) error {
	q := `DELETE FROM gaps WHERE room = $1 AND event = $2`
	if open {
		q = `INSERT INTO gaps (room, event) VALUES ($1, $2) ON CONFLICT DO NOTHING`
	}
	if err := tx.Exec(ctx, q, room, event); err != nil {
		return fmt.Errorf("put gap: %w", err)
	}
	tx.OnCommit(func() { tx.s.gaps.set(event, open) })
	return nil
}
