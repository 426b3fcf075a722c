package registrations

import (
	"crypto/sha256"
	"crypto/subtle"
	"errors"
	"fmt"
	"strings"
	"sync/atomic"
)

// Set is the registrations that are in force. It can be read at any time by
// any goroutine, also while Replace puts others in their place.
type Set struct {
	server  string
	current atomic.Pointer[snapshot]
}

// snapshot is never changed.
type snapshot struct {
	all     []*Registration
	byToken map[[sha256.Size]byte]*Registration
	byID    map[string]*Registration
	sender  map[string]*Registration // by user ID
}

// NewSet makes an empty set for the users of server.
func NewSet(server string) *Set {
	s := &Set{server: server}
	s.current.Store(&snapshot{})
	return s
}

// Replace puts list in force instead of what was. If two of list have the same
// ID or as_token, it names all such pairs and changes nothing. Two may have the
// same sender; it counts as the first one's.
func (s *Set) Replace(list []*Registration) error {
	next := &snapshot{
		all:     append([]*Registration(nil), list...),
		byToken: make(map[[sha256.Size]byte]*Registration, len(list)),
		byID:    make(map[string]*Registration, len(list)),
		sender:  make(map[string]*Registration, len(list)),
	}
	var errs []error
	for _, r := range list {
		token := sha256.Sum256([]byte(r.ASToken))
		if other := next.byID[r.ID]; other != nil {
			errs = append(errs, fmt.Errorf("two registrations have the id %q; it must be unique", r.ID))
			continue
		}
		if other := next.byToken[token]; other != nil {
			errs = append(errs, fmt.Errorf("registrations %q and %q have the same as_token; it must be unique", other.ID, r.ID))
			continue
		}
		next.byID[r.ID], next.byToken[token] = r, r
		if sender := r.Sender(s.server); next.sender[sender] == nil {
			next.sender[sender] = r
		}
	}
	if len(errs) > 0 {
		return errors.Join(errs...)
	}
	s.current.Store(next)
	return nil
}

// All lists the registrations in the order in which they were given. The slice
// must not be changed.
func (s *Set) All() []*Registration { return s.current.Load().all }

// ByToken finds the appservice with this as_token, nil if there is none. The
// time it takes says nothing about the tokens, because only hashes are compared.
func (s *Set) ByToken(asToken string) *Registration {
	hash := sha256.Sum256([]byte(asToken))
	r := s.current.Load().byToken[hash]
	if r == nil {
		return nil
	}
	stored := sha256.Sum256([]byte(r.ASToken))
	if asToken == "" || subtle.ConstantTimeCompare(hash[:], stored[:]) != 1 {
		return nil
	}
	return r
}

// ByID finds an appservice by its ID, nil if there is none.
func (s *Set) ByID(id string) *Registration { return s.current.Load().byID[id] }

// ByProtocol lists the appservices that serve a third-party network.
func (s *Set) ByProtocol(protocol string) []*Registration {
	return s.filter(func(r *Registration) bool { return r.Serves(protocol) })
}

// BySender finds the appservice whose own user is user, nil if there is none.
func (s *Set) BySender(user string) *Registration { return s.current.Load().sender[user] }

// Owns tells whether user is r's to act as: its sender, or a user of this
// server in its namespaces.
func (s *Set) Owns(r *Registration, user string) bool {
	return user == r.Sender(s.server) || s.local(user) && r.CoversUser(user)
}

// ExclusiveUser finds the appservice that alone may create user: user is in
// one of its exclusive namespaces, or is its sender. nil if there is none.
func (s *Set) ExclusiveUser(user string) *Registration {
	if r := s.BySender(user); r != nil {
		return r
	}
	if !s.local(user) {
		return nil
	}
	return s.first(func(r *Registration) bool { return r.ExclusiveUser(user) })
}

// ExclusiveAlias finds the appservice that alone may create alias, nil if
// there is none.
func (s *Set) ExclusiveAlias(alias string) *Registration {
	return s.first(func(r *Registration) bool { return r.ExclusiveAlias(alias) })
}

// InterestedInUser lists the appservices to which a user of this server
// matters: those that own it.
func (s *Set) InterestedInUser(user string) []*Registration {
	return s.filter(func(r *Registration) bool { return s.Owns(r, user) })
}

// InterestedInAlias lists the appservices whose namespaces hold alias.
func (s *Set) InterestedInAlias(alias string) []*Registration {
	return s.filter(func(r *Registration) bool { return r.CoversAlias(alias) })
}

// InterestedInRoom lists the appservices whose rooms namespaces hold room.
func (s *Set) InterestedInRoom(room string) []*Registration {
	return s.filter(func(r *Registration) bool { return r.CoversRoom(room) })
}

// local tells whether user is of this server.
func (s *Set) local(user string) bool {
	_, server, _ := strings.Cut(user, ":")
	return server == s.server
}

func (s *Set) first(is func(*Registration) bool) *Registration {
	for _, r := range s.All() {
		if is(r) {
			return r
		}
	}
	return nil
}

func (s *Set) filter(is func(*Registration) bool) []*Registration {
	var list []*Registration
	for _, r := range s.All() {
		if is(r) {
			list = append(list, r)
		}
	}
	return list
}
