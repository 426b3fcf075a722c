package registrations

import (
	"strings"
	"sync"
	"testing"
)

func made(t *testing.T, id, user string, exclusive bool) *Registration {
	t.Helper()
	r, err := Generate(Registration{
		ID: id, SenderLocalpart: id + "bot", Protocols: []string{id},
		Users:   []Namespace{{Regex: user, Exclusive: exclusive}},
		Aliases: []Namespace{{Regex: "#" + id, Exclusive: exclusive}},
		Rooms:   []Namespace{{Regex: "!" + id}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestSet(t *testing.T) {
	irc, puppet := made(t, "irc", "@irc_.*", true), made(t, "puppet", "@.*:a.test", false)
	s := NewSet("a.test")
	if len(s.All()) != 0 || s.ByToken("") != nil || s.ByID("irc") != nil || s.ExclusiveUser("@irc_x:a.test") != nil {
		t.Error("the empty set is not empty")
	}
	if err := s.Replace([]*Registration{irc, puppet}); err != nil {
		t.Fatal(err)
	}
	if s.ByToken(irc.ASToken) != irc || s.ByToken(puppet.ASToken) != puppet || s.ByToken(irc.HSToken) != nil || s.ByToken("") != nil {
		t.Error("wrong token")
	}
	if s.ByID("puppet") != puppet || len(s.ByProtocol("irc")) != 1 || len(s.All()) != 2 {
		t.Error("wrong lists")
	}
	for user, want := range map[string]*Registration{
		"@irc_x:a.test": irc, "@ircbot:a.test": irc, "@puppetbot:a.test": puppet, // senders are exclusive too
		"@irc_x:b.test": nil, "@alice:a.test": nil, "@irc_x:b.test:a.test": nil,
	} {
		if got := s.ExclusiveUser(user); got != want {
			t.Errorf("%s: got %v", user, got)
		}
	}
	if got := s.InterestedInUser("@irc_x:a.test"); len(got) != 2 {
		t.Errorf("got %d", len(got))
	}
	if got := s.InterestedInUser("@irc_x:b.test"); len(got) != 0 {
		t.Error("users of other servers count")
	}
	if s.ExclusiveAlias("#irc:a.test") != irc || s.ExclusiveAlias("#puppet:a.test") != nil || len(s.InterestedInAlias("#puppet:a.test")) != 1 || len(s.InterestedInRoom("!irc:a.test")) != 1 {
		t.Error("wrong aliases or rooms")
	}
	if !s.Owns(irc, "@ircbot:a.test") || !s.Owns(irc, "@irc_y:a.test") || s.Owns(irc, "@alice:a.test") || s.Owns(irc, "@irc_y:b.test") {
		t.Error("wrong owner")
	}
}

func TestReplaceRefusesDuplicates(t *testing.T) {
	a, b, c := made(t, "a", "@a", true), made(t, "a", "@b", true), made(t, "c", "@c", true)
	s := NewSet("a.test")
	if err := s.Replace([]*Registration{a}); err != nil {
		t.Fatal(err)
	}
	c.ASToken = a.ASToken
	err := s.Replace([]*Registration{a, b, c})
	if err == nil || !strings.Contains(err.Error(), `two registrations have the id "a"`) || !strings.Contains(err.Error(), "same as_token") {
		t.Errorf("got %v", err)
	}
	if strings.Contains(err.Error(), a.ASToken) {
		t.Error("the error shows the token")
	}
	if len(s.All()) != 1 {
		t.Error("a refused list is in force")
	}
}

func TestReplaceWhileRead(t *testing.T) {
	a, b := made(t, "a", "@a", true), made(t, "b", "@b", true)
	s := NewSet("a.test")
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				if r := s.ByToken(a.ASToken); r != nil && r != a {
					t.Error("wrong registration")
				}
				if n := len(s.All()); n != 0 && n != 2 {
					t.Error("half a list is visible")
				}
			}
		})
	}
	for range 500 {
		if err := s.Replace([]*Registration{a, b}); err != nil {
			t.Error(err)
		}
		if err := s.Replace(nil); err != nil {
			t.Error(err)
		}
	}
	wg.Wait()
}
