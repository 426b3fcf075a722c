package clientapi

import (
	"strconv"

	"switchboard/homeserver/matrix"
)

var mutualRoutes = []route{
	{"getMutualRooms", "GET /_matrix/client/v1/mutual_rooms", users, (*API).getMutualRooms},
	{"", "GET /_matrix/client/unstable/uk.half-shot.msc2666/user/mutual_rooms", users, (*API).getMutualRooms},
}

// mutualPage is how many rooms getMutualRooms tells of at once.
const mutualPage = 500

// getMutualRooms lists the rooms that the user shares with another.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv1mutual_rooms
func (a *API) getMutualRooms(r *request) (any, error) {
	q := r.URL.Query()
	if !q.Has("user_id") {
		return nil, matrix.Errorf(matrix.MissingParam, "user_id is missing")
	}
	other, err := matrix.ParseUserID(q.Get("user_id"))
	if err != nil {
		return nil, err
	}
	if other == r.User {
		return nil, matrix.Errorf(matrix.InvalidParam, "user_id must be somebody else's")
	}
	from := 0
	if s := q.Get("from"); s != "" {
		if from, err = strconv.Atoi(s); err != nil || from < 0 {
			return nil, matrix.Errorf(matrix.InvalidParam, "%q is no next_batch of this server", s)
		}
	}
	all, err := a.Rooms.SharedRooms(r.Context(), r.User, other)
	if err != nil {
		return nil, err
	}
	answer := struct {
		Joined []matrix.RoomID `json:"joined"`
		Count  int             `json:"count"`
		Next   string          `json:"next_batch,omitempty"`
	}{all[min(from, len(all)):], len(all), ""}
	if len(answer.Joined) > mutualPage {
		answer.Joined, answer.Next = answer.Joined[:mutualPage], strconv.Itoa(from+mutualPage)
	}
	return answer, nil
}
