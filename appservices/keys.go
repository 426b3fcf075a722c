package appservices

import (
	"context"
	"fmt"
	"slices"

	"switchboard/homeserver/matrix"
)

// addKeys adds what an appservice needs that encrypts: messages for the devices
// of its users, whose devices changed, and how many keys its devices have left.
// That is MSC3202.
func (b *builder) addKeys(ctx context.Context, t *transaction, s stretch) error {
	for _, m := range s.messages {
		t.ToDevice = append(t.ToDevice, toDevice{m.Type, m.Sender, m.User, m.Device, m.Content})
	}
	t.OldToDevice = t.ToDevice
	lists, err := b.deviceLists(ctx, s)
	if err != nil {
		return err
	}
	t.DeviceLists, t.OldLists = lists, lists
	if len(t.Events)+len(t.ToDevice) == 0 && lists == nil {
		return nil
	}
	t.Counts, t.Fallback = keyCounts{}, fallbackTypes{}
	for _, user := range b.concerned(s) {
		if err := b.addCounts(ctx, t, user); err != nil {
			return err
		}
	}
	t.OldCounts, t.OlderCounts, t.OldFallback = t.Counts, t.Counts, t.Fallback
	return nil
}

// concerned lists the appservice's users whose keys may have been used for what
// a stretch of the log tells of, and the appservice's own user.
func (b *builder) concerned(s stretch) []matrix.UserID {
	users := []matrix.UserID{matrix.UserID(b.reg.Sender(string(b.ServerName)))}
	for _, m := range s.messages {
		users = append(users, m.User)
	}
	for _, e := range s.wanted {
		if b.owns(e.PDU.Sender) {
			users = append(users, e.PDU.Sender)
		}
	}
	slices.Sort(users)
	return slices.Compact(users)
}

// addCounts adds how many keys the devices of a user have left.
func (b *builder) addCounts(ctx context.Context, t *transaction, user matrix.UserID) error {
	devices, err := b.Store.Devices(ctx, user)
	if err != nil {
		return fmt.Errorf("key counts: %w", err)
	}
	for _, d := range devices {
		c, err := b.Keys.KeyCounts(ctx, user, d.ID)
		if err != nil {
			return fmt.Errorf("key counts: %w", err)
		}
		if t.Counts[user] == nil {
			t.Counts[user], t.Fallback[user] = map[matrix.DeviceID]map[string]int{}, map[matrix.DeviceID][]string{}
		}
		t.Counts[user][d.ID] = c.OneTime
		t.Fallback[user][d.ID] = append([]string{}, c.Unused...)
	}
	return nil
}

// deviceLists tells whose devices the appservice must ask for again, and whose
// it need not follow any more; nil if there is nothing to tell.
func (b *builder) deviceLists(ctx context.Context, s stretch) (*deviceLists, error) {
	changed, err := b.Store.DeviceListChanges(ctx, "", s.since, s.upto)
	if err != nil {
		return nil, fmt.Errorf("device lists: %w", err)
	}
	var gone []matrix.UserID
	for _, e := range s.wanted {
		user, ok := member(e)
		switch {
		case !ok || b.owns(user):
		case e.PDU.Membership() == "join":
			changed = append(changed, user)
		default:
			gone = append(gone, user)
		}
	}
	lists := &deviceLists{b.sharing(changed, true), b.sharing(gone, false)}
	if len(lists.Changed)+len(lists.Left) == 0 {
		return nil, nil
	}
	return lists, nil
}

// sharing keeps those of users with whom the appservice shares a room, or those
// with whom it does not.
func (b *builder) sharing(users []matrix.UserID, yes bool) []matrix.UserID {
	list := []matrix.UserID{}
	slices.Sort(users)
	for _, u := range slices.Compact(users) {
		if b.shares(u) == yes {
			list = append(list, u)
		}
	}
	return list
}
