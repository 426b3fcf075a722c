package appservices

import (
	"context"
	"net/http"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/ephemeral"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/room"
	"switchboard/homeserver/store"
	"switchboard/registrations"
)

// Config is the section "appservices" of the configuration file.
type Config struct {
	// Files are registration files, beside those in the folder registrations
	// of the data directory. All of them are read again when they change.
	Files []string `yaml:"files"`

	// BatchSend lets bridges of mautrix bring the past of rooms at once. Rooms in
	// which users of other servers are take none of it: switch it off if these use
	// a bridge, which then sends what it missed one by one.
	BatchSend bool `yaml:"batch_send"`
}

// DefaultConfig is what holds where the configuration says nothing.
func DefaultConfig() Config { return Config{BatchSend: true} }

// Service talks to the appservices of one server. Its exported fields are set
// before the first call and not changed afterwards; its methods may be called
// from several goroutines.
type Service struct {
	Store      *store.Store
	Bell       *notify.Bell
	Rooms      *room.Service
	Ephemeral  *ephemeral.Service
	Keys       *e2ee.Service
	ServerName matrix.ServerName

	// Registrations are those in force. Load and Attach replace them.
	Registrations *registrations.Set

	// Folder is where registration files lie, those that end in .yaml or .yml.
	// It need not exist. "" means none.
	Folder string

	// Files are further registration files, which must exist.
	Files []string

	// Transport carries requests to appservices elsewhere. Nil means a new
	// http.Transport.
	Transport http.RoundTripper

	mu       sync.Mutex // tier 1; guards all below; never held while calling out
	fromFile []*registrations.Registration
	loaded   string // stamp of the files that were read
	attached []attachment
	changed  chan struct{}      // closed and replaced when the registrations change
	callers  map[string]*caller // by ID of the registration
	http     *http.Transport    // nil until it is needed
	protocol map[string]protocolAnswer
}

// attachment is an appservice of this process.
type attachment struct {
	reg     *registrations.Registration
	handler http.Handler // nil: it wants no calls
}

// Attach puts an appservice of this process in force: it is told of the log by
// calls of h, whatever the URL of the registration says. With a nil h it is
// told nothing. The error names an ID or token that exists already.
func (s *Service) Attach(reg *registrations.Registration, h http.Handler) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.replace(s.fromFile, append(s.attached[:len(s.attached):len(s.attached)], attachment{reg, h}))
}

// replace puts other registrations in force. The caller holds mu.
func (s *Service) replace(fromFile []*registrations.Registration, attached []attachment) error {
	all := append([]*registrations.Registration(nil), fromFile...)
	for _, a := range attached {
		all = append(all, a.reg)
	}
	if err := s.Registrations.Replace(all); err != nil {
		return err
	}
	s.fromFile, s.attached = fromFile, attached
	before := s.callers
	s.callers, s.protocol = map[string]*caller{}, map[string]protocolAnswer{}
	for _, r := range fromFile {
		c := s.caller(r, nil)
		if old := before[r.ID]; old != nil && old.same(c) {
			c.wake = old.wake // its sender goes on
		}
		s.callers[r.ID] = c
	}
	for _, a := range attached {
		c := before[a.reg.ID]
		if c == nil || c.reg != a.reg {
			c = s.caller(a.reg, a.handler)
		}
		s.callers[a.reg.ID] = c
	}
	if s.changed != nil {
		close(s.changed)
	}
	s.changed = make(chan struct{})
	return nil
}

// current gives who is to be called now, and a channel that is closed when that
// changes.
func (s *Service) current() (map[string]*caller, <-chan struct{}) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.changed == nil {
		s.changed = make(chan struct{})
	}
	return s.callers, s.changed
}

// to finds how to call an appservice, nil if it is not to be called.
func (s *Service) to(reg *registrations.Registration) *caller {
	s.mu.Lock()
	defer s.mu.Unlock()
	if c := s.callers[reg.ID]; c != nil && c.reg == reg && c.transport != nil {
		return c
	}
	return nil
}

// Run tells the appservices of the log, and reads registration files again when
// they change, until ctx is done.
func (s *Service) Run(ctx context.Context) error {
	group, ctx := errgroup.WithContext(ctx)
	group.Go(func() error { return s.watch(ctx) })
	group.Go(func() error { return s.runSenders(ctx) })
	return group.Wait()
}

// running is a sender at work.
type running struct {
	to   *caller
	stop context.CancelFunc
	done chan struct{}
}

// runSenders keeps one sender running for each appservice that is to be called.
func (s *Service) runSenders(ctx context.Context) error {
	senders := map[string]*running{}
	defer func() {
		for _, r := range senders {
			r.stop()
			<-r.done
		}
	}()
	for {
		callers, changed := s.current()
		for id, r := range senders {
			if callers[id] == nil || !r.to.same(callers[id]) {
				r.stop()
				<-r.done
				delete(senders, id)
			}
		}
		for id, to := range callers {
			if to.transport == nil || senders[id] != nil {
				continue
			}
			one, stop := context.WithCancel(ctx)
			r := &running{to, stop, make(chan struct{})}
			senders[id] = r
			go func() {
				defer close(r.done)
				s.keepSending(one, to)
			}()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-changed:
		}
	}
}

// Back-off between attempts to reach an appservice.
const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
)
