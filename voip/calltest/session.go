package calltest

import (
	"context"
	"crypto/rand"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"time"

	"switchboard/homeserver/matrix"
)

const (
	sessionLife  = 10 * time.Minute
	peerLife     = time.Minute // of a test; hearing oneself takes as long
	mostSessions = 200
	peersAtOnce  = 6  // of one session
	peersInAll   = 60 // of one session
)

// session is what somebody may do who has logged in or come by a link.
type session struct {
	whom    string
	expires time.Time
	peers   map[string]*peer
	opening int
	used    int
}

// begin makes a session for whom and gives its name, which is a secret. It ends
// an older one of the same user. The error is M_LIMIT_EXCEEDED.
func (s *Service) begin(whom string) (string, error) {
	var ended []*peer
	defer func() { closeAll(ended) }()
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	for name, old := range s.sessions {
		if now.After(old.expires) || whom != "" && old.whom == whom {
			for _, p := range old.peers {
				ended = append(ended, p)
			}
			delete(s.sessions, name)
		}
	}
	if len(s.sessions) >= mostSessions {
		return "", matrix.Errorf(matrix.LimitExceeded, "too many people test their calls at this moment; try again in some minutes")
	}
	if s.sessions == nil {
		s.sessions = map[string]*session{}
	}
	name := rand.Text()
	s.sessions[name] = &session{whom: whom, expires: now.Add(sessionLife), peers: map[string]*peer{}}
	return name, nil
}

func closeAll(peers []*peer) {
	for _, p := range peers {
		go p.close() // which takes the lock
	}
}

// session finds a session that has not ended. The caller holds mu. The error is
// M_UNKNOWN_TOKEN.
func (s *Service) session(name string) (*session, error) {
	one := s.sessions[name]
	if one == nil || time.Now().After(one.expires) {
		return nil, matrix.Errorf(matrix.UnknownToken, "this test has ended; load the page again to begin another one")
	}
	return one, nil
}

// join opens a peer for a session.
func (s *Service) join(ctx context.Context, name, offer string, delay time.Duration) (id, answer string, err error) {
	one, err := s.reserve(name)
	if err != nil {
		return "", "", err
	}
	p, answer, err := s.open(ctx, offer, delay, peerLife)
	s.mu.Lock()
	one.opening--
	if err == nil {
		id = rand.Text()
		one.peers[id] = p
	}
	s.mu.Unlock()
	return id, answer, err
}

// reserve counts a peer that a session is going to open.
func (s *Service) reserve(name string) (*session, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	one, err := s.session(name)
	if err != nil {
		return nil, err
	}
	for id, p := range one.peers {
		if p.left {
			delete(one.peers, id)
		}
	}
	switch {
	case one.used >= peersInAll:
		return nil, matrix.Errorf(matrix.LimitExceeded, "this test has used up its connections; load the page again to begin another one")
	case len(one.peers)+one.opening >= peersAtOnce:
		return nil, matrix.Errorf(matrix.LimitExceeded, "at most %d connections are tested at once", peersAtOnce)
	}
	one.used++
	one.opening++
	return one, nil
}

// part ends a peer of a session and tells how it went.
func (s *Service) part(name, id string) (quality, error) {
	s.mu.Lock()
	one, err := s.session(name)
	var p *peer
	if err == nil {
		p = one.peers[id]
		delete(one.peers, id)
	}
	s.mu.Unlock()
	switch {
	case err != nil:
		return quality{}, err
	case p == nil:
		return quality{}, matrix.Errorf(matrix.NotFound, "there is no such connection")
	}
	q := p.quality()
	p.close()
	return q, nil
}

// trial is a way by which the page tries to connect.
type trial struct {
	ID     string   `json:"id"`
	Kind   string   `json:"kind"`             // of kinds
	Family int      `json:"family,omitempty"` // 4 or 6; 0 for what the browser takes
	Port   string   `json:"port,omitempty"`   // of the server
	URLs   []string `json:"urls"`             // for RTCPeerConnection; none for host
}

// trials lists the ways, from what clients are told. Where a name has addresses
// of both kinds, each is tried by itself, except over TLS, which needs the name.
func trials(ctx context.Context, uris []string, external []netip.Addr) []trial {
	list := []trial{}
	add := func(t trial) {
		t.ID = t.Kind
		if t.Family != 0 {
			t.ID += "-v" + strconv.Itoa(t.Family)
		} else if t.Port != "" {
			t.ID += "-" + t.Port
		}
		if slices.ContainsFunc(list, func(o trial) bool { return o.Kind == t.Kind && slices.Equal(o.URLs, t.URLs) && o.Family == t.Family }) {
			return
		}
		for id, n := t.ID, 2; slices.ContainsFunc(list, func(o trial) bool { return o.ID == t.ID }); n++ {
			t.ID = id + "-" + strconv.Itoa(n)
		}
		list = append(list, t)
	}
	for _, family := range families(external) {
		add(trial{Kind: "host", Family: family, URLs: []string{}})
	}
	for _, text := range uris {
		u, err := parseURI(text)
		if err != nil {
			continue // the examination tells
		}
		if u.secure {
			add(trial{Kind: "tls", Port: u.port, URLs: []string{text}})
			continue
		}
		addrs := resolve(ctx, u.host)
		for _, family := range families(addrs) {
			at := net.JoinHostPort(addrs[slices.IndexFunc(addrs, func(a netip.Addr) bool { return family == familyOf(a) })].String(), u.port)
			if u.transport == "udp" {
				add(trial{Kind: "srflx", Family: family, Port: u.port, URLs: []string{"stun:" + at}})
			}
			add(trial{Kind: u.transport, Family: family, Port: u.port, URLs: []string{"turn:" + at + "?transport=" + u.transport}})
		}
	}
	slices.SortStableFunc(list, func(a, b trial) int { return slices.Index(kinds, a.Kind) - slices.Index(kinds, b.Kind) })
	return list
}

// kinds are those of trials, in the order in which calls prefer them: udp, tcp and
// tls go through the relay, and account is what only users may try.
var kinds = []string{"host", "srflx", "udp", "tcp", "tls", "account"}

func familyOf(a netip.Addr) int {
	if a.Unmap().Is4() {
		return 4
	}
	return 6
}

// families lists which of 4 and 6 addresses have.
func families(addrs []netip.Addr) (list []int) {
	for _, f := range []int{4, 6} {
		if slices.ContainsFunc(addrs, func(a netip.Addr) bool { return familyOf(a) == f }) {
			list = append(list, f)
		}
	}
	return list
}

// resolve finds the addresses of a host; none if there is no such name.
func resolve(ctx context.Context, host string) []netip.Addr {
	if a, err := netip.ParseAddr(strings.Trim(host, "[]")); err == nil {
		return []netip.Addr{a}
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	addrs, err := net.DefaultResolver.LookupNetIP(ctx, "ip", host)
	if err != nil {
		return nil
	}
	for i, a := range addrs {
		addrs[i] = a.Unmap()
	}
	return addrs
}
