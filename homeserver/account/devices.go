package account

import (
	"context"
	"time"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/notify"
	"switchboard/homeserver/store"
)

// Devices lists a user's devices in order of their IDs.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devices
func (s *Service) Devices(ctx context.Context, user matrix.UserID) ([]store.Device, error) {
	list, err := s.Store.Devices(ctx, user)
	for i := range list {
		s.seen.newest(&list[i])
	}
	return list, err
}

// Device finds one of a user's devices. The error is M_NOT_FOUND.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#get_matrixclientv3devicesdeviceid
func (s *Service) Device(ctx context.Context, user matrix.UserID, id matrix.DeviceID) (store.Device, error) {
	if checkText("", string(id), longestDevice) != nil {
		return store.Device{}, errNoDevice()
	}
	d, ok, err := s.Store.Device(ctx, user, id)
	if err == nil && !ok {
		err = errNoDevice()
	}
	s.seen.newest(&d)
	return d, err
}

// newest puts a sighting into d that was not written yet.
func (w *sightings) newest(d *store.Device) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if at, ok := w.waiting[deviceKey{d.User, d.ID}]; ok {
		d.LastSeen = at
	}
}

// SetDevice renames a device; nil leaves the name. With create, which is for
// appservices, it makes the device if there is none and says so. The errors are
// M_NOT_FOUND and M_INVALID_PARAM.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#put_matrixclientv3devicesdeviceid
func (s *Service) SetDevice(ctx context.Context, user matrix.UserID, id matrix.DeviceID, name *string, create bool) (created bool, err error) {
	if err := checkText("device_id", string(id), longestDevice); err != nil {
		return false, err
	}
	if name != nil {
		if err := checkText("display_name", *name, longestDeviceName); err != nil {
			return false, err
		}
	}
	now := time.Now().UnixMilli()
	err = s.Store.Update(ctx, func(tx *store.Tx) error {
		created = false
		_, ok, err := tx.Device(ctx, user, id)
		switch {
		case err != nil:
			return err
		case !ok && !create:
			return errNoDevice()
		case !ok:
			created = true
			d := store.Device{User: user, ID: id, CreatedTS: now}
			if name != nil {
				d.DisplayName = *name
			}
			return tx.PutDevice(ctx, d)
		case name == nil:
			return nil
		}
		if err := tx.SetDeviceName(ctx, user, id, *name); err != nil {
			return err
		}
		_, err = tx.PutDeviceListChange(ctx, user, "") // others see the name beside the keys
		return err
	})
	if err != nil {
		return false, err
	}
	s.cache.dropUser(user, id)
	s.wake(user)
	return created, nil
}

// DeleteDevices deletes devices of a user, with their tokens and keys. Those
// that do not exist are left out.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3delete_devices
func (s *Service) DeleteDevices(ctx context.Context, user matrix.UserID, ids []matrix.DeviceID) error {
	for _, id := range ids {
		if err := checkText("device_id", string(id), longestDevice); err != nil {
			return err
		}
	}
	err := s.Store.Update(ctx, func(tx *store.Tx) error {
		for _, id := range ids {
			if err := deleteDevice(ctx, tx, user, id); err != nil {
				return err
			}
		}
		return nil
	})
	for _, id := range ids {
		s.cache.dropUser(user, id)
	}
	s.wake(user)
	return err
}

// wake wakes the syncs of a user and of all who see the user's devices.
func (s *Service) wake(user matrix.UserID) {
	keys := []string{string(user), notify.Log}
	for _, u := range s.Store.Neighbours(user) {
		keys = append(keys, string(u))
	}
	s.Bell.Ring(keys...)
}

// deleteDevice deletes a device with all that belongs to it.
func deleteDevice(ctx context.Context, tx *store.Tx, user matrix.UserID, id matrix.DeviceID) error {
	if err := tx.DropDeviceKeys(ctx, user, id); err != nil {
		return err
	}
	return tx.DeleteDevice(ctx, user, id)
}

// deleteDevices deletes the devices of a user but one; keep may be "".
func deleteDevices(ctx context.Context, tx *store.Tx, user matrix.UserID, keep matrix.DeviceID) error {
	list, err := tx.Devices(ctx, user)
	if err != nil {
		return err
	}
	for _, d := range list {
		if d.ID == keep {
			continue
		}
		if err := deleteDevice(ctx, tx, user, d.ID); err != nil {
			return err
		}
	}
	return nil
}

func errNoDevice() error { return matrix.Errorf(matrix.NotFound, "there is no such device") }
