package statetree

// pair is two contents of the same slot that differ.
type pair struct {
	a, b  content
	path  uint64
	depth int // of the nodes that they are, or would be
}

// Diff calls f for each key whose value in a and b differs, in no particular
// order, until f returns false. old is the value in a, new the one in b, 0
// where there is none. It looks only at nodes that the trees do not share,
// and asks l once for each level.
func Diff(l Loader, a, b Tree, f func(k Key, old, new Value) bool) error {
	if a.ID() == b.ID() {
		return nil
	}
	d := differ{f: f}
	if !d.pair(pair{a: content{child: a.root}, b: content{child: b.root}}) {
		return nil
	}
	for len(d.waiting) > 0 {
		var places []place
		for _, p := range d.waiting {
			for _, c := range [...]*child{p.a.child, p.b.child} {
				if c != nil {
					places = append(places, place{c, p.path, p.depth})
				}
			}
		}
		if err := load(l, places); err != nil {
			return err
		}
		level := d.waiting
		d.waiting = nil
		for _, p := range level {
			if !d.pair(p) {
				return nil
			}
		}
	}
	return nil
}

// Walk calls f for each entry, in no particular order, until f returns false.
func (t Tree) Walk(l Loader, f func(Key, Value) bool) error {
	return Diff(l, Tree{}, t, func(k Key, _, v Value) bool { return f(k, v) })
}

// differ walks two trees at once.
type differ struct {
	f       func(k Key, old, new Value) bool
	waiting []pair // with nodes that are not loaded
}

// pair reports the differences of p and of what is below it, as far as that is
// loaded. It returns false when f did.
func (d *differ) pair(p pair) bool {
	a, ok := p.a.load()
	b, loaded := p.b.load()
	if !ok || !loaded {
		d.waiting = append(d.waiting, p)
		return true
	}
	for s := range width {
		var q pair
		q.a, q.b = p.a.slot(a, p.depth, s), p.b.slot(b, p.depth, s)
		switch {
		case q.a.equal(q.b):
		case q.a.child == nil && q.b.child == nil:
			if !d.report(q.a.entry, q.b.entry) {
				return false
			}
		default:
			q.path, q.depth = descend(p.path, p.depth, s), p.depth+1
			if !d.pair(q) {
				return false
			}
		}
	}
	return true
}

// report calls f for two entries of one slot, of which either may be none.
func (d *differ) report(a, b Entry) bool {
	if a.Key == b.Key && a.Value != 0 && b.Value != 0 {
		return d.f(a.Key, a.Value, b.Value)
	}
	if a.Value != 0 && !d.f(a.Key, a.Value, 0) {
		return false
	}
	return b.Value == 0 || d.f(b.Key, 0, b.Value)
}

// load returns the node of c, nil if c is no child, and false when it is not
// loaded.
func (c content) load() (*node, bool) {
	if c.child == nil {
		return nil, true
	}
	n := c.child.node.Load()
	return n, n != nil
}

// slot returns the part of c that belongs into slot s of a node at depth. n is
// the node of c; without one, a lone entry acts as a node that has only this.
func (c content) slot(n *node, depth, s int) content {
	if n != nil {
		var x content
		x.child, x.entry, _ = n.at(s)
		return x
	}
	if c.entry.Value != 0 && slot(mix(c.entry.Key), depth) == s {
		return c
	}
	return content{}
}

// equal reports whether c and d hold the same entries.
func (c content) equal(d content) bool {
	if c.child != nil && d.child != nil {
		return c.child == d.child || c.child.id == d.child.id
	}
	return c == d
}
