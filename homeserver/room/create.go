package room

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// Creation is a wish for a new room.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
type Creation struct {
	Creator         matrix.UserID              `json:"-"`
	Visibility      string                     `json:"visibility"`
	AliasName       string                     `json:"room_alias_name"`
	Name            *string                    `json:"name"`
	Topic           *string                    `json:"topic"`
	Invite          []matrix.UserID            `json:"invite"`
	Invite3PID      []json.RawMessage          `json:"invite_3pid"` // federation invites them, once there is a room
	Version         string                     `json:"room_version"`
	CreationContent map[string]json.RawMessage `json:"creation_content"`
	InitialState    []InitialState             `json:"initial_state"`
	Preset          string                     `json:"preset"`
	IsDirect        bool                       `json:"is_direct"`
	PowerLevels     map[string]json.RawMessage `json:"power_level_content_override"`

	// Past keeps places free behind the events that make the room, for the history
	// that an appservice brings (Batch).
	Past bool `json:"-"`
}

// InitialState is a state event that a new room is to have.
type InitialState struct {
	Type     string          `json:"type"`
	StateKey string          `json:"state_key"`
	Content  json.RawMessage `json:"content"`
}

// preset is what the name of a preset stands for.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3createroom
type preset struct {
	joinRule, history, guests string
	trusted                   bool // those invited get the creator's power
}

var presets = map[string]preset{
	"private_chat":         {"invite", "shared", "can_join", false},
	"trusted_private_chat": {"invite", "shared", "can_join", true},
	"public_chat":          {"public", "shared", "forbidden", false},
}

// Create makes a room and gives its ID. All of it happens, or nothing.
func (s *Service) Create(ctx context.Context, c Creation) (matrix.RoomID, error) {
	plan, err := s.plan(c)
	if err != nil {
		return "", err
	}
	h := &head{room: &store.Room{Version: plan.version}, view: &view{ctx: ctx, s: s, tree: statetree.Tree{}}}
	if !plan.version.RoomIDFromCreate {
		h.room.ID = newRoomID(s.ServerName)
	}
	create, err := s.build(h, draft{Type: "m.room.create", StateKey: new(string), Sender: c.Creator, Content: plan.create, At: s.creationTime()})
	if err != nil {
		return "", impossible(err)
	}
	h.room.ID = create.Room
	if err := s.furnish(ctx, h, plan); err != nil {
		return "", impossible(err)
	}
	defer s.locks.lock(create.Room)()
	_, err = s.commit(ctx, h, func(ctx context.Context, tx *store.Tx, events []*store.Event) error {
		return plan.register(ctx, tx, events)
	})
	if err != nil {
		return "", err
	}
	return create.Room, nil
}

// impossible says that it is the wish for a room which cannot be, where its own
// rules refuse an event.
func impossible(err error) error {
	var e *matrix.Error
	if errors.As(err, &e) && e.Code == matrix.Forbidden {
		return matrix.Errorf(matrix.InvalidRoomState, "the room cannot be as you wish it: %s", e.Text)
	}
	return err
}

// creationTime is the time of a new room, which no other room of this process
// has: from room version 12 on, two rooms that are alike but for their time
// would have the same ID.
func (s *Service) creationTime() int64 {
	for {
		last := s.created.Load()
		at := max(now(), last+1)
		if s.created.CompareAndSwap(last, at) {
			return at
		}
	}
}

// plan is a Creation that was found good.
type plan struct {
	Creation
	version *matrix.RoomVersion
	preset  preset
	create  json.RawMessage
	alias   matrix.RoomAlias
}

func (s *Service) plan(c Creation) (*plan, error) {
	p := &plan{Creation: c}
	name := c.Version
	if name == "" {
		name = s.Config.DefaultVersion
	}
	if name == "" {
		name = matrix.DefaultRoomVersion
	}
	var ok bool
	if p.version, ok = matrix.Version(name); !ok {
		return nil, matrix.Errorf(matrix.UnsupportedRoomVersion, "this server does not know room version %q", name)
	}
	switch c.Visibility {
	case "", "private", "public":
	default:
		return nil, matrix.Errorf(matrix.InvalidParam, "visibility must be public or private")
	}
	if c.Preset == "" {
		p.Preset = map[bool]string{true: "public_chat", false: "private_chat"}[c.Visibility == "public"]
	}
	if p.preset, ok = presets[p.Preset]; !ok {
		return nil, matrix.Errorf(matrix.InvalidParam, "there is no preset %q", c.Preset)
	}
	for _, e := range c.InitialState {
		if e.Type == "" || e.Content == nil {
			return nil, matrix.Errorf(matrix.MissingParam, "each event of initial_state needs a type and a content")
		}
	}
	for _, u := range c.Invite {
		if _, err := matrix.ParseUserID(string(u)); err != nil {
			return nil, err
		}
	}
	if c.AliasName != "" {
		alias, err := matrix.ParseRoomAlias("#" + c.AliasName + ":" + string(s.ServerName))
		if err != nil {
			return nil, err
		}
		p.alias = alias
	}
	var err error
	p.create, err = p.createContent()
	return p, err
}

// createContent is the content of m.room.create.
func (p *plan) createContent() (json.RawMessage, error) {
	o := object{}
	for k, v := range p.CreationContent {
		o[k] = v
	}
	o["room_version"] = p.version.ID
	delete(o, "creator")
	if !p.version.CreatorFromSender {
		o["creator"] = p.Creator
	}
	if p.version.CreatorsInfinite && p.preset.trusted && len(p.Invite) > 0 {
		var more []matrix.UserID
		if raw := p.CreationContent["additional_creators"]; raw != nil {
			if err := json.Unmarshal(raw, &more); err != nil {
				return nil, matrix.Errorf(matrix.BadJSON, "additional_creators must be a list of user IDs")
			}
		}
		for _, u := range p.Invite {
			if !slices.Contains(more, u) && u != p.Creator {
				more = append(more, u)
			}
		}
		o["additional_creators"] = more
	}
	return o.raw(), nil
}

// powerLevels is the content of m.room.power_levels.
func (p *plan) powerLevels() object {
	users := map[matrix.UserID]int{}
	if !p.version.CreatorsInfinite {
		users[p.Creator] = 100
		if p.preset.trusted {
			for _, u := range p.Invite {
				users[u] = 100
			}
		}
	}
	tombstone := 100
	if p.version.CreatorsInfinite {
		tombstone = 150
	}
	invite := 0
	if p.preset.joinRule == "public" {
		invite = 50 // everybody can come in by themselves; to let people in past a later rule is for moderators
	}
	o := object{
		"users": users, "users_default": 0, "events_default": 0, "state_default": 50,
		"ban": 50, "kick": 50, "redact": 50, "invite": invite, "historical": 100,
		"events": map[string]int{
			"m.room.name": 50, "m.room.power_levels": 100, "m.room.history_visibility": 100, "m.room.canonical_alias": 50,
			"m.room.avatar": 50, "m.room.tombstone": tombstone, "m.room.server_acl": 100, "m.room.encryption": 100,
		},
	}
	for k, v := range p.PowerLevels {
		o[k] = v
	}
	return o
}

// furnish builds all events behind the first in the order of the specification.
func (s *Service) furnish(ctx context.Context, h *head, p *plan) error {
	member := object{"membership": "join"}
	if err := s.addProfile(ctx, member, p.Creator); err != nil {
		return err
	}
	creator := string(p.Creator)
	add := func(typ, key string, content json.RawMessage) error {
		_, err := s.build(h, draft{Type: typ, StateKey: &key, Sender: p.Creator, Content: content})
		return err
	}
	if err := add("m.room.member", creator, member.raw()); err != nil {
		return err
	}
	if err := add("m.room.power_levels", "", p.powerLevels().raw()); err != nil {
		return err
	}
	if p.alias != "" {
		if err := add("m.room.canonical_alias", "", object{"alias": p.alias}.raw()); err != nil {
			return err
		}
	}
	for _, e := range p.state() {
		if err := add(e.Type, e.StateKey, e.Content); err != nil {
			return err
		}
	}
	for _, u := range p.Invite {
		if u.Server() != s.ServerName {
			continue // federation invites them, once there is a room
		}
		if err := s.RefuseInvite(ctx, u, p.Creator, h.room.ID); err != nil {
			return err
		}
		o := object{"membership": "invite"}
		if p.IsDirect {
			o["is_direct"] = true
		}
		if err := s.addProfile(ctx, o, u); err != nil {
			return err
		}
		if err := add("m.room.member", string(u), o.raw()); err != nil {
			return err
		}
	}
	return nil
}

// state lists the state that the preset, the client's list, the name and the
// topic ask for; what comes later in the specification's order wins.
func (p *plan) state() []InitialState {
	list := []InitialState{
		{"m.room.join_rules", "", object{"join_rule": p.preset.joinRule}.raw()},
		{"m.room.history_visibility", "", object{"history_visibility": p.preset.history}.raw()},
	}
	if p.preset.guests == "can_join" {
		list = append(list, InitialState{"m.room.guest_access", "", object{"guest_access": p.preset.guests}.raw()})
	}
	for _, e := range p.InitialState {
		list = slices.DeleteFunc(list, func(l InitialState) bool { return l.Type == e.Type && l.StateKey == e.StateKey })
		list = append(list, e)
	}
	if p.Name != nil {
		list = append(list, InitialState{"m.room.name", "", object{"name": *p.Name}.raw()})
	}
	if p.Topic != nil {
		list = append(list, InitialState{"m.room.topic", "", topicContent(*p.Topic).raw()})
	}
	return list
}

// topicContent is the content of m.room.topic for a plain text.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#mroomtopic
func topicContent(topic string) object {
	return object{"topic": topic, "m.topic": object{"m.text": []object{{"body": topic}}}}
}

// register writes what a new room needs beside its events.
func (p *plan) register(ctx context.Context, tx *store.Tx, events []*store.Event) error {
	room := events[0].Room
	if p.Past {
		upto, err := tx.SkipPositions(ctx, pastRoom)
		if err != nil {
			return err
		}
		if err := tx.PutPast(ctx, room, store.Past{Since: events[len(events)-1].Pos, Upto: upto}); err != nil {
			return err
		}
	}
	if p.alias != "" {
		free, err := tx.PutAlias(ctx, store.Alias{Alias: p.alias, Room: room, Creator: p.Creator})
		if err != nil {
			return err
		}
		if !free {
			return matrix.Errorf(matrix.RoomInUse, "the name %s is taken", p.alias)
		}
	}
	if p.Visibility == "public" {
		return tx.Publish(ctx, "", room, true)
	}
	return nil
}

// Stripped are the events that tell somebody outside what a room is.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#stripped-state
func (s *Service) Stripped(ctx context.Context, root statetree.ID, user matrix.UserID) ([]json.RawMessage, error) {
	v := s.view(ctx, root)
	var list []json.RawMessage
	for _, typ := range []string{"m.room.create", "m.room.join_rules", "m.room.canonical_alias", "m.room.avatar", "m.room.name",
		"m.room.topic", "m.room.encryption"} {
		if p := v.Event(typ, ""); p != nil {
			list = append(list, p.StrippedState(nil))
		}
	}
	member := v.Event("m.room.member", string(user))
	if member == nil {
		return list, v.err
	}
	if inviter := v.Event("m.room.member", string(member.Sender)); inviter != nil && member.Sender != user {
		list = append(list, inviter.StrippedState(nil))
	}
	return append(list, member.StrippedState(nil)), v.err
}
