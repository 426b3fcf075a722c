package statetree

import "slices"

// Fetch loads all nodes of some trees. It asks l once for each level of all of
// them, and once for a node that several have.
func Fetch(l Loader, trees ...Tree) error {
	return fetch(l, trees, func(uint64, int) bool { return true })
}

// FetchTo is Fetch for those nodes that are on the way to some keys.
func FetchTo(l Loader, keys []Key, trees ...Tree) error {
	mixed := make([]uint64, len(keys))
	for i, k := range keys {
		mixed[i] = mix(k)
	}
	return fetch(l, trees, func(path uint64, depth int) bool {
		return slices.ContainsFunc(mixed, func(m uint64) bool { return under(m, path, depth) })
	})
}

// fetch loads the nodes of trees whose path and depth are wanted, and all above them.
func fetch(l Loader, trees []Tree, wanted func(path uint64, depth int) bool) error {
	var level []place
	for _, t := range trees {
		if t.root != nil {
			level = append(level, place{c: t.root})
		}
	}
	for first := map[ID]*child{}; len(level) > 0; {
		var fresh []place
		for _, p := range level {
			if first[p.c.id] == nil {
				first[p.c.id] = p.c
				fresh = append(fresh, p)
			}
		}
		if err := load(l, fresh); err != nil {
			return err
		}
		var below []place
		for _, p := range level {
			known := first[p.c.id]
			p.c.node.CompareAndSwap(nil, known.node.Load())
			n := p.c.node.Load()
			if p.c != known && n == known.node.Load() {
				continue
			}
			for s := range width {
				path := descend(p.path, p.depth, s)
				if c, _, _ := n.at(s); c != nil && wanted(path, p.depth+1) {
					below = append(below, place{c, path, p.depth + 1})
				}
			}
		}
		level = below
	}
	return nil
}
