package room

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"strconv"
	"strings"

	"switchboard/homeserver/event"
	"switchboard/homeserver/matrix"
	"switchboard/homeserver/statetree"
	"switchboard/homeserver/store"
)

// Upgrade is a wish to replace a room by one of another version.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#post_matrixclientv3roomsroomidupgrade
type Upgrade struct {
	Room    matrix.RoomID `json:"-"`
	User    matrix.UserID `json:"-"`
	Version string        `json:"new_version"`

	// Creators are users beside User who get the power of a creator. Versions
	// before 12 know none, and there this is not looked at.
	Creators []matrix.UserID `json:"additional_creators"`
}

// Upgrade replaces a room by a new one, which gets its state, bans, names and
// place in the directory, and gives the ID of that. All of it happens, or
// nothing; a repeated wish gets the room that the first one made.
//
// Spec: https://spec.matrix.org/v1.19/client-server-api/#room-upgrades
func (s *Service) Upgrade(ctx context.Context, u Upgrade) (matrix.RoomID, error) {
	version, err := u.check()
	if err != nil {
		return "", err
	}
	for range mostUpgrades {
		id, done, err := s.upgrade(ctx, u, version)
		if err != nil {
			return "", err
		}
		if done {
			s.Inherit(ctx, id, u.User)
			return id, nil
		}
	}
	return "", &matrix.Error{Code: matrix.Unknown, Status: 503, Text: "the room's policy server is too slow for a room as busy as this; try again"}
}

// mostUpgrades is how often an upgrade begins anew because the room went on
// while its policy server was asked.
const mostUpgrades = 5

// upgrade is Upgrade, unless the room goes on meanwhile: then it is not done.
func (s *Service) upgrade(ctx context.Context, u Upgrade, version *matrix.RoomVersion) (id matrix.RoomID, done bool, err error) {
	free := s.locks.lock(u.Room)
	defer func() { free() }()
	r, err := s.joinedRoom(ctx, u.Room, u.User)
	if err != nil {
		return "", false, err
	}
	old, err := s.open(ctx, r)
	if err != nil {
		return "", false, err
	}
	if id, err := s.replacement(old, u, version); id != "" || err != nil {
		return id, true, err
	}
	m := &move{Upgrade: u, s: s, old: old, new: &head{
		room: &store.Room{Version: version}, view: &view{ctx: ctx, s: s, tree: statetree.Tree{}},
	}}
	if err := m.build(ctx); err != nil {
		return "", false, err
	}
	by, err := s.policyServer(ctx, r)
	if err != nil {
		return "", false, err
	}
	if slices.ContainsFunc(old.made, func(p *event.PDU) bool { return !by.recommends(p) }) {
		free()
		for i, p := range old.made {
			if old.made[i], err = s.vet(ctx, by, p); err != nil {
				return "", false, err
			}
		}
		free = s.locks.lock(u.Room)
		if now, err := s.find(ctx, u.Room); err != nil || !slices.Equal(now.Heads, r.Heads) {
			return "", false, err
		}
	}
	defer s.locks.lock(m.new.room.ID)()
	err = s.commitAll(ctx, []*head{m.new, old}, func(ctx context.Context, tx *store.Tx, steps []*step) error {
		return tx.MoveDirectory(ctx, steps[1].room.Num, steps[0].room.Num)
	})
	return m.new.room.ID, true, err
}

// check finds the version and refuses creators that are no users. Those that
// stay are all different, and User is not among them.
func (u *Upgrade) check() (*matrix.RoomVersion, error) {
	if u.Version == "" {
		return nil, matrix.Errorf(matrix.MissingParam, "new_version is missing")
	}
	v, ok := matrix.Version(u.Version)
	if !ok {
		return nil, matrix.Errorf(matrix.UnsupportedRoomVersion, "this server does not know room version %q", u.Version)
	}
	if !v.CreatorsInfinite {
		u.Creators = nil
	}
	for _, c := range u.Creators {
		if _, err := matrix.ParseUserID(string(c)); err != nil {
			return nil, err
		}
	}
	u.Creators = slices.Compact(slices.Sorted(slices.Values(u.Creators)))
	u.Creators = slices.DeleteFunc(u.Creators, func(c matrix.UserID) bool { return c == u.User })
	return v, nil
}

// replacement finds the room that the same wish has made before, as long as the
// user is in it; "" if there is none.
func (s *Service) replacement(old *head, u Upgrade, version *matrix.RoomVersion) (matrix.RoomID, error) {
	tombstone := old.view.Event("m.room.tombstone", "")
	if tombstone == nil || tombstone.Sender != u.User {
		return "", old.view.err
	}
	id := matrix.RoomID(tombstone.ContentString("replacement_room"))
	r, err := s.joinedRoom(old.view.ctx, id, u.User)
	if errors.Is(err, notInRoom) || err == nil && r.Version != version {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	create, err := s.creation(old.view.ctx, r)
	if err != nil || create.Predecessor.Room != u.Room || !slices.Equal(create.Creators, u.Creators) {
		return "", err
	}
	return id, nil
}

// creation is what of a create event's content concerns upgrades.
type creation struct {
	Creators    []matrix.UserID `json:"additional_creators"`
	Predecessor struct {
		Room matrix.RoomID `json:"room_id"`
	} `json:"predecessor"`
}

// creation reads the create event of a room. Content of other shapes counts as
// none.
func (s *Service) creation(ctx context.Context, r *store.Room) (c creation, err error) {
	v := s.view(ctx, r.Current)
	if p := v.Event("m.room.create", ""); p != nil && json.Unmarshal(p.Content, &c) != nil {
		c = creation{}
	}
	return c, v.err
}

// move is an upgrade under way.
type move struct {
	Upgrade
	s        *Service
	old, new *head
}

// build makes all events of both rooms.
func (m *move) build(ctx context.Context) error {
	predecessor := object{"room_id": m.Room}
	if !m.new.room.Version.RoomIDFromCreate {
		m.new.room.ID = newRoomID(m.s.ServerName)
		tombstone, err := m.tombstone()
		if err != nil {
			return err
		}
		predecessor["event_id"] = tombstone.ID
	}
	create, err := m.s.build(m.new, draft{
		Type: "m.room.create", StateKey: new(string), Sender: m.User, Content: m.createContent(predecessor), At: m.s.creationTime(),
	})
	if err != nil {
		return impossible(err)
	}
	if m.new.room.Version.RoomIDFromCreate {
		m.new.room.ID = create.Room
		if _, err := m.tombstone(); err != nil {
			return err
		}
	}
	aliases, err := m.s.Store.Aliases(ctx, m.old.room.Num)
	if err != nil {
		return err
	}
	if err := m.furnish(ctx, aliases); err != nil {
		return impossible(err)
	}
	return m.shut(aliases)
}

// tombstone builds the event that sends everybody into the new room.
func (m *move) tombstone() (*event.PDU, error) {
	return m.s.build(m.old, draft{Type: "m.room.tombstone", StateKey: new(string), Sender: m.User, Content: object{
		"body": "This room has been replaced", "replacement_room": m.new.room.ID,
	}.raw()})
}

// createContent is the content of the new room's m.room.create.
func (m *move) createContent(predecessor object) json.RawMessage {
	o := object{"room_version": m.Version, "predecessor": predecessor}
	if p := m.old.view.Event("m.room.create", ""); p != nil {
		for _, key := range []string{"type", "m.federate"} {
			if v := p.ContentValue(key); v != nil {
				o[key] = json.RawMessage(v)
			}
		}
	}
	if !m.new.room.Version.CreatorFromSender {
		o["creator"] = m.User
	}
	if len(m.Creators) > 0 {
		o["additional_creators"] = m.Creators
	}
	return o.raw()
}

// carried are the types of state events that go into the new room: those with
// an empty state key, or with any. Their meaning does not depend on who sent
// them.
var carried = map[string]bool{ // the value: with any state key
	"m.room.avatar":             false,
	"m.room.encryption":         false,
	"m.room.guest_access":       false,
	"m.room.history_visibility": false,
	"m.room.join_rules":         false,
	"m.room.name":               false,
	"m.room.policy":             false,
	"m.room.server_acl":         false,
	"m.room.topic":              false,
	"m.policy.rule.room":        true,
	"m.policy.rule.server":      true,
	"m.policy.rule.user":        true,
	"m.room.image_pack":         true,
	"m.space.child":             true,
	"m.space.parent":            true,
}

// furnish builds the state of the new room. The power levels come last, as a
// user who may upgrade a room need not be the mightiest in it: until they are
// there, a creator may do everything.
func (m *move) furnish(ctx context.Context, aliases []matrix.RoomAlias) error {
	add := func(typ, key string, content json.RawMessage) error {
		_, err := m.s.build(m.new, draft{Type: typ, StateKey: &key, Sender: m.User, Content: content})
		return err
	}
	member := object{"membership": "join"}
	if err := m.s.addProfile(ctx, member, m.User); err != nil {
		return err
	}
	if err := add(event.TypeMember, string(m.User), member.raw()); err != nil {
		return err
	}
	state, err := m.s.StateEvents(ctx, m.old.room.Current)
	if err != nil {
		return err
	}
	for _, e := range state {
		content := m.carry(e.PDU)
		if content == nil {
			continue
		}
		err := add(e.PDU.Type, *e.PDU.StateKey, content)
		var refused *matrix.Error
		if err != nil && !errors.As(err, &refused) { // what the new version does not allow stays behind
			return err
		}
	}
	if o := m.names(aliases, true); len(o) > 0 {
		if err := add("m.room.canonical_alias", "", o.raw()); err != nil {
			return err
		}
	}
	return add(event.TypePowerLevels, "", m.powerLevels().raw())
}

// carry is the content that a state event has in the new room, nil if it does
// not come there.
func (m *move) carry(p *event.PDU) json.RawMessage {
	any, ok := carried[p.Type]
	switch v := m.new.room.Version; {
	case p.Type == event.TypeMember && p.Membership() == "ban" && !slices.Contains(m.Creators, matrix.UserID(*p.StateKey)):
		content := object{"membership": "ban"}
		if reason := p.ContentString("reason"); reason != "" {
			content["reason"] = reason
		}
		return content.raw()
	case !ok || !any && *p.StateKey != "" || string(p.Content) == "{}":
		return nil
	case p.Type == "m.room.join_rules":
		known, special := map[string]bool{
			"knock": v.KnockRule, "restricted": v.RestrictedRule, "knock_restricted": v.KnockRestrictedRule,
		}[p.ContentString("join_rule")]
		if special && !known {
			return object{"join_rule": "invite"}.raw()
		}
	}
	return p.Content
}

// names are the room's m.room.canonical_alias with only those names that are
// among the given, or with only the others. What is no name stays behind.
func (m *move) names(among []matrix.RoomAlias, is bool) object {
	p := m.old.view.Event("m.room.canonical_alias", "")
	var o object
	if p == nil || json.Unmarshal(p.Content, &o) != nil {
		return nil
	}
	moved := func(name any) bool {
		text, _ := name.(string)
		return slices.Contains(among, matrix.RoomAlias(text))
	}
	kept := object{}
	if name, ok := o["alias"]; ok && moved(name) == is {
		kept["alias"] = name
	}
	all, _ := o["alt_aliases"].([]any)
	if more := slices.DeleteFunc(slices.Clone(all), func(name any) bool { return moved(name) != is }); len(more) > 0 {
		kept["alt_aliases"] = more
	}
	return kept
}

// levelsContent is the content of the old room's m.room.power_levels, nil if it
// has none.
func (m *move) levelsContent() object {
	var o object
	if p := m.old.view.Event(event.TypePowerLevels, ""); p == nil || json.Unmarshal(p.Content, &o) != nil {
		return nil
	}
	return o
}

// powerLevels is the content of the new room's m.room.power_levels: the old one
// in the shape that all versions take. Creators stand in it where they have no
// infinite power; who created a room in which they had it gets the highest level.
func (m *move) powerLevels() object {
	v := m.new.room.Version
	content := m.levelsContent()
	if content == nil {
		p := plan{Creation: Creation{Creator: m.User}, version: v, preset: presets["private_chat"]}
		return p.powerLevels()
	}
	o, highest := tidyLevels(content)
	users, _ := o["users"].(map[string]int64)
	events, _ := o["events"].(map[string]int64)
	if v.CreatorsInfinite {
		for _, c := range append(m.Creators, m.User) {
			delete(users, string(c))
		}
		least := int64(50)
		if n, ok := o["state_default"].(int64); ok {
			least = n
		}
		if n, ok := events["m.room.tombstone"]; !ok || n <= least {
			if events == nil {
				events = map[string]int64{}
			}
			events["m.room.tombstone"] = max(150, least+1)
			o["events"] = events
		}
		return o
	}
	if m.old.room.Version.CreatorsInfinite {
		if users == nil {
			users = map[string]int64{}
		}
		var c creation
		create := m.old.view.Event("m.room.create", "")
		if create != nil && json.Unmarshal(create.Content, &c) == nil {
			for _, u := range append(c.Creators, create.Sender) {
				users[string(u)] = max(100, highest)
			}
		}
		o["users"] = users
	}
	return o
}

// tidyLevels reads power levels as they may stand in old rooms, texts with
// numbers in them included, leaves out what is none, and tells the highest.
func tidyLevels(content object) (o object, highest int64) {
	o = object{}
	for key, value := range content {
		table, ok := value.(map[string]any)
		if !ok {
			if n, ok := level(value); ok {
				o[key], highest = n, max(highest, n)
			}
			continue
		}
		levels := map[string]int64{}
		for k, value := range table {
			if _, err := matrix.ParseUserID(k); key == "users" && err != nil {
				continue
			}
			if n, ok := level(value); ok {
				levels[k], highest = n, max(highest, n)
			}
		}
		o[key] = levels
	}
	return o, highest
}

// level reads one power level.
func level(value any) (int64, bool) {
	switch v := value.(type) {
	case float64:
		return int64(v), -maxDepth <= v && v <= maxDepth
	case string:
		n, err := strconv.ParseInt(strings.TrimSpace(v), 10, 64)
		return n, err == nil && -maxDepth <= n && n <= maxDepth
	}
	return 0, false
}

// shut builds what the old room gets behind its tombstone: the names that went
// away are taken out, and only who has power may go on to speak and to invite.
// Where the user may not do these, the room stays as it is.
func (m *move) shut(aliases []matrix.RoomAlias) error {
	try := func(typ string, content object) error {
		_, err := m.s.build(m.old, draft{Type: typ, StateKey: new(string), Sender: m.User, Content: content.raw()})
		var refused *matrix.Error
		if errors.As(err, &refused) && refused.Code == matrix.Forbidden {
			return nil
		}
		return err
	}
	if len(m.names(aliases, true)) > 0 {
		if err := try("m.room.canonical_alias", m.names(aliases, false)); err != nil {
			return err
		}
	}
	levels := m.levelsContent()
	if levels == nil || !restrict(levels) {
		return m.old.view.err
	}
	return try(event.TypePowerLevels, levels)
}

// restrict raises what it takes to speak and to invite to the level of a
// moderator, and tells whether that changed anything. Redactions stay as they are.
func restrict(levels object) (changed bool) {
	base, _ := level(levels["users_default"])
	least := max(50, base+1)
	raise := func(o map[string]any, key string) {
		if n, ok := level(o[key]); !ok || n < least {
			o[key], changed = least, true
		}
	}
	raise(levels, "events_default")
	raise(levels, "invite")
	if events, ok := levels["events"].(map[string]any); ok {
		for typ := range events {
			if typ != event.TypeRedaction {
				raise(events, typ)
			}
		}
	}
	return changed
}
