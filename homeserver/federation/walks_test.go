package federation

import (
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
)

func TestWalks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var ws walks
		key := walkKey{"@a:a.test", "!r:a.test", "h1_1_false.x"}
		begin := func() *walk {
			return &walk{begun: time.Now(), shown: 1, next: []step{{room: "!2:b.test"}}, seen: map[matrix.RoomID]bool{"!1:b.test": true}, told: map[matrix.RoomID]*fedclient.SpaceRoom{}}
		}
		if ws.find(key) != nil {
			t.Error("there is one at the beginning")
		}
		ws.keep(key, begin())
		for range 2 { // who goes on changes a copy
			w := ws.find(key)
			if w == nil || w.shown != 1 || len(w.next) != 1 || len(w.seen) != 1 || len(w.told) != 0 {
				t.Fatalf("found %+v", w)
			}
			w.next[0].room, w.seen["!2:b.test"], w.told["!3:b.test"] = "!3:b.test", true, &fedclient.SpaceRoom{}
		}
		if w := ws.find(key); w.next[0].room != "!2:b.test" {
			t.Error("the one that waits was changed")
		}
		for _, other := range []walkKey{{"@b:a.test", key.space, key.token}, {key.user, "!o:a.test", key.token}, {key.user, key.space, "h1_2_false.x"}} {
			if ws.find(other) != nil {
				t.Errorf("%v finds it", other)
			}
		}
		time.Sleep(walkWaits + time.Second)
		if ws.find(key) != nil {
			t.Error("it waits for ever")
		}

		large := begin()
		large.told["!3:b.test"] = &fedclient.SpaceRoom{PublishedRoom: fedclient.PublishedRoom{Topic: strings.Repeat("x", mostOfAWalk)}}
		if ws.keep(key, large); ws.find(key) != nil {
			t.Error("a large one waits")
		}
	})
}
