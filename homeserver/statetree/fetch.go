package statetree

// Fetch loads all nodes of some trees. It asks l once for each level of all of
// them, and once for a node that several have.
func Fetch(l Loader, trees ...Tree) error {
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
				if c, _, _ := n.at(s); c != nil {
					below = append(below, place{c, descend(p.path, p.depth, s), p.depth + 1})
				}
			}
		}
		level = below
	}
	return nil
}
