package xmpp

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"mellium.im/xmpp/jid"

	"switchboard/bridges/bridge"
	"switchboard/bridges/xmpp/client"
)

// lane is where the order counts: one for all chats between two, whose archive
// is the account's, and one for each room. What comes is handled one after the
// other, the archive first; what goes out waits until that is done, so that it
// is known which of our own messages are already there.
type lane struct {
	session *session
	room    jid.JID     // zero for the account's
	settled bridge.Line // what the server has confirmed; what comes later waits for it

	mu        sync.Mutex // tier 1; guards what follows
	free      *sync.Cond // tasks has room
	tasks     []func(context.Context)
	running   bool
	ready     bool
	archived  bool              // there is an archive in which to look for our own messages
	gap       bool              // the archive has what was not read yet: its position stays
	back      *time.Timer       // tries to go back into the room; or nil
	out       []*outgoing       // not confirmed, in order
	delivered map[string]string // our messages in the history of a room without archive, to their IDs
}

// outgoing is a stanza on its way.
type outgoing struct {
	after  Position // in the archive, of something older
	id     string
	stanza *client.Element
	echoed bool // only the room's echo confirms it
	state  atomic.Int32
	timer  *time.Timer
	done   func(result)
}

// The states of a stanza.
const (
	waiting int32 = iota // it was not sent
	sent
	unsure // it may have been sent: the archive knows
)

// result is what became of a stanza.
type result struct {
	id  string // by which others refer to it
	err error
}

// lane returns the lane of a room, or the account's for anything else.
func (s *session) lane(room jid.JID) *lane {
	if room.Equal(jid.JID{}) {
		return s.account
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	l := s.lanes[room.String()]
	if l == nil {
		l = &lane{session: s, room: room}
		s.lanes[room.String()] = l
	}
	return l
}

// all returns all lanes.
func (s *session) all() []*lane {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := []*lane{s.account}
	for _, l := range s.lanes {
		out = append(out, l)
	}
	return out
}

// maxTasks bounds what waits for the homeserver. When it is reached the stream
// is not read until the homeserver has caught up.
const maxTasks = 4096

// add puts a task behind all others. With wait it may take until there is room.
func (l *lane) add(wait bool, f func(context.Context)) {
	ctx := l.session.context()
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.free == nil {
		l.free = sync.NewCond(&l.mu)
	}
	for wait && len(l.tasks) >= maxTasks && ctx.Err() == nil {
		l.free.Wait()
	}
	if ctx.Err() != nil {
		return
	}
	l.tasks = append(l.tasks, f)
	if !l.running {
		l.running = true
		l.session.work.Add(1)
		go l.run(ctx)
	}
}

func (l *lane) run(ctx context.Context) {
	defer l.session.work.Done()
	for {
		l.mu.Lock()
		l.free.Broadcast()
		if len(l.tasks) == 0 || ctx.Err() != nil {
			l.running, l.tasks = false, nil
			l.mu.Unlock()
			return
		}
		f := l.tasks[0]
		l.tasks = l.tasks[1:]
		l.mu.Unlock()
		l.settled.Wait() // f may be an answer to one of our messages
		bridge.Contain(ctx, "panic in the XMPP bridge", func() error { f(ctx); return nil })
	}
}

// setGap says whether the archive has what was not read yet.
func (l *lane) setGap(gap bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gap = gap
}

// comeBack calls f after a time, instead of what was to be called before. Nothing
// only ends that.
func (l *lane) comeBack(after time.Duration, f func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.back != nil {
		l.back.Stop()
		l.back = nil
	}
	if f != nil {
		l.back = time.AfterFunc(after, f)
	}
}

func (l *lane) hasGap() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.gap
}

// submit sends a stanza as soon as the lane is ready, in the order of the calls.
// One that may be there already is looked for first. Done is called once.
func (l *lane) submit(o *outgoing) {
	s := l.session
	s.mu.Lock()
	refused := s.refused
	s.mu.Unlock()
	if _, in := s.room(l.room); refused == nil && !in && l != s.account {
		refused = fmt.Errorf("you are not in %s", l.room)
	}
	if refused != nil {
		go o.done(result{err: refused}) // the caller may be who it tells
		return
	}
	if o.after == (Position{}) {
		o.after = s.position(l.room)
	}
	l.mu.Lock()
	l.out = append(l.out, o)
	o.timer = time.AfterFunc(s.connector.config.SendTimeout, func() { l.giveUp(o) })
	l.mu.Unlock()
	if o.state.Load() == unsure {
		l.add(false, func(ctx context.Context) { s.remind(ctx, l) })
	}
	l.flush()
}

// flush sends what waits. Nothing overtakes what may have been sent.
func (l *lane) flush() {
	l.mu.Lock()
	defer l.mu.Unlock() // also while sending, for the order
	if !l.ready {
		return
	}
	for _, o := range slices.Clone(l.out) {
		if id, ok := l.delivered[o.id]; ok {
			delete(l.delivered, o.id)
			l.settleSoon(o.id, id)
			continue
		}
		if o.state.Load() == unsure {
			return
		}
		if o.state.Swap(sent) != sent {
			l.session.client.Send(o.stanza, func(err error) { l.confirmed(o, err) })
		}
	}
}

// confirmed takes what the server says to a stanza, or that the connection broke
// before it did. It may be called while the lane or the connection are locked.
func (l *lane) confirmed(o *outgoing, err error) {
	switch {
	case err == nil && o.echoed:
	case err == nil:
		l.settleSoon(o.id, o.id)
	case errors.Is(err, client.ErrOffline):
		o.state.Store(waiting)
	default:
		o.state.Store(unsure)
	}
}

// settleSoon is settle for a stanza that is there, while the lane may be locked.
func (l *lane) settleSoon(id, reference string) {
	l.settled.Add(l.session.context(), func() { l.settle(id, result{id: reference}) })
}

// settle ends the waiting for what became of a stanza. It reports whether anyone
// waited.
func (l *lane) settle(id string, r result) bool {
	l.mu.Lock()
	i := slices.IndexFunc(l.out, func(o *outgoing) bool { return o.id == id })
	if i < 0 {
		l.mu.Unlock()
		return false
	}
	o := l.out[i]
	l.out = slices.Delete(l.out, i, i+1)
	l.mu.Unlock()
	o.timer.Stop()
	o.done(r)
	return true
}

var errNotSent = errors.New("the connection did not come back in time, so the message was not sent")

// doubtful returns what may have been sent, in order.
func (l *lane) doubtful() (list []*outgoing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, o := range l.out {
		if o.state.Load() == unsure {
			list = append(list, o)
		}
	}
	return list
}

// giveUp fails a stanza that still waits, but not while there is a connection to
// a server that is merely slow.
func (l *lane) giveUp(o *outgoing) {
	s := l.session
	if l == s.account && s.client.Online() && (o.state.Load() != unsure || !l.isReady()) {
		l.mu.Lock() // submit may be about to keep the timer
		defer l.mu.Unlock()
		o.timer.Reset(s.connector.config.SendTimeout)
		return
	}
	err := errNotSent
	switch {
	case o.state.Load() != waiting:
		err = client.ErrUnconfirmed
	case !l.isReady() && s.client.Online() && l != s.account:
		err = fmt.Errorf("you are not in %s", l.room)
	}
	l.settle(o.id, result{err: err})
}

func (l *lane) isReady() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.ready
}

// fail ends the waiting of everything.
func (l *lane) fail(err error) {
	l.mu.Lock()
	list := slices.Clone(l.out)
	l.mu.Unlock()
	for _, o := range list {
		l.settle(o.id, result{err: err})
	}
}

func (s *session) failAll(err error) {
	for _, l := range s.all() {
		l.fail(err)
	}
}

// abandon forgets what waits. The host of the bridge keeps it for the next
// start, when it counts as perhaps sent.
func (s *session) abandon() {
	for _, l := range s.all() {
		l.mu.Lock()
		for _, o := range l.out {
			o.timer.Stop()
		}
		l.out = nil
		l.mu.Unlock()
	}
}

// setReady opens or closes the lane for what goes out.
func (l *lane) setReady(ready bool) {
	l.mu.Lock()
	l.ready = ready
	l.mu.Unlock()
	if ready {
		l.flush()
	}
}

// has notes that a message of ours is there.
func (l *lane) has(id string, m *client.Message) {
	if l.settle(m.ID, result{id: id}) || !m.Old || m.Archive != "" {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.delivered == nil {
		l.delivered = make(map[string]string)
	}
	l.delivered[m.ID] = id
}
