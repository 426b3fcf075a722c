package account

import (
	"context"
	"encoding/json"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/pushrule"
	"switchboard/homeserver/store"
)

// PushRules gives the push rules of a user. They are stored as the account data
// m.push_rules, so that syncs carry them.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#push-rules-api
func (s *Service) PushRules(ctx context.Context, user matrix.UserID) (*pushrule.Ruleset, error) {
	content, ok, err := s.Store.AccountData(ctx, user, "", pushRulesType)
	if err != nil {
		return nil, err
	}
	if !ok {
		return pushrule.Default(user), nil
	}
	return pushrule.Parse(user, content)
}

// EditPushRules changes the push rules of a user and wakes the user's waiting
// syncs. Edit may be called more than once; its error is returned. Rules that grow
// may not become larger than other account data.
func (s *Service) EditPushRules(ctx context.Context, user matrix.UserID, edit func(*pushrule.Ruleset) error) error {
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		var grown json.RawMessage
		err := tx.ChangeAccountData(ctx, user, "", pushRulesType, func(old json.RawMessage) (json.RawMessage, error) {
			rules := pushrule.Default(user)
			if old != nil {
				var err error
				if rules, err = pushrule.Parse(user, old); err != nil {
					return nil, err
				}
			}
			if err := edit(rules); err != nil {
				return nil, err
			}
			content, err := json.Marshal(rules)
			if len(content) > len(old) {
				grown = content
			}
			return content, err
		})
		if err != nil || grown == nil {
			return err
		}
		return bound(ctx, tx, user, grown)
	})
	if err != nil {
		return err
	}
	s.Bell.Ring(string(user))
	return nil
}
