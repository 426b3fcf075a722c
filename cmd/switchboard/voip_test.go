package main

import (
	"slices"
	"testing"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/homeserver/store/storetest"
)

// TestHasLeft tells of whom an account was that may not be used any more.
func TestHasLeft(t *testing.T) {
	storetest.Each(t, func(t *testing.T, st *store.Store) {
		for _, u := range []store.User{{ID: "@here:a.test"}, {ID: "@gone:a.test"}, {ID: "@locked:a.test"}} {
			err := st.Update(t.Context(), func(tx *store.Tx) error {
				if _, err := tx.AddUser(t.Context(), u); err != nil {
					return err
				}
				u.Deactivated, u.Locked = u.ID == "@gone:a.test", u.ID == "@locked:a.test"
				return tx.SetUser(t.Context(), u)
			})
			if err != nil {
				t.Fatal(err)
			}
		}
		left := hasLeft(st)
		for user, want := range map[matrix.UserID]bool{"@here:a.test": false, "@gone:a.test": true, "@locked:a.test": true, "1795336693": false, "trial-x": false} {
			if got := left(t.Context(), string(user)); got != want {
				t.Errorf("%s: %v", user, got)
			}
		}
	})
}

// TestHTTPSPorts tells clients of the ports of HTTPS that they reach.
func TestHTTPSPorts(t *testing.T) {
	open := func(address string, tls bool) *listener {
		n, err := listen(t.Context(), address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { n.Close() })
		return &listener{net: n, tls: tls}
	}
	all := []*listener{open("127.0.0.1:0", true), open(":0", true), open(":0", false), open("unix:"+t.TempDir()+"/socket", true)}
	here, everywhere := uint16(port(all[0].net.Addr().String())), uint16(port(all[1].net.Addr().String()))
	for host, want := range map[string][]uint16{
		"turn.example.org": {everywhere}, "198.41.0.4": {everywhere}, "localhost": {here, everywhere}, "127.0.0.1": {here, everywhere}, "::1": {here, everywhere},
	} {
		if got := httpsPorts(all, host); !slices.Equal(got, want) {
			t.Errorf("%s: %d, want %d", host, got, want)
		}
	}
}
