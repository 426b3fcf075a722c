package federation

import (
	"maps"
	"slices"
	"sync"
	"time"

	"switchboard/homeserver/cache"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
)

const (
	walksBytes  = 8 << 20 // what waiting walks take together, about
	mostOfAWalk = 1 << 20 // a larger one does not wait
	walkWaits   = 10 * time.Minute
)

// walks are those through spaces that wait for their next page, so that no server
// is asked again for what it has told. Who comes too late, or after a restart, goes
// the whole way anew: the token says how far.
type walks struct {
	once    sync.Once
	waiting *cache.Cache[walkKey, *walk]
}

type walkKey struct {
	user  matrix.UserID
	space matrix.RoomID
	token string // of the page
}

func (ws *walks) cache() *cache.Cache[walkKey, *walk] {
	ws.once.Do(func() { ws.waiting = cache.New[walkKey, *walk](walksBytes) })
	return ws.waiting
}

// keep lets a walk wait.
func (ws *walks) keep(key walkKey, w *walk) {
	if size := w.size(); size <= mostOfAWalk {
		ws.cache().Put(key, w, size)
	}
}

// find gives a copy of a walk that waits, nil if there is none: a client may ask
// for a page twice.
func (ws *walks) find(key walkKey) *walk {
	w, _ := ws.cache().Find(key)
	if w == nil || time.Since(w.begun) > walkWaits {
		return nil
	}
	next := *w
	next.found, next.next, next.seen, next.told = slices.Clone(w.found), slices.Clone(w.next), maps.Clone(w.seen), maps.Clone(w.told)
	return &next
}

// size is about how many bytes a walk takes.
func (w *walk) size() int {
	n := 500 + 150*len(w.seen)
	for _, d := range w.told {
		n += described(d)
	}
	for i := range w.found {
		n += described(&w.found[i].SpaceRoom)
		for _, c := range w.found[i].Children {
			n += 24 + len(c)
		}
	}
	for _, to := range w.next {
		n += 150
		for _, v := range to.via {
			n += 16 + len(v)
		}
	}
	return n
}

// described is about how many bytes the description of a room takes.
func described(d *fedclient.SpaceRoom) int {
	n := 700 + len(d.Name) + len(d.Topic) + len(d.CanonicalAlias) + len(d.AvatarURL) + 80*len(d.AllowedRooms)
	for _, c := range d.Children {
		n += 24 + len(c)
	}
	return n
}
