package e2ee

import (
	"context"
	"encoding/json"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// mostDehydrated is how large the data of a dehydrated device may be, in bytes.
const mostDehydrated = 256 << 10

// Dehydrated is a device that takes messages while its user has no other, and
// what the next one needs to wake it up.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/pull/3814
type Dehydrated struct {
	Device matrix.DeviceID `json:"device_id"`
	Data   json.RawMessage `json:"device_data"` // an object with an algorithm
}

// Dehydrate makes a user's dehydrated device, with its keys, in place of the one
// there was. The errors are M_MISSING_PARAM, M_INVALID_PARAM, M_BAD_JSON,
// M_TOO_LARGE and M_INVALID_SIGNATURE.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/pull/3814
func (s *Service) Dehydrate(ctx context.Context, user matrix.UserID, d Dehydrated, displayName string, up Upload) error {
	if err := name("device_id", string(d.Device)); err != nil {
		return err
	}
	if displayName != "" {
		if err := name("initial_device_display_name", displayName); err != nil {
			return err
		}
	}
	var data struct {
		Algorithm string `json:"algorithm"`
	}
	switch {
	case len(d.Data) == 0 || len(up.DeviceKeys) == 0:
		return matrix.Errorf(matrix.MissingParam, "device_data and device_keys are needed")
	case len(d.Data) > mostDehydrated:
		return matrix.Errorf(matrix.TooLarge, "device_data may have %d bytes", mostDehydrated)
	case json.Unmarshal(d.Data, &data) != nil || data.Algorithm == "":
		return matrix.Errorf(matrix.BadJSON, "device_data must be an object with an algorithm")
	}
	p, err := up.read(user, d.Device)
	if err != nil {
		return err
	}
	if p.identity == nil {
		return matrix.Errorf(matrix.MissingParam, "device_keys is needed")
	}
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		if _, err := dropDehydrated(ctx, tx, user); err != nil {
			return err
		}
		_, taken, err := tx.Device(ctx, user, d.Device)
		if err != nil {
			return err
		}
		if taken {
			return matrix.Errorf(matrix.InvalidParam, "one of the user's devices has this device_id already")
		}
		if err := tx.PutDevice(ctx, store.Device{User: user, ID: d.Device, DisplayName: displayName, CreatedTS: now()}); err != nil {
			return err
		}
		if _, err := p.put(ctx, tx, user, d.Device); err != nil {
			return err
		}
		return tx.PutDehydrated(ctx, store.Dehydrated{User: user, Device: d.Device, Data: d.Data})
	})
	if err == nil {
		s.changed(user)
	}
	return err
}

// dropDehydrated deletes a user's dehydrated device and gives its ID, "" if there
// is none.
func dropDehydrated(ctx context.Context, tx *store.Tx, user matrix.UserID) (matrix.DeviceID, error) {
	d, ok, err := tx.Dehydrated(ctx, user)
	if err != nil || !ok {
		return "", err
	}
	if err := tx.DropDeviceKeys(ctx, user, d.Device); err != nil {
		return "", err
	}
	return d.Device, tx.DeleteDevice(ctx, user, d.Device)
}

func errNotDehydrated() error {
	return matrix.Errorf(matrix.NotFound, "there is no dehydrated device")
}

// Dehydrated gives a user's dehydrated device. The error is M_NOT_FOUND.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/pull/3814
func (s *Service) Dehydrated(ctx context.Context, user matrix.UserID) (Dehydrated, error) {
	d, ok, err := s.Store.Dehydrated(ctx, user)
	if err == nil && !ok {
		err = errNotDehydrated()
	}
	return Dehydrated{d.Device, d.Data}, err
}

// DropDehydrated deletes a user's dehydrated device, with what waits for it, and
// gives its ID. The error is M_NOT_FOUND.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/pull/3814
func (s *Service) DropDehydrated(ctx context.Context, user matrix.UserID) (id matrix.DeviceID, err error) {
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		if id, err = dropDehydrated(ctx, tx, user); err == nil && id == "" {
			err = errNotDehydrated()
		}
		return err
	})
	if err == nil {
		s.changed(user)
	}
	return id, err
}

// DehydratedMessages gives messages for a user's dehydrated device behind since,
// the oldest first, and where the next ones stand. Nothing is deleted: who asks
// may be gone before all is read. The error is M_FORBIDDEN for another device.
//
// Source: https://github.com/matrix-org/matrix-spec-proposals/pull/3814
func (s *Service) DehydratedMessages(ctx context.Context, user matrix.UserID, device matrix.DeviceID, since int64) (list []store.ToDevice, next int64, err error) {
	d, ok, err := s.Store.Dehydrated(ctx, user)
	if err != nil {
		return nil, 0, err
	}
	if !ok || d.Device != device {
		return nil, 0, matrix.Errorf(matrix.Forbidden, "this is not the dehydrated device")
	}
	list, err = s.Store.ToDevice(ctx, user, device, since, s.Store.Position(), batch)
	if err != nil || len(list) == 0 {
		return nil, since, err
	}
	return list, list[len(list)-1].Pos, nil
}
