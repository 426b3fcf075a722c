package database

import (
	"context"
	"errors"
	"slices"
	"sync"
)

// ErrClosed is returned by Update after Close.
var ErrClosed = errors.New("the database is closed")

// ErrBusy is returned by Update when Options.Waiting writers wait already.
var ErrBusy = errors.New("too many writers wait for the database")

// errExited answers the callers whose closures shared a transaction with one
// that ended its goroutine.
var errExited = errors.New("a closure ended its goroutine inside Update")

// job is one caller of Update. Its fields belong to whoever holds the lane,
// except the first three.
type job struct {
	f     func(*Tx) error
	ctx   context.Context //nolint:containedctx // the caller waits in Update for as long as the job lives
	turn  chan struct{}   // receives one value: look at done and leads
	done  bool            // guarded by lane.mu
	leads bool            // guarded by lane.mu

	err     error
	commits []func()
}

// lane is the queue of writers. There is no goroutine of its own: the caller
// that finds the lane free leads, commits a batch, answers it and makes the
// next one that waits the leader.
type lane struct {
	batch, limit int

	mu     sync.Mutex // tier 1; guards what follows and job.done, job.leads
	queue  []*job
	led    bool // a leader exists
	closed bool
	idle   chan struct{} // closed when closed is set and nobody leads; made by close
}

// enter queues j and reports whether its caller leads now.
func (l *lane) enter(j *job) (leads bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.closed {
		return false, ErrClosed
	}
	if len(l.queue) >= l.limit {
		return false, ErrBusy
	}
	l.queue = append(l.queue, j)
	if l.led {
		return false, nil
	}
	l.led, j.leads = true, true
	return true, nil
}

// take removes the next batch from the queue; the leader's own job is in it,
// if it has not left.
func (l *lane) take() []*job {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(l.batch, len(l.queue))
	jobs := slices.Clone(l.queue[:n])
	l.queue = slices.Delete(l.queue, 0, n)
	return jobs
}

// answer wakes the callers of jobs that were not answered yet. Those without an
// error of their own get err.
func (l *lane) answer(jobs []*job, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, j := range jobs {
		if !j.done {
			j.done = true
			if j.err == nil {
				j.err = err
			}
			j.turn <- struct{}{}
		}
	}
}

// refuse answers all who queue with err.
func (l *lane) refuse(err error) {
	l.mu.Lock()
	jobs := l.queue
	l.queue = nil
	l.mu.Unlock()
	l.answer(jobs, err)
}

// isClosed reports whether close was called.
func (l *lane) isClosed() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.closed
}

// handOver makes the first that waits the leader.
func (l *lane) handOver() {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) > 0 {
		next := l.queue[0]
		next.leads = true
		next.turn <- struct{}{}
		return
	}
	l.led = false
	if l.idle != nil {
		close(l.idle)
		l.idle = nil
	}
}

// leave removes j from the queue. It reports false when j is being run.
func (l *lane) leave(j *job) bool {
	l.mu.Lock()
	i := slices.Index(l.queue, j)
	if i < 0 {
		l.mu.Unlock()
		return false
	}
	l.queue = slices.Delete(l.queue, i, i+1)
	leads := j.leads
	l.mu.Unlock()
	if leads {
		l.handOver()
	}
	return true
}

// close refuses new jobs and waits for those that are queued.
func (l *lane) close() {
	l.mu.Lock()
	l.closed = true
	if !l.led {
		l.mu.Unlock()
		return
	}
	if l.idle == nil {
		l.idle = make(chan struct{})
	}
	idle := l.idle
	l.mu.Unlock()
	<-idle
}
