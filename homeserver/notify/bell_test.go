package notify

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

func rung(ch <-chan struct{}) bool {
	select {
	case <-ch:
		return true
	default:
		return false
	}
}

func TestBell(t *testing.T) {
	var b Bell
	alice, again, bob := b.Listen("@alice:a.test"), b.Listen("@alice:a.test"), b.Listen("@bob:a.test")
	both := b.ListenAll("@bob:a.test", Log, Log)
	b.Ring("@carol:a.test")
	b.Ring()
	if rung(alice) || rung(again) || rung(bob) || rung(both) {
		t.Fatal("woken without a ring")
	}
	b.Ring("@alice:a.test")
	if !rung(alice) || !rung(again) {
		t.Error("alice was not woken")
	}
	if rung(bob) || rung(both) || rung(b.Listen("@alice:a.test")) {
		t.Error("one was woken who did not listen, or not any more")
	}
	b.Ring(Log, "@nobody:a.test", Log)
	if !rung(both) || rung(bob) {
		t.Error("the log woke bob and not the one who listens to both, or neither")
	}
	b.Ring("@bob:a.test", "@bob:a.test", "@alice:a.test")
	if !rung(bob) {
		t.Error("bob was not woken")
	}
	if len(b.keys) != 0 {
		t.Errorf("%d keys are left", len(b.keys))
	}
}

func TestUnlistenedKeysCostNothing(t *testing.T) {
	var b Bell
	b.Listen(Log)
	if n := testing.AllocsPerRun(100, func() { b.Ring("@a:a.test", "@b:a.test") }); n != 0 {
		t.Errorf("%v allocations", n)
	}
	if len(b.keys) != 1 {
		t.Errorf("%d keys for one listener", len(b.keys))
	}
}

// TestNoLostWakeUp has writers that commit and ring, and readers that listen,
// read and wait. Each reader must come to see the last row; a lost wake-up
// would leave it waiting for ever.
func TestNoLostWakeUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Bell
		const rows = 2000
		var log atomic.Int64
		var wg sync.WaitGroup
		for i := range 8 {
			wg.Go(func() {
				for log.Load() < rows {
					ch := b.Listen(Log)
					if i%2 == 1 {
						ch = b.ListenAll("@other:a.test", Log)
					}
					if log.Load() < rows {
						<-ch
					}
				}
			})
		}
		for range 4 {
			wg.Go(func() {
				for log.Add(1) < rows+4 {
					b.Ring(Log)
				}
				b.Ring(Log)
			})
		}
		wg.Wait() // synctest ends the test when all are blocked
	})
}

// TestNoLeak lets listeners come and go, most without being rung.
func TestNoLeak(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var b Bell
		r := rand.New(rand.NewPCG(1, 1))
		for i := range 20000 {
			user := fmt.Sprintf("@%d:a.test", i)
			if i%2 == 0 {
				b.Listen(user)
			} else {
				b.ListenAll(user, Log, fmt.Sprint(i))
			}
			if r.IntN(10) == 0 {
				b.Ring(user)
			}
			time.Sleep(time.Second)
		}
		// 20,000 seconds: those of the last 15 minutes may be left.
		if n := len(b.keys); n > 2*900+1 {
			t.Errorf("%d keys are left", n)
		}
		if n := len(b.keys[Log].many); n > 450 {
			t.Errorf("%d listeners of the log are left", n)
		}

		// One that is asked for again and again is not woken.
		waits := b.Listen("@patient:a.test")
		for range 100 {
			time.Sleep(time.Minute)
			if b.Listen("@patient:a.test") != waits {
				t.Fatal("woken for nothing")
			}
		}
		if n := len(b.keys); n != 1 {
			t.Errorf("%d keys are left, want one", n)
		}
	})
}

// BenchmarkRing rings for the 1,000 members of a room, of whom ten listen.
func BenchmarkRing(b *testing.B) {
	var bell Bell
	users := make([]string, 1000)
	for i := range users {
		users[i] = fmt.Sprintf("@user%d:example.org", i)
	}
	b.ReportAllocs()
	for b.Loop() {
		for i := range 10 {
			bell.Listen(users[i*100])
		}
		bell.Ring(users...)
	}
}
