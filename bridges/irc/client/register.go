package client

import (
	"errors"
	"fmt"
	"strings"

	"github.com/ergochat/irc-go/ircmsg"
	"github.com/ergochat/irc-go/ircutils"
)

// wantedCaps are the capabilities that are requested when a server offers
// them. sasl comes on top when there is a password.
var wantedCaps = []string{
	"account-notify", "account-tag", "batch", "cap-notify", "chghost", "echo-message",
	"extended-join", "invite-notify", "labeled-response", "message-tags", "multi-prefix",
	"server-time", "setname", "userhost-in-names",
}

// caps is the state of capability negotiation.
type caps struct {
	offered map[string]string // value by name
	enabled map[string]bool
	waiting int  // CAP REQ lines without an answer
	ended   bool // CAP END was sent, or the server knows no capabilities
	listed  bool
}

// SASL are the credentials of a services account.
type SASL struct {
	Account  string
	Password string
}

// Errors that end a registration. All but ErrRegistration are permanent: Run
// does not try again by itself.
var (
	ErrNickInUse    = errors.New("that nick is in use")
	ErrNickInvalid  = errors.New("the network does not allow that nick")
	ErrSASL         = errors.New("logging in to the services account failed")
	ErrBanned       = errors.New("the network refuses the connection")
	ErrRegistration = errors.New("the network closed the connection")
)

// RegistrationError is an error of the list above with the server's own words.
type RegistrationError struct {
	Kind error
	Text string
}

// Error returns both texts.
func (e *RegistrationError) Error() string {
	if e.Text == "" {
		return e.Kind.Error()
	}
	return e.Kind.Error() + ": " + e.Text
}

// Unwrap returns Kind.
func (e *RegistrationError) Unwrap() error { return e.Kind }

// permanent reports whether another attempt would fail the same way.
func permanent(err error) bool {
	return errors.Is(err, ErrSASL) || errors.Is(err, ErrNickInvalid) || errors.Is(err, ErrBanned)
}

// greet queues the first lines of a connection.
func (l *link) greet(fx *effects) {
	fx.line("CAP", "LS", "302")
	if l.cfg.Password != "" {
		fx.line("PASS", l.cfg.Password)
	}
	fx.line("NICK", l.cfg.Nick)
	fx.line("USER", l.cfg.User, "0", "*", l.cfg.RealName)
	l.trying = l.cfg.Nick
}

// onCap handles CAP: "me LS * :a b", "me LS :a b", "me ACK :a", "me NEW :a"…
func (l *link) onCap(m *ircmsg.Message, fx *effects) {
	if len(m.Params) < 3 {
		return
	}
	list := strings.Fields(m.Params[len(m.Params)-1])
	switch strings.ToUpper(m.Params[1]) {
	case "LS":
		l.offer(list)
		if m.Params[2] != "*" || len(m.Params) < 4 {
			l.caps.listed = true
			l.requestCaps(fx)
		}
	case "NEW":
		l.offer(list)
		l.requestCaps(fx)
	case "DEL":
		for _, name := range list {
			delete(l.caps.offered, name)
			delete(l.caps.enabled, name)
		}
	case "ACK":
		for _, name := range list {
			if off, ok := strings.CutPrefix(name, "-"); ok {
				delete(l.caps.enabled, off)
			} else {
				l.caps.enabled[name] = true
			}
		}
		l.capAnswered(fx)
	case "NAK":
		l.capAnswered(fx)
	}
}

func (l *link) offer(list []string) {
	for _, c := range list {
		name, value, _ := strings.Cut(c, "=")
		l.caps.offered[name] = value
	}
}

// requestCaps asks for what is offered, wanted and not yet enabled. Each
// capability has a line of its own, because a server refuses or grants a line
// as a whole.
func (l *link) requestCaps(fx *effects) {
	want := wantedCaps
	if l.cfg.SASL != nil && !l.registered && offersPlain(l.caps.offered["sasl"]) {
		want = append([]string{"sasl"}, wantedCaps...)
	}
	for _, name := range want {
		if _, ok := l.caps.offered[name]; ok && !l.caps.enabled[name] {
			fx.line("CAP", "REQ", name)
			l.caps.waiting++
		}
	}
	l.endCaps(fx)
}

func (l *link) capAnswered(fx *effects) {
	if l.caps.waiting > 0 {
		l.caps.waiting--
	}
	l.endCaps(fx)
}

// endCaps goes on to SASL or ends the negotiation when nothing is open.
func (l *link) endCaps(fx *effects) {
	if l.registered || l.caps.ended || l.caps.waiting > 0 || !l.caps.listed {
		return
	}
	if l.cfg.SASL != nil && !l.saslDone {
		if l.caps.enabled["sasl"] {
			if !l.saslStarted {
				l.saslStarted = true
				fx.line("AUTHENTICATE", "PLAIN")
			}
			return
		}
		if !l.cfg.NickServ {
			fx.fail(&RegistrationError{ErrSASL, "the network does not offer SASL PLAIN"})
			return
		}
	}
	l.caps.ended = true
	fx.line("CAP", "END")
}

// offersPlain reads the value of the sasl capability, which version 302 of the
// negotiation fills with a list of mechanisms.
func offersPlain(value string) bool {
	if value == "" {
		return true
	}
	for m := range strings.SplitSeq(value, ",") {
		if strings.EqualFold(m, "PLAIN") {
			return true
		}
	}
	return false
}

// onAuthenticate sends the credentials when the server asks for them.
//
// See https://ircv3.net/specs/extensions/sasl-3.1
func (l *link) onAuthenticate(m *ircmsg.Message, fx *effects) {
	if l.cfg.SASL == nil || l.saslDone || len(m.Params) == 0 || m.Params[0] != "+" {
		return
	}
	s := l.cfg.SASL
	for _, chunk := range ircutils.EncodeSASLResponse([]byte(s.Account + "\x00" + s.Account + "\x00" + s.Password)) {
		fx.line("AUTHENTICATE", chunk)
	}
}

// onSASL handles the end of the exchange: 903 and 907 are success.
func (l *link) onSASL(m *ircmsg.Message, fx *effects) {
	if !l.saslStarted || l.saslDone {
		return
	}
	switch m.Command {
	case "903", "907":
		l.saslDone = true
		l.endCaps(fx)
	case "902", "904", "905", "906":
		text := ""
		if len(m.Params) > 0 {
			text = m.Params[len(m.Params)-1]
		}
		fx.fail(&RegistrationError{ErrSASL, text})
	}
}

// onNickError handles the refusal of a nick: 432, 433, 436, 437 before the
// welcome. Later ones belong to requests.
func (l *link) onNickError(m *ircmsg.Message, fx *effects) {
	if l.registered {
		return
	}
	text := ""
	if len(m.Params) > 0 {
		text = m.Params[len(m.Params)-1]
	}
	if m.Command == "432" {
		fx.fail(&RegistrationError{ErrNickInvalid, text})
		return
	}
	if !l.cfg.NickFallback || len(l.trying) >= len(l.cfg.Nick)+3 {
		fx.fail(&RegistrationError{ErrNickInUse, text})
		return
	}
	l.trying += "_"
	fx.line("NICK", l.trying)
}

// onBanned handles 464 and 465.
func (l *link) onBanned(m *ircmsg.Message, fx *effects) {
	if !l.registered && len(m.Params) > 0 {
		fx.fail(&RegistrationError{ErrBanned, m.Params[len(m.Params)-1]})
	}
}

// onWelcome handles 001: the server tells which nick we have.
func (l *link) onWelcome(m *ircmsg.Message, fx *effects) {
	if l.registered || len(m.Params) == 0 {
		return
	}
	l.registered, l.caps.ended = true, true
	l.self.Name = m.Params[0]
	// Some servers end the text with our full name, nick!user@host.
	if words := strings.Fields(m.Params[len(m.Params)-1]); len(words) > 0 {
		if nuh, err := ircmsg.ParseNUH(words[len(words)-1]); err == nil && nuh.Name == l.self.Name && nuh.Host != "" {
			l.self = nuh
		}
	}
	if s := l.cfg.SASL; s != nil && l.cfg.NickServ && !l.saslDone {
		fx.line("PRIVMSG", "NickServ", fmt.Sprintf("IDENTIFY %s %s", s.Account, s.Password))
	}
}

// onReady handles the end of the welcome, 376 or 422, after which ISUPPORT is
// known.
func (l *link) onReady(_ *ircmsg.Message, fx *effects) {
	if !l.registered || l.ready {
		return
	}
	l.ready = true
	fx.emit(Connected{Nick: l.self.Name, Wanted: l.cfg.Nick})
}
