package federation

import (
	"context"
	"encoding/json"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/e2ee"
	"switchboard/homeserver/matrix"
)

const (
	staleTick = 5 * time.Minute // how often lists that are stale are asked for again
	staleMost = 200             // at a time
)

// receiveDeviceList takes a change of a user's devices. If others were missed
// before it, all of the user's devices are asked for.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#device-management
func (s *Service) receiveDeviceList(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
	var u e2ee.DeviceUpdate
	if err := json.Unmarshal(content, &u); err != nil {
		return err
	}
	if err := theirs(origin, u.User); err != nil {
		return err
	}
	stale, err := s.Encryption.UpdateRemote(context.WithoutCancel(ctx), u)
	if err != nil || !stale {
		return err
	}
	return s.Encryption.Resync(ctx, u.User)
}

// receiveSigningKeys takes a user's cross-signing keys.
//
// Spec: https://spec.matrix.org/v1.19/server-server-api/#definition-msigning_key_update
func (s *Service) receiveSigningKeys(ctx context.Context, origin matrix.ServerName, content json.RawMessage) error {
	var u struct {
		User        matrix.UserID   `json:"user_id"`
		Master      json.RawMessage `json:"master_key"`
		SelfSigning json.RawMessage `json:"self_signing_key"`
	}
	if err := json.Unmarshal(content, &u); err != nil {
		return err
	}
	if err := theirs(origin, u.User); err != nil {
		return err
	}
	return s.Encryption.UpdateRemoteSigning(context.WithoutCancel(ctx), u.User, u.Master, u.SelfSigning)
}

// runDeviceLists asks again for devices of which changes were missed, until ctx is
// done.
func (s *Service) runDeviceLists(ctx context.Context) error {
	ticker := time.NewTicker(staleTick)
	defer ticker.Stop()
	for {
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return nil
		}
		s.resyncStale(ctx)
	}
}

func (s *Service) resyncStale(ctx context.Context) {
	defer s.recovered(ctx)
	list, err := s.Store.StaleDeviceLists(ctx, staleMost)
	if err != nil && ctx.Err() == nil {
		zerolog.Ctx(ctx).Error().Err(err).Msg("stale device lists could not be read")
	}
	for _, l := range list {
		if ctx.Err() != nil {
			return
		}
		if err := s.Encryption.Resync(ctx, l.User); err != nil {
			zerolog.Ctx(ctx).Debug().Err(err).Str("user", string(l.User)).Msg("a device list could not be had")
		}
	}
}
