package bridge

import (
	"context"
	"sync"
)

// Line runs functions one after the other, in a goroutine that lives only as
// long as there are any: so what comes from a network never waits for the
// homeserver, and nothing overtakes. The zero value is ready.
type Line struct {
	mu      sync.Mutex // tier 1; guards what follows
	free    sync.Cond  // there is room, or nothing is left
	queue   []func()
	running bool
}

// maxLine bounds what a Line holds for those who wait.
const maxLine = 4096

// AddInTime is Add, but waits while the line is full, so that a network is read
// no faster than the homeserver takes it.
func (l *Line) AddInTime(ctx context.Context, f func()) {
	l.mu.Lock()
	l.free.L = &l.mu
	for len(l.queue) >= maxLine {
		l.free.Wait()
	}
	l.mu.Unlock()
	l.Add(ctx, f)
}

// Add puts f at the end of the line. A panic of f is logged by ctx and ends
// nothing else.
func (l *Line) Add(ctx context.Context, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free.L = &l.mu
	l.queue = append(l.queue, f)
	if !l.running {
		l.running = true
		go l.run(ctx)
	}
}

func (l *Line) run(ctx context.Context) {
	for {
		l.mu.Lock()
		l.free.Broadcast()
		if len(l.queue) == 0 {
			l.running, l.queue = false, nil
			l.mu.Unlock()
			return
		}
		f := l.queue[0]
		l.queue = l.queue[1:]
		l.mu.Unlock()
		Contain(ctx, "panic in the bridge", func() error { f(); return nil })
	}
}

// Wait waits until nothing is left.
func (l *Line) Wait() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free.L = &l.mu
	for l.running {
		l.free.Wait()
	}
}
