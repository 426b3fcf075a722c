package statetree

import (
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/bits"
	"sync/atomic"
)

const (
	width    = 8  // slots of a node
	maxDepth = 21 // of a node; the root's is 0. The last level has one bit left
)

// node is a decoded node. It never changes.
type node struct {
	entryBits, childBits uint8
	entries              []Entry  // in slot order
	children             []*child // in slot order
}

// child is a reference to a node that is loaded when it is needed.
type child struct {
	id   ID
	node atomic.Pointer[node]
}

// mix is a bijection: it is made of steps that each can be undone.
func mix(k Key) uint64 {
	x := uint64(k)
	x ^= x >> 30
	x *= 0xbf58476d1ce4e5b9
	x ^= x >> 27
	x *= 0x94d049bb133111eb
	x ^= x >> 31
	return x
}

// slot returns which slot of a node at depth the mixed key m belongs into.
func slot(m uint64, depth int) int {
	if depth == maxDepth {
		return int(m & 1)
	}
	return int(m >> (61 - 3*depth) & 7)
}

// under reports whether the mixed key m belongs below the path that led to a
// node at depth; path has its bits at the top.
func under(m, path uint64, depth int) bool {
	return depth == 0 || (m^path)>>(64-3*depth) == 0
}

// descend returns the path to the child in slot s of a node at depth.
func descend(path uint64, depth, s int) uint64 {
	return path | uint64(s)<<(61-3*depth)
}

// at returns what is in slot s: a child, or an entry if ok.
func (n *node) at(s int) (c *child, e Entry, ok bool) {
	bit := uint8(1) << s
	switch {
	case n.childBits&bit != 0:
		return n.children[bits.OnesCount8(n.childBits&(bit-1))], Entry{}, false
	case n.entryBits&bit != 0:
		return nil, n.entries[bits.OnesCount8(n.entryBits&(bit-1))], true
	}
	return nil, Entry{}, false
}

// encode returns the bytes of n.
func (n *node) encode() []byte {
	b := make([]byte, 0, 2+len(n.entries)*10+len(n.children)*8)
	b = append(b, n.entryBits, n.childBits)
	for _, e := range n.entries {
		b = binary.AppendUvarint(b, uint64(e.Key))
		b = binary.AppendUvarint(b, uint64(e.Value))
	}
	for _, c := range n.children {
		b = binary.BigEndian.AppendUint64(b, uint64(c.id))
	}
	return b
}

// hash returns the ID of a node with the encoding b.
func hash(b []byte) ID {
	sum := sha256.Sum256(b)
	return max(1, ID(binary.BigEndian.Uint64(sum[:])>>1)) // 0 is the empty tree
}

var errNode = errors.New("malformed node")

// decode parses the bytes of a node, without a look at where it stands.
func decode(b []byte) (*node, error) {
	if len(b) < 2 {
		return nil, errNode
	}
	n := &node{entryBits: b[0], childBits: b[1]}
	entries, children := bits.OnesCount8(n.entryBits), bits.OnesCount8(n.childBits)
	if n.entryBits&n.childBits != 0 || entries+children == 0 {
		return nil, errNode
	}
	b = b[2:]
	if entries > 0 {
		n.entries = make([]Entry, entries)
	}
	for i := range n.entries {
		k, rest, ok := uvarint(b)
		if !ok {
			return nil, errNode
		}
		v, rest, ok := uvarint(rest)
		if !ok || v == 0 {
			return nil, errNode
		}
		n.entries[i] = Entry{Key: Key(k), Value: Value(v)}
		b = rest
	}
	if len(b) != 8*children {
		return nil, errNode
	}
	if children > 0 {
		n.children = make([]*child, children)
		block := make([]child, children)
		for i := range n.children {
			id := ID(binary.BigEndian.Uint64(b[8*i:]))
			if id <= 0 {
				return nil, errNode
			}
			block[i].id = id
			n.children[i] = &block[i]
		}
	}
	return n, nil
}

// uvarint reads a varint that is as short as can be.
func uvarint(b []byte) (x uint64, rest []byte, ok bool) {
	x, n := binary.Uvarint(b)
	if n <= 0 || n > 1 && b[n-1] == 0 {
		return 0, nil, false
	}
	return x, b[n:], true
}

// check reports whether n may stand at the end of path: its entries belong
// there, and it is not one that its parent should hold as an entry.
func (n *node) check(path uint64, depth int) error {
	if depth > maxDepth || depth == maxDepth && n.childBits != 0 || depth > 0 && len(n.entries) == 1 && n.childBits == 0 {
		return errNode
	}
	i := 0
	for s := range width {
		if n.entryBits&(1<<s) == 0 {
			continue
		}
		if m := mix(n.entries[i].Key); slot(m, depth) != s || !under(m, path, depth) {
			return errNode
		}
		i++
	}
	return nil
}

// place is a child and where it stands.
type place struct {
	c     *child
	path  uint64
	depth int
}

// maxLoad is how many nodes a Loader is asked for at once.
const maxLoad = 2048

// load makes sure that all of places are loaded.
func load(l Loader, places []place) error {
	var missing []place
	for _, p := range places {
		if p.c.node.Load() == nil {
			missing = append(missing, p)
		}
	}
	for len(missing) > 0 {
		n := min(len(missing), maxLoad)
		if err := loadSome(l, missing[:n]); err != nil {
			return err
		}
		missing = missing[n:]
	}
	return nil
}

func loadSome(l Loader, places []place) error {
	ids := make([]ID, len(places))
	for i, p := range places {
		ids[i] = p.c.id
	}
	data, err := l.Nodes(ids)
	if err != nil {
		return fmt.Errorf("load %d nodes of a state tree: %w", len(ids), err)
	}
	if len(data) != len(ids) {
		return fmt.Errorf("load %d nodes of a state tree: the loader returned %d", len(ids), len(data))
	}
	for i, p := range places {
		if err := p.fill(data[i]); err != nil {
			return err
		}
	}
	return nil
}

// fill decodes data as the node of p.
func (p place) fill(data []byte) error {
	if data == nil {
		return &NodeError{ID: p.c.id, Err: errMissing}
	}
	if hash(data) != p.c.id {
		return &NodeError{ID: p.c.id, Err: errHash}
	}
	n, err := decode(data)
	if err == nil {
		err = n.check(p.path, p.depth)
	}
	if err != nil {
		return &NodeError{ID: p.c.id, Err: err}
	}
	p.c.node.CompareAndSwap(nil, n)
	return nil
}

var (
	errMissing = errors.New("not in the database")
	errHash    = errors.New("the content does not have this hash")
)

// NodeError is returned for a node that is missing or damaged in the database.
type NodeError struct {
	ID  ID
	Err error
}

// Error implements error.
func (e *NodeError) Error() string { return fmt.Sprintf("state tree node %d: %v", e.ID, e.Err) }

// Unwrap returns what is wrong with the node.
func (e *NodeError) Unwrap() error { return e.Err }
