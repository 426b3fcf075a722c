package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"switchboard/homeserver/database"
	"switchboard/homeserver/eventauth"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/stateres"
	"switchboard/homeserver/statetree"
)

// cover reads the cover index on behalf of one piece of work.
type cover struct {
	ctx context.Context
	q   querier
}

// Cover is the stored cover index, for one piece of work under ctx.
func (s *Store) Cover(ctx context.Context) stateres.Index { return cover{ctx, s.db} }

// each runs a query and calls f for every row.
func (c cover) each(f func(scan func(...any) error) error, q string, args ...any) error {
	rows, err := c.q.Query(c.ctx, q, args...)
	if err != nil {
		return fmt.Errorf("read cover index: %w", err)
	}
	defer rows.Close()
	for rows.Next() {
		if err := f(rows.Scan); err != nil {
			return fmt.Errorf("read cover index: %w", err)
		}
	}
	return rows.Err()
}

// Positions implements stateres.Index.
func (c cover) Positions(nums []stateres.Num) ([]stateres.Num, error) {
	found := make(map[stateres.Num]stateres.Num, len(nums))
	for part := range slices.Chunk(nums, 500) {
		err := c.each(func(scan func(...any) error) error {
			var num, chain stateres.Num
			err := scan(&num, &chain)
			found[num] = chain
			return err
		}, `SELECT num, chain FROM events WHERE num IN LIST($1) AND chain IS NOT NULL`, plainNums(part))
		if err != nil {
			return nil, err
		}
	}
	list := make([]stateres.Num, len(nums))
	for i, n := range nums {
		list[i] = found[n]
	}
	return list, nil
}

func plainNums(nums []stateres.Num) []int64 {
	list := make([]int64, len(nums))
	for i, n := range nums {
		list[i] = int64(n)
	}
	return list
}

// Chains implements stateres.Index.
func (c cover) Chains(chains []stateres.Num) ([]*stateres.Chain, error) {
	found := make(map[stateres.Num]*stateres.Chain, len(chains))
	for part := range slices.Chunk(chains, 500) {
		err := c.each(func(scan func(...any) error) error {
			var num stateres.Num
			ch := &stateres.Chain{}
			err := scan(&num, &ch.Key.Type, &ch.Key.StateKey, &ch.Last)
			found[num] = ch
			return err
		}, `SELECT e.num, k.type, k.state_key, (SELECT MAX(l.num) FROM events l WHERE l.chain = e.num)
			FROM events e JOIN state_keys k ON k.num = e.key WHERE e.num IN LIST($1)`, plainNums(part))
		if err != nil {
			return nil, err
		}
		err = c.each(func(scan func(...any) error) error {
			var l stateres.Link
			err := scan(&l.From.Chain, &l.From.Num, &l.To.Chain, &l.To.Num)
			if ch := found[l.From.Chain]; ch != nil {
				ch.Links = append(ch.Links, l)
			}
			return err
		}, `SELECT from_chain, from_num, to_chain, to_num FROM cover_links
			WHERE from_chain IN LIST($1) ORDER BY from_chain, from_num`, plainNums(part))
		if err != nil {
			return nil, err
		}
	}
	list := make([]*stateres.Chain, len(chains))
	for i, n := range chains {
		list[i] = found[n]
	}
	return list, nil
}

// Members implements stateres.Index.
func (c cover) Members(chain, upto stateres.Num, limit int) ([]stateres.Num, error) {
	var list []stateres.Num
	err := c.each(func(scan func(...any) error) error {
		var n stateres.Num
		err := scan(&n)
		list = append(list, n)
		return err
	}, `SELECT num FROM events WHERE chain = $1 AND num <= $2 ORDER BY num DESC LIMIT $3`, chain, upto, limit)
	return list, err
}

// Citing implements stateres.Index.
func (c cover) Citing(spans []stateres.Span) ([]stateres.Citations, error) {
	list := make([]stateres.Citations, len(spans))
	var err error
	for i, sp := range spans {
		if sp.Links > 0 {
			if list[i].Links, err = c.links(sp); err != nil {
				return nil, err
			}
		}
		if sp.Leaves > 0 {
			if list[i].Leaves, err = c.leaves(sp); err != nil {
				return nil, err
			}
		}
	}
	return list, nil
}

// links reads the links into one chain.
func (c cover) links(sp stateres.Span) ([]stateres.Link, error) {
	const q = `SELECT from_chain, from_num, to_chain, to_num FROM cover_links
		WHERE to_chain = $1 AND to_num >= $2 AND ($3 = 0 OR to_num < $3 OR to_num = $3 AND from_num < $4)
		ORDER BY to_num DESC, from_num DESC LIMIT $5`
	var list []stateres.Link
	err := c.each(func(scan func(...any) error) error {
		var l stateres.Link
		err := scan(&l.From.Chain, &l.From.Num, &l.To.Chain, &l.To.Num)
		list = append(list, l)
		return err
	}, q, sp.Chain, sp.From, sp.AfterLink.To.Num, sp.AfterLink.From.Num, sp.Links)
	return list, err
}

// leaves reads the leaves of one chain.
func (c cover) leaves(sp stateres.Span) ([]stateres.Leaf, error) {
	const q = `SELECT k.type, k.state_key, l.event, l.chain, l.to_num FROM cover_leaves l JOIN state_keys k ON k.num = l.key
		WHERE l.chain = $1 AND l.to_num >= $2 AND ($3 = 0 OR l.to_num < $3 OR l.to_num = $3 AND l.event < $4)
		ORDER BY l.to_num DESC, l.event DESC LIMIT $5`
	var list []stateres.Leaf
	err := c.each(func(scan func(...any) error) error {
		var l stateres.Leaf
		err := scan(&l.Key.Type, &l.Key.StateKey, &l.Event, &l.To.Chain, &l.To.Num)
		list = append(list, l)
		return err
	}, q, sp.Chain, sp.From, sp.AfterLeaf.To.Num, sp.AfterLeaf.Event, sp.Leaves)
	return list, err
}

// uncovered is a state event that the cover index lacks.
type uncovered struct {
	num  EventNum
	key  eventauth.Key
	auth []matrix.EventID
}

// coverAtOnce is how many events one transaction adds to the cover index.
const coverAtOnce = 1000

// CoverRoom brings the cover index of a room up to date.
func (s *Store) CoverRoom(ctx context.Context, room RoomNum) error {
	for {
		more, err := s.coverSome(ctx, room)
		if err != nil || !more {
			return err
		}
	}
}

// coverSome adds some events to the index and tells whether there may be more.
func (s *Store) coverSome(ctx context.Context, room RoomNum) (bool, error) {
	var upto EventNum
	err := s.db.QueryRow(ctx, `SELECT upto FROM covered WHERE room = $1`, room).Scan(&upto)
	if err != nil && !errors.Is(err, database.ErrNoRows) {
		return false, fmt.Errorf("read cover index: %w", err)
	}
	events, err := s.queryEvents(ctx, `SELECT `+eventColumns+` FROM events
		WHERE room = $1 AND num > $2 AND key IS NOT NULL ORDER BY num LIMIT $3`, room, upto, coverAtOnce)
	if err != nil || len(events) == 0 {
		return false, err
	}
	list := make([]uncovered, 0, len(events))
	var ids []matrix.EventID
	for _, e := range events {
		if e.Status != Rejected {
			list = append(list, uncovered{e.Num, eventauth.Key{Type: e.PDU.Type, StateKey: *e.PDU.StateKey}, e.PDU.AuthEvents})
			ids = append(ids, e.PDU.AuthEvents...)
		}
	}
	auth, err := s.EventsByID(ctx, ids)
	if err != nil {
		return false, err
	}
	err = s.Update(ctx, func(tx *Tx) error {
		b := stateres.NewBuilder(cover{ctx, tx})
		for _, u := range list {
			if err := tx.cover(ctx, b, u, auth); err != nil {
				return err
			}
		}
		return tx.Exec(ctx, `INSERT INTO covered (room, upto) VALUES ($1, $2)
			ON CONFLICT (room) DO UPDATE SET upto = excluded.upto`, room, events[len(events)-1].Num)
	})
	return len(events) == coverAtOnce, err
}

// cover writes the place of one event in the index.
func (tx *Tx) cover(ctx context.Context, b *stateres.Builder, u uncovered, auth map[matrix.EventID]*Event) error {
	nums := make([]stateres.Num, 0, len(u.auth))
	for _, id := range u.auth {
		if e := auth[id]; e != nil && e.Status != Rejected {
			nums = append(nums, stateres.Num(e.Num))
		}
	}
	entry, err := b.Add(stateres.Num(u.num), u.key, nums)
	if err != nil {
		return fmt.Errorf("cover event %d: %w", u.num, err)
	}
	if entry.Position.Chain != 0 {
		if err := tx.Exec(ctx, `UPDATE events SET chain = $1 WHERE num = $2`, entry.Position.Chain, u.num); err != nil {
			return fmt.Errorf("cover event: %w", err)
		}
	}
	for _, l := range entry.Links {
		err := tx.Exec(ctx, `INSERT INTO cover_links (from_chain, from_num, to_chain, to_num) VALUES ($1, $2, $3, $4)`,
			l.From.Chain, l.From.Num, l.To.Chain, l.To.Num)
		if err != nil {
			return fmt.Errorf("cover event: %w", err)
		}
	}
	for _, l := range entry.Leaves {
		var k statetree.Key
		if k, err = tx.StateKey(ctx, l.Key.Type, l.Key.StateKey); err != nil {
			return err
		}
		err := tx.Exec(ctx, `INSERT INTO cover_leaves (chain, key, event, to_num) VALUES ($1, $2, $3, $4)
			ON CONFLICT (chain, key) DO UPDATE SET event = excluded.event, to_num = excluded.to_num
			WHERE excluded.to_num >= cover_leaves.to_num`, l.To.Chain, k, l.Event, l.To.Num)
		if err != nil {
			return fmt.Errorf("cover event: %w", err)
		}
	}
	return nil
}
