package whatsapp

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"go.mau.fi/util/dbutil"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"go.mau.fi/whatsmeow/proto/waHistorySync"
	"go.mau.fi/whatsmeow/proto/waWeb"
	"go.mau.fi/whatsmeow/types"
	"google.golang.org/protobuf/proto"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/simplevent"

	"switchboard/bridges/bridge"
)

// The phone sends old messages in parts, the newest of each chat first. They are
// kept in a table until all have come, because a room takes them only in order.
const historyTable = `CREATE TABLE IF NOT EXISTS whatsapp_history (
	login TEXT, chat TEXT, id TEXT, at BIGINT NOT NULL, unread BOOLEAN NOT NULL, message bytea NOT NULL,
	PRIMARY KEY (login, chat, id))`

// history is when old messages are brought into the rooms.
type history struct {
	mu    sync.Mutex // tier 1; guards what follows
	timer *time.Timer
}

// stop ends the waiting.
func (h *history) stop() {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.timer != nil {
		h.timer.Stop()
		h.timer = nil
	}
}

const (
	historyPause = 20 * time.Second // without another part, or behind a new connection, all have come
	historyLast  = time.Second      // after the part that says it is the last
)

// onHistory takes a part of the old messages.
func (s *session) onHistory(ctx context.Context, n *waE2E.HistorySyncNotification) bool {
	log := zerolog.Ctx(ctx)
	part, err := s.client.DownloadHistorySync(ctx, n, true)
	if err != nil {
		log.Warn().Err(err).Msg("old messages could not be fetched from WhatsApp")
		return !disconnected(err) && ctx.Err() == nil // what is not there will not come either
	}
	switch part.GetSyncType() {
	case waHistorySync.HistorySync_INITIAL_BOOTSTRAP, waHistorySync.HistorySync_RECENT, waHistorySync.HistorySync_FULL:
	default:
		return true
	}
	for _, c := range part.GetConversations() {
		if err := s.keepHistory(ctx, c); err != nil {
			log.Err(err).Msg("old messages could not be kept")
			return false
		}
	}
	wait := s.connector.historyPause
	if part.GetProgress() >= 100 && part.GetSyncType() != waHistorySync.HistorySync_INITIAL_BOOTSTRAP {
		wait = historyLast
	}
	s.kickHistory(ctx, wait)
	return true
}

// keepHistory stores the newest old messages of a chat.
func (s *session) keepHistory(ctx context.Context, c *waHistorySync.Conversation) error {
	id, err := types.ParseJID(c.GetID())
	if err != nil {
		return nil //nolint:nilerr // no chat that we could show
	}
	other, _ := types.ParseJID(c.GetLidJID())
	chat, _, ok := s.place(ctx, types.MessageSource{Chat: id, Sender: id, SenderAlt: other, RecipientAlt: other, IsFromMe: true})
	if !ok {
		return nil
	}
	list := slices.DeleteFunc(slices.Clone(c.GetMessages()), func(m *waHistorySync.HistorySyncMsg) bool {
		return m.GetMessage().GetMessage() == nil || !shown(m.GetMessage().GetMessage())
	})
	slices.SortFunc(list, func(a, b *waHistorySync.HistorySyncMsg) int {
		return int(int64(b.GetMessage().GetMessageTimestamp()) - int64(a.GetMessage().GetMessageTimestamp()))
	})
	for i, m := range list[:min(len(list), s.connector.config.History)] {
		packed, err := proto.Marshal(m.GetMessage())
		if err != nil {
			return err
		}
		const put = `INSERT INTO whatsapp_history (login, chat, id, at, unread, message) VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING`
		_, err = s.connector.br.DB.Exec(ctx, put, s.login.ID, chat.String(), m.GetMessage().GetKey().GetID(),
			int64(m.GetMessage().GetMessageTimestamp()), i < int(c.GetUnreadCount()), packed)
		if err != nil {
			return fmt.Errorf("keep a message: %w", err)
		}
	}
	return nil
}

// dropHistory forgets what has not been brought into rooms.
func (s *session) dropHistory(ctx context.Context) {
	if _, err := s.connector.br.DB.Exec(ctx, `DELETE FROM whatsapp_history WHERE login = $1`, s.login.ID); err != nil {
		zerolog.Ctx(ctx).Err(err).Msg("old messages could not be deleted")
	}
}

// seekHistory brings what is kept into the rooms, some time after a connection was
// made: what was not confirmed before comes again.
func (s *session) seekHistory(ctx context.Context) {
	s.history.mu.Lock()
	waiting := s.history.timer != nil
	s.history.mu.Unlock()
	if !waiting {
		s.kickHistory(ctx, s.connector.historyPause)
	}
}

// kickHistory brings what is kept into the rooms after a time. Another call
// begins that time anew.
func (s *session) kickHistory(ctx context.Context, wait time.Duration) {
	s.history.mu.Lock()
	defer s.history.mu.Unlock()
	if s.history.timer != nil {
		s.history.timer.Stop()
	}
	s.history.timer = time.AfterFunc(wait, func() {
		s.history.mu.Lock()
		s.history.timer = nil
		s.history.mu.Unlock()
		s.mu.Lock()
		defer s.mu.Unlock()
		if s.cancel != nil && ctx.Err() == nil {
			s.start("bring old messages into rooms", s.fillRooms)
		}
	})
}

// fillRooms makes the rooms of all chats with old messages, the latest first.
func (s *session) fillRooms(ctx context.Context) error {
	const list = `SELECT chat FROM whatsapp_history WHERE login = $1 GROUP BY chat ORDER BY MAX(at) DESC`
	rows, err := s.connector.br.DB.Query(ctx, list, s.login.ID)
	chats, err := dbutil.NewRowIterWithError(rows, dbutil.ScanSingleColumn[string], err).AsList()
	if err != nil {
		return fmt.Errorf("list the chats with old messages: %w", err)
	}
	for _, name := range chats {
		chat, err := types.ParseJID(name)
		if err != nil {
			continue
		}
		meta := s.about(bridgev2.RemoteEventChatResync, chat, bridgev2.EventSender{}, time.Now())
		meta.CreatePortal = true
		if !bridge.Deliver(ctx, s.login, &simplevent.ChatResync{
			EventMeta: meta, GetChatInfoFunc: s.GetChatInfo,
			CheckNeedsBackfillFunc: func(context.Context, *database.Message) (bool, error) { return true, nil },
		}) {
			return ctx.Err()
		}
		if _, err := s.connector.br.DB.Exec(ctx, `DELETE FROM whatsapp_history WHERE login = $1 AND chat = $2`, s.login.ID, name); err != nil {
			return fmt.Errorf("delete what was brought into a room: %w", err)
		}
	}
	return nil
}

// old is a kept message.
type old struct {
	unread bool
	packed []byte
}

func scanOld(row dbutil.Scannable) (o old, err error) { return o, row.Scan(&o.unread, &o.packed) }

// FetchMessages implements bridgev2.BackfillingNetworkAPI: it returns what is
// kept of a chat. There is nothing older to be had.
func (s *session) FetchMessages(ctx context.Context, params bridgev2.FetchMessagesParams) (*bridgev2.FetchMessagesResponse, error) {
	if !params.Forward || params.ThreadRoot != "" {
		return nil, nil
	}
	chat, err := chatOf(params.Portal)
	if err != nil {
		return nil, err
	}
	const newest = `SELECT unread, message FROM whatsapp_history WHERE login = $1 AND chat = $2 ORDER BY at DESC, id DESC LIMIT $3`
	rows, err := s.connector.br.DB.Query(ctx, newest, s.login.ID, chat.String(), min(params.Count, s.connector.config.History))
	list, err := dbutil.NewRowIterWithError(rows, scanOld, err).AsList()
	if err != nil {
		return nil, fmt.Errorf("read old messages: %w", err)
	}
	slices.Reverse(list)
	out := &bridgev2.FetchMessagesResponse{Forward: true, MarkRead: true, AggressiveDeduplication: true}
	for _, o := range list {
		out.MarkRead = out.MarkRead && !o.unread
		m, err := s.oldMessage(ctx, params.Portal, chat, o.packed)
		if err != nil {
			zerolog.Ctx(ctx).Warn().Err(err).Msg("an old message could not be shown")
			continue
		}
		out.Messages = append(out.Messages, m)
	}
	return out, nil
}

// oldMessage makes the Matrix form of a kept message, with the reactions to it.
func (s *session) oldMessage(ctx context.Context, portal *bridgev2.Portal, chat types.JID, packed []byte) (*bridgev2.BackfillMessage, error) {
	var web waWeb.WebMessageInfo
	if err := proto.Unmarshal(packed, &web); err != nil {
		return nil, err
	}
	e, err := s.client.ParseWebMessage(chat, &web)
	if err != nil {
		return nil, err
	}
	_, author, ok := s.place(ctx, e.Info.MessageSource)
	if !ok {
		return nil, errors.New("nobody knows who wrote it")
	}
	if author != s.own() {
		s.learnName(ctx, author, e.Info.PushName)
	}
	sender := s.sender(author)
	intent, ok := portal.GetIntentFor(ctx, sender, s.login, bridgev2.RemoteEventMessage)
	if !ok {
		return nil, errors.New("its author can not be shown")
	}
	converted, err := s.convert(ctx, portal, intent, e)
	if err != nil {
		return nil, err
	}
	out := &bridgev2.BackfillMessage{ConvertedMessage: converted, Sender: sender, ID: messageID(chat, author, e.Info.ID), Timestamp: e.Info.Timestamp}
	for i, part := range converted.Parts { // as aboutMessage: the bridge may end in the middle
		if part.Extra == nil {
			part.Extra = make(map[string]any)
		}
		maps.Copy(part.Extra, bridge.OnceMark(onceName(bridgev2.RemoteEventMessageUpsert, out.ID), i))
	}
	for _, r := range web.GetReactions() {
		by := chat
		switch {
		case r.GetText() == "":
			continue
		case r.GetKey().GetFromMe():
			by = s.own()
		case chat.Server == types.GroupServer:
			jid, err := types.ParseJID(r.GetKey().GetParticipant())
			if err != nil {
				continue
			}
			if by, ok = s.lid(ctx, jid, types.EmptyJID); !ok {
				continue
			}
		}
		out.Reactions = append(out.Reactions, &bridgev2.BackfillReaction{
			Timestamp: time.UnixMilli(r.GetSenderTimestampMS()), Sender: s.sender(by), EmojiID: networkid.EmojiID(""), Emoji: r.GetText(),
			ExtraContent: bridge.OnceMark(onceName(bridgev2.RemoteEventReaction, messageID(chat, by, r.GetKey().GetID())), 0),
		})
	}
	return out, nil
}
