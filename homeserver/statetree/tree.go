package statetree

import (
	"cmp"
	"slices"
)

// Key is the number of an interned (type, state key).
type Key uint64

// Value is the number of an event. It is never 0.
type Value int64

// ID is the name of a node, and of the tree below it: the first 63 bits of the
// SHA-256 of the node's encoding, or 0 for the empty tree. Trees with the same
// entries have the same ID.
type ID int64

// Entry is one piece of state.
type Entry struct {
	Key   Key
	Value Value
}

// Node is a node in its stored form.
type Node struct {
	ID   ID
	Data []byte
}

// Loader reads nodes from where they are stored. Nodes returns the data of
// ids in their order, nil for one that does not exist. It must not change or
// use again what it returned.
type Loader interface {
	Nodes(ids []ID) ([][]byte, error)
}

// Tree is a state. It never changes; its nodes are loaded when they are needed
// and kept as long as a tree that has them. The zero Tree is empty. A Tree may
// be used by several goroutines, with different Loaders.
type Tree struct{ root *child }

// Open returns the tree whose root is id. Nothing is loaded yet.
func Open(id ID) Tree {
	if id == 0 {
		return Tree{}
	}
	return Tree{root: &child{id: id}}
}

// ID returns the tree's ID, by which Open finds it again.
func (t Tree) ID() ID {
	if t.root == nil {
		return 0
	}
	return t.root.id
}

// Value returns the value of k, and whether there is one.
func (t Tree) Value(l Loader, k Key) (Value, bool, error) {
	m, path := mix(k), uint64(0)
	c := t.root
	for depth := 0; c != nil; depth++ {
		n := c.node.Load()
		if n == nil {
			if err := load(l, []place{{c, path, depth}}); err != nil {
				return 0, false, err
			}
			n = c.node.Load()
		}
		s := slot(m, depth)
		next, e, ok := n.at(s)
		if ok && e.Key == k {
			return e.Value, true, nil
		}
		if c = next; c != nil {
			path = descend(path, depth, s)
		}
	}
	return 0, false, nil
}

// Values returns the values of keys in their order, 0 for a key without one.
// It asks l once for each level of the tree, not once for each key.
func (t Tree) Values(l Loader, keys ...Key) ([]Value, error) {
	items := make([]item, len(keys))
	for i, k := range keys {
		items[i] = item{m: mix(k), Entry: Entry{Key: k}, place: i}
	}
	sortItems(items)
	if err := t.prefetch(l, items); err != nil {
		return nil, err
	}
	values := make([]Value, len(keys))
	for i, k := range keys {
		v, _, err := t.Value(l, k)
		if err != nil {
			return nil, err
		}
		values[i] = v
	}
	return values, nil
}

// item is an entry with its mixed key.
type item struct {
	Entry
	m     uint64
	place int // among those that were given
}

// sortItems sorts by key; of one key those that were given first stand first.
func sortItems(items []item) {
	slices.SortFunc(items, func(a, b item) int {
		if a.m != b.m {
			return cmp.Compare(a.m, b.m)
		}
		return cmp.Compare(a.place, b.place)
	})
}

// cut returns the items at the front that belong into slot s of a node at
// depth, and those after them.
func cut(items []item, depth, s int) (in, rest []item) {
	i := 0
	for i < len(items) && slot(items[i].m, depth) == s {
		i++
	}
	return items[:i], items[i:]
}

// prefetch loads the nodes on the way to items, which are sorted, level by
// level.
func (t Tree) prefetch(l Loader, items []item) error {
	if t.root == nil || len(items) == 0 {
		return nil
	}
	type step struct {
		place
		items []item
	}
	level := []step{{place{t.root, 0, 0}, items}}
	for len(level) > 0 {
		places := make([]place, len(level))
		for i, st := range level {
			places[i] = st.place
		}
		if err := load(l, places); err != nil {
			return err
		}
		var next []step
		for _, st := range level {
			n, rest := st.c.node.Load(), st.items
			for len(rest) > 0 {
				s := slot(rest[0].m, st.depth)
				var in []item
				in, rest = cut(rest, st.depth, s)
				if c, _, _ := n.at(s); c != nil {
					next = append(next, step{place{c, descend(st.path, st.depth, s), st.depth + 1}, in})
				}
			}
		}
		level = next
	}
	return nil
}

// Put returns the tree with entries set, and the nodes that have to be stored
// for it: those that it does not share with t, children before their parents.
// A Value of 0 deletes. Of several entries with one key the last counts.
func (t Tree) Put(l Loader, entries ...Entry) (Tree, []Node, error) {
	items := make([]item, len(entries))
	for i, e := range entries {
		items[i] = item{Entry: e, m: mix(e.Key), place: i}
	}
	sortItems(items)
	items = lastOfEach(items)
	if err := t.prefetch(l, items); err != nil {
		return Tree{}, nil, err
	}
	var w writer
	var root *child
	if t.root == nil {
		root = w.root(w.build(items, 0))
	} else {
		root = w.root(w.put(t.root, 0, items))
	}
	return Tree{root: root}, w.nodes, nil
}

// lastOfEach keeps the last of items with the same key.
func lastOfEach(items []item) []item {
	kept := items[:0]
	for i, it := range items {
		if i+1 == len(items) || items[i+1].m != it.m {
			kept = append(kept, it)
		}
	}
	return kept
}

// writer makes new nodes.
type writer struct{ nodes []Node }

// content is what a slot holds: nothing, an entry, or a child.
type content struct {
	child *child
	entry Entry // Value 0: none
}

// root returns the node for the whole tree, in which a lone entry too has a
// node.
func (w *writer) root(c content) *child {
	if c.child == nil && c.entry.Value != 0 {
		var slots [width]content
		slots[slot(mix(c.entry.Key), 0)] = c
		return w.add(&slots)
	}
	return c.child
}

// build returns items as the content of a slot above a node at depth.
// Deletions are left out.
func (w *writer) build(items []item, depth int) content {
	kept, last := 0, 0
	for i, it := range items {
		if it.Value != 0 {
			kept++
			last = i
		}
	}
	switch kept {
	case 0:
		return content{}
	case 1:
		return content{entry: items[last].Entry}
	}
	var slots [width]content
	for s := range width {
		var in []item
		if in, items = cut(items, depth, s); len(in) > 0 {
			slots[s] = w.build(in, depth+1)
		}
	}
	return content{child: w.add(&slots)}
}

// put returns the node of c, at depth and with items set, as the content of a
// slot above. The nodes on the way are loaded.
func (w *writer) put(c *child, depth int, items []item) content {
	n := c.node.Load()
	var slots [width]content
	used, changed := 0, false
	for s := range width {
		old := content{}
		old.child, old.entry, _ = n.at(s)
		var in []item
		in, items = cut(items, depth, s)
		switch {
		case len(in) == 0:
			slots[s] = old
		case old.child != nil:
			slots[s] = w.put(old.child, depth+1, in)
		default:
			slots[s] = w.build(withEntry(in, old.entry), depth+1)
		}
		if slots[s] != old {
			changed = true
		}
		if slots[s] != (content{}) {
			used++
		}
	}
	if !changed {
		return content{child: c}
	}
	if used <= 1 { // an empty node vanishes, a lone entry moves up
		for _, x := range slots {
			if x.entry.Value != 0 {
				return x
			}
		}
		if used == 0 {
			return content{}
		}
	}
	return content{child: w.add(&slots)}
}

// withEntry returns items with e, unless they change it anyway.
func withEntry(items []item, e Entry) []item {
	if e.Value == 0 {
		return items
	}
	m := mix(e.Key)
	i, found := slices.BinarySearchFunc(items, m, func(it item, m uint64) int { return cmp.Compare(it.m, m) })
	if found {
		return items
	}
	return slices.Insert(slices.Clone(items), i, item{Entry: e, m: m})
}

// add makes a node of slots.
func (w *writer) add(slots *[width]content) *child {
	n := &node{}
	for s, x := range slots {
		switch {
		case x.child != nil:
			n.childBits |= 1 << s
			n.children = append(n.children, x.child)
		case x.entry.Value != 0:
			n.entryBits |= 1 << s
			n.entries = append(n.entries, x.entry)
		}
	}
	data := n.encode()
	c := &child{id: hash(data)}
	c.node.Store(n)
	w.nodes = append(w.nodes, Node{ID: c.id, Data: data})
	return c
}

// Children returns the IDs of the nodes directly below the node with the
// encoding data, for a sweep that looks for nodes that nobody needs.
func Children(data []byte) ([]ID, error) {
	n, err := decode(data)
	if err != nil {
		return nil, err
	}
	ids := make([]ID, len(n.children))
	for i, c := range n.children {
		ids[i] = c.id
	}
	return ids, nil
}
