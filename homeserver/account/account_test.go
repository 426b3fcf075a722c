package account_test

import (
	"context"
	"errors"
	"testing"

	"switchboard/homeserver/account"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

const alice = matrix.UserID("@alice:a.test")

// service has the user alice with the password "correct horse".
func service(t *testing.T, st *store.Store) *account.Service {
	t.Helper()
	config := account.DefaultConfig()
	config.Hash = account.Argon2{Memory: 64, Time: 1, Threads: 1}
	s := &account.Service{Store: st, Bell: &notify.Bell{}, ServerName: "a.test", Config: config}
	if _, err := s.CreateUser(t.Context(), account.NewUser{Localpart: "alice", Password: "correct horse"}); err != nil {
		t.Fatal(err)
	}
	return s
}

func login(t *testing.T, s *account.Service, password string) (account.Tokens, error) {
	t.Helper()
	return s.LoginPassword(t.Context(), account.Credentials{User: "alice", Password: password}, account.Login{}, account.Client{})
}

// code is the errcode of an error, "" for none.
func code(t *testing.T, err error) matrix.Code {
	t.Helper()
	var e *matrix.Error
	if errors.As(err, &e) {
		return e.Code
	}
	if err != nil {
		t.Error(err)
	}
	return ""
}

// Two processes over one store: what one ends, the other does not accept when
// it has not seen the session before.
func TestTwoServices(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		a := service(t, st)
		b := &account.Service{Store: st, Bell: &notify.Bell{}, ServerName: "a.test", Config: a.Config}
		tokens, err := login(t, a, "correct horse")
		if err != nil {
			t.Fatal(err)
		}
		session, err := a.Authenticate(t.Context(), tokens.Access, account.Masquerade{User: "@bob:a.test"}, account.Client{})
		if err != nil || session.User != alice || session.Device != tokens.Device || session.Admin || session.Guest || session.Appservice != nil {
			t.Fatalf("got %+v %v", session, err)
		}
		if err := b.Logout(t.Context(), session); err != nil {
			t.Fatal(err)
		}
		if _, err := b.Authenticate(t.Context(), tokens.Access, account.Masquerade{}, account.Client{}); code(t, err) != matrix.UnknownToken {
			t.Errorf("got %v", err)
		}
	})
}

// When the parameters change, passwords are hashed anew as their users log in.
func TestRehash(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := service(t, st)
		before, _, _ := st.User(t.Context(), alice)
		dearer := &account.Service{Store: st, Bell: s.Bell, ServerName: "a.test", Config: s.Config}
		dearer.Config.Hash.Time = 2
		if _, err := login(t, dearer, "wrong horse"); code(t, err) != matrix.Forbidden {
			t.Errorf("got %v", err)
		}
		if now, _, _ := st.User(t.Context(), alice); now.Password != before.Password {
			t.Error("a wrong password was hashed")
		}
		for range 2 {
			if _, err := login(t, dearer, "correct horse"); err != nil {
				t.Fatal(err)
			}
		}
		after, _, _ := st.User(t.Context(), alice)
		if after.Password == before.Password || after.Password[:31] != "$argon2id$v=19$m=64,t=2,p=1$"+after.Password[28:31] {
			t.Errorf("got %s", after.Password)
		}
	})
}

// A device's last sighting is shown at once and written when Run ends.
func TestLastSeen(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := service(t, st)
		tokens, err := login(t, s, "correct horse")
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Authenticate(t.Context(), tokens.Access, account.Masquerade{}, account.Client{Address: "192.0.2.9", UserAgent: "x"}); err != nil {
			t.Fatal(err)
		}
		if d, err := s.Device(t.Context(), alice, tokens.Device); err != nil || d.LastSeen.Address != "192.0.2.9" {
			t.Errorf("got %+v %v", d, err)
		}
		if d, _, _ := st.Device(t.Context(), alice, tokens.Device); d.LastSeen.Address != "" {
			t.Error("written at once")
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := s.Run(ctx); err != nil {
			t.Fatal(err)
		}
		if d, _, _ := st.Device(t.Context(), alice, tokens.Device); d.LastSeen.Address != "192.0.2.9" || d.LastSeen.UserAgent != "x" {
			t.Errorf("got %+v", d)
		}
	})
}

// The commands of the operator.
func TestOperator(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		s := service(t, st)
		ctx := t.Context()
		tokens, err := login(t, s, "correct horse")
		if err != nil {
			t.Fatal(err)
		}
		for name, want := range map[string]matrix.Code{"alice": matrix.UserInUse, "AL ICE": matrix.InvalidUsername, "": matrix.InvalidUsername, "_ok": ""} {
			if _, err := s.CreateUser(ctx, account.NewUser{Localpart: name}); code(t, err) != want {
				t.Errorf("%q: got %v", name, err)
			}
		}
		if err := s.SetAdmin(ctx, alice, true); err != nil {
			t.Fatal(err)
		}
		if session, err := s.Authenticate(ctx, tokens.Access, account.Masquerade{}, account.Client{}); err != nil || !session.Admin {
			t.Errorf("got %+v %v", session, err)
		}
		if list, err := s.Users(ctx, "", 10); err != nil || len(list) != 2 || list[1].ID != alice || !list[1].Admin {
			t.Errorf("got %+v %v", list, err)
		}
		if err := s.SetPassword(ctx, alice, "another horse", true, ""); err != nil {
			t.Fatal(err)
		}
		if _, err := s.Authenticate(ctx, tokens.Access, account.Masquerade{}, account.Client{}); code(t, err) != matrix.UnknownToken {
			t.Errorf("got %v", err)
		}
		if _, err := login(t, s, "another horse"); err != nil {
			t.Error(err)
		}
		if err := s.Deactivate(ctx, alice, false); err != nil {
			t.Fatal(err)
		}
		for what, err := range map[string]error{
			"admin": s.SetAdmin(ctx, alice, true), "password": s.SetPassword(ctx, alice, "another horse", true, ""),
			"nobody": s.Deactivate(ctx, "@nobody:a.test", false), "lock": s.SetLocked(ctx, "@nobody:a.test", true),
		} {
			if code(t, err) != matrix.NotFound {
				t.Errorf("%s: got %v", what, err)
			}
		}
	})
}

func BenchmarkAuthenticate(b *testing.B) {
	storetest.Bench(b, func(b *testing.B, st *store.Store) {
		config := account.DefaultConfig()
		config.Hash = account.Argon2{Memory: 64, Time: 1, Threads: 1}
		s := &account.Service{Store: st, Bell: &notify.Bell{}, ServerName: "a.test", Config: config}
		if _, err := s.CreateUser(b.Context(), account.NewUser{Localpart: "alice", Password: "correct horse"}); err != nil {
			b.Fatal(err)
		}
		tokens, err := s.LoginPassword(b.Context(), account.Credentials{User: "alice", Password: "correct horse"}, account.Login{}, account.Client{})
		if err != nil {
			b.Fatal(err)
		}
		b.ReportAllocs()
		for b.Loop() {
			if _, err := s.Authenticate(b.Context(), tokens.Access, account.Masquerade{}, account.Client{}); err != nil {
				b.Fatal(err)
			}
		}
	})
}
