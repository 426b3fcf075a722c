package bridge

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/appservice"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

const transactionPath = "/_matrix/app/v1/transactions/"

// refuse answers a request of the homeserver with an error.
func refuse(w http.ResponseWriter, status int, text string) {
	body, _ := json.Marshal(map[string]string{"errcode": "M_UNKNOWN", "error": text}) // strings marshal
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status)
	_, _ = w.Write(body)
}

// known reports whether a request comes from the homeserver.
func (h *Host) known(r *http.Request) bool {
	return subtle.ConstantTimeCompare([]byte(r.Header.Get("Authorization")), []byte("Bearer "+h.secrets.hsToken)) == 1
}

// keep puts the events of a transaction into the inbox. What is left in the
// request is new.
func (h *Host) keep(r *http.Request, txn string, run *runner) error {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return err
	}
	ctx := context.WithoutCancel(r.Context())
	rest, err := h.inbox.take(ctx, txn, body, func(l *letter) bool { return h.concerns(ctx, l, run) })
	if err != nil {
		return err
	}
	r.Body, r.ContentLength = io.NopCloser(bytes.NewReader(rest)), int64(len(rest))
	return nil
}

// concerns reports whether the bridge will carry an event: it is neither its own
// nor a command, which whoever waits for its answer gives again.
func (h *Host) concerns(ctx context.Context, l *letter, run *runner) bool {
	if h.regs[0].ExclusiveUser(string(l.Sender)) {
		return false
	}
	if l.Content[appservice.DoublePuppetKey] == h.puppetMark() {
		if at, ok := l.Content[appservice.DoublePuppetTSKey].(float64); !ok || at == l.Time {
			return false
		}
	}
	switch l.Type {
	case event.StateMember.Type:
		if l.invites() && h.regs[0].ExclusiveUser(*l.StateKey) {
			return true
		}
		portal, err := run.br.GetPortalByMXID(ctx, l.Room)
		return err != nil || portal != nil
	case event.EventMessage.Type:
	default:
		return true
	}
	text, _ := l.Content["body"].(string)
	// What mautrix has in memory of a user another goroutine may be changing.
	user, err := run.br.DB.User.GetByMXID(ctx, l.Sender)
	return err != nil || !strings.HasPrefix(text, h.commandPrefix()) && (user == nil || user.ManagementRoom != l.Room)
}

// own reports whether the bridge has sent an event: as its bot, a ghost or a local user.
func (h *Host) own(e *event.Event) bool {
	return h.regs[0].ExclusiveUser(string(e.Sender)) || e.Content.Raw[appservice.DoublePuppetKey] == h.puppetMark()
}

// puppetMark is in each event that the bridge sends as a local user.
func (h *Host) puppetMark() string { return "switchboard-" + h.place.ID }

// resume handles again what was cut off when the bridge ended.
func (h *Host) resume(ctx context.Context, run *runner) error {
	left, err := h.inbox.unsettled(ctx)
	if err != nil {
		return err
	}
	var events []json.RawMessage
	for _, l := range left {
		part, err := run.br.DB.Message.GetPartByMXID(ctx, l.ID)
		if err != nil {
			return fmt.Errorf("look up event %s: %w", l.ID, err)
		}
		st := bridgev2.MessageStatus{Status: event.MessageStatusSuccess}
		switch {
		case l.handlings >= handlings && l.StateKey != nil, // of some changes of a room nothing is told
			l.invites() && run.mx.StateStore.IsInRoom(ctx, l.Room, id.UserID(*l.StateKey)):
			if err := h.inbox.settle(ctx, l.ID); err != nil {
				return fmt.Errorf("settle event %s: %w", l.ID, err)
			}
			continue
		case part != nil: // it arrived, only that was not told
		case l.handlings < handlings:
			body, err := markAgain(l.body)
			if err != nil {
				return fmt.Errorf("read event %s: %w", l.ID, err)
			}
			events = append(events, body)
			continue
		default:
			zerolog.Ctx(ctx).Warn().Str("event", string(l.ID)).Str("room", string(l.Room)).Msg("an event was cut off each time and is given up")
			st = bridgev2.WrapErrorInStatus(errors.New("the bridge stopped each time it tried to send this")).
				WithStatus(event.MessageStatusRetriable).WithSendNotice(true).WithErrorAsMessage()
		}
		run.mx.SendMessageStatus(ctx, &st, &bridgev2.MessageStatusEventInfo{
			RoomID: l.Room, SourceEventID: l.ID, EventType: event.Type{Type: l.Type, Class: event.MessageEventType},
		})
	}
	return h.again(ctx, run, events)
}

// statuses are what the bridge can tell of an event, each final.
var statuses = [...]event.MessageStatus{event.MessageStatusSuccess, event.MessageStatusRetriable, event.MessageStatusFail}

// statusWire reads on the wire what the bridge tells of users' events, and lets
// it finish while the bridge stops. An event is settled when it arrived, or when
// its sender has been told that it did not.
type statusWire struct {
	http.RoundTripper
	host *Host
}

// RoundTrip implements http.RoundTripper.
func (w statusWire) RoundTrip(r *http.Request) (*http.Response, error) {
	tells := r.Method == http.MethodPut && strings.Contains(r.URL.Path, "/send/"+event.BeeperMessageStatus.Type+"/")
	if (tells || strings.Contains(r.URL.Path, "/receipt/")) && isLater(r.Context()) {
		return taken(r), nil
	}
	if !tells {
		return onceWire{w.RoundTripper}.RoundTrip(r)
	}
	body, err := io.ReadAll(r.Body)
	if err != nil {
		return nil, err
	}
	ctx := context.WithoutCancel(r.Context())
	r = r.Clone(ctx)
	r.Body = io.NopCloser(bytes.NewReader(body))
	resp, failed := w.RoundTripper.RoundTrip(r)
	var status event.BeeperMessageStatusEventContent
	if json.Unmarshal(body, &status) != nil {
		return resp, failed
	}
	told := failed == nil && resp.StatusCode == http.StatusOK
	i := slices.Index(statuses[:], status.Status)
	if i < 0 || !told && status.Status != event.MessageStatusSuccess {
		return resp, failed
	}
	w.host.told[i].Add(1)
	if err := w.host.settle(ctx, status.RelatesTo.EventID); err != nil {
		zerolog.Ctx(ctx).Err(err).Str("event", string(status.RelatesTo.EventID)).Msg("an event could not be settled")
	}
	return resp, failed
}
