package jitsi

import (
	"crypto/rand"
	"sync"

	"switchboard/homeserver/matrix"
)

// probe is a member that does not exist, of a room that does not exist, by whom
// Check finds out whether Jitsi lets members in. Jitsi is told of him what it is
// told of others, and nobody but Jitsi can do anything with that.
type probe struct {
	Credential
	asked        bool // Jitsi asked about him
	unauthorized bool // and did not show the right token
}

// verdict answers a question about the probe.
func (p *probe) verdict(q question) roomVerdict {
	var a roomVerdict
	if q.Server != p.Server {
		return a
	}
	user := matrix.NewUserID("jitsi-check", p.Server)
	a.Results.User, a.User = true, &user
	if q.Room == p.Room {
		a.Results.Member, a.Power = true, &power{Room: roomLevels{StateDefault: 50}}
	}
	return a
}

// probes are those of checks that run.
type probes struct {
	mu    sync.Mutex // tier 1; guards all below
	token map[string]*probe
}

// begin makes a probe, which counts until end is called.
func (s *probes) begin(server matrix.ServerName) (p *probe, end func()) {
	p = &probe{Credential: Credential{Token: rand.Text(), Room: matrix.RoomID("!" + rand.Text() + ":" + string(server)), Server: server}}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.token == nil {
		s.token = map[string]*probe{}
	}
	s.token[p.Token] = p
	return p, func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.token, p.Token)
	}
}

// note changes the probe with a token; nil if there is none.
func (s *probes) note(token string, change func(*probe)) *probe {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.token[token]
	if p != nil {
		change(p)
	}
	return p
}
