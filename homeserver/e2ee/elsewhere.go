package e2ee

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"runtime/debug"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

const (
	// askTime is how long another server is given for an answer. Who waits may
	// give up before; what comes later is kept for the next one.
	askTime = time.Minute

	// mostAsking is how many servers may be asked at a time. Further ones count
	// as failures.
	mostAsking = 500

	// mostLists is how many device lists of one server are fetched one by one
	// for one request. If there are more, their keys are asked for together, and
	// the lists are fetched later.
	mostLists = 20

	// listsAtOnce is how many of these are fetched at a time.
	listsAtOnce = 4
)

// asking bounds how many servers are asked at a time.
type asking struct {
	mu sync.Mutex // tier 1; guards n
	n  int
}

// begin tells whether one more may be asked. Whoever may must call end.
func (a *asking) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.n >= mostAsking {
		return false
	}
	a.n++
	return true
}

func (a *asking) end() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.n--
}

// askAll asks servers at the same time, each with its part of what is asked, and
// calls take with each answer, one after the other. The servers that did not
// answer within timeout, or with an error, are in the failures. Asking goes on
// when the caller has given up.
func askAll[Q, A any](ctx context.Context, s *Service, timeout time.Duration, parts map[matrix.ServerName]Q,
	ask func(context.Context, matrix.ServerName, Q) (A, error), take func(A),
) map[matrix.ServerName]json.RawMessage {
	type result struct {
		server matrix.ServerName
		answer A
		err    error
	}
	failures := map[matrix.ServerName]json.RawMessage{}
	results := make(chan result, len(parts)) // so that nobody who is late waits
	waiting := map[matrix.ServerName]bool{}
	for server, part := range parts {
		if s.Client == nil || !s.asking.begin() {
			failures[server] = failure("the server was not asked")
			continue
		}
		waiting[server] = true
		go func() {
			defer s.asking.end()
			r := result{server: server}
			r.err = guarded(ctx, server, func(ctx context.Context) (err error) {
				r.answer, err = ask(ctx, server, part)
				return err
			})
			results <- r
		}()
	}
	timer := time.NewTimer(timeout)
	defer timer.Stop()
	for len(waiting) > 0 {
		select {
		case r := <-results:
			delete(waiting, r.server)
			if r.err == nil {
				take(r.answer)
				continue
			}
			zerolog.Ctx(ctx).Debug().Err(r.err).Str("server", string(r.server)).Msg("no keys")
			failures[r.server] = failure("the server could not be asked")
			continue
		case <-timer.C:
		case <-ctx.Done():
		}
		for server := range waiting {
			failures[server] = failure("the server did not answer in time")
		}
		break
	}
	return failures
}

// guarded asks a server in a goroutine that goes on when the caller has given up. A
// panic, which would end the process there, is an error.
func guarded(ctx context.Context, server matrix.ServerName, ask func(context.Context) error) (err error) {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), askTime)
	defer cancel()
	defer func() {
		if p := recover(); p != nil {
			zerolog.Ctx(ctx).Error().Interface("panic", p).Str("server", string(server)).Bytes("stack", debug.Stack()).Msg("asking for keys")
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	return ask(ctx)
}

// failure is what is told of a server that did not answer.
func failure(text string) json.RawMessage {
	b, _ := json.Marshal(map[string]string{"errcode": string(matrix.Unknown), "error": text})
	return b
}

// QueryAll is Query for users of all servers. Other servers are given timeout to
// answer; those that do not are in the failures.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysquery
func (s *Service) QueryAll(ctx context.Context, observer matrix.UserID, asked map[matrix.UserID][]matrix.DeviceID, timeout time.Duration) (*Keys, error) {
	k, err := s.Query(ctx, observer, asked)
	if err != nil || len(k.Failures) == 0 {
		return k, err
	}
	clear(k.Failures)
	unknown, err := s.KnownRemote(ctx, observer, asked, k)
	if err != nil || len(unknown) == 0 {
		return k, err
	}
	parts := map[matrix.ServerName]map[matrix.UserID][]matrix.DeviceID{}
	for u, devices := range unknown {
		part := parts[u.Server()]
		if part == nil {
			part = map[matrix.UserID][]matrix.DeviceID{}
			parts[u.Server()] = part
		}
		part[u] = devices
	}
	k.Failures = askAll(ctx, s, timeout, parts, func(ctx context.Context, server matrix.ServerName, part map[matrix.UserID][]matrix.DeviceID) (*Keys, error) {
		return s.queryServer(ctx, observer, server, part)
	}, func(answer *Keys) {
		maps.Copy(k.Devices, answer.Devices)
		maps.Copy(k.Master, answer.Master)
		maps.Copy(k.SelfSigning, answer.SelfSigning)
	})
	return k, nil
}

func newKeys() *Keys {
	return &Keys{
		Devices: map[matrix.UserID]map[matrix.DeviceID]json.RawMessage{}, Master: map[matrix.UserID]json.RawMessage{},
		SelfSigning: map[matrix.UserID]json.RawMessage{}, UserSigning: map[matrix.UserID]json.RawMessage{},
		Failures: map[matrix.ServerName]json.RawMessage{},
	}
}

// queryServer asks a server for the keys of its users. Of those who share a room
// with one of ours it gets whole device lists, which are kept.
func (s *Service) queryServer(ctx context.Context, observer matrix.UserID, server matrix.ServerName, asked map[matrix.UserID][]matrix.DeviceID) (*Keys, error) {
	k := newKeys()
	shared, err := s.Store.SharedSince(ctx, slices.Collect(maps.Keys(asked)))
	if err != nil {
		return nil, err
	}
	tracked := slices.Sorted(maps.Keys(shared))
	if len(tracked) > mostLists {
		err = s.postpone(ctx, tracked)
	} else if len(tracked) > 0 {
		s.resyncAll(ctx, tracked)
		if asked, err = s.KnownRemote(ctx, observer, asked, k); err == nil && len(asked) > 0 {
			tracked = slices.DeleteFunc(tracked, func(u matrix.UserID) bool { _, ok := asked[u]; return !ok })
			err = s.postpone(ctx, tracked)
		}
	}
	if err != nil || len(asked) == 0 {
		return k, err
	}
	answer, err := s.Client.QueryKeys(ctx, server, asked)
	if err != nil {
		return nil, err
	}
	return k, s.addForeign(ctx, observer, asked, answer, k)
}

// postpone notes that device lists are to be fetched when there is time, and that
// somebody wants to know of their changes.
func (s *Service) postpone(ctx context.Context, users []matrix.UserID) error {
	if len(users) == 0 {
		return nil
	}
	pos := max(1, s.Store.Position())
	return s.Store.Update(ctx, func(tx *store.Tx) error {
		for _, u := range users {
			l, _, err := tx.RemoteDeviceList(ctx, u)
			if err != nil {
				return err
			}
			l.User, l.Stale, l.Pos = u, true, pos
			if err := tx.PutRemoteDeviceList(ctx, l); err != nil {
				return err
			}
		}
		return nil
	})
}

// resyncAll fetches the device lists of some users of one server. Those that
// cannot be had stay as they are; once the server does not answer, no more are
// asked for.
func (s *Service) resyncAll(ctx context.Context, users []matrix.UserID) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	limit := make(chan struct{}, listsAtOnce)
	var group sync.WaitGroup
	for _, u := range users {
		limit <- struct{}{}
		group.Go(func() {
			defer func() { <-limit }()
			err := s.Resync(ctx, u)
			var refused *fedclient.ResponseError
			if err != nil && ctx.Err() == nil {
				zerolog.Ctx(ctx).Debug().Err(err).Str("user", string(u)).Msg("no device list")
				if !errors.As(err, &refused) {
					cancel()
				}
			}
		})
	}
	group.Wait()
}

// Resync asks for all devices of a user of another server and keeps them, if the
// user shares a room with one of ours. From then on that server's changes keep
// them up to date.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#get_matrixfederationv1userdevicesuserid
func (s *Service) Resync(ctx context.Context, user matrix.UserID) error {
	if s.Client == nil {
		return matrix.Errorf(matrix.NotFound, "there are no other servers")
	}
	result := s.resyncs.DoChan(string(user), func() (any, error) {
		return nil, guarded(ctx, user.Server(), func(ctx context.Context) error { return s.resync(ctx, user) })
	})
	select {
	case r := <-result:
		return r.Err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (s *Service) resync(ctx context.Context, user matrix.UserID) error {
	list := RemoteDevices{User: user, Asked: s.Store.Position()}
	answer, err := s.Client.UserDevices(ctx, user)
	if err != nil {
		return err
	}
	list.Stream, list.Master, list.SelfSigning = answer.StreamID, answer.MasterKey, answer.SelfSigningKey
	for _, d := range answer.Devices {
		list.Devices = append(list.Devices, RemoteDevice{ID: d.ID, Keys: d.Keys, DisplayName: d.DisplayName})
	}
	return s.PutRemote(ctx, list)
}

// addForeign adds what a server said of the keys of its users, as far as it was
// asked and as it has the right shape. The observer's own signatures of master
// keys are added.
func (s *Service) addForeign(ctx context.Context, observer matrix.UserID, asked map[matrix.UserID][]matrix.DeviceID, answer *fedclient.UserKeys, k *Keys) error {
	users := slices.Collect(maps.Keys(asked))
	list, err := s.Store.KeySignatures(ctx, users, observer)
	if err != nil {
		return err
	}
	signatures := map[signed][]store.KeySignature{}
	for _, sig := range list {
		signatures[signed{sig.User, sig.Key}] = append(signatures[signed{sig.User, sig.Key}], sig)
	}
	for _, u := range users {
		k.Devices[u] = map[matrix.DeviceID]json.RawMessage{}
		for id, raw := range answer.DeviceKeys[u] {
			if want := asked[u]; len(want) > 0 && !slices.Contains(want, id) {
				continue
			}
			var says struct {
				Unsigned struct {
					Name string `json:"device_display_name"`
				} `json:"unsigned"`
			}
			if err := json.Unmarshal(raw, &says); err != nil {
				says.Unsigned.Name = ""
			}
			if row, err := remoteRow(u, RemoteDevice{id, raw, says.Unsigned.Name}); err == nil && row.Keys != nil {
				k.Devices[u][id] = addUnsigned(row.Keys, row.DisplayName)
			}
		}
		for _, c := range []struct {
			usage store.Usage
			raw   json.RawMessage
			into  map[matrix.UserID]json.RawMessage
		}{{store.MasterKey, answer.MasterKeys[u], k.Master}, {store.SelfSigningKey, answer.SelfSigningKeys[u], k.SelfSigning}} {
			if len(c.raw) == 0 || string(c.raw) == "null" {
				continue
			}
			key, err := readCrossSigningKey(u, c.usage, c.raw)
			if err != nil {
				continue
			}
			if c.into[u], err = addSignatures(key.Keys, signatures[signed{u, key.Public}]); err != nil {
				return err
			}
		}
	}
	return nil
}

// ClaimAll is Claim for users of all servers. Other servers are given timeout to
// answer; those that do not are in the failures.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3keysclaim
func (s *Service) ClaimAll(ctx context.Context, asked map[matrix.UserID]map[matrix.DeviceID]string, timeout time.Duration) (Claimed, map[matrix.ServerName]json.RawMessage, error) {
	claimed, failures, err := s.Claim(ctx, asked)
	if err != nil || len(failures) == 0 {
		return claimed, failures, err
	}
	parts := map[matrix.ServerName]map[matrix.UserID]map[matrix.DeviceID]string{}
	for u, devices := range asked {
		if s.local(u) || len(devices) == 0 {
			continue
		}
		part := parts[u.Server()]
		if part == nil {
			part = map[matrix.UserID]map[matrix.DeviceID]string{}
			parts[u.Server()] = part
		}
		part[u] = devices
	}
	failures = askAll(ctx, s, timeout, parts, func(ctx context.Context, server matrix.ServerName, part map[matrix.UserID]map[matrix.DeviceID]string) (fedclient.OneTimeKeys, error) {
		return s.Client.ClaimKeys(ctx, server, part)
	}, func(answer fedclient.OneTimeKeys) {
		for u, devices := range answer {
			for d, keys := range devices {
				if algorithm, ok := asked[u][d]; ok {
					addClaimed(claimed, u, d, algorithm, keys)
				}
			}
		}
	})
	return claimed, failures, nil
}

// addClaimed adds the first key of a device that has the right algorithm and
// shape.
func addClaimed(claimed Claimed, user matrix.UserID, device matrix.DeviceID, algorithm string, keys map[string]json.RawMessage) {
	list, err := readKeys("one_time_keys", keys)
	if err != nil {
		return
	}
	for _, k := range list {
		if k.Algorithm == algorithm {
			if claimed[user] == nil {
				claimed[user] = map[matrix.DeviceID]map[string]json.RawMessage{}
			}
			claimed[user][device] = map[string]json.RawMessage{k.Algorithm + ":" + k.ID: k.Content}
			return
		}
	}
}
