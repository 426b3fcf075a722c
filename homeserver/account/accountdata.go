package account

import (
	"context"
	"encoding/json"
	"net/http"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// serverOwned are the types of account data that have an API of their own.
var serverOwned = map[string]bool{"m.fully_read": true, pushRulesType: true}

// The bounds of account data, in bytes.
const (
	longestType = 255
	largestData = 1 << 20  // of one type
	mostData    = 64 << 20 // of all types and rooms together
)

// bound refuses a setting that is too large, and one with which all that a user has
// stored is.
func bound(ctx context.Context, tx *store.Tx, user matrix.UserID, content json.RawMessage) error {
	if len(content) > largestData {
		return matrix.Errorf(matrix.TooLarge, "account data may have %d bytes for each type", largestData)
	}
	size, err := tx.AccountDataSize(ctx, user)
	if err == nil && size > mostData {
		err = matrix.Errorf(matrix.ResourceLimitExceeded, "all account data of a user may take %d bytes: delete some first", mostData)
	}
	return err
}

// SetData stores one of user's settings and wakes the user's waiting syncs.
// Room is empty for a global setting. Without a content the setting is deleted,
// which a sync tells as an empty one. The errors are M_BAD_JSON with status 405 for a
// type that the server owns, M_TOO_LARGE, and M_RESOURCE_LIMIT_EXCEEDED where all
// settings of the user together are too large.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridaccount_datatype
func (s *Service) SetData(ctx context.Context, user matrix.UserID, room matrix.RoomID, typ string, content json.RawMessage) error {
	if serverOwned[typ] {
		return &matrix.Error{Code: matrix.BadJSON, Status: http.StatusMethodNotAllowed, Text: typ + " cannot be set here"}
	}
	if err := checkText("type", typ, longestType); err != nil {
		return err
	}
	if content == nil {
		if _, there, err := s.Store.AccountData(ctx, user, room, typ); err != nil || !there {
			return err
		}
	}
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		_, err := tx.PutAccountData(ctx, store.AccountData{User: user, Room: room, Type: typ, Content: content})
		if err != nil || content == nil {
			return err
		}
		return bound(ctx, tx, user, content)
	})
	if err != nil {
		return err
	}
	s.Bell.Ring(string(user))
	return nil
}

// Data reads one of user's settings. Room is empty for a global setting. The
// error is M_NOT_FOUND.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridaccount_datatype
func (s *Service) Data(ctx context.Context, user matrix.UserID, room matrix.RoomID, typ string) (json.RawMessage, error) {
	if typ == pushRulesType && room == "" {
		rules, err := s.PushRules(ctx, user)
		if err != nil {
			return nil, err
		}
		return json.Marshal(rules)
	}
	if err := checkText("type", typ, longestType); err != nil {
		return nil, err
	}
	content, ok, err := s.Store.AccountData(ctx, user, room, typ)
	if err == nil && !ok {
		err = matrix.Errorf(matrix.NotFound, "there is no account data of this type")
	}
	return content, err
}

// tagType is the type of account data of a room that holds its tags.
const tagType = "m.tag"

// Tags are what a user has put on a room, by name.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#room-tagging
type Tags map[string]json.RawMessage

// Tags gives the tags that a user has put on a room.
func (s *Service) Tags(ctx context.Context, user matrix.UserID, room matrix.RoomID) (Tags, error) {
	content, _, err := s.Store.AccountData(ctx, user, room, tagType)
	if err != nil {
		return nil, err
	}
	return readTags(content), nil
}

// readTags takes the tags out of m.tag. What clients have written there that is
// no tag is left out.
func readTags(content json.RawMessage) Tags {
	var c struct {
		Tags Tags `json:"tags"`
	}
	if content == nil || json.Unmarshal(content, &c) != nil || c.Tags == nil {
		return Tags{}
	}
	return c.Tags
}

// The bounds of tags.
const (
	longestTag = 255 // bytes
	mostTags   = 200 // of a room
)

// SetTag puts a tag on a room, with its content, which is an object; nil takes
// the tag away. It wakes the user's waiting syncs.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3useruseridroomsroomidtagstag
func (s *Service) SetTag(ctx context.Context, user matrix.UserID, room matrix.RoomID, tag string, content json.RawMessage) error {
	if err := checkText("tag", tag, longestTag); err != nil {
		return err
	}
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		var all json.RawMessage
		err := tx.ChangeAccountData(ctx, user, room, tagType, func(old json.RawMessage) (_ json.RawMessage, err error) {
			tags := readTags(old)
			if content == nil {
				delete(tags, tag)
			} else {
				tags[tag] = content
			}
			if len(tags) > mostTags {
				return nil, matrix.Errorf(matrix.InvalidParam, "a room may have %d tags", mostTags)
			}
			all, err = json.Marshal(map[string]Tags{"tags": tags})
			return all, err
		})
		if err != nil || content == nil {
			return err
		}
		return bound(ctx, tx, user, all)
	})
	if err != nil {
		return err
	}
	s.Bell.Ring(string(user))
	return nil
}
