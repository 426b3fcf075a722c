package fedclient

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"

	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
)

// maxSignatures is how many signatures of one server on one event are checked.
const maxSignatures = 16

// SignatureError tells that an event does not have a signature that it needs.
// Err has signing.ErrUnsigned, signing.ErrWrong or ErrNoKey; after the last one,
// a later try may succeed.
type SignatureError struct {
	Event  matrix.EventID
	Server matrix.ServerName // whose signature it is
	Err    error
}

// Error implements error.
func (e *SignatureError) Error() string {
	return fmt.Sprintf("signature of %s on %s: %v", e.Server, e.Event, e.Err)
}

// Unwrap gives the cause.
func (e *SignatureError) Unwrap() error { return e.Err }

// VerifyEvents checks the signatures that events need, on all cores: that of
// the sender's server, in room versions 1 and 2 that of the event ID's, and for
// restricted joins that of the server that authorized it. Keys that are not
// known are fetched, those of all servers together. The answer has nil or
// a *SignatureError for each event. Content hashes are checked by event.Parse.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#validating-hashes-and-signatures-on-received-events
func (r *KeyRing) VerifyEvents(ctx context.Context, events []*event.PDU) []error {
	errs := r.VerifyKnown(ctx, events, 0)
	var lacking []*event.PDU
	var places []int
	for i, err := range errs {
		if errors.Is(err, ErrNoKey) {
			lacking, places = append(lacking, events[i]), append(places, i)
		}
	}
	if len(lacking) > 0 {
		r.Learn(ctx, lacking)
		for i, err := range r.VerifyKnown(ctx, lacking, 0) {
			errs[places[i]] = err
		}
	}
	return errs
}

// VerifyKnown is VerifyEvents with the keys that are known, without the network.
// After an error with ErrNoKey, Learn may help. Some cores are spared for other
// work, as long as one is left.
func (r *KeyRing) VerifyKnown(ctx context.Context, events []*event.PDU, spared int) []error {
	errs := make([]error, len(events))
	inParallel(len(events), spared, func(i int) { errs[i] = r.verifyEvent(ctx, events[i]) })
	return errs
}

// Learn fetches the keys that are needed for events, as far as they can be had.
func (r *KeyRing) Learn(ctx context.Context, events []*event.PDU) {
	needs := map[matrix.ServerName]need{}
	for _, e := range events {
		for _, server := range signers(e) {
			r.needFor(ctx, e, server, needs)
		}
	}
	if len(needs) > 0 {
		r.ensure(ctx, needs)
	}
}

// signers are the servers that must have signed an event.
func signers(e *event.PDU) []matrix.ServerName {
	servers := make([]matrix.ServerName, 0, 2)
	invite := e.Type == event.TypeMember && e.Membership() == event.Invite
	if !invite || e.ContentValue("third_party_invite") == nil {
		servers = append(servers, e.Sender.Server())
	}
	if e.Version.EventIDInEvent && e.ID.Server() != e.Sender.Server() {
		servers = append(servers, e.ID.Server())
	}
	if e.Version.RestrictedRule && e.Type == event.TypeMember && e.Membership() == event.Join {
		via, err := matrix.ParseUserID(e.ContentString("join_authorised_via_users_server"))
		if err == nil && via.Server() != e.Sender.Server() {
			servers = append(servers, via.Server())
		}
	}
	return servers
}

// known are the keys of a server that are known.
func (r *KeyRing) known(ctx context.Context, server matrix.ServerName) *serverKeys {
	s, err := r.of(ctx, server)
	if err != nil {
		return &serverKeys{}
	}
	return s
}

// needFor adds to needs the keys of a server's signatures on an event, unless
// one of them is known already.
func (r *KeyRing) needFor(ctx context.Context, e *event.PDU, server matrix.ServerName, needs map[matrix.ServerName]need) {
	s := r.known(ctx, server)
	until := int64(0)
	if e.Version.SignatureValidity {
		until = e.OriginServerTS
	}
	var ids []string
	for id := range signing.Signatures(e.Signatures(), string(server)) {
		if k, ok := s.keys[id]; ok && validAt(k, e.OriginServerTS, e.Version.SignatureValidity) {
			return
		}
		if validKeyID(id) && len(ids) < maxSignatures {
			ids = append(ids, id)
		}
	}
	for _, id := range ids {
		n, ok := needs[server]
		if !ok {
			n = need{until: map[string]int64{}}
			needs[server] = n
		}
		if len(n.until) < maxNeeds || n.until[id] != 0 {
			n.until[id] = max(n.until[id], until)
		}
	}
}

// maxNeeds is how many keys of one server are looked for at a time.
const maxNeeds = 64

// verifyEvent checks one event with the keys that are known. Signatures with
// keys that are not, or were not valid when it was sent, do not count.
func (r *KeyRing) verifyEvent(ctx context.Context, e *event.PDU) error {
	for _, server := range signers(e) {
		if err := verifySignatures(e, server, r.known(ctx, server)); err != nil {
			return &SignatureError{e.ID, server, err}
		}
	}
	return nil
}

func verifySignatures(e *event.PDU, server matrix.ServerName, s *serverKeys) error {
	signed, good := false, 0
	for id := range signing.Signatures(e.Signatures(), string(server)) {
		signed = true
		k, ok := s.keys[id]
		if !ok || !validAt(k, e.OriginServerTS, e.Version.SignatureValidity) {
			continue
		}
		if err := e.VerifySignature(server, id, k.Public); err != nil {
			return err
		}
		if good++; good == maxSignatures {
			break
		}
	}
	switch {
	case good > 0:
		return nil
	case signed:
		return ErrNoKey
	}
	return signing.ErrUnsigned
}

// inParallel calls f for 0 to n-1, on all cores but some where that pays.
func inParallel(n, spared int, f func(i int)) {
	workers := min(runtime.GOMAXPROCS(0)-spared, (n+3)/4)
	if workers <= 1 {
		for i := range n {
			f(i)
		}
		return
	}
	var next atomic.Int64
	var group sync.WaitGroup
	for range workers {
		group.Go(func() {
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				f(i)
			}
		})
	}
	group.Wait()
}

// Authenticate tells which server made a request, whose body was read: the one
// that signed it, with a key that is valid now, for this server. A signature
// is good for no other request and no other server, so whoever overhears one
// gains nothing but to repeat that request. The errors are *matrix.Error, to
// be answered as they are: M_UNAUTHORIZED, M_FORBIDDEN for servers that the
// operator does not permit, M_NOT_JSON.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#request-authentication
func (r *KeyRing) Authenticate(req *http.Request, body []byte) (matrix.ServerName, error) {
	headers, err := parseAuthorizations(req.Header)
	if err != nil {
		return "", unauthorized("the request is not signed", err)
	}
	origin := headers[0].origin
	if d := headers[0].destination; d != "" && d != r.client.server {
		return "", unauthorized("the request is for another server", nil)
	}
	if !r.client.config.Permits(origin) {
		return "", notPermitted(origin)
	}
	var content []byte
	if len(body) > 0 {
		if content, err = canonjson.Relaxed(body); err != nil {
			return "", &matrix.Error{Code: matrix.NotJSON, Text: "the body is not the JSON that can be signed", Cause: err}
		}
	}
	uri := req.RequestURI
	if !strings.HasPrefix(uri, "/") {
		uri = req.URL.RequestURI()
	}
	// Servers that do not say for whom they sign sign it all the same.
	signed := signedRequest(origin, r.client.server, req.Method, uri, content)
	if err := r.verifyRequest(req.Context(), headers, signed); err != nil {
		return "", unauthorized("the signature of "+string(origin)+" could not be verified", err)
	}
	r.client.Heard(req.Context(), origin)
	return origin, nil
}

func unauthorized(text string, cause error) error {
	return &matrix.Error{Code: matrix.Unauthorized, Text: text, Cause: cause}
}

// verifyRequest checks that one of the headers has a good signature with a key
// that is in use.
func (r *KeyRing) verifyRequest(ctx context.Context, headers []xmatrix, signed []byte) error {
	origin, now := headers[0].origin, r.now().UnixMilli()
	n := need{until: map[string]int64{}, current: true}
	for _, x := range headers {
		if validKeyID(x.key) {
			n.until[x.key] = now
		}
	}
	if len(n.until) == 0 {
		return errors.New("no algorithm that we know")
	}
	r.ensure(ctx, map[matrix.ServerName]need{origin: n})
	s, err := r.of(ctx, origin)
	if err != nil {
		return err
	}
	err = ErrNoKey
	for _, x := range headers {
		k, ok := s.keys[x.key]
		if !ok || k.ExpiredTS != 0 || !validAt(k, now, true) {
			continue
		}
		if err = signing.Verify(signed, x.signature, k.Public); err == nil {
			return nil
		}
	}
	return err
}
