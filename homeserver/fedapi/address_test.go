package fedapi

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"switchboard/homeserver/event"
	"switchboard/homeserver/fedclient"
	"switchboard/homeserver/fedclient/fedclienttest"
	"switchboard/homeserver/identity"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
	"switchboard/homeserver/signing"
)

// idServer is an identity server: it knows who has which address, keeps
// invitations for the others, and signs when one of these is bound.
type idServer struct {
	*testing.T
	*httptest.Server
	name matrix.ServerName
	key  signing.Key

	mu        sync.Mutex               // tier 1; guards the rest
	bound     map[string]matrix.UserID // by hash
	stored    []identity.Invite
	withdrawn bool // the key
}

func newIDServer(t *testing.T, hosts ...*host) *idServer {
	t.Helper()
	key, err := signing.Generate()
	if err != nil {
		t.Fatal(err)
	}
	s := &idServer{T: t, key: key, bound: map[string]matrix.UserID{}}
	const v2 = "/_matrix/identity/v2/"
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+v2+"hash_details", s.authorized(func(*http.Request) any {
		return map[string]any{"algorithms": []string{"sha256"}, "lookup_pepper": "p"}
	}))
	mux.HandleFunc("POST "+v2+"lookup", s.authorized(func(*http.Request) any { return map[string]any{"mappings": s.bound} }))
	mux.HandleFunc("POST "+v2+"store-invite", s.authorized(func(r *http.Request) any {
		var in identity.Invite
		if err := json.NewDecoder(r.Body).Decode(&in); err != nil {
			t.Error(err)
		}
		s.stored = append(s.stored, in)
		url := s.URL + v2 + "pubkey/isvalid"
		return identity.Stored{Token: s.token(), DisplayName: "c…@e…", Keys: []identity.PublicKey{
			{Key: signing.EncodeBase64(key.Public()), URL: url}, {Key: "AAAA", URL: url},
		}}
	}))
	mux.HandleFunc("GET "+v2+"pubkey/isvalid", func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		json.NewEncoder(w).Encode(map[string]bool{"valid": !s.withdrawn && r.URL.Query().Get("public_key") == signing.EncodeBase64(key.Public())})
	})
	s.Server = httptest.NewTLSServer(mux)
	t.Cleanup(s.Close)
	s.name = matrix.ServerName(strings.TrimPrefix(s.URL, "https://"))
	for _, h := range hosts {
		h.fed.Identity = &identity.Client{HTTP: s.Client()}
	}
	return s
}

func (s *idServer) authorized(f func(*http.Request) any) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		s.mu.Lock()
		defer s.mu.Unlock()
		if r.Header.Get("Authorization") != "Bearer token" {
			http.Error(w, `{"errcode":"M_UNAUTHORIZED"}`, http.StatusUnauthorized)
			return
		}
		json.NewEncoder(w).Encode(f(r))
	}
}

// token is that of the newest invitation.
func (s *idServer) token() string { return fmt.Sprintf("token%d", len(s.stored)) }

// invitee is an address as a client names it.
func (s *idServer) invitee(address string) identity.Invitee {
	return identity.Invitee{Server: identity.Server{Name: s.name, Token: "token"}, Address: identity.Address{Medium: "email", Address: address}}
}

// proof is what it gives to a user who has shown that the newest invitation is
// for an address of theirs.
func (s *idServer) proof(user matrix.UserID, by signing.Key) json.RawMessage {
	s.Helper()
	in := s.stored[len(s.stored)-1]
	signed, err := signing.SignJSON(fmt.Appendf(nil, `{"mxid":%q,"sender":%q,"token":%q}`, user, in.Sender, s.token()), s.name, by)
	if err != nil {
		s.Fatal(err)
	}
	return signed
}

// binding is what it tells the user's server.
func (s *idServer) binding(user matrix.UserID) fedclient.Binding {
	s.Helper()
	in := s.stored[len(s.stored)-1]
	invite := fmt.Appendf(nil, `{"medium":"email","address":%q,"mxid":%q,"room_id":%q,"sender":%q,"signed":%s}`,
		in.Address.Address, user, in.Room, in.Sender, s.proof(user, s.key))
	return fedclient.Binding{Medium: "email", Address: in.Address.Address, User: user, Invites: []json.RawMessage{invite}}
}

func (s *idServer) withdraw(is bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.withdrawn = is
}

// private makes a room to which one must be invited, and invites an address.
func (s *idServer) private(h *host, creator matrix.UserID, address string) matrix.RoomID {
	h.Helper()
	name := "Tea"
	id, err := h.rooms.Create(h.ctx(), room.Creation{Creator: creator, Preset: "private_chat", Name: &name})
	h.ok(err)
	h.ok(h.fed.InviteAddress(h.ctx(), room.Change{Room: id, Actor: creator}, s.invitee(address)))
	return id
}

// TestInviteAddress goes the whole way from an address to a member, for users of
// this server and of another.
func TestInviteAddress(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		s := newIDServer(t, a, b)
		alice, carol, bob := a.user("alice"), a.user("carol"), b.user("bob")
		for _, tt := range []struct {
			name string
			h    *host
			user matrix.UserID
		}{{"of this server", a, carol}, {"of another", b, bob}} {
			id := s.private(a, alice, "c@example.com")
			if in := s.stored[len(s.stored)-1]; in.Name != "Tea" || in.Room != id || in.Sender != alice || in.Address.Address != "c@example.com" {
				t.Errorf("%s: the identity server was told %+v", tt.name, in)
			}
			r, err := a.st.Room(a.ctx(), id)
			a.ok(err)
			pending, err := a.rooms.StateEvent(a.ctx(), r.Current, event.TypeThirdPartyInvite, s.token())
			a.ok(err)
			if pending == nil || strings.Contains(string(pending.PDU.Content), "example.com") {
				t.Fatalf("%s: the room has %v", tt.name, pending)
			}
			bind := func() error { return a.client.Bind(a.ctx(), s.binding(tt.user)) }
			s.withdraw(true)
			if err := bind(); err == nil || a.membership(tt.user, id) != "" {
				t.Errorf("%s: a withdrawn key invites: %v", tt.name, err)
			}
			s.withdraw(false)
			a.ok(bind())
			if got := a.membership(tt.user, id); got != "invite" {
				t.Fatalf("%s: the user is %q", tt.name, got)
			}
			member := tt.h.event(tt.h.memberEvent(tt.user, id))
			if !strings.Contains(string(member.Content), `"display_name":"c…@e…"`) {
				t.Errorf("%s: the invitation is %s", tt.name, member.Content)
			}
			tt.h.ok(tt.h.fed.Join(tt.h.ctx(), room.Change{Room: id, Actor: tt.user}, nil))
			if got := a.membership(tt.user, id); got != "join" {
				t.Errorf("%s: the user is %q", tt.name, got)
			}
		}
	})
}

// TestJoinWithProof joins by third_party_signed, without a word of the identity
// server to anybody's homeserver.
func TestJoinWithProof(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		s := newIDServer(t, a, b)
		alice, carol, bob := a.user("alice"), a.user("carol"), b.user("bob")
		stranger, err := signing.Generate()
		a.ok(err)
		for h, user := range map[*host]matrix.UserID{a: carol, b: bob} {
			id := s.private(a, alice, "c@example.com")
			join := func(proof json.RawMessage) error {
				return h.fed.Join(h.ctx(), room.Change{Room: id, Actor: user, Signed: proof}, []matrix.ServerName{a.name})
			}
			h.refused(join(s.proof(alice, s.key)), matrix.Forbidden)
			h.refused(join(s.proof(user, stranger)), matrix.Forbidden)
			h.refused(join(json.RawMessage(`5`)), matrix.BadJSON)
			s.withdraw(true)
			h.refused(join(s.proof(user, s.key)), matrix.Forbidden)
			s.withdraw(false)
			h.ok(join(s.proof(user, s.key)))
			if got := a.membership(user, id); got != "join" {
				t.Errorf("%s is %q", user, got)
			}
			h.ok(join(s.proof(user, s.key))) // again: nothing happens

			id = s.private(a, alice, "d@example.com")
			a.send(alice, id, event.TypeThirdPartyInvite, new(s.token()), `{}`) // taken back
			h.refused(join(s.proof(user, s.key)), matrix.Forbidden)
		}
	})
}

func TestInviteKnownAddress(t *testing.T) {
	together(t, 2, func(t *testing.T, hosts []*host) {
		a, b := hosts[0], hosts[1]
		s := newIDServer(t, a)
		alice, dora, bob := a.user("alice"), a.user("dora"), b.user("bob")
		s.bound["x"] = alice // of another address
		s.bound[hashOf("b@example.com")] = bob
		id := a.public(alice, "12")
		invite := func(by matrix.UserID, who identity.Invitee) error {
			return a.fed.InviteAddress(a.ctx(), room.Change{Room: id, Actor: by}, who)
		}
		a.ok(invite(alice, s.invitee("b@example.com")))
		if got := a.membership(bob, id); got != "invite" || len(s.stored) != 0 {
			t.Errorf("bob is %q, and %d invitations wait", got, len(s.stored))
		}
		a.refused(invite(dora, s.invitee("c@example.com")), matrix.Forbidden) // not in the room
		a.join(dora, id, a)
		a.refused(invite(dora, s.invitee("c@example.com")), matrix.Forbidden) // no power to
		wrong := s.invitee("c@example.com")
		wrong.Token = "wrong"
		a.refused(invite(alice, wrong), matrix.Forbidden)
		wrong.Token = ""
		a.refused(invite(alice, wrong), matrix.MissingParam)
		gone := s.invitee("c@example.com")
		gone.Server.Name = fedclienttest.Absent
		a.refused(invite(alice, gone), matrix.Unknown)
		if len(s.stored) != 0 {
			t.Errorf("invitations were stored: %v", s.stored)
		}
		a.fed.Identity = nil
		a.refused(invite(alice, s.invitee("c@example.com")), matrix.ThreepidDenied)
	})
}

// hashOf is the hash with the pepper of idServer.
func hashOf(address string) string {
	sum := sha256.Sum256([]byte(address + " email p"))
	return base64.RawURLEncoding.EncodeToString(sum[:])
}

// TestCreateWithAddresses makes a room with invite_3pid.
func TestCreateWithAddresses(t *testing.T) {
	together(t, 1, func(t *testing.T, hosts []*host) {
		a := hosts[0]
		s := newIDServer(t, a)
		alice, carol := a.user("alice"), a.user("carol")
		s.bound[hashOf("c@example.com")] = carol
		entry := func(address, token string) json.RawMessage {
			return fmt.Appendf(nil, `{"id_server":%q,"id_access_token":%q,"medium":"email","address":%q}`, s.name, token, address)
		}
		id, err := a.fed.Create(a.ctx(), room.Creation{Creator: alice, IsDirect: true, Invite3PID: []json.RawMessage{entry("c@example.com", "token"), entry("d@example.com", "token")}})
		a.ok(err)
		if got := a.event(a.memberEvent(carol, id)); !strings.Contains(string(got.Content), `"is_direct":true`) || len(s.stored) != 1 {
			t.Errorf("carol's invitation is %s, and %d wait", got.Content, len(s.stored))
		}
		for _, bad := range []struct {
			list []json.RawMessage
			code matrix.Code
		}{
			{[]json.RawMessage{entry("c@example.com", "")}, matrix.MissingParam},
			{[]json.RawMessage{json.RawMessage(`5`)}, matrix.BadJSON},
			{make([]json.RawMessage, 50), matrix.InvalidParam},
		} {
			_, err := a.fed.Create(a.ctx(), room.Creation{Creator: alice, Invite3PID: bad.list})
			a.refused(err, bad.code)
		}
	})
}
