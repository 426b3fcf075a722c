package whatsapp

import (
	"fmt"

	"github.com/rs/zerolog"
	waLog "go.mau.fi/whatsmeow/util/log"
)

// library writes whatsmeow's log. Below errors it names phone numbers and
// stanzas, which are for debugging only.
type library struct{ zerolog.Logger }

func (l library) Errorf(msg string, args ...any) {
	l.Warn().Str("part", "whatsmeow").Msg(fmt.Sprintf(msg, args...))
}
func (l library) Warnf(msg string, args ...any)  { l.Debug().Msg(fmt.Sprintf(msg, args...)) }
func (l library) Infof(msg string, args ...any)  { l.Debug().Msg(fmt.Sprintf(msg, args...)) }
func (l library) Debugf(msg string, args ...any) {}
func (l library) Sub(string) waLog.Logger        { return l }
