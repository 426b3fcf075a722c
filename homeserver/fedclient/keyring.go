package fedclient

import (
	"context"
	"crypto/ed25519"
	"errors"
	"fmt"
	"maps"
	"math"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/singleflight"

	"switchboard/homeserver/cache"
	"switchboard/homeserver/canonjson"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/signing"
	"switchboard/homeserver/store"
)

// ErrNoKey is in the error of a check for which there is no valid key: it could
// not be fetched, or it was not valid at that time.
var ErrNoKey = errors.New("no valid key")

// The bounds of the key ring.
const (
	maxRing    = 50_000           // keys in memory
	fetchTime  = 20 * time.Second // for asking one server
	fetchSlots = 128              // servers asked at a time
	batchSlots = 64               // for one batch of events
	waitTime   = 25 * time.Second // for a slot and an answer
	batchTime  = 3 * time.Minute  // for all servers of a batch

	askAgain     = 10 * time.Second // how often a server is asked for the key of a request
	firstRefetch = time.Minute      // how often it is asked for that of an event; failures double it
	longRefetch  = time.Hour

	notaryFirst = 8   // with more servers than this, notaries are asked before them
	notaryBatch = 100 // servers in one question to a notary
)

// KeyRing knows the keys of servers: it fetches, keeps and uses them. Its
// methods may be called from several goroutines and may wait for the network.
type KeyRing struct {
	client  *Client
	store   *store.Store
	own     *serverKeys
	servers *cache.Cache[matrix.ServerName, *serverKeys]
	tries   *cache.Cache[matrix.ServerName, try]
	rests   *cache.Cache[matrix.ServerName, try] // notaries that do not answer
	flights singleflight.Group
	slots   chan struct{}
	now     func() time.Time

	mu sync.Mutex // tier 1; held while servers is read and then written
}

// serverKeys are the keys of one server by ID. They are not changed.
type serverKeys struct {
	keys map[string]store.ServerKey
}

// try is when a server was last asked for its keys.
type try struct {
	at       time.Time
	failures int // in a row
}

// pause is how long to wait after a try.
func (t try) pause() time.Duration { return min(firstRefetch<<min(t.failures, 10), longRefetch) }

// NewKeyRing makes the key ring of the client's server. It uses the client's
// store.
func NewKeyRing(c *Client) *KeyRing {
	r := &KeyRing{
		client: c, store: c.reach.store, own: &serverKeys{map[string]store.ServerKey{}},
		servers: cache.New[matrix.ServerName, *serverKeys](maxRing),
		tries:   cache.New[matrix.ServerName, try](maxReach),
		rests:   cache.New[matrix.ServerName, try](maxReach),
		slots:   make(chan struct{}, fetchSlots),
		now:     time.Now,
	}
	for _, k := range c.config.OldKeys {
		if public, err := publicKey(k.ID, k.Public); err == nil {
			r.own.keys[k.ID] = store.ServerKey{Server: c.server, ID: k.ID, Public: public, ValidUntilTS: k.ExpiredTS, ExpiredTS: k.ExpiredTS}
		}
	}
	r.own.keys[c.key.ID] = store.ServerKey{Server: c.server, ID: c.key.ID, Public: c.key.Public(), ValidUntilTS: math.MaxInt64}
	return r
}

// need is which keys of a server are needed: by ID, until when they must be
// known to be valid in milliseconds. 0 is for any time.
type need struct {
	until map[string]int64

	// current tells that old keys are of no use, and that the server is there:
	// it has just asked us something.
	current bool
}

// met tells whether asking the server again could not help.
func (n need) met(s *serverKeys) bool {
	for id, until := range n.until {
		k, ok := s.keys[id]
		if !ok || k.ExpiredTS == 0 && k.ValidUntilTS < until || k.ExpiredTS != 0 && n.current {
			return false
		}
	}
	return true
}

// Key answers the key that server published as keyID, if it was valid at a time
// in milliseconds. The error has ErrNoKey.
func (r *KeyRing) Key(ctx context.Context, server matrix.ServerName, keyID string, at int64) (ed25519.PublicKey, error) {
	r.ensure(ctx, map[matrix.ServerName]need{server: {until: map[string]int64{keyID: at}}})
	s, err := r.of(ctx, server)
	if err != nil {
		return nil, err
	}
	k, ok := s.keys[keyID]
	if !ok || !validAt(k, at, true) {
		return nil, fmt.Errorf("%w: %s of %s", ErrNoKey, clean(keyID), server)
	}
	return k.Public, nil
}

// VerifyJSON checks that server signed a JSON object with one of its keys that
// was valid at a time in milliseconds. The error has signing.ErrUnsigned,
// signing.ErrWrong or ErrNoKey.
//
// Spec: https://spec.matrix.org/v1.19/appendices/#checking-for-a-signature
func (r *KeyRing) VerifyJSON(ctx context.Context, server matrix.ServerName, obj []byte, at int64) error {
	ids, err := keyIDs(obj, server)
	if err != nil {
		return err
	}
	err = signing.ErrUnsigned
	for _, id := range ids[:min(len(ids), maxSignatures)] {
		key, keyErr := r.Key(ctx, server, id, at)
		if keyErr != nil {
			err = keyErr
			continue
		}
		return signing.VerifyJSON(obj, string(server), id, key)
	}
	return fmt.Errorf("signature of %s: %w", server, err)
}

// keyIDs lists the keys with which server signed a JSON object.
func keyIDs(obj []byte, server matrix.ServerName) ([]string, error) {
	obj, err := canonjson.Canonical(obj)
	if err != nil {
		return nil, err
	}
	signatures, _ := canonjson.Lookup(obj, "signatures")
	var ids []string
	for id := range signing.Signatures(signatures, string(server)) {
		ids = append(ids, id)
	}
	return ids, nil
}

// validAt tells whether what was signed at a time in milliseconds may be signed
// with a key. Without strict, a key that is in use is valid for ever.
//
// Spec: https://spec.matrix.org/v1.19/rooms/v5/#signing-key-validity-period
func validAt(k store.ServerKey, at int64, strict bool) bool {
	if k.ExpiredTS != 0 {
		return at <= k.ExpiredTS
	}
	return !strict || at <= k.ValidUntilTS
}

// of answers the keys of a server that are known.
func (r *KeyRing) of(ctx context.Context, server matrix.ServerName) (*serverKeys, error) {
	if server == r.client.server {
		return r.own, nil
	}
	if s, ok := r.servers.Find(server); ok {
		return s, nil
	}
	list, err := r.store.ServerKeys(ctx, server)
	if err != nil {
		return nil, err
	}
	s := &serverKeys{make(map[string]store.ServerKey, len(list))}
	for _, k := range list {
		s.keys[k.ID] = k
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if newer, ok := r.servers.Find(server); ok {
		return newer, nil
	}
	r.servers.Put(server, s, 1+len(s.keys))
	return s, nil
}

// ensure fetches what is needed and can be had: from the servers themselves and
// from notaries. What is still missing shows in of.
func (r *KeyRing) ensure(ctx context.Context, needs map[matrix.ServerName]need) {
	needs = r.missing(ctx, needs)
	if len(needs) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, min(waitTime*time.Duration(1+len(needs)/batchSlots), batchTime))
	defer cancel()
	asked := false
	if len(needs) > notaryFirst {
		r.askNotaries(ctx, needs)
		needs, asked = r.unmet(ctx, needs), true
	}
	var group errgroup.Group
	group.SetLimit(batchSlots)
	for server, n := range needs {
		group.Go(func() error {
			if !n.current && r.client.reach.check(ctx, server) != nil {
				return nil // it does not answer
			}
			if err := r.fetch(ctx, server, n); err != nil {
				zerolog.Ctx(ctx).Debug().Err(err).Str("server", string(server)).Msg("no keys")
			}
			return nil
		})
	}
	_ = group.Wait() // no error comes out
	if left := r.unmet(ctx, needs); !asked && len(left) > 0 {
		r.askNotaries(ctx, left)
	}
	for server := range needs {
		r.tried(ctx, server, needs[server])
	}
}

// missing are the needs that are not met, of servers that may be asked again.
func (r *KeyRing) missing(ctx context.Context, needs map[matrix.ServerName]need) map[matrix.ServerName]need {
	left := r.unmet(ctx, needs)
	for server, n := range left {
		t, ok := r.tries.Find(server)
		pause := t.pause()
		if n.current {
			pause = askAgain
		}
		if ok && r.now().Sub(t.at) < pause || server == r.client.server {
			delete(left, server)
		}
	}
	return left
}

func (r *KeyRing) unmet(ctx context.Context, needs map[matrix.ServerName]need) map[matrix.ServerName]need {
	left := map[matrix.ServerName]need{}
	for server, n := range needs {
		s, err := r.of(ctx, server)
		if err != nil {
			zerolog.Ctx(ctx).Err(err).Str("server", string(server)).Msg("keys not read")
		} else if !n.met(s) {
			left[server] = n
		}
	}
	return left
}

// tried remembers that a server was asked, and whether it helped.
func (r *KeyRing) tried(ctx context.Context, server matrix.ServerName, n need) {
	if ctx.Err() != nil && !errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return // our caller did not wait
	}
	t, _ := r.tries.Find(server)
	if s, err := r.of(ctx, server); err == nil && n.met(s) {
		t.failures = -1
	}
	r.tries.Put(server, try{r.now(), t.failures + 1}, 1)
}

// fetch asks a server for its keys and keeps them. Callers that ask for the
// same at the same time share one question. Who comes when the question of
// another has just been answered, and has what it needs, asks none; no need is
// never met.
func (r *KeyRing) fetch(ctx context.Context, server matrix.ServerName, n need) error {
	flight := r.flights.DoChan(string(server), func() (any, error) {
		if s, err := r.of(ctx, server); err == nil && len(n.until) > 0 && n.met(s) {
			return nil, nil
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), waitTime)
		defer cancel()
		select {
		case r.slots <- struct{}{}:
			defer func() { <-r.slots }()
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		body, err := r.client.ServerKeys(ctx, server)
		if err != nil {
			return nil, err
		}
		a, err := parseKeyAnswer(server, body, r.now())
		if err != nil {
			return nil, &AnswerError{server, err}
		}
		return nil, r.keep(ctx, a, "")
	})
	select {
	case f := <-flight:
		return f.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// keep keeps the keys of an answer that came from the server itself, or from a
// notary. A notary may answer what the server said long ago, so it can add to
// what is known but take nothing back.
func (r *KeyRing) keep(ctx context.Context, a *keyAnswer, notary matrix.ServerName) error {
	old, err := r.of(ctx, a.server)
	if err != nil {
		return err
	}
	r.mu.Lock()
	if newer, ok := r.servers.Find(a.server); ok {
		old = newer
	}
	next, changed := old.with(a.keys, notary != "", r.now().UnixMilli())
	r.servers.Put(a.server, next, 1+len(next.keys))
	r.mu.Unlock()
	if len(changed) == 0 {
		return nil
	}
	return r.store.Update(ctx, func(tx *store.Tx) error { return tx.PutServerKeys(ctx, a.server, changed) })
}

// with is s with keys that were told, by the server itself or at second hand,
// and which of them that changes.
func (s *serverKeys) with(told []store.ServerKey, secondHand bool, now int64) (next *serverKeys, changed []store.ServerKey) {
	next = &serverKeys{maps.Clone(s.keys)}
	for _, k := range told {
		known, ok := s.keys[k.ID]
		if secondHand && ok {
			same := known.Public.Equal(k.Public)
			switch {
			case known.ExpiredTS != 0, !same && known.ValidUntilTS >= now, k.ExpiredTS == 0 && k.ValidUntilTS <= known.ValidUntilTS:
				continue
			}
		}
		changed = append(changed, k)
		k.Answer = nil
		next.keys[k.ID] = k
	}
	return next, changed
}

// askNotaries asks the notaries, one after the other, for what is still
// missing.
func (r *KeyRing) askNotaries(ctx context.Context, needs map[matrix.ServerName]need) {
	for _, n := range r.client.config.Notaries {
		rest, resting := r.rests.Find(n.Server)
		if resting && r.now().Sub(rest.at) < rest.pause() {
			continue
		}
		servers := slices.Sorted(maps.Keys(needs))
		for batch := range slices.Chunk(servers, notaryBatch) {
			err := r.askNotary(ctx, n, needs, batch)
			if err == nil {
				r.rests.Drop(n.Server)
				continue
			}
			zerolog.Ctx(ctx).Debug().Err(err).Str("server", string(n.Server)).Msg("notary")
			if !errors.Is(ctx.Err(), context.Canceled) {
				r.rests.Put(n.Server, try{r.now(), rest.failures + 1}, 1)
			}
			break
		}
		if needs = r.unmet(ctx, needs); len(needs) == 0 {
			return
		}
	}
}

// askNotary asks a notary for keys of servers. Each answer must be signed by
// its server and by the notary.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#querying-keys-through-another-server
func (r *KeyRing) askNotary(ctx context.Context, n NotaryConfig, needs map[matrix.ServerName]need, servers []matrix.ServerName) error {
	if n.Server == r.client.server {
		return nil
	}
	asking, cancel := context.WithTimeout(ctx, fetchTime)
	defer cancel()
	keys, err := r.notaryKeys(asking, n)
	if err != nil {
		return err
	}
	now := r.now()
	ask := make(map[matrix.ServerName]map[string]int64, len(servers))
	for _, s := range servers {
		ask[s] = make(map[string]int64, len(needs[s].until))
		for id, until := range needs[s].until {
			if until == 0 || needs[s].current {
				until = now.UnixMilli()
			}
			ask[s][id] = until
		}
	}
	answers, err := r.client.NotaryKeys(asking, n.Server, ask)
	if err != nil {
		return err
	}
	for _, body := range answers {
		a, err := r.notaryAnswer(n.Server, keys, ask, body)
		if err == nil {
			err = r.keep(ctx, a, n.Server)
		}
		if err != nil {
			zerolog.Ctx(ctx).Debug().Err(err).Str("server", string(n.Server)).Msg("answer of a notary")
		}
	}
	return nil
}

// notaryKeys are the keys with which a notary signs now.
func (r *KeyRing) notaryKeys(ctx context.Context, n NotaryConfig) (map[string]ed25519.PublicKey, error) {
	keys := map[string]ed25519.PublicKey{}
	for id, text := range n.Keys {
		key, err := publicKey(id, text)
		if err != nil {
			return nil, err
		}
		keys[id] = key
	}
	if len(keys) > 0 {
		return keys, nil
	}
	now := r.now().UnixMilli()
	for again := false; ; again = true {
		s, err := r.of(ctx, n.Server)
		if err != nil {
			return nil, err
		}
		for id, k := range s.keys {
			if k.ExpiredTS == 0 && validAt(k, now, true) {
				keys[id] = k.Public
			}
		}
		if len(keys) > 0 {
			return keys, nil
		}
		if again {
			return nil, fmt.Errorf("%w of the notary", ErrNoKey)
		}
		if err := r.fetch(ctx, n.Server, need{}); err != nil {
			return nil, err
		}
	}
}

// notaryAnswer reads and checks one answer of a notary.
func (r *KeyRing) notaryAnswer(notary matrix.ServerName, keys map[string]ed25519.PublicKey, ask map[matrix.ServerName]map[string]int64, body []byte) (*keyAnswer, error) {
	name, err := serverNameOf(body)
	if err != nil {
		return nil, err
	}
	if _, asked := ask[name]; !asked {
		return nil, fmt.Errorf("the keys of %s, which nobody asked for", name)
	}
	a, err := parseKeyAnswer(name, body, r.now())
	if err != nil {
		return nil, err
	}
	for id, key := range keys {
		if signing.VerifyJSON(a.json, string(notary), id, key) == nil {
			return a, nil
		}
	}
	return nil, errors.New("the notary has not signed")
}
