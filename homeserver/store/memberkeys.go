package store

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"switchboard/homeserver/event"
	"switchboard/homeserver/statetree"
)

// memberKeys remembers which numbers of state keys stand for members, in two bits
// for each number below mostMemberKeys.
type memberKeys struct {
	mu            sync.RWMutex // tier 1; guards all below
	known, member []uint64
}

// mostMemberKeys bounds memberKeys to 4 MiB.
const mostMemberKeys = 1 << 24

// find tells whether k stands for a member, and whether that is known.
func (m *memberKeys) find(k statetree.Key) (member, known bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	i, bit := k/64, uint64(1)<<(k%64)
	if i >= statetree.Key(len(m.known)) {
		return false, false
	}
	return m.member[i]&bit != 0, m.known[i]&bit != 0
}

// put remembers keys, of which some stand for members.
func (m *memberKeys) put(keys []statetree.Key, members map[statetree.Key]bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for _, k := range keys {
		if k >= mostMemberKeys {
			continue
		}
		i, bit := int(k/64), uint64(1)<<(k%64)
		if more := i + 1 - len(m.known); more > 0 {
			m.known, m.member = append(m.known, make([]uint64, more)...), append(m.member, make([]uint64, more)...)
		}
		m.known[i] |= bit
		if members[k] {
			m.member[i] |= bit
		}
	}
}

// AreMembers tells which numbers of state keys stand for members.
func (s *Store) AreMembers(ctx context.Context, keys []statetree.Key) (map[statetree.Key]bool, error) {
	members := make(map[statetree.Key]bool, len(keys))
	var unknown []statetree.Key
	for _, k := range keys {
		switch member, known := s.memberKeys.find(k); {
		case member:
			members[k] = true
		case !known:
			unknown = append(unknown, k)
		}
	}
	slices.Sort(unknown)
	unknown = slices.Compact(unknown)
	list, err := s.KeysOfType(ctx, event.TypeMember, unknown)
	if err != nil {
		return nil, err
	}
	for _, k := range list {
		members[k] = true
	}
	s.memberKeys.put(unknown, members)
	return members, nil
}

// FindStateKeys brings the numbers of the state keys of a type into memory, where
// StateKey finds them.
func (s *Store) FindStateKeys(ctx context.Context, typ string, keys []string) error {
	var missing []string
	for _, key := range keys {
		if _, ok := s.stateKeys.Find(pair{typ, key}); !ok {
			missing = append(missing, key)
		}
	}
	found := func(key string, k statetree.Key) { s.keepStateKey(typ, key, k) }
	for part := range slices.Chunk(missing, keysAtOnce) {
		if err := eachStateKey(ctx, s.db, typ, part, found); err != nil {
			return fmt.Errorf("read state keys: %w", err)
		}
	}
	return nil
}
