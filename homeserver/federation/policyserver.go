package federation

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
)

const (
	vetTime  = 10 * time.Second
	vetWait  = 3 * time.Second // for which a policy server is waited that has too much to do
	restMost = time.Minute
)

// Vet asks a policy server to sign an event, and answers the event with the
// signature, which is not verified yet. A server that does not answer is left
// alone for a moment, as each event of its rooms would wait for it. The error is
// for the client: what the policy server said, M_LIMIT_EXCEEDED or M_UNKNOWN.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#asking-for-a-policy-server-signature-on-an-event
func (s *Service) Vet(ctx context.Context, server matrix.ServerName, p *event.PDU) (*event.PDU, error) {
	signed, err := s.vet(ctx, server, p)
	var busy *matrix.Error
	if !errors.As(err, &busy) || busy.Code != matrix.LimitExceeded || busy.RetryAfter > vetWait {
		return signed, err
	}
	select {
	case <-time.After(busy.RetryAfter):
		return s.vet(ctx, server, p)
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (s *Service) vet(ctx context.Context, server matrix.ServerName, p *event.PDU) (*event.PDU, error) {
	if err := s.policyServers.awake(server); err != nil {
		return nil, err
	}
	asking, cancel := context.WithTimeout(ctx, cmp.Or(s.VetTime, vetTime))
	defer cancel()
	signed, err := s.Client.PolicySign(asking, server, p)
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	if err == nil {
		s.policyServers.answered(server)
		return signed, nil
	}
	var said *matrix.Error
	var bad *fedclient.AnswerError
	reached := errors.As(refusal(err), &said)
	if !reached {
		said = &matrix.Error{Code: matrix.Unknown, Status: 502, Text: fmt.Sprintf("the room's policy server %s gives no answer", server), Cause: err}
		reached = errors.As(err, &bad)
	}
	if reached && said.Code != matrix.LimitExceeded {
		s.policyServers.answered(server)
	} else {
		s.policyServers.rest(server, said)
	}
	return nil, said
}

// policyServers are those that are left alone for a moment.
type policyServers struct {
	mu      sync.Mutex // tier 1; guards resting
	resting map[matrix.ServerName]resting
}

// resting is why a server is left alone, and until when.
type resting struct {
	until    time.Time
	failures int
	why      matrix.Error
}

// awake gives the error of the last question as long as there is to be no other.
func (l *policyServers) awake(server matrix.ServerName) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	r := l.resting[server]
	if r.why.RetryAfter = time.Until(r.until); r.why.RetryAfter <= 0 {
		return nil
	}
	return &r.why
}

func (l *policyServers) answered(server matrix.ServerName) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.resting, server)
}

// mostResting bounds the servers whose failures are counted.
const mostResting = 10_000

// rest leaves a server alone for as long as it says, or for a time that doubles
// with each failure, and writes that into why.
func (l *policyServers) rest(server matrix.ServerName, why *matrix.Error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.resting == nil || len(l.resting) >= mostResting {
		l.resting = map[matrix.ServerName]resting{}
	}
	r := l.resting[server]
	if time.Now().Before(r.until) {
		return // questions that were under way together
	}
	r.failures++
	if why.RetryAfter <= 0 {
		why.RetryAfter = time.Second << min(r.failures, 6)
	}
	why.RetryAfter = min(why.RetryAfter, restMost)
	r.until, r.why = time.Now().Add(why.RetryAfter), *why
	l.resting[server] = r
}
