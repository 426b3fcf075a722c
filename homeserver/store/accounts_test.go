package store_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

const (
	alice = matrix.UserID("@alice:a.test")
	bob   = matrix.UserID("@bob:a.test")
)

// commit runs f in a transaction that must succeed.
func commit(t *testing.T, st *store.Store, f func(tx *store.Tx) error) {
	t.Helper()
	if err := st.Update(t.Context(), f); err != nil {
		t.Fatal(err)
	}
}

// must gives v if there was no error.
func must[T any](v T, err error) func(*testing.T) T {
	return func(t *testing.T) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

func TestUsers(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		if must(st.HasUsers(ctx))(t) {
			t.Error("an empty store has users")
		}
		want := store.User{ID: alice, Password: "$argon2id$x", Admin: true, CreatedTS: 7}
		commit(t, st, func(tx *store.Tx) error {
			added, err := tx.AddUser(ctx, want)
			if !added {
				t.Error("not added")
			}
			return err
		})
		commit(t, st, func(tx *store.Tx) error {
			added, err := tx.AddUser(ctx, store.User{ID: alice})
			if added {
				t.Error("added twice")
			}
			return err
		})
		got, ok, err := st.User(ctx, alice)
		if err != nil || !ok || got != want {
			t.Fatalf("got %+v %v %v", got, ok, err)
		}
		want.Password, want.Admin, want.Locked, want.Suspended, want.Deactivated, want.Erased = "", false, true, true, true, true
		commit(t, st, func(tx *store.Tx) error {
			if err := tx.SetUser(ctx, want); err != nil {
				return err
			}
			_, err := tx.AddUser(ctx, store.User{ID: bob, Kind: store.AppserviceUser, Appservice: "irc"})
			return err
		})
		all := must(st.Users(ctx, "", 10))(t)
		if len(all) != 2 || all[0] != want || all[1].Appservice != "irc" || all[1].Kind != store.AppserviceUser {
			t.Errorf("got %+v", all)
		}
		if page := must(st.Users(ctx, alice, 1))(t); len(page) != 1 || page[0].ID != bob {
			t.Errorf("got %+v", page)
		}
		if _, ok, err := st.User(ctx, "@carol:a.test"); ok || err != nil {
			t.Errorf("found nobody: %v %v", ok, err)
		}
		if !must(st.HasUsers(ctx))(t) {
			t.Error("no users")
		}
	})
}

func TestDevices(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		first := store.Device{User: alice, ID: "A", DisplayName: "phone", CreatedTS: 5, LastSeen: store.Sighting{TS: 6, Address: "::1", UserAgent: "x"}}
		commit(t, st, func(tx *store.Tx) error {
			for _, d := range []store.Device{first, {User: alice, ID: "B", CreatedTS: 8}, {User: bob, ID: "A"}} {
				if err := tx.PutDevice(ctx, d); err != nil {
					return err
				}
			}
			if err := tx.AddToken(ctx, store.Token{Access: []byte("a"), User: alice, Device: "A"}); err != nil {
				return err
			}
			if err := tx.PutPusher(ctx, store.Pusher{User: alice, Device: "A", AppID: "app", Pushkey: "key", Data: json.RawMessage(`{}`)}); err != nil {
				return err
			}
			// An older name stays where the login names none; ages are kept.
			if err := tx.PutDevice(ctx, store.Device{User: alice, ID: "A", CreatedTS: 99}); err != nil {
				return err
			}
			if err := tx.SetDeviceName(ctx, alice, "B", "laptop"); err != nil {
				return err
			}
			if err := tx.SetDeviceSeen(ctx, alice, "A", store.Sighting{TS: 2, Address: "old"}); err != nil {
				return err
			}
			return tx.SetDeviceSeen(ctx, alice, "B", store.Sighting{TS: 9, Address: "1.2.3.4", UserAgent: "y"})
		})
		want := []store.Device{first, {User: alice, ID: "B", DisplayName: "laptop", CreatedTS: 8, LastSeen: store.Sighting{TS: 9, Address: "1.2.3.4", UserAgent: "y"}}}
		if got := must(st.Devices(ctx, alice))(t); !reflect.DeepEqual(got, want) {
			t.Errorf("got %+v", got)
		}
		commit(t, st, func(tx *store.Tx) error { return tx.DeleteDevice(ctx, alice, "A") })
		if _, ok, err := st.Device(ctx, alice, "A"); ok || err != nil {
			t.Errorf("still there: %v %v", ok, err)
		}
		if _, _, ok, err := st.TokenByAccess(ctx, []byte("a")); ok || err != nil {
			t.Errorf("the token lives on: %v", err)
		}
		if p := must(st.Pushers(ctx, alice))(t); len(p) != 0 {
			t.Errorf("the pusher lives on: %+v", p)
		}
		if _, ok, err := st.Device(ctx, bob, "A"); !ok || err != nil {
			t.Errorf("another user's device went, too: %v", err)
		}
	})
}

func TestTokens(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		old := store.Token{Access: []byte("a1"), Refresh: []byte("r1"), User: alice, Device: "A", ExpiresTS: 50, CreatedTS: 1}
		next := store.Token{Access: []byte("a2"), Refresh: []byte("r2"), User: alice, Device: "A", ExpiresTS: 60, Replaces: old.Access, CreatedTS: 2}
		plain := []store.Token{{Access: []byte("p1"), User: alice, Device: "B"}, {Access: []byte("p2"), User: alice, Device: "C"}} // NULLs do not collide
		commit(t, st, func(tx *store.Tx) error {
			if _, err := tx.AddUser(ctx, store.User{ID: alice, Admin: true}); err != nil {
				return err
			}
			for _, x := range append(plain, old, next) {
				if err := tx.AddToken(ctx, x); err != nil {
					return err
				}
			}
			got, ok, err := tx.TokenByRefresh(ctx, old.Refresh)
			if !ok || !reflect.DeepEqual(got, old) {
				t.Errorf("got %+v %v", got, ok)
			}
			return err
		})
		got, u, ok, err := st.TokenByAccess(ctx, next.Access)
		if err != nil || !ok || !u.Admin || u.ID != alice || !reflect.DeepEqual(got, next) {
			t.Fatalf("got %+v %+v %v %v", got, u, ok, err)
		}
		commit(t, st, func(tx *store.Tx) error { return tx.UseToken(ctx, next) })
		if _, _, ok, _ := st.TokenByAccess(ctx, old.Access); ok {
			t.Error("the replaced pair lives on")
		}
		if got, _, _, _ := st.TokenByAccess(ctx, next.Access); got.Replaces != nil {
			t.Error("the pair still replaces another")
		}
		lost := store.Token{Access: []byte("a3"), Refresh: []byte("r3"), User: alice, Device: "A", Replaces: next.Access}
		commit(t, st, func(tx *store.Tx) error {
			if err := tx.AddToken(ctx, lost); err != nil {
				return err
			}
			return tx.DeleteSuccessors(ctx, next.Access)
		})
		if _, _, ok, _ := st.TokenByAccess(ctx, lost.Access); ok {
			t.Error("the lost pair lives on")
		}
		commit(t, st, func(tx *store.Tx) error { return tx.DeleteDeviceTokens(ctx, alice, "A") })
		if _, _, ok, _ := st.TokenByAccess(ctx, next.Access); ok {
			t.Error("the device's token lives on")
		}
		if _, _, ok, _ := st.TokenByAccess(ctx, []byte("p1")); !ok {
			t.Error("another device's token went, too")
		}
	})
}

func TestLoginTokens(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		take := func(token string, now int64) (user matrix.UserID, ok bool) {
			commit(t, st, func(tx *store.Tx) (err error) {
				user, ok, err = tx.TakeLoginToken(ctx, []byte(token), now)
				return err
			})
			return user, ok
		}
		commit(t, st, func(tx *store.Tx) error {
			if err := tx.AddLoginToken(ctx, []byte("x"), alice, 100); err != nil {
				return err
			}
			return tx.AddLoginToken(ctx, []byte("y"), bob, 100)
		})
		if user, ok := take("x", 99); !ok || user != alice {
			t.Errorf("got %q %v", user, ok)
		}
		if _, ok := take("x", 99); ok {
			t.Error("used twice")
		}
		if _, ok := take("y", 100); ok {
			t.Error("used too late")
		}
	})
}

func TestRegistrationTokens(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		two := int64(2)
		limited := store.RegistrationToken{Token: "two", UsesAllowed: &two, CreatedTS: 1}
		timed := store.RegistrationToken{Token: "timed", ExpiresTS: 100, Admin: true, CreatedTS: 2}
		commit(t, st, func(tx *store.Tx) error {
			for i, x := range []store.RegistrationToken{limited, timed, limited} {
				added, err := tx.AddRegistrationToken(ctx, x)
				if err != nil || added != (i < 2) {
					t.Errorf("%d: %v %v", i, added, err)
				}
			}
			return nil
		})
		if got := must(st.RegistrationTokens(ctx))(t); !reflect.DeepEqual(got, []store.RegistrationToken{limited, timed}) {
			t.Errorf("got %+v", got)
		}
		for i, want := range []struct {
			token string
			now   int64
			used  bool
		}{{"two", 1, true}, {"two", 1, true}, {"two", 1, false}, {"timed", 99, true}, {"timed", 100, false}, {"none", 1, false}} {
			commit(t, st, func(tx *store.Tx) error {
				used, err := tx.UseRegistrationToken(ctx, want.token, want.now)
				if used != want.used {
					t.Errorf("%d: used %v", i, used)
				}
				return err
			})
		}
		got, ok, err := st.RegistrationToken(ctx, "two")
		if err != nil || !ok || got.Completed != 2 || got.Valid(1) {
			t.Errorf("got %+v %v %v", got, ok, err)
		}
		for _, want := range []bool{true, false} {
			commit(t, st, func(tx *store.Tx) error {
				deleted, err := tx.DeleteRegistrationToken(ctx, "two")
				if deleted != want {
					t.Errorf("deleted %v", deleted)
				}
				return err
			})
		}
	})
}

func TestUIASessions(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		u := store.UIASession{ID: "s", Operation: "x", User: alice, ExpiresTS: 100}
		put := func(u store.UIASession, now int64) {
			commit(t, st, func(tx *store.Tx) error { return tx.PutUIASession(ctx, u, now) })
		}
		put(u, 1)
		u.Completed = []store.UIAStage{{Type: "a", Result: "r"}, {Type: "b"}}
		put(u, 2)
		got, ok, err := st.UIASession(ctx, "s", 99)
		if err != nil || !ok || !reflect.DeepEqual(got, u) {
			t.Errorf("got %+v %v %v", got, ok, err)
		}
		if _, ok, _ := st.UIASession(ctx, "s", 100); ok {
			t.Error("it did not expire")
		}
		put(store.UIASession{ID: "later", ExpiresTS: 900}, 100)
		if _, ok, _ := st.UIASession(ctx, "s", 1); ok {
			t.Error("what has expired was not deleted")
		}
		commit(t, st, func(tx *store.Tx) error { return tx.DeleteUIASession(ctx, "later") })
		if _, ok, _ := st.UIASession(ctx, "later", 1); ok {
			t.Error("not deleted")
		}
	})
}

func TestProfiles(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		commit(t, st, func(tx *store.Tx) error {
			for _, f := range [][2]string{{"displayname", `"x"`}, {"displayname", `"Alice \u0000"`}, {"org.x", `{"a":[1]}`}} {
				if err := tx.SetProfileField(ctx, alice, f[0], json.RawMessage(f[1])); err != nil {
					return err
				}
			}
			return nil
		})
		p := must(st.Profile(ctx, alice))(t)
		if len(p) != 2 || p.DisplayName() != "Alice \x00" || p.AvatarURL() != "" || string(p["org.x"]) != `{"a":[1]}` {
			t.Errorf("got %q", p)
		}
		if n := len(must(json.Marshal(p))(t)); p.Size() < n {
			t.Errorf("size %d of %d bytes", p.Size(), n)
		}
		commit(t, st, func(tx *store.Tx) error { return tx.DeleteProfileField(ctx, alice, "org.x") })
		if p := must(st.Profile(ctx, alice))(t); len(p) != 1 {
			t.Errorf("got %q", p)
		}
		commit(t, st, func(tx *store.Tx) error { return tx.DeleteProfile(ctx, alice) })
		if p := must(st.Profile(ctx, alice))(t); len(p) != 0 {
			t.Errorf("got %q", p)
		}
	})
}

func TestAccountData(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		since := st.Position()
		put := func(room matrix.RoomID, typ, content string) (pos int64) {
			commit(t, st, func(tx *store.Tx) (err error) {
				pos, err = tx.PutAccountData(ctx, store.AccountData{User: alice, Room: room, Type: typ, Content: json.RawMessage(content)})
				return err
			})
			return pos
		}
		first := put("", "org.x", `{"b":1, "a":2}`)
		second := put("!r:a.test", "org.x", `{}`)
		third := put("", "org.x", `{"c":3}`)
		if !(since < first && first < second && second < third) || st.Position() < third {
			t.Errorf("positions %d %d %d %d, now %d", since, first, second, third, st.Position())
		}
		content, ok, err := st.AccountData(ctx, alice, "", "org.x")
		if err != nil || !ok || string(content) != `{"c":3}` {
			t.Errorf("got %s %v %v", content, ok, err)
		}
		for _, tt := range []struct {
			since, upto int64
			want        []int64
		}{{since, third, []int64{second, third}}, {second, third, []int64{third}}, {since, second, []int64{second}}, {third, third, nil}} {
			var got []int64
			for _, d := range must(st.AccountDataSince(ctx, alice, tt.since, tt.upto))(t) {
				got = append(got, d.Pos)
			}
			if !reflect.DeepEqual(got, tt.want) {
				t.Errorf("since %d up to %d: got %d, want %d", tt.since, tt.upto, got, tt.want)
			}
		}
		commit(t, st, func(tx *store.Tx) error {
			return tx.ChangeAccountData(ctx, alice, "", "org.x", func(old json.RawMessage) (json.RawMessage, error) {
				return bytes.Replace(old, []byte("3"), []byte("4"), 1), nil
			})
		})
		if content, _, _ := st.AccountData(ctx, alice, "", "org.x"); string(content) != `{"c":4}` {
			t.Errorf("got %s", content)
		}
		if list := must(st.AccountDataSince(ctx, alice, third, st.Position()))(t); len(list) != 1 {
			t.Errorf("got %+v", list)
		}
		if _, ok, err := st.AccountData(ctx, bob, "", "org.x"); ok || err != nil {
			t.Errorf("bob has it: %v", err)
		}
		commit(t, st, func(tx *store.Tx) error { return tx.DeleteAllAccountData(ctx, alice) })
		if _, ok, _ := st.AccountData(ctx, alice, "", "org.x"); ok {
			t.Error("not deleted")
		}
	})
}

func TestFilters(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		add := func(user matrix.UserID, filter string) (id int64, added bool) {
			commit(t, st, func(tx *store.Tx) (err error) {
				id, added, err = tx.AddFilter(ctx, user, json.RawMessage(filter), 2)
				return err
			})
			return id, added
		}
		for i, tt := range []struct {
			user   matrix.UserID
			filter string
			id     int64
			added  bool
		}{{alice, `{}`, 1, true}, {alice, `{"room":{}}`, 2, true}, {alice, `{}`, 1, true}, {alice, `{"a":1}`, 0, false}, {bob, `{"a":1}`, 1, true}} {
			if id, added := add(tt.user, tt.filter); id != tt.id || added != tt.added {
				t.Errorf("%d: got %d %v", i, id, added)
			}
		}
		if f, ok, err := st.Filter(ctx, alice, 2); err != nil || !ok || string(f) != `{"room":{}}` {
			t.Errorf("got %s %v %v", f, ok, err)
		}
		if _, ok, err := st.Filter(ctx, bob, 2); ok || err != nil {
			t.Errorf("got %v %v", ok, err)
		}
		if id, ok, err := st.FilterID(ctx, alice, json.RawMessage(`{}`)); err != nil || !ok || id != 1 {
			t.Errorf("got %d %v %v", id, ok, err)
		}
	})
}

func TestPushers(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		ctx := t.Context()
		p := store.Pusher{User: alice, Device: "A", AppID: "app", Pushkey: "key", Kind: "http", AppName: "App", DeviceName: "phone", ProfileTag: "t", Lang: "en", Data: json.RawMessage(`{"url":"x"}`), CreatedTS: 3}
		other := p
		other.User = bob
		changed := p
		changed.Lang, changed.CreatedTS, changed.Device = "de", 77, "B"
		commit(t, st, func(tx *store.Tx) error {
			for _, x := range []store.Pusher{p, other, changed} {
				if err := tx.PutPusher(ctx, x); err != nil {
					return err
				}
			}
			return nil
		})
		changed.CreatedTS = 3
		if got := must(st.Pushers(ctx, alice))(t); !reflect.DeepEqual(got, []store.Pusher{changed}) {
			t.Errorf("got %+v", got)
		}
		commit(t, st, func(tx *store.Tx) error { return tx.DeletePushersOfOthers(ctx, alice, "app", "key") })
		if a, b := must(st.Pushers(ctx, alice))(t), must(st.Pushers(ctx, bob))(t); len(a) != 1 || len(b) != 0 {
			t.Errorf("got %d and %d", len(a), len(b))
		}
		commit(t, st, func(tx *store.Tx) error { return tx.DeletePusher(ctx, alice, "app", "key") })
		if a := must(st.Pushers(ctx, alice))(t); len(a) != 0 {
			t.Errorf("got %d", len(a))
		}
	})
}
