package account

import (
	"context"
	"encoding/json"
	"strconv"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// mostFilters is how many different filters a user may store.
const mostFilters = 1000

// AddFilter stores a filter, which the caller has checked, and returns its ID.
// The same filter gets the same ID. The error is M_RESOURCE_LIMIT_EXCEEDED for
// who has too many.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3useruseridfilter
func (s *Service) AddFilter(ctx context.Context, user matrix.UserID, filter json.RawMessage) (string, error) {
	id, ok, err := s.Store.FilterID(ctx, user, filter)
	if err != nil {
		return "", err
	}
	if !ok {
		err := s.Store.Update(ctx, func(tx *store.Tx) error {
			var err error
			if id, ok, err = tx.AddFilter(ctx, user, filter, mostFilters); err == nil && !ok {
				err = matrix.Errorf(matrix.ResourceLimitExceeded, "a user may store %d filters", mostFilters)
			}
			return err
		})
		if err != nil {
			return "", err
		}
	}
	return strconv.FormatInt(id, 10), nil
}

// Filter reads a filter that was stored. The error is M_NOT_FOUND.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3useruseridfilterfilterid
func (s *Service) Filter(ctx context.Context, user matrix.UserID, id string) (json.RawMessage, error) {
	n, err := strconv.ParseInt(id, 10, 64)
	if err != nil {
		return nil, errNoFilter()
	}
	filter, ok, err := s.Store.Filter(ctx, user, n)
	if err == nil && !ok {
		err = errNoFilter()
	}
	return filter, err
}

func errNoFilter() error { return matrix.Errorf(matrix.NotFound, "there is no such filter") }
