package room

import (
	"context"
	"encoding/json"
	"errors"

	"github.com/rs/zerolog"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
)

// policyServer is the server that is asked about each event of a room before
// the room gets it, and the key, in base64, with which it says yes.
type policyServer struct {
	name matrix.ServerName
	key  string
}

// policyServer tells which policy server a room uses, "" for none.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#determining-if-a-policy-server-is-enabled-in-a-room
func (s *Service) policyServer(ctx context.Context, r *store.Room) (policyServer, error) {
	if _, none := s.unguarded.Find(r.Current); none {
		return policyServer{}, nil
	}
	v := s.view(ctx, r.Current)
	p := v.Event(event.TypePolicy, "")
	if p == nil {
		if v.err == nil {
			s.unguarded.Put(r.Current, struct{}{})
		}
		return policyServer{}, v.err
	}
	var keys struct {
		Ed25519 *string `json:"ed25519"`
	}
	via := matrix.ServerName(p.ContentString("via"))
	if json.Unmarshal(p.ContentValue("public_keys"), &keys) != nil || keys.Ed25519 == nil || via == "" {
		return policyServer{}, nil
	}
	in, err := s.Store.ServerInRoom(ctx, via, r.Num)
	if err != nil || !in {
		return policyServer{}, err
	}
	return policyServer{via, *keys.Ed25519}, nil
}

// recommends tells whether an event may go into the room without a question: it
// bears the policy server's signature, or needs none.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#validating-policy-server-signatures
func (by policyServer) recommends(p *event.PDU) bool {
	if by.name == "" || p.Is(event.TypePolicy, "") {
		return true
	}
	key, err := signing.ParsePublicKey(by.key)
	return err == nil && p.VerifySignature(by.name, signing.PolicyKeyID, key) == nil
}

// vet asks a policy server for its signature on an event. No lock is held
// meanwhile. The error is for the client.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#asking-for-a-policy-server-signature-on-an-event
func (s *Service) vet(ctx context.Context, by policyServer, p *event.PDU) (*event.PDU, error) {
	if by.recommends(p) {
		return p, nil
	}
	if s.Vet == nil {
		return nil, matrix.Errorf(matrix.Forbidden, "the room's policy server %s cannot be asked from here", by.name)
	}
	signed, err := s.Vet(ctx, by.name, p)
	if err == nil && !by.recommends(signed) {
		err = matrix.Errorf(matrix.Forbidden, "the policy server %s signs with another key than the room names", by.name)
	}
	return signed, err
}

// Vetted gives an event of this server, which is not in its room yet, the
// signature of the room's policy server if it has one. The error is for the
// client.
func (s *Service) Vetted(ctx context.Context, p *event.PDU) (*event.PDU, error) {
	r, err := s.find(ctx, p.Room)
	if err != nil {
		return nil, err
	}
	by, err := s.policyServer(ctx, r)
	if err != nil {
		return nil, err
	}
	return s.vet(ctx, by, p)
}

// commitVetted gets what was built on h signed by the room's policy server. As
// the room may move on meanwhile, the events are then taken as those of other
// servers are: wherever they stand, and if they are still allowed.
func (s *Service) commitVetted(ctx context.Context, h *head, by policyServer, more []also) ([]*store.Event, error) {
	h.free()
	for i, p := range h.made {
		var err error
		if h.made[i], err = s.vet(ctx, by, p); err != nil {
			return nil, err
		}
	}
	events := make([]*store.Event, len(h.made))
	for i, p := range h.made {
		_, err := s.receive(ctx, p, arrivalOptions{own: true, more: more})
		if err == nil {
			events[i], err = s.Store.Event(ctx, p.ID)
		}
		if err != nil {
			return nil, err
		}
		more = nil // they are for the first
	}
	return events, nil
}

// unvettedError says that a policy server must be asked about an event.
type unvettedError struct{ by policyServer }

func (e *unvettedError) Error() string { return string(e.by.name) + " must be asked about the event" }

// vetted is the last check of an arrival: asked is who was asked about it.
func (a *arrival) vetted(asked policyServer) error {
	if a.status != store.Accepted {
		return nil
	}
	by, err := a.s.policyServer(a.ctx, a.room)
	switch {
	case err != nil || by.recommends(a.pdu):
		return err
	case by != asked:
		return &unvettedError{by}
	}
	a.status, a.why = store.SoftFailed, errors.New("the room's policy server does not recommend it")
	return nil
}

// receive is land, and asks the room's policy server in between where that is
// needed.
func (s *Service) receive(ctx context.Context, p *event.PDU, o arrivalOptions) (store.Status, error) {
	for {
		status, err := s.land(ctx, p, o)
		var unvetted *unvettedError
		if !errors.As(err, &unvetted) {
			return status, err
		}
		o.asked = unvetted.by
		signed, err := s.vet(ctx, o.asked, p)
		switch {
		case err == nil:
			p = signed
		case ctx.Err() != nil:
			return 0, ctx.Err()
		case o.own:
			return 0, err
		default:
			zerolog.Ctx(ctx).Info().Err(err).Str("event", string(p.ID)).Str("room", string(p.Room)).Str("server", string(o.asked.name)).
				Msg("an event is hidden: the room's policy server does not recommend it")
		}
	}
}
