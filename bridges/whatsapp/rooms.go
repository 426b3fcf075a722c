package whatsapp

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/types"
	"go.mau.fi/whatsmeow/types/events"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/simplevent"
	"maunium.net/go/mautrix/event"

	"switchboard/bridges/bridge"
)

// The power levels of the people in a group.
const (
	levelMember = 0
	levelAdmin  = 50
	levelOwner  = 75
)

// GetChatInfo implements bridgev2.NetworkAPI.
func (s *session) GetChatInfo(ctx context.Context, portal *bridgev2.Portal) (*bridgev2.ChatInfo, error) {
	chat, err := chatOf(portal)
	if err != nil {
		return nil, err
	}
	if chat.Server != types.GroupServer {
		return s.privateInfo(chat), nil
	}
	var info *types.GroupInfo
	if err := s.untilConnected(ctx, func() (err error) {
		info, err = s.client.GetGroupInfo(ctx, chat)
		return err
	}); err != nil {
		return nil, fmt.Errorf("ask about group %s: %w", chat, err)
	}
	return s.groupInfo(ctx, info), nil
}

// privateInfo is what a private chat is: two people. It has the name and avatar
// of the other one.
func (s *session) privateInfo(chat types.JID) *bridgev2.ChatInfo {
	kind := database.RoomTypeDM
	members := bridgev2.ChatMemberMap{}
	for _, lid := range []types.JID{chat, s.own()} {
		members.Set(bridgev2.ChatMember{EventSender: s.sender(lid), Membership: event.MembershipJoin})
	}
	if chat == s.own() {
		name := "Notes to myself on WhatsApp"
		return &bridgev2.ChatInfo{Name: &name, Type: &kind, CanBackfill: true, Members: &bridgev2.ChatMemberList{
			IsFull: true, MemberMap: members, TotalMemberCount: 1, OtherUserID: userID(chat),
		}}
	}
	return &bridgev2.ChatInfo{Type: &kind, CanBackfill: true, Members: &bridgev2.ChatMemberList{
		IsFull: true, MemberMap: members, TotalMemberCount: 2, OtherUserID: userID(chat),
	}}
}

// groupInfo is everything about a group.
func (s *session) groupInfo(ctx context.Context, g *types.GroupInfo) *bridgev2.ChatInfo {
	kind := database.RoomTypeDefault
	if g.IsParent {
		kind = database.RoomTypeSpace
	}
	members := &bridgev2.ChatMemberList{
		IsFull: true, MemberMap: make(bridgev2.ChatMemberMap), TotalMemberCount: len(g.Participants),
		PowerLevels: levels(g.IsAnnounce, g.IsLocked), ExcludeChangesFromTimeline: true,
	}
	for _, p := range g.Participants {
		lid, ok := s.lid(ctx, p.JID, p.LID)
		if !ok {
			continue
		}
		level := levelMember
		switch {
		case p.IsSuperAdmin:
			level = levelOwner
		case p.IsAdmin:
			level = levelAdmin
		}
		members.MemberMap.Set(bridgev2.ChatMember{EventSender: s.sender(lid), Membership: event.MembershipJoin, PowerLevel: &level})
	}
	return &bridgev2.ChatInfo{
		Name: &g.Name, Topic: &g.Topic, Avatar: s.avatar(ctx, g.JID), Type: &kind, Members: members, CanBackfill: true,
	}
}

// levels says what only admins may do: write, in an announcement group, and
// change name, topic and avatar, in a locked one.
func levels(announce, locked bool) *bridgev2.PowerLevelOverrides {
	write, change := levelMember, levelMember
	if announce {
		write = levelAdmin
	}
	if locked {
		change = levelAdmin
	}
	admin, member := levelAdmin, levelMember
	return &bridgev2.PowerLevelOverrides{
		EventsDefault: &write, Invite: &member, Kick: &admin, Ban: &admin, Redact: &admin,
		Events: map[event.Type]int{
			event.StateRoomName: change, event.StateTopic: change, event.StateRoomAvatar: change,
			event.EventReaction: levelMember, event.EventRedaction: levelMember,
		},
	}
}

// GetUserInfo implements bridgev2.NetworkAPI.
func (s *session) GetUserInfo(ctx context.Context, ghost *bridgev2.Ghost) (*bridgev2.UserInfo, error) {
	lid := lidOf(ghost.ID)
	return &bridgev2.UserInfo{Name: s.nameOf(ctx, ghost, lid), Avatar: s.avatar(ctx, lid)}, nil
}

// nameOf is the best name that is known of a person: what they call themselves,
// or failing that what the address book says. The ghost is one for all on this
// server, so the phone number is not shown unless there is nothing else.
func (s *session) nameOf(ctx context.Context, ghost *bridgev2.Ghost, lid types.JID) *string {
	names := []types.JID{lid}
	if pn, err := s.client.Store.LIDs.GetPNForLID(ctx, lid); err == nil && !pn.IsEmpty() {
		names = append(names, pn.ToNonAD())
	}
	var book string
	for _, jid := range names {
		c, err := s.client.Store.Contacts.GetContact(ctx, jid)
		if err != nil {
			continue
		}
		for _, name := range []string{c.PushName, c.BusinessName} {
			if name != "" {
				return &name
			}
		}
		if book == "" {
			book = c.FullName
		}
	}
	if meta, ok := ghost.Metadata.(*GhostMetadata); ok && meta.Named {
		return nil // another login knew it better
	}
	switch {
	case book != "":
	case len(names) > 1:
		book = "+" + names[1].User
	default:
		book = "WhatsApp user " + lid.User[max(0, len(lid.User)-4):]
	}
	return &book
}

// learnName takes the name with which somebody signs messages.
func (s *session) learnName(ctx context.Context, lid types.JID, name string) {
	if name == "" || name == "-" || lid == s.own() {
		return
	}
	bridge.Introduce(ctx, s.login, userID(lid), &bridgev2.UserInfo{Name: &name, ExtraUpdates: func(_ context.Context, g *bridgev2.Ghost) bool {
		meta := g.Metadata.(*GhostMetadata)
		changed := !meta.Named
		meta.Named = true
		return changed
	}})
}

func (s *session) onPushName(ctx context.Context, e *events.PushName) {
	if lid, ok := s.lid(ctx, e.JID, e.JIDAlt); ok {
		s.learnName(ctx, lid, e.NewPushName)
	}
}

// avatar is the picture of a person or group: nil if it can not be told at
// present.
func (s *session) avatar(ctx context.Context, of types.JID) *bridgev2.Avatar {
	if !s.client.IsLoggedIn() {
		return nil
	}
	info, err := s.client.GetProfilePictureInfo(ctx, of, nil)
	switch {
	case errors.Is(err, whatsmeow.ErrProfilePictureNotSet), errors.Is(err, whatsmeow.ErrProfilePictureUnauthorized):
		return &bridgev2.Avatar{ID: "remove", Remove: true}
	case err != nil || info == nil:
		zerolog.Ctx(ctx).Debug().Err(err).Msg("ask for a picture")
		return nil
	}
	return &bridgev2.Avatar{ID: networkid.AvatarID(info.ID), Get: func(ctx context.Context) ([]byte, error) {
		return s.client.DownloadMediaWithOnlyPath(ctx, info.DirectPath)
	}}
}

func (s *session) onPicture(ctx context.Context, e *events.Picture) bool {
	if e.JID.Server != types.GroupServer {
		lid, ok := s.lid(ctx, e.JID, types.EmptyJID)
		if !ok || lid == s.own() {
			return true
		}
		bridge.Introduce(ctx, s.login, userID(lid), &bridgev2.UserInfo{Avatar: s.avatar(ctx, lid)})
		return true
	}
	author := bridgev2.EventSender{}
	if lid, ok := s.lid(ctx, e.Author, types.EmptyJID); ok {
		author = s.sender(lid)
	}
	return s.changed(ctx, e.JID, author, e.Timestamp, &bridgev2.ChatInfoChange{ChatInfo: &bridgev2.ChatInfo{Avatar: s.avatar(ctx, e.JID)}})
}

// changed brings a change of a group into its room.
func (s *session) changed(ctx context.Context, chat types.JID, by bridgev2.EventSender, at time.Time, change *bridgev2.ChatInfoChange) bool {
	return bridge.Deliver(ctx, s.login, &simplevent.ChatInfoChange{
		EventMeta: s.about(bridgev2.RemoteEventChatInfoChange, chat, by, at), ChatInfoChange: change,
	})
}

// onJoinedGroup makes the room of a group that the account has come to.
func (s *session) onJoinedGroup(ctx context.Context, e *events.JoinedGroup) bool {
	return s.resync(ctx, &e.GroupInfo)
}

// resync makes the room of a group what the group is now.
func (s *session) resync(ctx context.Context, g *types.GroupInfo) bool {
	meta := s.about(bridgev2.RemoteEventChatResync, g.JID, bridgev2.EventSender{}, time.Now())
	meta.CreatePortal = true
	return bridge.Deliver(ctx, s.login, &simplevent.ChatResync{EventMeta: meta, GetChatInfoFunc: func(ctx context.Context, _ *bridgev2.Portal) (*bridgev2.ChatInfo, error) {
		return s.groupInfo(ctx, g), nil
	}})
}

// onGroupInfo takes changes of a group.
func (s *session) onGroupInfo(ctx context.Context, e *events.GroupInfo) bool {
	by := bridgev2.EventSender{}
	if e.Sender != nil {
		alt := types.EmptyJID
		if e.SenderPN != nil {
			alt = *e.SenderPN
		}
		if lid, ok := s.lid(ctx, *e.Sender, alt); ok {
			by = s.sender(lid)
		}
	}
	change := &bridgev2.ChatInfoChange{ChatInfo: &bridgev2.ChatInfo{}, MemberChanges: &bridgev2.ChatMemberList{MemberMap: make(bridgev2.ChatMemberMap)}}
	if e.Name != nil {
		change.ChatInfo.Name = &e.Name.Name
	}
	if e.Topic != nil {
		change.ChatInfo.Topic = &e.Topic.Topic
	}
	member := func(list []types.JID, m bridgev2.ChatMember) {
		for _, jid := range list {
			if lid, ok := s.lid(ctx, jid, types.EmptyJID); ok {
				m.EventSender, m.MemberSender = s.sender(lid), by
				change.MemberChanges.MemberMap.Set(m)
			}
		}
	}
	admin, plain := levelAdmin, levelMember
	member(e.Join, bridgev2.ChatMember{Membership: event.MembershipJoin})
	member(e.Leave, bridgev2.ChatMember{Membership: event.MembershipLeave, PrevMembership: event.MembershipJoin})
	member(e.Promote, bridgev2.ChatMember{Membership: event.MembershipJoin, PowerLevel: &admin})
	member(e.Demote, bridgev2.ChatMember{Membership: event.MembershipJoin, PowerLevel: &plain})
	if e.Announce != nil || e.Locked != nil {
		return s.refresh(ctx, e.JID)
	}
	if len(change.MemberChanges.MemberMap) == 0 {
		change.MemberChanges = nil
	}
	return s.changed(ctx, e.JID, by, e.Timestamp, change)
}

// refresh asks for everything about a group.
func (s *session) refresh(ctx context.Context, chat types.JID) bool {
	return bridge.Deliver(ctx, s.login, &simplevent.ChatResync{
		EventMeta: s.about(bridgev2.RemoteEventChatResync, chat, bridgev2.EventSender{}, time.Now()), GetChatInfoFunc: s.GetChatInfo,
	})
}

// groupOf is the group of a room. Private chats can not be changed.
func groupOf(p *bridgev2.Portal) (types.JID, error) {
	chat, err := chatOf(p)
	if err == nil && chat.Server != types.GroupServer {
		err = fail(event.MessageStatusUnsupported, "A private chat on WhatsApp has no name, topic, avatar or members to change.")
	}
	return chat, err
}

// ask lets f change a group.
func (s *session) ask(ctx context.Context, f func() error) (bool, error) {
	if err := s.untilConnected(ctx, f); err != nil {
		return false, failure(err)
	}
	return true, nil
}

// HandleMatrixRoomName implements bridgev2.RoomNameHandlingNetworkAPI.
func (s *session) HandleMatrixRoomName(ctx context.Context, msg *bridgev2.MatrixRoomName) (bool, error) {
	chat, err := groupOf(msg.Portal)
	if err != nil {
		return false, err
	}
	name := msg.Content.Name
	ok, err := s.ask(ctx, func() error { return s.client.SetGroupName(ctx, chat, name) })
	if ok {
		msg.Portal.Name, msg.Portal.NameSet = name, true
	}
	return ok, err
}

// HandleMatrixRoomTopic implements bridgev2.RoomTopicHandlingNetworkAPI.
func (s *session) HandleMatrixRoomTopic(ctx context.Context, msg *bridgev2.MatrixRoomTopic) (bool, error) {
	chat, err := groupOf(msg.Portal)
	if err != nil {
		return false, err
	}
	topic := msg.Content.Topic
	ok, err := s.ask(ctx, func() error { return s.client.SetGroupTopic(ctx, chat, "", "", topic) })
	if ok {
		msg.Portal.Topic, msg.Portal.TopicSet = topic, true
	}
	return ok, err
}

// HandleMatrixRoomAvatar implements bridgev2.RoomAvatarHandlingNetworkAPI.
func (s *session) HandleMatrixRoomAvatar(ctx context.Context, msg *bridgev2.MatrixRoomAvatar) (bool, error) {
	chat, err := groupOf(msg.Portal)
	if err != nil {
		return false, err
	}
	var picture []byte
	if msg.Content.URL != "" {
		data, err := s.connector.br.Bot.DownloadMedia(ctx, msg.Content.URL, nil)
		if err != nil {
			return false, fmt.Errorf("fetch the avatar: %w", err)
		}
		if picture, err = square(data); err != nil {
			return false, fail(event.MessageStatusUnsupported, "WhatsApp takes only pictures as avatars: %v.", err)
		}
	}
	var id string
	ok, err := s.ask(ctx, func() (err error) {
		id, err = s.client.SetGroupPhoto(ctx, chat, picture)
		return err
	})
	if ok {
		msg.Portal.AvatarID, msg.Portal.AvatarMXC, msg.Portal.AvatarSet = networkid.AvatarID(id), msg.Content.URL, true
	}
	return ok, err
}

// HandleMatrixMembership implements bridgev2.MembershipHandlingNetworkAPI.
func (s *session) HandleMatrixMembership(ctx context.Context, msg *bridgev2.MatrixMembershipChange) (*bridgev2.MatrixMembershipResult, error) {
	chat, err := chatOf(msg.Portal)
	if err != nil {
		return nil, err
	}
	if msg.Type.IsSelf {
		if msg.Type == bridgev2.Leave && chat.Server == types.GroupServer && msg.OrigSender == nil {
			_, err = s.ask(ctx, func() error { return s.client.LeaveGroup(ctx, chat) })
		}
		return nil, err
	}
	if chat, err = groupOf(msg.Portal); err != nil {
		return nil, err
	}
	who := accountOf(msg.Target)
	var action whatsmeow.ParticipantChange
	switch msg.Type {
	case bridgev2.Invite:
		action = whatsmeow.ParticipantChangeAdd
	case bridgev2.Kick, bridgev2.BanJoined, bridgev2.RevokeInvite:
		action = whatsmeow.ParticipantChangeRemove
	}
	if who == "" || action == "" {
		return nil, nil // nobody on WhatsApp is concerned
	}
	err = s.changeMember(ctx, chat, who, action)
	if ghost, is := msg.Target.(*bridgev2.Ghost); err != nil && is && msg.Type == bridgev2.Invite {
		s.uninvite(ctx, msg.Portal, ghost, err)
	}
	return nil, err
}

// uninvite takes an invitation back that WhatsApp has refused, with the reason.
func (s *session) uninvite(ctx context.Context, portal *bridgev2.Portal, ghost *bridgev2.Ghost, why error) {
	content := &event.Content{Parsed: &event.MemberEventContent{Membership: event.MembershipLeave, Reason: why.Error()}}
	_, err := s.connector.br.Bot.SendState(ctx, portal.MXID, event.StateMember, string(ghost.Intent.GetMXID()), content, time.Now())
	if err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("an invitation that WhatsApp refuses could not be taken back")
	}
}

// accountOf is the account of who is invited, removed or made an admin.
func accountOf(target bridgev2.GhostOrUserLogin) networkid.UserID {
	switch t := target.(type) {
	case *bridgev2.Ghost:
		return t.ID
	case *bridgev2.UserLogin:
		return networkid.UserID(t.ID)
	}
	return ""
}

// changeMember changes the membership of one person and tells why that failed.
func (s *session) changeMember(ctx context.Context, chat types.JID, who networkid.UserID, action whatsmeow.ParticipantChange) error {
	var result []types.GroupParticipant
	_, err := s.ask(ctx, func() (err error) {
		result, err = s.client.UpdateGroupParticipants(ctx, chat, []types.JID{lidOf(who)}, action)
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range result {
		switch p.Error {
		case 0:
		case 403:
			return fail(event.MessageStatusNoPermission, "Their privacy settings do not let you add them. Send them an invitation from your phone.")
		case 409:
			return fail(event.MessageStatusGenericError, "They are in the group already.")
		default:
			return fail(event.MessageStatusGenericError, "WhatsApp refused it (error %d).", p.Error)
		}
	}
	return nil
}

// HandleMatrixPowerLevels implements bridgev2.PowerLevelHandlingNetworkAPI: who
// gets 50 or more becomes an admin of the group.
func (s *session) HandleMatrixPowerLevels(ctx context.Context, msg *bridgev2.MatrixPowerLevelChange) (bool, error) {
	chat, err := groupOf(msg.Portal)
	if err != nil {
		return false, err
	}
	for _, change := range msg.Users {
		who := accountOf(change.Target)
		was, is := change.OrigLevel >= levelAdmin, change.NewLevel >= levelAdmin
		if who == "" || was == is {
			continue
		}
		action := whatsmeow.ParticipantChangeDemote
		if is {
			action = whatsmeow.ParticipantChangePromote
		}
		if err := s.changeMember(ctx, chat, who, action); err != nil {
			return false, err
		}
	}
	return true, nil
}

// ResolveIdentifier implements bridgev2.IdentifierResolvingNetworkAPI: the
// identifier is a phone number with the country code, or a LID.
func (s *session) ResolveIdentifier(ctx context.Context, identifier string, create bool) (*bridgev2.ResolveIdentifierResponse, error) {
	if id, ok := strings.CutSuffix(strings.TrimSpace(identifier), "@"+types.HiddenUserServer); ok && isLID(id) {
		return s.resolved(ctx, lidOf(networkid.UserID(id)), create)
	}
	digits := strings.Map(func(r rune) rune {
		if strings.ContainsRune(" +-().", r) {
			return -1
		}
		return r
	}, identifier)
	if !isLID(digits) || strings.HasPrefix(digits, "0") {
		return nil, fmt.Errorf("%q is no phone number with a country code, such as +49 151 23456789", identifier)
	}
	var found []types.IsOnWhatsAppResponse
	if _, err := s.ask(ctx, func() (err error) {
		found, err = s.client.IsOnWhatsApp(ctx, []string{"+" + digits})
		return err
	}); err != nil {
		return nil, err
	}
	if len(found) == 0 || !found[0].IsIn {
		return nil, fmt.Errorf("+%s is not on WhatsApp", digits)
	}
	lid, ok := s.lid(ctx, found[0].JID, types.EmptyJID)
	if !ok {
		return nil, fmt.Errorf("WhatsApp does not tell who +%s is", digits)
	}
	return s.resolved(ctx, lid, create)
}

// resolved describes a person, and the chat with them.
func (s *session) resolved(ctx context.Context, lid types.JID, create bool) (*bridgev2.ResolveIdentifierResponse, error) {
	ghost, err := s.connector.br.GetGhostByID(ctx, userID(lid))
	if err != nil {
		return nil, err
	}
	info, err := s.GetUserInfo(ctx, ghost)
	if err != nil {
		return nil, err
	}
	out := &bridgev2.ResolveIdentifierResponse{Ghost: ghost, UserID: ghost.ID, UserInfo: info}
	if create {
		out.Chat = &bridgev2.CreateChatResponse{PortalKey: s.key(lid), PortalInfo: s.privateInfo(lid)}
	}
	return out, nil
}

// CreateChatWithGhost implements bridgev2.GhostDMCreatingNetworkAPI.
func (s *session) CreateChatWithGhost(_ context.Context, ghost *bridgev2.Ghost) (*bridgev2.CreateChatResponse, error) {
	lid := lidOf(ghost.ID)
	return &bridgev2.CreateChatResponse{PortalKey: s.key(lid), PortalInfo: s.privateInfo(lid)}, nil
}

// GetContactList implements bridgev2.ContactListingNetworkAPI.
func (s *session) GetContactList(ctx context.Context) ([]*bridgev2.ResolveIdentifierResponse, error) {
	all, err := s.client.Store.Contacts.GetAllContacts(ctx)
	if err != nil {
		return nil, err
	}
	var out []*bridgev2.ResolveIdentifierResponse
	seen := make(map[types.JID]bool)
	for jid := range all {
		lid := jid
		if jid.Server == types.DefaultUserServer {
			if lid, err = s.client.Store.LIDs.GetLIDForPN(ctx, jid); err != nil {
				continue
			}
		}
		if lid = lid.ToNonAD(); lid.Server != types.HiddenUserServer || seen[lid] {
			continue
		}
		seen[lid] = true
		if ghost, err := s.connector.br.GetGhostByID(ctx, userID(lid)); err == nil {
			out = append(out, &bridgev2.ResolveIdentifierResponse{
				Ghost: ghost, UserID: ghost.ID, UserInfo: &bridgev2.UserInfo{Name: s.nameOf(ctx, ghost, lid)},
				Chat: &bridgev2.CreateChatResponse{PortalKey: s.key(lid)},
			})
		}
	}
	return out, nil
}
