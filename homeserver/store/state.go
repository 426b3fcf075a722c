package store

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"switchboard/homeserver/database"
	"switchboard/homeserver/statetree"
)

// pair is what one number of a state key stands for.
type pair struct{ typ, key string }

// StateKey finds the number of a type and state key, and false if no event
// ever had it.
func (s *Store) StateKey(ctx context.Context, typ, key string) (statetree.Key, bool, error) {
	if k, ok := s.stateKeys.Find(pair{typ, key}); ok {
		return k, true, nil
	}
	return s.readStateKey(ctx, s.db, typ, key)
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

func (s *Store) keepStateKey(typ, key string, k statetree.Key) {
	s.stateKeys.Put(pair{typ, key}, k, 150+len(typ)+len(key))
}

// StateKey finds the number of a type and state key, or gives it one.
func (tx *Tx) StateKey(ctx context.Context, typ, key string) (statetree.Key, error) {
	if k, ok := tx.s.stateKeys.Find(pair{typ, key}); ok {
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
	for part := range slices.Chunk(missing, 500) {
		rows, err := n.s.db.Query(n.ctx, `SELECT id, data FROM state_nodes WHERE id IN LIST($1)`, part)
		if err != nil {
			return nil, fmt.Errorf("read state nodes: %w", err)
		}
		for rows.Next() {
			var id statetree.ID
			var data []byte
			if err := rows.Scan(&id, &data); err != nil {
				rows.Close()
				return nil, fmt.Errorf("read state nodes: %w", err)
			}
			read[id] = data
			n.s.treeNodes.Put(id, data, len(data)+120)
		}
		rows.Close()
		if err := rows.Err(); err != nil {
			return nil, fmt.Errorf("read state nodes: %w", err)
		}
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

// PutNodes stores new nodes of a state tree. A node that is there already must
// have the same content: the names are hashes of 63 bits, and should two
// contents ever share one, the transaction fails before anything is mixed up.
func (tx *Tx) PutNodes(ctx context.Context, list []statetree.Node) error {
	const q = `INSERT INTO state_nodes (id, data) VALUES ($1, $2) ON CONFLICT (id) DO UPDATE
		SET data = CASE WHEN state_nodes.data = excluded.data THEN excluded.data END`
	for _, n := range list {
		if err := tx.Exec(ctx, q, n.ID, n.Data); err != nil {
			return fmt.Errorf("put state node: %w", err)
		}
	}
	tx.OnCommit(func() {
		for _, n := range list {
			tx.s.treeNodes.Put(n.ID, n.Data, len(n.Data)+120)
		}
	})
	return nil
}
