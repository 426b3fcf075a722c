package directory

import (
	"cmp"
	"context"
	"slices"
	"strings"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
	"switchboard/homeserver/words"
)

// Person is a user whom a search found.
type Person struct {
	User        matrix.UserID `json:"user_id"`
	DisplayName string        `json:"display_name,omitempty"`
	AvatarURL   string        `json:"avatar_url,omitempty"`

	rank int
}

// People are the users whom a search found.
type People struct {
	Results []Person `json:"results"`
	Limited bool     `json:"limited"`
}

// mostElsewhere bounds how many memberships of users of other servers one search
// looks at, those of small rooms first.
const mostElsewhere = 5000

// SearchUsers finds up to limit users by a part of their ID or name, in letters of
// either case, width and with any accents, among those who share a room with user or
// are in one that everybody may join or read. Those whose name or ID is what is
// searched come first, then those with a word that begins so.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3user_directorysearch
func (s *Service) SearchUsers(ctx context.Context, user matrix.UserID, term string, limit int) (*People, error) {
	term = strings.TrimSpace(words.Fold(term))
	var found []Person
	consider := func(p Person) {
		if p.rank = rank(p, term); p.rank > 0 {
			found = append(found, p)
		}
	}
	err := s.Store.Visible(ctx, user, func(p store.Person) bool {
		consider(Person{User: p.User, DisplayName: p.DisplayName, AvatarURL: p.AvatarURL})
		return true
	})
	if err != nil {
		return nil, err
	}
	elsewhere, err := s.elsewhere(ctx, user)
	if err != nil {
		return nil, err
	}
	for _, p := range elsewhere {
		consider(p)
	}
	slices.SortFunc(found, func(a, b Person) int {
		return cmp.Or(cmp.Compare(b.rank, a.rank), cmp.Compare(b.told(), a.told()), cmp.Compare(a.User, b.User))
	})
	n := min(limit, len(found))
	return &People{Results: append([]Person{}, found[:n]...), Limited: n < len(found)}, nil
}

// elsewhere lists the users of other servers whom a user may find, as they are
// called in a room.
func (s *Service) elsewhere(ctx context.Context, user matrix.UserID) ([]Person, error) {
	members, err := s.Store.Elsewhere(ctx, user, mostElsewhere)
	if err != nil {
		return nil, err
	}
	nums := make([]store.EventNum, len(members))
	for i, m := range members {
		nums[i] = m.Event
	}
	events, err := s.Store.EventsByNum(ctx, nums)
	if err != nil {
		return nil, err
	}
	list := make([]Person, 0, len(members))
	for _, m := range members {
		p := Person{User: m.User}
		if e := events[m.Event]; e != nil {
			p.DisplayName, p.AvatarURL = e.PDU.ContentString("displayname"), e.PDU.ContentString("avatar_url")
		}
		list = append(list, p)
	}
	return list, nil
}

// told is how much is known of a person.
func (p Person) told() int { return min(1, len(p.DisplayName)) + min(1, len(p.AvatarURL)) }

// rank tells how well a person matches a folded term: 0 for not at all.
func rank(p Person, term string) int {
	best := 0
	for _, text := range []string{words.Fold(p.DisplayName), strings.ToLower(string(p.User))} {
		at := strings.Index(text, term)
		switch {
		case at < 0:
		case text == term || text == "@"+term || strings.HasPrefix(text, "@"+term+":"):
			best = max(best, 3)
		case slices.ContainsFunc(strings.FieldsFunc(text, func(r rune) bool { return strings.ContainsRune(" @.-_:", r) }), func(w string) bool {
			return strings.HasPrefix(w, term)
		}):
			best = max(best, 2)
		default:
			best = max(best, 1)
		}
	}
	return best
}
