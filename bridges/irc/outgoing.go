package irc

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/bridgev2/simplevent"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge"
	"switchboard/bridges/irc/client"
)

// outgoing is a text on its way to IRC.
type outgoing struct {
	kind    client.Kind
	target  string
	prefix  string // before each line
	text    string
	replyTo string // msgid
	done    func(client.Outcome)

	order uint64 // in which texts were written
	timer *time.Timer
}

// HandleMatrixMessage implements bridgev2.NetworkAPI. It does not wait for the
// network: whether the message was accepted is told when that is known.
func (s *session) HandleMatrixMessage(ctx context.Context, msg *bridgev2.MatrixMessage) (*bridgev2.MatrixMessageResponse, error) {
	o, err := s.compose(ctx, msg.Portal, msg.Content, msg.OrigSender)
	if err != nil {
		return nil, err
	}
	s.answerTo(o, msg)
	if err := s.checkLength(ctx, msg, o); err != nil {
		return nil, err
	}
	txn := networkid.TransactionID(msg.Event.ID)
	text, _ := fromIRC(o.text)
	var outcome client.Outcome // set before the event that ends the waiting
	msg.AddPendingToSave(&database.Message{
		SenderID: s.GetUserID(), Timestamp: time.Now(), Metadata: &MessageMetadata{Text: truncate(text)},
	}, txn, func(bridgev2.RemoteMessage, *database.Message) (bool, error) {
		if outcome.Err != nil {
			return false, s.failure(outcome.Err)
		}
		return true, nil
	})
	o.done = func(out client.Outcome) {
		outcome = out
		s.settle(msg.Portal.PortalKey, txn, out)
	}
	s.submit(o)
	return &bridgev2.MatrixMessageResponse{Pending: true}, nil
}

// settle ends the waiting for what became of a message.
func (s *session) settle(key networkid.PortalKey, txn networkid.TransactionID, out client.Outcome) {
	s.tasks.Add(s.context(), func() {
		meta := s.about(bridgev2.RemoteEventMessage, key, bridgev2.EventSender{IsFromMe: true, Sender: s.GetUserID()}, out.Time)
		bridge.Queue(s.login, &simplevent.Message[struct{}]{
			EventMeta: meta, ID: s.network.messageID(out.ID), TransactionID: txn,
			ConvertMessageFunc: func(context.Context, *bridgev2.Portal, bridgev2.MatrixAPI, struct{}) (*bridgev2.ConvertedMessage, error) {
				return nil, bridgev2.ErrIgnoringRemoteEvent // nobody waits for it any more
			},
		})
	})
}

// failure is the status of a message that IRC refused or that did not get there.
func (s *session) failure(err error) bridgev2.MessageStatus {
	st := bridgev2.WrapErrorInStatus(err).WithStatus(event.MessageStatusFail).WithSendNotice(true).
		WithErrorReason(event.MessageStatusNetworkError).WithIsCertain(true)
	var refused *client.ReplyError
	switch {
	case errors.As(err, &refused):
		return st.WithErrorReason(event.MessageStatusNoPermission).WithMessage(fmt.Sprintf("%s says: %s", s.network.Name, refused.Text))
	case errors.Is(err, client.ErrUnconfirmed):
		return st.WithStatus(event.MessageStatusRetriable).WithIsCertain(false).WithMessage(err.Error())
	default:
		return st.WithMessage(err.Error())
	}
}

// compose makes the IRC form of a message's content.
func (s *session) compose(ctx context.Context, p *bridgev2.Portal, content *event.MessageEventContent, relayed *bridgev2.OrigSender) (*outgoing, error) {
	o := &outgoing{target: s.target(p)}
	switch content.MsgType {
	case event.MsgEmote:
		o.kind = client.Action
	case event.MsgNotice:
		o.kind = client.Notice
	}
	switch content.MsgType {
	case event.MsgImage, event.MsgVideo, event.MsgAudio, event.MsgFile, event.CapMsgSticker:
		text, err := s.mediaText(ctx, p, content)
		if err != nil {
			return nil, err
		}
		o.text = text
	default:
		o.text = s.textOf(content)
	}
	if relayed != nil {
		name := s.speakerName(relayed)
		if o.kind == client.Action { // "* alice waves": the action is the relay's only in form
			o.kind, o.prefix = client.Text, "* "+name+" "
		} else {
			o.prefix = "<" + name + "> "
		}
	}
	if strings.TrimSpace(o.text) == "" {
		return nil, fmt.Errorf("%w: it has no text that IRC could show", bridgev2.ErrUnsupportedMessageType)
	}
	return o, nil
}

// speakerName is the name of a relayed user, so that it can neither break the
// line nor pass for formatting or another's name.
func (s *session) speakerName(o *bridgev2.OrigSender) string {
	name := o.FormattedName
	if o.Displayname == "" && o.PerMessageProfile.Displayname == "" {
		name = strings.TrimSuffix(strings.TrimPrefix(string(o.UserID), "@"), ":"+s.network.connector.br.Matrix.ServerName())
	}
	name = strings.Join(strings.Fields(plainToIRC(name)), " ")
	name = strings.NewReplacer("<", "", ">", "").Replace(name)
	if runes := []rune(name); len(runes) > 40 {
		name = string(runes[:39]) + "…"
	}
	if name == "" {
		return plainToIRC(string(o.UserID))
	}
	return name
}

// textOf is the text of a message in IRC formatting.
func (s *session) textOf(content *event.MessageEventContent) string {
	if content.Format == event.FormatHTML && content.FormattedBody != "" {
		return toIRC(content.FormattedBody, s.nickOf)
	}
	text := plainToIRC(content.Body)
	if content.MsgType == event.MsgLocation && content.GeoURI != "" {
		text = strings.TrimSpace(text + " " + plainToIRC(content.GeoURI))
	}
	return text
}

// nickOf is the nick of a Matrix user on the network, or empty.
func (s *session) nickOf(userID string) string {
	ctx := s.context()
	br := s.network.connector.br
	if ghostID, ok := br.Matrix.ParseGhostMXID(id.UserID(userID)); ok {
		n, nick := splitID(string(ghostID))
		if n != s.network.ID {
			return ""
		}
		if ghost, err := br.GetExistingGhostByID(ctx, ghostID); err == nil && ghost != nil && ghost.Name != "" {
			return plainToIRC(ghost.Name)
		}
		return nick
	}
	for _, other := range s.network.all() {
		if string(other.login.UserMXID) == userID {
			return other.client.Nick()
		}
	}
	return ""
}

// mediaText is a public link to a file, behind its caption or name.
func (s *session) mediaText(ctx context.Context, p *bridgev2.Portal, content *event.MessageEventContent) (string, error) {
	address, err := publicLink(ctx, p.Bridge, content)
	if err != nil {
		return "", err
	}
	caption := ""
	if content.FileName != "" && content.FileName != content.Body {
		c := *content
		c.MsgType = event.MsgText
		caption = s.textOf(&c)
	} else if content.MsgType == event.CapMsgSticker {
		caption = plainToIRC(content.Body)
	}
	if caption == "" {
		caption = plainToIRC(content.GetFileName())
	}
	return strings.TrimSpace(caption + " " + address), nil
}

// publicLink is an address at which everybody can fetch a file from Matrix.
func publicLink(ctx context.Context, br *bridgev2.Bridge, content *event.MessageEventContent) (string, error) {
	mx, ok := br.Matrix.(bridgev2.MatrixConnectorWithPublicMedia)
	if !ok {
		return "", errNoMedia()
	}
	address, err := mx.GetPublicMediaAddressForEvent(ctx, content)
	if errors.Is(err, bridgev2.ErrPublicMediaDisabled) || err == nil && address == "" {
		return "", errNoMedia()
	}
	return address, err
}

func errNoMedia() error {
	return bridgev2.WrapErrorInStatus(errors.New("IRC carries only text, and this server offers no public links to files")).
		WithStatus(event.MessageStatusFail).WithErrorReason(event.MessageStatusUnsupported).
		WithIsCertain(true).WithSendNotice(true).WithErrorAsMessage()
}

// answerTo puts in front of a reply whom it is for.
func (s *session) answerTo(o *outgoing, msg *bridgev2.MatrixMessage) {
	r := msg.ReplyTo
	if r == nil {
		return
	}
	if s.client.Enabled("message-tags") {
		o.replyTo = s.network.msgid(r.ID)
	}
	if o.kind == client.Action {
		return
	}
	_, nick := splitID(string(r.SenderID))
	own := s.network.fold(nick) == s.network.fold(s.client.Nick())
	isup := s.client.ISupport()
	if isup.IsChannel(o.target) && !own && nick != "" {
		if name := s.nickOf(string(s.network.connector.br.Matrix.GhostIntent(r.SenderID).GetMXID())); name != "" {
			nick = name
		}
		if !strings.HasPrefix(s.network.fold(o.text), s.network.fold(nick)) {
			o.text = nick + ": " + o.text
		}
		return
	}
	// To oneself, or between two people, a name says nothing: quote instead.
	if meta, ok := r.Metadata.(*MessageMetadata); ok && meta.Text != "" {
		o.text = "> " + excerpt(meta.Text) + "\n" + o.text
	}
}

// excerpt is the beginning of a text, enough to recognize it.
func excerpt(text string) string {
	line, _, more := strings.Cut(text, "\n")
	if runes := []rune(line); len(runes) > 60 {
		line, more = string(runes[:60]), true
	}
	if more {
		line += "…"
	}
	return line
}

// checkLength refuses a message with too many lines, or turns it into its
// beginning and a link to all of it.
func (s *session) checkLength(ctx context.Context, msg *bridgev2.MatrixMessage, o *outgoing) error {
	const room = 400 // of bytes in a line, roughly
	lines := client.Split(o.text, room-len(o.prefix))
	if len(lines) <= s.network.MaxLines {
		return nil
	}
	tooLong := fmt.Errorf("the message makes %d lines on IRC, %d are allowed", len(lines), s.network.MaxLines)
	st := bridgev2.WrapErrorInStatus(tooLong).WithStatus(event.MessageStatusFail).
		WithErrorReason(event.MessageStatusUnsupported).WithIsCertain(true).WithSendNotice(true).WithErrorAsMessage()
	plain, _ := fromIRC(strings.ReplaceAll(o.text, "\n", "\u2028"))
	plain = strings.ReplaceAll(plain, "\u2028", "\n")
	mxc, file, err := s.network.connector.br.Bot.UploadMedia(ctx, "", []byte(plain), "message.txt", "text/plain")
	if err != nil {
		return st
	}
	address, err := publicLink(ctx, msg.Portal.Bridge, &event.MessageEventContent{
		MsgType: event.MsgFile, Body: "message.txt", URL: mxc, File: file, Info: &event.FileInfo{MimeType: "text/plain"},
	})
	if err != nil {
		return st
	}
	keep := max(1, min(3, s.network.MaxLines-1))
	o.text = strings.Join(lines[:keep], "\n") + "\n… " + address
	return nil
}

// HandleMatrixEdit implements bridgev2.EditHandlingNetworkAPI. IRC can not
// change what was said, so the correction is said.
func (s *session) HandleMatrixEdit(ctx context.Context, msg *bridgev2.MatrixEdit) error {
	o, err := s.compose(ctx, msg.Portal, msg.Content, msg.OrigSender)
	if err != nil {
		return err
	}
	plain, _ := fromIRC(strings.ReplaceAll(o.text, "\n", " "))
	meta, _ := msg.EditTarget.Metadata.(*MessageMetadata)
	if meta == nil {
		meta = &MessageMetadata{}
	}
	if meta.Text == truncate(plain) {
		return nil
	}
	o.text = correction(meta.Text, plain, o.text)
	result := make(chan client.Outcome, 1)
	o.done = func(out client.Outcome) { result <- out }
	s.submit(o)
	select {
	case out := <-result:
		if out.Err != nil {
			return s.failure(out.Err)
		}
	case <-ctx.Done():
		return ctx.Err()
	}
	msg.EditTarget.Metadata = &MessageMetadata{Text: truncate(plain)}
	return nil
}

// correction tells how new differs from old: "s/old/new/" where few words
// differ, else the whole text, marked by an asterisk.
func correction(old, plain, full string) string {
	a, b := strings.Fields(old), strings.Fields(plain)
	start := 0
	for start < len(a) && start < len(b) && a[start] == b[start] {
		start++
	}
	end := 0
	for end < len(a)-start && end < len(b)-start && a[len(a)-1-end] == b[len(b)-1-end] {
		end++
	}
	gone, come := a[start:len(a)-end], b[start:len(b)-end]
	if len(gone) == 0 && start > 0 { // a mere insertion: name the word before it
		start--
		gone, come = a[start:start+1], b[start:len(b)-end]
	}
	from, to := strings.Join(gone, " "), strings.Join(come, " ")
	switch {
	case len(old) >= keptText, len(gone) == 0, len(gone) > 4, len(come) > 6, len(gone) == len(a) && len(a) > 1:
	case strings.Contains(from+to, "/"), strings.Count(old, from) != 1:
	default:
		return "s/" + from + "/" + to + "/"
	}
	return "* " + full
}

// submit sends a text, or keeps it until the network is there.
func (s *session) submit(o *outgoing) {
	s.out.Lock()
	defer s.out.Unlock()
	s.mu.Lock()
	if o.order == 0 {
		s.order++
		o.order = s.order
	}
	key := s.network.fold(o.target)
	refused := s.refused
	if refused == nil && s.elsewhere(o.target) {
		refused = fmt.Errorf("you are not in %s", o.target)
	}
	if refused == nil && (len(s.waiting[key]) > 0 || !s.ready(o.target)) {
		s.wait(key, o)
		s.mu.Unlock()
		return
	}
	s.mu.Unlock()
	if refused != nil {
		o.done(client.Outcome{Err: refused})
		return
	}
	s.send(o)
}

// elsewhere reports whether target is a channel that we are neither in nor about
// to enter.
func (s *session) elsewhere(target string) bool {
	isup := s.client.ISupport()
	return isup.IsChannel(target) && s.client.Online() && !s.ready(target) &&
		!hasChannel(s.client.Wanted(), s.client.Casemapping(), target)
}

// ready reports whether a text to target can be sent now.
func (s *session) ready(target string) bool {
	isup := s.client.ISupport()
	if !isup.IsChannel(target) {
		return s.client.Online()
	}
	_, in := s.client.Channel(target)
	return in
}

// wait keeps a text in the order of writing. The caller holds mu.
func (s *session) wait(key string, o *outgoing) {
	list := s.waiting[key]
	at, _ := slices.BinarySearchFunc(list, o.order, func(w *outgoing, order uint64) int { return int(int64(w.order) - int64(order)) })
	s.waiting[key] = slices.Insert(list, at, o)
	if o.timer == nil {
		o.timer = time.AfterFunc(s.network.SendTimeout, func() { s.giveUp(key, o) })
	}
}

// giveUp fails a text that still waits.
func (s *session) giveUp(key string, o *outgoing) {
	s.mu.Lock()
	at := slices.Index(s.waiting[key], o)
	if at >= 0 {
		s.waiting[key] = slices.Delete(s.waiting[key], at, at+1)
	}
	s.mu.Unlock()
	if at < 0 {
		return
	}
	if s.client.Online() {
		o.done(client.Outcome{Err: fmt.Errorf("you are not in %s", o.target)})
	} else {
		o.done(client.Outcome{Err: client.ErrNotSent})
	}
}

// send gives a text to the connection. If that breaks before the text is out,
// the text waits for the next one.
func (s *session) send(o *outgoing) {
	s.client.Say(o.kind, o.target, o.prefix, o.text, o.replyTo, func(out client.Outcome) {
		if errors.Is(out.Err, client.ErrNotSent) {
			s.mu.Lock()
			again := s.refused == nil && s.done != nil
			if again {
				s.wait(s.network.fold(o.target), o)
			}
			s.mu.Unlock()
			if again {
				return
			}
		}
		if o.timer != nil {
			o.timer.Stop()
		}
		o.done(out)
	})
}

// flush sends what waited for the targets that match.
func (s *session) flush(match func(target string) bool) {
	s.out.Lock()
	defer s.out.Unlock()
	s.mu.Lock()
	var list []*outgoing
	for key, waiting := range s.waiting {
		if match(key) {
			list = append(list, waiting...)
			delete(s.waiting, key)
		}
	}
	slices.SortFunc(list, func(a, b *outgoing) int { return int(int64(a.order) - int64(b.order)) })
	s.mu.Unlock()
	for _, o := range list {
		s.send(o)
	}
}

// failChannel fails what waits for a channel.
func (s *session) failChannel(channel string, err error) {
	key := s.network.fold(channel)
	s.fail(func(k string) bool { return k == key }, err)
}

// failWaiting fails everything that waits.
func (s *session) failWaiting(err error) { s.fail(func(string) bool { return true }, err) }

func (s *session) fail(match func(key string) bool, err error) {
	s.mu.Lock()
	var list []*outgoing
	for key, waiting := range s.waiting {
		if match(key) {
			list = append(list, waiting...)
			delete(s.waiting, key)
		}
	}
	s.mu.Unlock()
	for _, o := range list {
		o.timer.Stop()
		o.done(client.Outcome{Err: err})
	}
	if len(list) > 0 {
		ctx := s.context()
		zerolog.Ctx(ctx).Warn().Err(err).Int("messages", len(list)).Msg("messages to IRC were given up")
	}
}
