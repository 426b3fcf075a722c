package clientapi

import (
	"encoding/json"
	"strings"

	"switchboard/homeserver/clientsync"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/search"
)

var searchRoutes = []route{
	{"search", "POST /_matrix/client/v3/search", users, (*API).search},
}

// The sizes of pages of results, and of what surrounds each of them.
const (
	resultsMost  = 100
	aroundMost   = 50
	aroundUsual  = 5
	contentField = "content."
)

// roomEvents is what a client searches for among events.
type roomEvents struct {
	Term   *string         `json:"search_term"`
	Keys   []string        `json:"keys"`
	Filter json.RawMessage `json:"filter"`
	Order  string          `json:"order_by"`
	Around *struct {
		Before  *int `json:"before_limit"`
		After   *int `json:"after_limit"`
		Profile bool `json:"include_profile"`
	} `json:"event_context"`
	State     bool `json:"include_state"`
	Groupings struct {
		By []struct {
			Key string `json:"key"`
		} `json:"group_by"`
	} `json:"groupings"`
}

// search finds messages, and names and topics of rooms.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3search
func (a *API) search(r *request) (any, error) {
	var b struct {
		Categories *struct {
			RoomEvents *roomEvents `json:"room_events"`
		} `json:"search_categories"`
	}
	if err := r.JSON(&b); err != nil {
		return nil, err
	}
	if b.Categories == nil {
		return nil, matrix.Errorf(matrix.MissingParam, "search_categories is missing")
	}
	found := map[string]*search.Answer{}
	if b.Categories.RoomEvents != nil {
		q, err := b.Categories.RoomEvents.query()
		if err != nil {
			return nil, err
		}
		q.Next = r.URL.Query().Get("next_batch")
		if found["room_events"], err = a.Search.Search(r.Context(), r.reader(), q); err != nil {
			return nil, err
		}
	}
	return map[string]any{"search_categories": found}, nil
}

// query says what a client searches for, and what is wrong with it.
func (e *roomEvents) query() (q search.Query, err error) {
	if e.Term == nil {
		return q, matrix.Errorf(matrix.MissingParam, "search_term is missing")
	}
	f, err := clientsync.ParseEventFilter(e.Filter)
	if err != nil {
		return q, err
	}
	q = search.Query{
		Term: *e.Term, Filter: f, Rooms: f.Rooms, NotRooms: f.NotRooms, Senders: f.Senders, NotSenders: f.NotSenders, Limit: pageDefault, State: e.State,
	}
	if f.Limit != nil {
		q.Limit = max(1, min(*f.Limit, resultsMost))
	}
	switch e.Order {
	case "", "rank":
	case "recent":
		q.Recent = true
	default:
		return q, matrix.Errorf(matrix.InvalidParam, "order_by must be rank or recent")
	}
	for _, k := range e.Keys {
		key, ok := strings.CutPrefix(k, contentField)
		if !ok || key != "body" && key != "name" && key != "topic" {
			return q, matrix.Errorf(matrix.InvalidParam, "keys can be content.body, content.name and content.topic")
		}
		q.Keys = append(q.Keys, key)
	}
	for _, g := range e.Groupings.By {
		if g.Key != "room_id" && g.Key != "sender" {
			return q, matrix.Errorf(matrix.InvalidParam, "group_by can be room_id and sender")
		}
		q.Groups = append(q.Groups, g.Key)
	}
	if e.Around != nil {
		q.Around = &search.Surroundings{Profiles: e.Around.Profile}
		if q.Around.Before, err = surrounding("before_limit", e.Around.Before); err == nil {
			q.Around.After, err = surrounding("after_limit", e.Around.After)
		}
	}
	return q, err
}

// surrounding is how many events on one side of a result are wanted.
func surrounding(name string, n *int) (int, error) {
	switch {
	case n == nil:
		return aroundUsual, nil
	case *n < 0:
		return 0, matrix.Errorf(matrix.InvalidParam, "%s must not be negative", name)
	}
	return min(*n, aroundMost), nil
}
