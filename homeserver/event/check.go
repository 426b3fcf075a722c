package event

import (
	"strings"

	"switchboard/homeserver/matrix"
)

// maxField is the longest type and state key in bytes.
const maxField = 255

// check tells what the format of the room version does not allow.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#size-limits
func (p *PDU) check() error {
	if len(p.Type) > maxField {
		return tooLarge("type", len(p.Type), maxField)
	}
	if p.StateKey != nil && len(*p.StateKey) > maxField {
		return tooLarge("state_key", len(*p.StateKey), maxField)
	}
	// Text columns of databases hold no NUL, so no server has such events.
	if strings.IndexByte(p.Type, 0) >= 0 || p.StateKey != nil && strings.IndexByte(*p.StateKey, 0) >= 0 {
		return matrix.Errorf(matrix.BadJSON, "invalid event: NUL in type or state_key")
	}
	if _, err := matrix.ParseUserID(string(p.Sender)); err != nil {
		return matrix.Errorf(matrix.BadJSON, "invalid event: sender: %v", err)
	}
	if p.Room != "" || !p.makesRoom() {
		if _, err := matrix.ParseRoomID(string(p.Room)); err != nil {
			return matrix.Errorf(matrix.BadJSON, "invalid event: room_id: %v", err)
		}
	}
	if p.Depth < 0 {
		return matrix.Errorf(matrix.BadJSON, "invalid event: depth is negative")
	}
	if len(p.PrevEvents) > MaxPrevEvents || len(p.AuthEvents) > MaxAuthEvents {
		return matrix.Errorf(matrix.BadJSON, "invalid event: it refers to too many events")
	}
	if p.Version.EventIDInEvent {
		if _, err := matrix.ParseEventID(string(p.ID)); err != nil {
			return matrix.Errorf(matrix.BadJSON, "invalid event: event_id: %v", err)
		}
	}
	for _, list := range [...][]matrix.EventID{p.PrevEvents, p.AuthEvents} {
		for _, id := range list {
			if _, err := matrix.ParseEventID(string(id)); err != nil {
				return matrix.Errorf(matrix.BadJSON, "invalid event: reference: %v", err)
			}
		}
	}
	return nil
}

// makesRoom tells whether the event gives its room the ID.
func (p *PDU) makesRoom() bool { return p.Version.RoomIDFromCreate && p.Type == TypeCreate }
