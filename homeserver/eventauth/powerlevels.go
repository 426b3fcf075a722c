package eventauth

import (
	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
)

// changeLevels is rule 10. old are the room's levels before the event, sender is
// the level of its sender.
func (c *checker) changeLevels(old *PowerLevels, sender Level) error {
	next, err := parseLevels(c.e, true) // 10.1, 10.2, 10.3
	if err != nil {
		return err
	}
	for _, creator := range old.creators { // 10.4; there are none before version 12
		if _, ok := next.users[creator]; ok {
			return reject("10.4", "users holds a creator of the room")
		}
	}
	if c.s.Event(event.TypePowerLevels, "") == nil { // 10.5
		return nil
	}
	for i := range scalars { // 10.6
		if old.given[i] == next.given[i] && old.lone[i] == next.lone[i] {
			continue
		}
		if old.given[i] && old.lone[i] > sender { // 10.6.1
			return reject("10.6.1", scalarNames[i]+" is above the sender's power level")
		}
		if next.given[i] && next.lone[i] > sender { // 10.6.2
			return reject("10.6.2", scalarNames[i]+" would be above the sender's power level")
		}
	}
	if err := changeTable("events", old.events, next.events, sender); err != nil { // 10.7, 10.8
		return err
	}
	if c.v.NotificationsAuth {
		if err := changeTable("notifications", old.notifications, next.notifications, sender); err != nil {
			return err
		}
	}
	return changeUsers(old.users, next.users, c.e.Sender, sender)
}

// changeTable is rules 10.7 and 10.8.
func changeTable(name string, old, next map[string]Level, sender Level) error {
	for key, was := range old {
		if is, ok := next[key]; (!ok || is != was) && was > sender { // 10.7.1
			return reject("10.7.1", name+" has a level above the sender's")
		}
	}
	for key, is := range next {
		if was, ok := old[key]; (!ok || is != was) && is > sender { // 10.8.1
			return reject("10.8.1", name+" would have a level above the sender's")
		}
	}
	return nil
}

// changeUsers is rules 10.9 and 10.10.
func changeUsers(old, next map[matrix.UserID]Level, who matrix.UserID, sender Level) error {
	for user, was := range old {
		if is, ok := next[user]; (!ok || is != was) && user != who && was >= sender { // 10.9.1
			return reject("10.9.1", "a user has a level not below the sender's")
		}
	}
	for user, is := range next {
		if was, ok := old[user]; (!ok || is != was) && is > sender { // 10.10.1
			return reject("10.10.1", "a user would have a level above the sender's")
		}
	}
	return nil // 10.11
}
