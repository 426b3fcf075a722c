package appservices

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/matrix"
	"switchboard/registrations"
)

// protocolKeeps is how long what an appservice says of a network is believed.
const protocolKeeps = 10 * time.Minute

// protocolAnswer is what the appservices of a network said of it.
type protocolAnswer struct {
	content json.RawMessage // nil: nothing
	until   time.Time
}

// pingBody is the body of a ping.
func pingBody(txn string) []byte {
	b, err := json.Marshal(map[string]string{"transaction_id": txn})
	if err != nil {
		return []byte("{}") // a string is always JSON
	}
	return b
}

// Protocols describes all third-party networks that appservices serve, by name.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocols
func (s *Service) Protocols(ctx context.Context) (map[string]json.RawMessage, error) {
	all := map[string]json.RawMessage{}
	for _, reg := range s.Registrations.All() {
		for _, name := range reg.Protocols {
			if all[name] != nil {
				continue
			}
			p, err := s.protocolOf(ctx, name)
			if err != nil {
				return nil, err
			}
			if p != nil {
				all[name] = p
			}
		}
	}
	return all, nil
}

// Protocol describes a third-party network. The error is M_NOT_FOUND.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyprotocolprotocol
func (s *Service) Protocol(ctx context.Context, name string) (json.RawMessage, error) {
	p, err := s.protocolOf(ctx, name)
	if err == nil && p == nil {
		err = matrix.Errorf(matrix.NotFound, "no appservice serves the network %q", name)
	}
	return p, err
}

// protocolOf asks all appservices of a network what it is, and puts their
// instances together. It gives nil if none answers.
func (s *Service) protocolOf(ctx context.Context, name string) (json.RawMessage, error) {
	serving := s.Registrations.ByProtocol(name)
	if len(serving) == 0 {
		return nil, nil
	}
	s.mu.Lock()
	known, ok := s.protocol[name]
	s.mu.Unlock()
	if ok && time.Now().Before(known.until) {
		return known.content, nil
	}
	var whole map[string]json.RawMessage
	var instances []map[string]json.RawMessage
	for _, reg := range serving {
		var one map[string]json.RawMessage
		if !s.lookup(ctx, reg, "/thirdparty/protocol/"+url.PathEscape(name), nil, &one) || one == nil {
			continue
		}
		var list []map[string]json.RawMessage
		if raw := one["instances"]; raw != nil && json.Unmarshal(raw, &list) != nil {
			zerolog.Ctx(ctx).Warn().Str("appservice", reg.ID).Msg("the appservice describes a network without a list of instances")
		}
		for _, instance := range list {
			instances = append(instances, named(instance, reg))
		}
		if whole == nil {
			whole = maps.Clone(one)
		}
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	answer := protocolAnswer{until: time.Now().Add(protocolKeeps)}
	if whole != nil {
		var err error
		if whole["instances"], err = json.Marshal(append([]map[string]json.RawMessage{}, instances...)); err != nil {
			return nil, fmt.Errorf("network %s: %w", name, err)
		}
		if answer.content, err = json.Marshal(whole); err != nil {
			return nil, fmt.Errorf("network %s: %w", name, err)
		}
	} else {
		answer.until = time.Now().Add(10 * time.Second) // nobody answered: ask again soon
	}
	s.mu.Lock()
	if s.protocol != nil {
		s.protocol[name] = answer
	}
	s.mu.Unlock()
	return answer.content, nil
}

// named gives an instance an ID by which a directory of rooms can be asked for,
// if it has none.
func named(instance map[string]json.RawMessage, reg *registrations.Registration) map[string]json.RawMessage {
	var network string
	if instance["instance_id"] == nil && json.Unmarshal(instance["network_id"], &network) == nil {
		id, err := json.Marshal(reg.ID + "|" + network)
		if err == nil {
			instance["instance_id"] = id
		}
	}
	return instance
}

// Locations finds the portal rooms of a place on a network. The error is
// M_NOT_FOUND for a network that nobody serves.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartylocationprotocol
func (s *Service) Locations(ctx context.Context, protocol string, fields url.Values) ([]json.RawMessage, error) {
	return s.search(ctx, protocol, "/thirdparty/location/", fields)
}

// Users finds the Matrix users of people on a network. The error is M_NOT_FOUND
// for a network that nobody serves.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyuserprotocol
func (s *Service) Users(ctx context.Context, protocol string, fields url.Values) ([]json.RawMessage, error) {
	return s.search(ctx, protocol, "/thirdparty/user/", fields)
}

func (s *Service) search(ctx context.Context, protocol, path string, fields url.Values) ([]json.RawMessage, error) {
	list := s.Registrations.ByProtocol(protocol)
	if len(list) == 0 {
		return nil, matrix.Errorf(matrix.NotFound, "no appservice serves the network %q", protocol)
	}
	return s.collect(ctx, list, path+url.PathEscape(protocol), fields)
}

// LocationsOf finds the places on networks that a room alias stands for.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartylocation
func (s *Service) LocationsOf(ctx context.Context, alias matrix.RoomAlias) ([]json.RawMessage, error) {
	return s.collect(ctx, s.Registrations.InterestedInAlias(string(alias)), "/thirdparty/location", url.Values{"alias": {string(alias)}})
}

// UsersOf finds the people on networks that a user stands for.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3thirdpartyuser
func (s *Service) UsersOf(ctx context.Context, user matrix.UserID) ([]json.RawMessage, error) {
	return s.collect(ctx, s.Registrations.InterestedInUser(string(user)), "/thirdparty/user", url.Values{"userid": {string(user)}})
}

// collect asks several appservices and puts their lists together.
func (s *Service) collect(ctx context.Context, list []*registrations.Registration, path string, query url.Values) ([]json.RawMessage, error) {
	found := []json.RawMessage{}
	for _, reg := range list {
		var some []json.RawMessage
		if s.lookup(ctx, reg, path, query, &some) {
			found = append(found, some...)
		}
	}
	return found, ctx.Err()
}

// lookup asks one appservice and decodes its answer into v. An appservice that
// does not know counts as none.
func (s *Service) lookup(ctx context.Context, reg *registrations.Registration, path string, query url.Values, v any) bool {
	to := s.to(reg)
	if to == nil {
		return false
	}
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	a, err := to.do(ctx, call{method: http.MethodGet, path: "/_matrix/app/v1" + path, old: "/_matrix/app/unstable" + path, query: query})
	if err == nil && a.ok() {
		err = json.Unmarshal(a.body, v)
	}
	if err != nil {
		zerolog.Ctx(ctx).Warn().Str("appservice", reg.ID).Err(err).Msg("the appservice does not answer a question")
	}
	return err == nil && a.ok()
}
