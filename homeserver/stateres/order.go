package stateres

import (
	"cmp"
	"container/heap"
	"slices"

	"switchboard/homeserver/event"
	"switchboard/homeserver/eventauth"
)

// node is an event of the DAG that is put into order.
type node struct {
	d       *digest // nil: not to be ordered, it only links others
	level   eventauth.Level
	auth    []*node // the next older ones
	citing  []*node // the next newer ones
	waiting int     // how many of auth are not in the list yet
	picked  bool
}

// powerOrder selects the set X of step 1 and sorts it by the reverse topological
// power ordering; rest are the others.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v12/#state-resolution
func (r *resolver) powerOrder(full []*digest) (order, rest []*digest, err error) {
	nodes, err := r.graph(full)
	if err != nil {
		return nil, nil, err
	}
	var stack, picked []*node
	pick := func(n *node) {
		if !n.picked {
			n.picked = true
			stack = append(stack, n)
		}
	}
	// The set X of all power events that appear in the full conflicted set.
	for _, d := range full {
		if d.power {
			pick(nodes[d.num])
		}
	}
	// Enlarge X by adding the events in the auth chain of each which also belong
	// to the full conflicted set.
	for len(stack) > 0 {
		n := stack[len(stack)-1]
		stack = stack[:len(stack)-1]
		picked = append(picked, n)
		for _, a := range n.auth {
			pick(a)
		}
	}
	for _, d := range full {
		if !nodes[d.num].picked {
			rest = append(rest, d)
		}
	}
	if err := r.senderLevels(picked); err != nil {
		return nil, nil, err
	}
	return kahn(picked), rest, nil
}

// graph makes the DAG formed by auth events of the full conflicted set, in which
// every event also knows those that it only reaches through others.
func (r *resolver) graph(full []*digest) (map[Num]*node, error) {
	nums := make([]Num, len(full))
	nodes := make(map[Num]*node, len(full))
	for i, d := range full {
		nums[i] = d.num
		nodes[d.num] = &node{d: d}
	}
	g, err := r.region(nums)
	if err != nil {
		return nil, err
	}
	places, err := r.cover.positions(nums)
	if err != nil {
		return nil, err
	}
	chains := map[Num][]Num{}
	at := func(p Position) *node {
		n := nodes[p.Num]
		if n == nil {
			n = &node{}
			nodes[p.Num] = n
			chains[p.Chain] = append(chains[p.Chain], p.Num)
		}
		return n
	}
	for i, p := range places {
		if p.Chain != 0 {
			chains[p.Chain] = append(chains[p.Chain], p.Num)
			continue
		}
		auth, err := r.cited(full[i])
		if err != nil {
			return nil, err
		}
		heads, err := r.cover.positions(auth)
		if err != nil {
			return nil, err
		}
		for _, h := range heads {
			if g.has(h) {
				nodes[p.Num].auth = append(nodes[p.Num].auth, at(h))
			}
		}
	}
	for _, l := range g.links {
		from := at(l.From)
		from.auth = append(from.auth, at(l.To))
	}
	for _, list := range chains {
		slices.Sort(list)
		for i := 1; i < len(list); i++ {
			n := nodes[list[i]]
			n.auth = append(n.auth, nodes[list[i-1]])
		}
	}
	return nodes, nil
}

// senderLevels finds the power level of the sender of each event, when looking at
// its auth_events.
func (r *resolver) senderLevels(picked []*node) error {
	var list []*node
	for _, n := range picked {
		if n.d != nil {
			list = append(list, n)
		}
	}
	slices.SortFunc(list, func(a, b *node) int {
		return cmp.Or(cmp.Compare(a.d.levels, b.d.levels), cmp.Compare(a.d.create, b.d.create))
	})
	var levels *eventauth.PowerLevels
	for i, n := range list {
		if i == 0 || n.d.levels != list[i-1].d.levels || n.d.create != list[i-1].d.create {
			var err error
			if levels, err = r.levelsAt(n.d); err != nil {
				return err
			}
		}
		n.level = levels.User(n.d.sender)
	}
	return nil
}

// levelsAt reads the power levels among the auth events of an event.
func (r *resolver) levelsAt(d *digest) (*eventauth.PowerLevels, error) {
	create := d.create
	if r.v.RoomIDFromCreate {
		var err error
		if create, err = r.roomCreate(d); err != nil {
			return nil, err
		}
	}
	var events [2]*event.PDU
	for i, n := range [...]Num{create, d.levels} {
		if n == 0 {
			continue
		}
		var err error
		if events[i], err = r.pdu(n); err != nil {
			return nil, err
		}
	}
	levels, err := eventauth.ParsePowerLevels(events[0], events[1])
	if err != nil { // such an event authorises nothing, so it is as if it were not there
		return eventauth.ParsePowerLevels(events[0], nil)
	}
	return levels, nil
}

// kahn finds the lexicographically smallest topological ordering by Kahn's
// algorithm.
func kahn(picked []*node) []*digest {
	var ready byPower
	var links []*node
	add := func(n *node) {
		if n.d == nil {
			links = append(links, n)
		} else {
			heap.Push(&ready, n)
		}
	}
	for _, n := range picked {
		n.waiting = len(n.auth)
		for _, a := range n.auth {
			a.citing = append(a.citing, n)
		}
	}
	for _, n := range picked {
		if n.waiting == 0 {
			add(n)
		}
	}
	var order []*digest
	for len(links) > 0 || len(ready) > 0 {
		var n *node
		if len(links) > 0 { // at once: it must not hold up others
			n = links[len(links)-1]
			links = links[:len(links)-1]
		} else {
			n = heap.Pop(&ready).(*node)
			order = append(order, n.d)
		}
		for _, c := range n.citing {
			if c.waiting--; c.waiting == 0 {
				add(c)
			}
		}
	}
	return order
}

// byPower is a heap, the smallest event by the comparison of the reverse
// topological power ordering first.
type byPower []*node

func (s byPower) Len() int { return len(s) }
func (s byPower) Less(i, j int) bool {
	x, y := s[i], s[j]
	return cmp.Or(
		cmp.Compare(y.level, x.level),   // 1. x's sender has greater power level than y's sender; or
		cmp.Compare(x.d.ts, y.d.ts),     // 2. x's origin_server_ts is less than y's; or
		cmp.Compare(x.d.id, y.d.id)) < 0 // 3. x's event_id is less than y's
}
func (s byPower) Swap(i, j int) { s[i], s[j] = s[j], s[i] }
func (s *byPower) Push(x any)   { *s = append(*s, x.(*node)) }
func (s *byPower) Pop() any {
	old := *s
	x := old[len(old)-1]
	*s = old[:len(old)-1]
	return x
}
