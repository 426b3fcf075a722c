package client

import (
	"strings"
	"time"
	"unicode/utf8"

	"github.com/ergochat/irc-go/ircmsg"
)

// effects is what follows from a received line, carried out after the lock is
// gone.
type effects struct {
	lines  []ircmsg.Message // sent at once, ahead of the queue
	calls  []func()         // in order: outcomes and events
	err    error            // ends the connection
	handle func(Event)
}

func (fx *effects) line(command string, params ...string) {
	fx.lines = append(fx.lines, ircmsg.MakeMessage(nil, "", command, params...))
}
func (fx *effects) emit(e Event)     { fx.calls = append(fx.calls, func() { fx.handle(e) }) }
func (fx *effects) then(call func()) { fx.calls = append(fx.calls, call) }
func (fx *effects) fail(err error) {
	if fx.err == nil {
		fx.err = err
	}
}

// handlers says who handles which command or numeric.
var handlers = map[string]func(*link, *ircmsg.Message, *effects){
	"001": (*link).onWelcome, "005": (*link).onISupport, "376": (*link).onReady, "422": (*link).onReady,
	"324": (*link).onChannelModes, "331": (*link).onTopicReply, "332": (*link).onTopicReply,
	"353": (*link).onNames, "366": (*link).onEndOfNames, "396": (*link).onVisibleHost,
	"432": (*link).onNickError, "433": (*link).onNickError, "436": (*link).onNickError, "437": (*link).onNickError,
	"464": (*link).onBanned, "465": (*link).onBanned,
	"902": (*link).onSASL, "903": (*link).onSASL, "904": (*link).onSASL, "905": (*link).onSASL, "906": (*link).onSASL, "907": (*link).onSASL,
	"ACCOUNT": (*link).onAccount, "AUTHENTICATE": (*link).onAuthenticate, "BATCH": (*link).onBatch, "CAP": (*link).onCap,
	"CHGHOST": (*link).onChgHost, "ERROR": (*link).onError, "INVITE": (*link).onInvite, "JOIN": (*link).onJoin,
	"KICK": (*link).onKick, "MODE": (*link).onMode, "NICK": (*link).onNick, "NOTICE": (*link).onMessage,
	"PART": (*link).onPart, "PING": (*link).onPing, "PRIVMSG": (*link).onMessage, "QUIT": (*link).onQuit,
	"SETNAME": (*link).onSetName, "TOPIC": (*link).onTopic,
}

// parse reads a line. Lines that are no UTF-8 are taken for Latin-1, the only
// other encoding still met.
func parse(line []byte) (ircmsg.Message, error) {
	s := string(line)
	if !utf8.ValidString(s) {
		runes := make([]rune, len(line))
		for i, b := range line {
			runes[i] = rune(b)
		}
		s = string(runes)
	}
	return ircmsg.ParseLine(s)
}

// apply lets a line act on the state. The caller holds mu.
func (l *link) apply(m *ircmsg.Message, fx *effects) {
	// InspIRCd answers our own NICK as if it came from the new nick.
	if _, label := m.GetTag("label"); m.Command == "NICK" && l.byLabel(label) >= 0 {
		m.Source = l.self.Canonical()
	}
	if l.answer(m, fx) {
		return // the echo of our own message
	}
	if h := handlers[m.Command]; h != nil {
		h(l, m, fx)
		return
	}
	if l.registered && len(m.Params) > 0 && replyError(m) != nil {
		fx.emit(ServerText{Code: m.Command, Text: m.Params[len(m.Params)-1]})
	}
}

func (l *link) fold(s string) string   { return l.isupport.Casemapping().Fold(s) }
func (l *link) isOwn(nick string) bool { return nick != "" && l.fold(nick) == l.fold(l.self.Name) }
func (l *link) source(m *ircmsg.Message) Source {
	nuh, _ := m.NUH()
	_, account := m.GetTag("account")
	return Source{NUH: nuh, Account: account, Own: l.isOwn(nuh.Name)}
}

// time is the server's time of a message, else now. A time in the future is
// not believed.
func (l *link) time(m *ircmsg.Message) time.Time {
	now := time.Now()
	if ok, v := m.GetTag("time"); ok {
		if t, err := time.Parse("2006-01-02T15:04:05.999Z07:00", v); err == nil && t.Before(now) {
			return t
		}
	}
	return now
}

func param(m *ircmsg.Message, i int) string {
	if i < len(m.Params) {
		return m.Params[i]
	}
	return ""
}

func (l *link) onPing(m *ircmsg.Message, fx *effects) { fx.line("PONG", param(m, len(m.Params)-1)) }

func (l *link) onISupport(m *ircmsg.Message, _ *effects) {
	before := l.isupport.Casemapping()
	l.isupport.apply(m.Params)
	if l.isupport.Casemapping() != before {
		l.refold()
	}
}

// refold renews the keys after a change of the casemapping.
func (l *link) refold() {
	channels := make(map[string]*channel, len(l.channels))
	for _, ch := range l.channels {
		members := make(map[string]*Member, len(ch.members))
		for _, u := range ch.members {
			members[l.fold(u.Nick)] = u
		}
		ch.members = members
		channels[l.fold(ch.name)] = ch
	}
	l.channels = channels
}

// onError handles ERROR, by which a server says why it hangs up.
func (l *link) onError(m *ircmsg.Message, fx *effects) {
	kind := ErrRegistration
	text := param(m, 0)
	if low := strings.ToLower(text); !l.registered && (strings.Contains(low, "-lined") || strings.Contains(low, "banned")) {
		kind = ErrBanned
	}
	fx.fail(&RegistrationError{kind, text})
}

// onMessage handles PRIVMSG and NOTICE.
func (l *link) onMessage(m *ircmsg.Message, fx *effects) {
	if len(m.Params) < 2 {
		return
	}
	src, text := l.source(m), m.Params[1]
	if !l.registered || src.IsServer() {
		if l.registered {
			fx.emit(ServerText{Code: m.Command, Text: text})
		}
		return
	}
	e := Message{Source: src, Text: text, Time: l.time(m)}
	_, e.ID = m.GetTag("msgid")
	for _, tag := range []string{"+reply", "+draft/reply"} {
		if ok, v := m.GetTag(tag); ok {
			e.ReplyTo = v
		}
	}
	_, target := l.isupport.statusTarget(param(m, 0))
	switch {
	case l.isupport.IsChannel(target):
		e.Channel = target
		if ch := l.channels[l.fold(target)]; ch != nil {
			e.Channel = ch.name
		}
	case src.Own:
		e.Peer = target
	default:
		e.Peer = src.Name
	}
	if m.Command == "NOTICE" {
		e.Kind = Notice
	}
	if ctcp, ok := strings.CutPrefix(text, "\x01"); ok {
		command, args, _ := strings.Cut(strings.TrimSuffix(ctcp, "\x01"), " ")
		if command = strings.ToUpper(command); command != "ACTION" || e.Kind == Notice {
			fx.emit(CTCP{Source: src, Command: command, Args: args, Reply: e.Kind == Notice})
			return
		}
		e.Kind, e.Text = Action, args
	}
	fx.emit(e)
}

func (l *link) onJoin(m *ircmsg.Message, fx *effects) {
	src, name := l.source(m), param(m, 0)
	if len(m.Params) > 1 && m.Params[1] != "*" { // extended-join
		src.Account = m.Params[1]
	}
	key := l.fold(name)
	if src.Own {
		l.learnSelf(src.NUH)
		l.channels[key] = &channel{name: name, modes: make(map[byte]string), members: make(map[string]*Member)}
		l.wanted.add(l.isupport.Casemapping(), name, "")
		fx.then(func() { _ = l.enqueue(ircmsg.MakeMessage(nil, "", "MODE", name), nil) })
	}
	ch := l.channels[key]
	if ch == nil {
		return
	}
	ch.members[l.fold(src.Name)] = &Member{Nick: src.Name, Account: src.Account}
	if b := l.batchOf(m, "netjoin"); b != nil && !src.Own {
		b.add(ch.name, src.Name)
		return
	}
	fx.emit(Joined{Source: src, Channel: ch.name, Time: l.time(m)})
}

// learnSelf keeps what the network says of our own name, because its length
// counts in every line that others get from us.
func (l *link) learnSelf(nuh ircmsg.NUH) {
	if nuh.User != "" {
		l.self.User = nuh.User
	}
	if nuh.Host != "" {
		l.self.Host = nuh.Host
	}
}

func (l *link) onVisibleHost(m *ircmsg.Message, _ *effects) {
	host := param(m, 1)
	if user, rest, ok := strings.Cut(host, "@"); ok {
		l.self.User, host = user, rest
	}
	l.self.Host = host
}

// gone removes a member, and the whole channel when it is us.
func (l *link) gone(channel, nick string) {
	key := l.fold(channel)
	ch := l.channels[key]
	if ch == nil {
		return
	}
	delete(ch.members, l.fold(nick))
	if l.isOwn(nick) {
		delete(l.channels, key)
		l.wanted.remove(l.isupport.Casemapping(), channel)
	}
}

func (l *link) onPart(m *ircmsg.Message, fx *effects) {
	src := l.source(m)
	for name := range strings.SplitSeq(param(m, 0), ",") {
		if ch := l.channels[l.fold(name)]; ch != nil {
			l.gone(ch.name, src.Name)
			fx.emit(Parted{Source: src, Channel: ch.name, Reason: param(m, 1), Time: l.time(m)})
		}
	}
}

func (l *link) onKick(m *ircmsg.Message, fx *effects) {
	ch := l.channels[l.fold(param(m, 0))]
	nick := param(m, 1)
	if ch == nil || ch.members[l.fold(nick)] == nil {
		return
	}
	e := Kicked{Source: l.source(m), Own: l.isOwn(nick), Channel: ch.name, Reason: param(m, 2), Time: l.time(m)}
	e.Nick = ch.members[l.fold(nick)].Nick
	l.gone(ch.name, nick)
	fx.emit(e)
}

func (l *link) onQuit(m *ircmsg.Message, fx *effects) {
	src := l.source(m)
	if src.Own {
		return // ERROR or the end of the stream follows
	}
	reason := param(m, 0)
	names := l.channelNames(l.fold(src.Name))
	for _, name := range names {
		l.gone(name, src.Name)
	}
	if b := l.batchOf(m, "netsplit"); b != nil {
		for _, name := range names {
			b.add(name, src.Name)
		}
		return
	}
	if servers, ok := splitServers(reason); ok {
		nicks := make(map[string][]string)
		for _, name := range names {
			nicks[name] = []string{src.Name}
		}
		fx.emit(NetSplit{Servers: servers, Nicks: nicks})
		return
	}
	fx.emit(Quit{Source: src, Channels: names, Reason: reason, Time: l.time(m)})
}

func (l *link) onNick(m *ircmsg.Message, fx *effects) {
	src, nick := l.source(m), param(m, 0)
	if nick == "" {
		return
	}
	old := l.fold(src.Name)
	names := l.channelNames(old)
	for _, name := range names {
		ch := l.channels[l.fold(name)]
		u := ch.members[old]
		delete(ch.members, old)
		u.Nick = nick
		ch.members[l.fold(nick)] = u
	}
	if src.Own {
		l.self.Name = nick
		if l.regaining && l.fold(nick) == l.fold(l.cfg.Nick) {
			l.regaining = false
			fx.emit(NickRegained{nick})
		}
	}
	fx.emit(Renamed{Source: src, Nick: nick, Channels: names, Time: l.time(m)})
}

func (l *link) onTopic(m *ircmsg.Message, fx *effects) {
	if ch := l.channels[l.fold(param(m, 0))]; ch != nil {
		ch.topic = param(m, 1)
		fx.emit(TopicChanged{Source: l.source(m), Channel: ch.name, Topic: ch.topic, Time: l.time(m)})
	}
}

// onTopicReply handles RPL_TOPIC and RPL_NOTOPIC.
func (l *link) onTopicReply(m *ircmsg.Message, fx *effects) {
	ch := l.channels[l.fold(param(m, 1))]
	if ch == nil {
		return
	}
	ch.topic = ""
	if m.Command == "332" {
		ch.topic = param(m, 2)
	}
	fx.emit(TopicChanged{Channel: ch.name, Topic: ch.topic, Time: time.Now()})
}

func (l *link) onNames(m *ircmsg.Message, _ *effects) {
	if len(m.Params) < 4 {
		return
	}
	ch := l.channels[l.fold(m.Params[2])]
	if ch == nil {
		return
	}
	if ch.naming == nil {
		ch.naming = make(map[string]*Member)
	}
	for entry := range strings.FieldsSeq(m.Params[3]) {
		u := l.parseName(entry)
		if old := ch.members[l.fold(u.Nick)]; old != nil {
			u.Account = old.Account
		}
		ch.naming[l.fold(u.Nick)] = u
	}
}

func (l *link) onEndOfNames(m *ircmsg.Message, fx *effects) {
	ch := l.channels[l.fold(param(m, 1))]
	if ch == nil || ch.naming == nil {
		return
	}
	ch.members, ch.naming, ch.synced = ch.naming, nil, true
	if !ch.told {
		ch.told = true
		fx.emit(Synced{ch.name})
	}
}

// onChannelModes handles RPL_CHANNELMODEIS, the answer to the MODE that
// follows our own JOIN.
func (l *link) onChannelModes(m *ircmsg.Message, fx *effects) {
	ch := l.channels[l.fold(param(m, 1))]
	if ch == nil || len(m.Params) < 3 {
		return
	}
	changes := l.isupport.modeChanges(m.Params[2:])
	for _, c := range changes {
		ch.modes[c.Mode] = c.Arg
	}
	fx.emit(ModeChanged{Channel: ch.name, Changes: changes, Time: time.Now()})
}

func (l *link) onMode(m *ircmsg.Message, fx *effects) {
	ch := l.channels[l.fold(param(m, 0))]
	if ch == nil || len(m.Params) < 2 {
		return
	}
	order, _ := l.isupport.Prefix()
	lists, _, _ := strings.Cut(l.isupport.tokens["CHANMODES"], ",")
	if lists == "" {
		lists = "beI"
	}
	changes := l.isupport.modeChanges(m.Params[1:])
	for _, c := range changes {
		switch {
		case strings.IndexByte(order, c.Mode) >= 0:
			if u := ch.members[l.fold(c.Arg)]; u != nil {
				u.setMode(order, c.Mode, c.Add)
			}
			if u := ch.naming[l.fold(c.Arg)]; u != nil {
				u.setMode(order, c.Mode, c.Add)
			}
		case strings.IndexByte(lists, c.Mode) >= 0:
		case c.Add:
			ch.modes[c.Mode] = c.Arg
		default:
			delete(ch.modes, c.Mode)
		}
	}
	fx.emit(ModeChanged{Source: l.source(m), Channel: ch.name, Changes: changes, Time: l.time(m)})
}

func (l *link) onInvite(m *ircmsg.Message, fx *effects) {
	if l.isOwn(param(m, 0)) { // invite-notify shows those of others too
		fx.emit(Invited{Source: l.source(m), Channel: param(m, 1)})
	}
}

func (l *link) onAccount(m *ircmsg.Message, fx *effects) {
	src, account := l.source(m), param(m, 0)
	if account == "*" {
		account = ""
	}
	src.Account = account
	nick := l.fold(src.Name)
	for _, ch := range l.channels {
		if u := ch.members[nick]; u != nil {
			u.Account = account
		}
	}
	fx.emit(Profile{Source: src})
}

func (l *link) onChgHost(m *ircmsg.Message, fx *effects) {
	src := l.source(m)
	src.User, src.Host = param(m, 0), param(m, 1)
	if src.Own {
		l.learnSelf(src.NUH)
	}
	fx.emit(Profile{Source: src})
}

func (l *link) onSetName(m *ircmsg.Message, fx *effects) {
	fx.emit(Profile{Source: l.source(m), RealName: param(m, 0)})
}
