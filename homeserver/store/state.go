package store

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"

	"switchboard/homeserver/database"
	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
)

// pair is what one number of a state key stands for.
type pair struct{ typ, key string }

// StateKey finds the number of a type and state key, and false if no event
// ever had it.
func (s *Store) StateKey(ctx context.Context, typ, key string) (statetree.Key, bool, error) {
	if k, ok := s.stateKeys.Find(pair{typ, key}); ok {
		return k, k != 0, nil
	}
	made := s.keysMade.Load()
	k, ok, err := s.readStateKey(ctx, s.db, typ, key)
	if err == nil && !ok && s.keysMade.Load() == made {
		s.stateKeys.Keep(pair{typ, key}, 0, 150+len(typ)+len(key), func(old statetree.Key) bool { return old != 0 })
		if s.keysMade.Load() != made { // perhaps this one
			s.stateKeys.Drop(pair{typ, key})
		}
	}
	return k, ok, err
}

func (s *Store) readStateKey(ctx context.Context, q querier, typ, key string) (statetree.Key, bool, error) {
	var k statetree.Key
	err := q.QueryRow(ctx, `SELECT num FROM state_keys WHERE state_key = $1 AND type = $2`, key, typ).Scan(&k)
	if errors.Is(err, database.ErrNoRows) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, fmt.Errorf("read state key: %w", err)
	}
	s.keepStateKey(typ, key, k)
	return k, true, nil
}

// MemberKeys picks of the numbers of state keys those that stand for memberships of
// a server's users.
func (s *Store) MemberKeys(ctx context.Context, server matrix.ServerName, keys []statetree.Key) ([]statetree.Key, error) {
	return s.pickKeys(ctx, keys, event.TypeMember, "%:"+likeText(string(server)), func(user string) bool {
		return matrix.UserID(user).Server() == server // LIKE may not tell letters' cases apart
	})
}

// KeysOfType picks of the numbers of state keys those of a type of events.
func (s *Store) KeysOfType(ctx context.Context, typ string, keys []statetree.Key) ([]statetree.Key, error) {
	return s.pickKeys(ctx, keys, typ, "%", func(string) bool { return true })
}

// pickKeys picks of the numbers of state keys those of a type whose state key is
// like a pattern and wanted.
func (s *Store) pickKeys(ctx context.Context, keys []statetree.Key, typ, like string, wanted func(string) bool) ([]statetree.Key, error) {
	var picked []statetree.Key
	for part := range slices.Chunk(keys, keysAtOnce) {
		nums := make([]int64, len(part))
		for i, k := range part {
			nums[i] = int64(k)
		}
		rows, err := s.db.Query(ctx, `SELECT num, state_key FROM state_keys
			WHERE num IN LIST($1) AND type = $2 AND state_key LIKE $3 ESCAPE '!'`, nums, typ, like)
		if err != nil {
			return nil, fmt.Errorf("read state keys: %w", err)
		}
		for rows.Next() {
			var k statetree.Key
			var key string
			if err := rows.Scan(&k, &key); err != nil {
				rows.Close()
				return nil, fmt.Errorf("read state keys: %w", err)
			}
			if wanted(key) {
				picked = append(picked, k)
			}
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return nil, fmt.Errorf("read state keys: %w", err)
		}
	}
	return picked, nil
}

func (s *Store) keepStateKey(typ, key string, k statetree.Key) {
	s.keysMade.Add(1)
	s.stateKeys.Put(pair{typ, key}, k, 150+len(typ)+len(key))
}

// StateKey finds the number of a type and state key, or gives it one.
func (tx *Tx) StateKey(ctx context.Context, typ, key string) (statetree.Key, error) {
	if k, _ := tx.s.stateKeys.Find(pair{typ, key}); k != 0 {
		return k, nil
	}
	var k statetree.Key
	err := tx.QueryRow(ctx, `SELECT num FROM state_keys WHERE state_key = $1 AND type = $2`, key, typ).Scan(&k)
	if errors.Is(err, database.ErrNoRows) {
		var n int64
		if n, err = tx.NextNumber(ctx, "state_keys"); err != nil {
			return 0, err
		}
		k = statetree.Key(n)
		err = tx.Exec(ctx, `INSERT INTO state_keys (num, type, state_key) VALUES ($1, $2, $3)`, k, typ, key)
	}
	if err != nil {
		return 0, fmt.Errorf("number state key: %w", err)
	}
	tx.OnCommit(func() { tx.s.keepStateKey(typ, key, k) })
	return k, nil
}

// keysAtOnce is how many state keys are looked up at once.
const keysAtOnce = 500

// setKeys sets the Key of events that are state.
func (tx *Tx) setKeys(ctx context.Context, list []*Event) error {
	var unknown []pair
	var numbers map[pair]statetree.Key
	for _, e := range list {
		if e.PDU.StateKey == nil {
			continue
		}
		if numbers == nil {
			numbers = make(map[pair]statetree.Key, len(list))
		}
		p := pair{e.PDU.Type, *e.PDU.StateKey}
		if _, seen := numbers[p]; !seen {
			k, _ := tx.s.stateKeys.Find(p)
			if k == 0 {
				unknown = append(unknown, p)
			}
			numbers[p] = k
		}
	}
	slices.SortFunc(unknown, func(a, b pair) int { // as they stand in the index
		return cmp.Or(strings.Compare(a.typ, b.typ), strings.Compare(a.key, b.key))
	})
	for len(unknown) > 0 {
		n := 1
		for n < min(len(unknown), keysAtOnce) && unknown[n].typ == unknown[0].typ {
			n++
		}
		if err := tx.numberStateKeys(ctx, unknown[:n], numbers); err != nil {
			return fmt.Errorf("number state keys: %w", err)
		}
		unknown = unknown[n:]
	}
	for _, e := range list {
		if e.PDU.StateKey != nil {
			e.Key = numbers[pair{e.PDU.Type, *e.PDU.StateKey}]
		}
	}
	return nil
}

// numberStateKeys finds or gives the numbers of some pairs of one type.
func (tx *Tx) numberStateKeys(ctx context.Context, some []pair, numbers map[pair]statetree.Key) error {
	if len(some) == 1 {
		k, err := tx.StateKey(ctx, some[0].typ, some[0].key)
		numbers[some[0]] = k
		return err
	}
	names := make([]string, len(some))
	for i, p := range some {
		names[i] = p.key
	}
	found := func(key string, k statetree.Key) { numbers[pair{some[0].typ, key}] = k }
	if err := eachStateKey(ctx, tx, some[0].typ, names, found); err != nil {
		return err
	}
	args := make([]any, 0, 3*len(some))
	var made []pair
	for _, p := range some {
		if numbers[p] != 0 {
			continue
		}
		made = append(made, p)
		n, err := tx.NextNumber(ctx, "state_keys")
		if err != nil {
			return err
		}
		numbers[p] = statetree.Key(n)
		args = append(args, n, p.typ, p.key)
	}
	tx.OnCommit(func() { // they may be many: whoever needs one reads it
		tx.s.keysMade.Add(1)
		for _, p := range made {
			tx.s.stateKeys.Drop(p)
		}
	})
	return tx.insert(ctx, `INSERT INTO state_keys (num, type, state_key)`, 3, args, "")
}

// eachStateKey gives the numbers of those of a type's state keys that have one.
func eachStateKey(ctx context.Context, q querier, typ string, keys []string, found func(key string, k statetree.Key)) error {
	rows, err := q.Query(ctx, `SELECT num, state_key FROM state_keys WHERE state_key IN LIST($1) AND type = $2`, keys, typ)
	if err != nil {
		return err
	}
	defer rows.Close()
	for rows.Next() {
		var k statetree.Key
		var key string
		if err := rows.Scan(&k, &key); err != nil {
			return err
		}
		found(key, k)
	}
	return rows.Err()
}

// nodes loads nodes of state trees.
type nodes struct {
	ctx context.Context
	s   *Store
}

// Nodes is the source of state trees' nodes, for one piece of work under ctx.
func (s *Store) Nodes(ctx context.Context) statetree.Loader { return nodes{ctx, s} }

// Nodes implements statetree.Loader.
func (n nodes) Nodes(ids []statetree.ID) ([][]byte, error) {
	found := make([][]byte, len(ids))
	var missing []int64
	for i, id := range ids {
		if b, ok := n.s.treeNodes.Find(id); ok {
			found[i] = b
		} else {
			missing = append(missing, int64(id))
		}
	}
	if len(missing) == 0 {
		return found, nil
	}
	read := make(map[statetree.ID][]byte, len(missing))
	var mu sync.Mutex // tier 1; guards read
	var group errgroup.Group
	for part := range slices.Chunk(missing, nodesAtOnce) {
		group.Go(func() error {
			some, err := n.read(part)
			mu.Lock()
			defer mu.Unlock()
			maps.Copy(read, some)
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return nil, fmt.Errorf("read state nodes: %w", err)
	}
	for i, id := range ids {
		if found[i] == nil {
			if found[i] = read[id]; found[i] == nil {
				return nil, fmt.Errorf("state node %d is missing", id)
			}
		}
	}
	return found, nil
}

// nodesAtOnce is how many nodes one query reads. Where more are wanted, several
// queries run beside each other: who reads a whole state waits for little else.
const nodesAtOnce = 500

// read reads nodes that are not in memory.
func (n nodes) read(ids []int64) (map[statetree.ID][]byte, error) {
	rows, err := n.s.db.Query(n.ctx, `SELECT id, data FROM state_nodes WHERE id IN LIST($1)`, ids)
	if err != nil {
		return nil, err
	}
	defer rows.Close()
	read := make(map[statetree.ID][]byte, len(ids))
	for rows.Next() {
		var id statetree.ID
		var data []byte
		if err := rows.Scan(&id, &data); err != nil {
			return nil, err
		}
		read[id] = data
		n.s.treeNodes.Put(id, data, len(data)+120)
	}
	return read, rows.Err()
}

// PutNodes stores new nodes of a state tree. A node that is there already must
// have the same content: the names are hashes of 63 bits, and should two
// contents ever share one, the transaction fails before anything is mixed up.
func (tx *Tx) PutNodes(ctx context.Context, list []statetree.Node) error {
	args := make([]any, 0, 2*len(list))
	for _, n := range slices.SortedFunc(slices.Values(list), func(a, b statetree.Node) int { return cmp.Compare(a.ID, b.ID) }) {
		args = append(args, int64(n.ID), n.Data)
	}
	err := tx.insert(ctx, `INSERT INTO state_nodes (id, data)`, 2, args, `ON CONFLICT (id) DO UPDATE
		SET data = CASE WHEN state_nodes.data = excluded.data THEN excluded.data END`)
	if err != nil {
		return fmt.Errorf("put state nodes: %w", err)
	}
	tx.OnCommit(func() {
		for _, n := range list {
			tx.s.treeNodes.Put(n.ID, n.Data, len(n.Data)+120)
		}
	})
	return nil
}
