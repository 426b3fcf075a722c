package xmpp

import (
	"context"
	"errors"
	"time"

	"github.com/rs/zerolog"
	"mellium.im/xmpp/jid"

	"switchboard/bridges/xmpp/client"
)

const (
	askTimeout = 30 * time.Second // for the server to answer
	pageSize   = 100              // messages of an archive that are asked for at once
	settling   = 3 * time.Second  // in which a server writes down what it has
	again      = 5 * settling     // after which an archive that did not answer is asked again
	overlap    = 10 * settling    // before its end from which an archive is read once more
)

// late are the times after coming online at which an archive may show what it did
// not before. A server that has much to do takes longer to write it down.
var late = []time.Duration{settling, 4 * settling}

// ask calls f with a limited time.
func ask(ctx context.Context, f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	return f(ctx)
}

// askAgain does something in a lane, some time after the server did not answer in
// time. Any other error says that there is no use.
func (s *session) askAgain(err error, l *lane, f func(context.Context)) {
	if errors.Is(err, context.DeadlineExceeded) {
		time.AfterFunc(again, func() { l.add(false, f) })
	}
}

// begin makes a new stream ready: it reads what was written meanwhile, and goes
// back into the rooms. What comes while it runs is handled after it.
func (s *session) begin(ctx context.Context) {
	log := zerolog.Ctx(ctx)
	err := ask(ctx, s.client.Begin)
	var archived bool
	if err == nil {
		err = ask(ctx, func(ctx context.Context) (err error) { archived, err = s.client.HasArchive(ctx); return err })
	}
	var refused *client.StanzaError
	if err != nil && !errors.As(err, &refused) {
		log.Warn().Err(err).Msg("the connection could not be made ready")
		s.askAgain(err, s.account, func(ctx context.Context) {
			if s.client.Online() && !s.account.isReady() {
				s.begin(ctx)
			}
		})
		return // if it has broken the next one begins anew
	}
	s.loadRoster(ctx)
	if err == nil {
		err = s.reread(ctx, s.account, archived)
	}
	if err != nil {
		log.Warn().Err(err).Msg("the archive of the account could not be read")
		if errors.Is(err, client.ErrUnconfirmed) || errors.Is(err, client.ErrOffline) {
			return
		}
	}
	s.account.setReady(true)
	s.online()
	s.enterRooms(ctx)
	if archived && !s.account.hasGap() {
		s.lookAgain(s.position(jid.JID{}))
	}
}

// lookAgain reads the account's archive once more from a moment before a
// position, when the server has written down what came while we were about to be
// there: ejabberd takes that for the archive alone, but shows it later than we
// look, and perhaps later than what came after it.
func (s *session) lookAgain(at Position) {
	var since time.Time
	s.update(func(m *LoginMetadata) { since = m.Since })
	if before := at.Time.Add(-overlap); before.After(since) {
		at = Position{Time: before}
	}
	look := s.looks.Add(1)
	for _, after := range late {
		time.AfterFunc(after, func() {
			s.account.add(false, func(ctx context.Context) {
				if look != s.looks.Load() || s.account.hasGap() {
					return // a later one sees what this would, or all is read before it comes to an end
				}
				if err := s.readOn(ctx, jid.JID{}, at); err != nil && ctx.Err() == nil {
					zerolog.Ctx(ctx).Warn().Err(err).Msg("the archive of the account could not be read again")
				}
			})
		})
	}
}

func (s *session) loadRoster(ctx context.Context) {
	var list []client.RosterItem
	if err := ask(ctx, func(ctx context.Context) (err error) { list, err = s.client.Roster(ctx); return err }); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("the contacts could not be read")
		return
	}
	s.mu.Lock()
	clear(s.roster)
	for _, item := range list {
		s.roster[item.JID.String()] = item
	}
	s.mu.Unlock()
}

// position is how far an archive has been read: the account's, or a room's.
func (s *session) position(of jid.JID) Position {
	if st, ok := s.room(of); ok {
		return st.Position
	}
	if !of.Equal(jid.JID{}) {
		return Position{}
	}
	var p Position
	s.update(func(m *LoginMetadata) { p = m.Position })
	return p
}

func (s *session) setPosition(of jid.JID, p Position) {
	if of.Equal(jid.JID{}) {
		s.update(func(m *LoginMetadata) { m.Position = p })
	} else {
		s.changeRoom(of, func(st *RoomState) { st.Position = p })
	}
}

// reached notes that a message was handled.
func (s *session) reached(m *client.Message) {
	if m.Archive == "" {
		return
	}
	of := jid.JID{}
	if m.Type == "groupchat" {
		of = m.From.Bare()
	}
	if s.lane(of).hasGap() {
		return
	}
	s.setPosition(of, Position{ID: m.Archive, Time: m.Time})
	s.save(false)
}

// page reads up to count messages of an archive: those after a position, or the
// newest.
func (s *session) page(ctx context.Context, of jid.JID, at Position, count int) (page client.Page, err error) {
	err = ask(ctx, func(ctx context.Context) (err error) {
		page, err = s.archive(ctx, client.Query{Of: of, After: at.ID, Since: at.Time, Max: count})
		return err
	})
	var refused *client.StanzaError
	if errors.As(err, &refused) && refused.Condition == "item-not-found" && at.ID != "" {
		return s.page(ctx, of, Position{Time: at.Time}, count) // it is not kept any more
	}
	return page, err
}

// recallTime is how far an archive's clock may be off from the homeserver's.
const recallTime = time.Hour

// reread asks a lane's archive what of ours is there, then what others wrote.
func (s *session) reread(ctx context.Context, l *lane, archived bool) error {
	err := s.recall(ctx, l, archived)
	if archived {
		err = errors.Join(err, s.catchUp(ctx, l))
	}
	return err
}

// recall looks in a lane's archive for what may have been sent: the connection,
// or the bridge, ended before the server confirmed it. The position in the
// archive says nothing of that, because what others wrote may have moved it on.
// When the archive does not answer it is asked again, and what is doubtful waits.
func (s *session) recall(ctx context.Context, l *lane, archived bool) error {
	l.mu.Lock()
	l.archived = archived
	l.mu.Unlock()
	list := l.doubtful()
	var from Position
	if len(list) > 0 {
		from = list[0].after
	}
	for pause := time.Duration(0); archived && len(list) > 0; {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(pause):
		}
		began := time.Now()
		end, err := s.recognize(ctx, l, from)
		if err != nil {
			s.askAgain(err, l, func(ctx context.Context) { s.remind(ctx, l) })
			return err
		}
		left := l.doubtful()
		if pause > 0 && len(left) >= len(list) {
			break
		}
		// Ejabberd goes on with what it has read of a stream that it has given up.
		// It is over when nothing more appears, in a time that fits how busy it is.
		list, pause = left, min(max(settling, time.Since(began)), again)
		if next := end.Time.Add(-overlap); next.After(from.Time) {
			from = Position{Time: next}
		}
	}
	for _, o := range list {
		o.state.CompareAndSwap(unsure, waiting)
	}
	return nil
}

// recognize settles what is ours in a lane's archive from a position on, and
// returns where the archive ends.
func (s *session) recognize(ctx context.Context, l *lane, at Position) (end Position, err error) {
	for {
		page, err := s.page(ctx, l.room, at, pageSize)
		if err != nil {
			return at, err
		}
		for _, m := range page.Messages {
			if s.sender(m).IsFromMe {
				l.settle(m.ID, result{id: s.reference(m)})
			}
			at = Position{ID: m.Archive, Time: m.Time}
		}
		if page.Complete || len(page.Messages) == 0 {
			return at, nil
		}
	}
}

// remind is recall for what was cut off, when the lane is ready already.
func (s *session) remind(ctx context.Context, l *lane) {
	l.mu.Lock()
	ready, archived := l.ready, l.archived
	l.mu.Unlock()
	if !ready {
		return // it is done before the lane gets ready
	}
	if err := s.recall(ctx, l, archived); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("the archive could not be asked for what was cut off")
		return
	}
	l.flush()
}

// resumed asks a room whether we are still there after the connection was broken,
// and reads what came meanwhile from the archive before it is read from the
// stream: ejabberd mixes up the order of what waited.
func (s *session) resumed(ctx context.Context, l *lane) {
	l.mu.Lock()
	ready, archived := l.ready, l.archived
	l.mu.Unlock()
	if !ready {
		return // it is done before the lane gets ready
	}
	if l != s.account {
		s.present(ctx, l)
	}
	if !archived {
		return
	}
	at := s.position(l.room)
	if err := s.catchUp(ctx, l); err != nil {
		zerolog.Ctx(ctx).Warn().Err(err).Msg("the archive could not be read after a break")
	} else if l == s.account {
		s.lookAgain(at)
	}
}

// catchUp reads an archive from where it was left: at first an account's from the
// log-in on, and of a room's the newest page. When it does not answer it is asked
// again, and what the stream brings moves the position only after that: else what
// the archive alone has would be passed by.
func (s *session) catchUp(ctx context.Context, l *lane) error {
	l.setGap(true)
	err := s.readOn(ctx, l.room, s.position(l.room))
	var refused *client.StanzaError
	if err == nil || errors.As(err, &refused) {
		l.setGap(false)
		return err
	}
	s.askAgain(err, l, func(ctx context.Context) {
		if !l.hasGap() || !s.client.Online() {
			return // it was read, or is when we are back
		}
		if err := s.catchUp(ctx, l); err != nil && ctx.Err() == nil {
			zerolog.Ctx(ctx).Warn().Err(err).Msg("an archive still does not answer")
		} else if l == s.account {
			s.lookAgain(s.position(jid.JID{}))
		}
	})
	return err
}

// readOn reads an archive from a position on.
func (s *session) readOn(ctx context.Context, of jid.JID, at Position) error {
	first := at.ID == "" && at.Time.IsZero()
	for {
		count := pageSize
		if first {
			count = max(1, s.connector.config.History)
		}
		page, err := s.page(ctx, of, at, count)
		if err != nil {
			return err
		}
		skip := first && s.connector.config.History == 0
		for _, m := range page.Messages {
			if !skip && (m.Type == "groupchat") == !of.Equal(jid.JID{}) {
				s.onMessage(ctx, m)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			at = Position{ID: m.Archive, Time: m.Time}
		}
		if first && of.Equal(jid.JID{}) {
			s.update(func(m *LoginMetadata) { m.Since = time.Now() })
		}
		if at.ID == "" && at.Time.IsZero() {
			at.Time = time.Now()
		}
		if page.Last != "" {
			at.ID = page.Last
		}
		s.setPosition(of, at)
		if first || page.Complete || len(page.Messages) == 0 {
			s.save(true)
			return nil
		}
	}
}
