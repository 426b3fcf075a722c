package calltest

import (
	"context"
	"net/netip"
	"sync"
	"time"

	"switchboard/homeserver/matrix"
)

// Service runs the call test of one server. Its exported fields are set before
// the first call and not changed afterwards; its methods may be called from
// several goroutines.
type Service struct {
	Config Config

	// Relay is the server's TURN relay, nil if it has none.
	Relay Relay

	// Elsewhere gives a user the credentials of a relay that is not this server's,
	// as clients get them; nil if there is none. It is asked where Relay is nil.
	Elsewhere func(ctx context.Context, user string) (*Credentials, error)

	// Loopback lets peers be reached at the loopback interface: for a server of
	// this computer alone.
	Loopback bool

	// Refuses tells whether a peer must not send to an address that the other
	// side names.
	Refuses func(netip.Addr) bool

	// User tells whose an access token is. The error is one of package matrix.
	User func(ctx context.Context, token string) (matrix.UserID, error)

	// Redeem uses up the token of a one-time link and tells whether it was good.
	Redeem func(ctx context.Context, token string) (bool, error)

	patience time.Duration // what a peer may wait, if that is longer than usual: tests run on busy machines

	mu       sync.Mutex // tier 1; guards all below; never held while calling out
	peers    map[*peer]bool
	opening  int // peers that are being made
	sessions map[string]*session
	stopped  bool
}

// Relay is what the test must know of the TURN relay.
type Relay interface {
	// TestCredentials are good for life, and only to reach relayed addresses of
	// this server.
	TestCredentials(whom string, life time.Duration) Credentials

	// Local is the URI at which this process reaches the relay, "" if it cannot.
	Local() string

	// External are the addresses by which the world reaches this computer.
	External() []netip.Addr

	// Ports are the UDP ports of relayed addresses, the same if there is one.
	Ports() (first, last uint16)
}

// Credentials are what a client needs for the relay.
type Credentials struct {
	Username, Password string
	URIs               []string // such as "turn:turn.example.org:3478?transport=udp"
}

// wait is how long a peer waits for something.
func (s *Service) wait(limit time.Duration) time.Duration { return max(limit, s.patience) }

// take reserves the place of a peer. The error is M_LIMIT_EXCEEDED.
func (s *Service) take() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return matrix.Errorf(matrix.LimitExceeded, "the server stops; try again in a minute")
	}
	if len(s.peers)+s.opening >= s.Config.Peers {
		return matrix.Errorf(matrix.LimitExceeded, "too many call tests run at this moment; try again in a minute")
	}
	s.opening++
	return nil
}

// settle turns a reserved place into that of p, or gives it back if p is nil.
// It reports whether p may stay.
func (s *Service) settle(p *peer) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.opening--
	if p == nil || p.left || s.stopped {
		return false
	}
	if s.peers == nil {
		s.peers = map[*peer]bool{}
	}
	s.peers[p] = true
	return true
}

// leave gives the place of a peer back.
func (s *Service) leave(p *peer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p.left = true
	delete(s.peers, p)
}

// Run waits until ctx is done and then ends all peers.
func (s *Service) Run(ctx context.Context) error {
	<-ctx.Done()
	s.mu.Lock()
	s.stopped = true
	var peers []*peer
	for p := range s.peers {
		peers = append(peers, p)
	}
	s.mu.Unlock()
	for _, p := range peers {
		p.close()
	}
	return nil
}
