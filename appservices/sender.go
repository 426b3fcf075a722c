package appservices

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"math/rand/v2"
	"net/http"
	"net/url"
	"runtime/debug"
	"strconv"
	"time"

	"github.com/rs/zerolog"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/store"
)

// sender tells one appservice of the log.
type sender struct {
	*Service
	to    *caller
	state store.AppserviceSender
	saved store.AppserviceSender // as it stands in the store
	made  *builder
}

// deliverTimeout is how long an appservice may take over one transaction.
const deliverTimeout = time.Minute

// unsaved is how far the position may be ahead of the saved one while there is
// nothing to tell. After a restart that much is read again.
const unsaved = 5000

// keepSending runs a sender until ctx is done. Faults of the store and panics
// end only one attempt.
func (s *Service) keepSending(ctx context.Context, to *caller) {
	log := zerolog.Ctx(ctx).With().Str("appservice", to.reg.ID).Logger()
	ctx = log.WithContext(ctx)
	for failures := 0; ctx.Err() == nil; failures++ {
		err := s.sendOnce(ctx, to)
		if ctx.Err() != nil {
			return
		}
		log.Error().Err(err).Msg("telling the appservice stopped and begins again")
		wait(ctx, backoff(failures), nil)
	}
}

// sendOnce runs a sender until it fails.
func (s *Service) sendOnce(ctx context.Context, to *caller) (err error) {
	defer func() {
		if p := recover(); p != nil {
			zerolog.Ctx(ctx).Error().Interface("panic", p).Bytes("stack", debug.Stack()).Msg("sender panicked")
			err = fmt.Errorf("panic: %v", p)
		}
	}()
	x := &sender{Service: s, to: to, made: newBuilder(s, to.reg)}
	if err := x.load(ctx); err != nil {
		return err
	}
	return x.run(ctx)
}

// load reads how far the appservice has been told. A new one is told what comes
// from now on.
func (x *sender) load(ctx context.Context) error {
	state, ok, err := x.Store.AppserviceSender(ctx, x.to.reg.ID)
	if err != nil {
		return err
	}
	x.state, x.saved = state, state
	if !ok {
		x.state = store.AppserviceSender{Appservice: x.to.reg.ID, Pos: x.Store.Position()}
		return x.save(ctx, nil)
	}
	return nil
}

// save writes the state, together with the deletion of messages that were
// delivered.
func (x *sender) save(ctx context.Context, delivered []store.ToDevice) error {
	state := x.state
	err := x.Store.Update(ctx, func(tx *store.Tx) error {
		for _, m := range delivered {
			if err := tx.DropDelivered(ctx, m.User, m.Device, m.Num); err != nil {
				return err
			}
		}
		return tx.PutAppserviceSender(ctx, state)
	})
	if err == nil {
		x.saved = state
	}
	return err
}

// run tells the appservice of the log: listen, read behind the own position,
// send, save the position, wait.
func (x *sender) run(ctx context.Context) error {
	var delivered []store.ToDevice
	for ctx.Err() == nil {
		if x.state.Body == nil {
			rung := x.Bell.Listen(store.LogBell)
			body, upto, more, err := x.made.build(ctx, x.state.Pos)
			if err != nil {
				return err
			}
			if body == nil {
				x.state.Pos = upto
				if len(delivered) > 0 || x.saved.Body != nil || upto-x.saved.Pos > unsaved {
					if err := x.save(ctx, delivered); err != nil {
						return err
					}
					delivered = nil
				}
				if !more {
					wait(ctx, math.MaxInt64, rung)
				}
				continue
			}
			x.state.Txn++
			x.state.Upto, x.state.Body = upto, body
			if err := x.save(ctx, delivered); err != nil {
				return err
			}
		}
		if !x.deliver(ctx) {
			return nil
		}
		delivered = deliveredMessages(x.state)
		x.state.Pos, x.state.Body = x.state.Upto, nil
	}
	return nil
}

// deliveredMessages are the to-device messages of a transaction that went
// through: the newest one of each device, up to which all are gone.
func deliveredMessages(state store.AppserviceSender) []store.ToDevice {
	var body struct {
		ToDevice []struct {
			User   matrix.UserID   `json:"to_user_id"`
			Device matrix.DeviceID `json:"to_device_id"`
		} `json:"to_device"`
	}
	if json.Unmarshal(state.Body, &body) != nil { // we wrote it ourselves
		return nil
	}
	var list []store.ToDevice
	for _, m := range body.ToDevice {
		list = append(list, store.ToDevice{User: m.User, Device: m.Device, Num: state.Upto})
	}
	return list
}

// deliver sends the transaction under way until the appservice has taken it. It
// gives false if ctx was done before.
//
// Spec: https://spec.matrix.org/v1.19/application-service-api/#pushing-events
func (x *sender) deliver(ctx context.Context) bool {
	log := zerolog.Ctx(ctx)
	txn := url.PathEscape(strconv.FormatInt(x.state.Txn, 10))
	for failures := 0; ; failures++ {
		err := x.attempt(ctx, txn)
		switch {
		case ctx.Err() != nil && err != nil:
			return false
		case err == nil:
			if failures > 0 {
				log.Info().Int("attempts", failures+1).Msg("the appservice takes transactions again")
			}
			return true
		case failures == 0:
			log.Warn().Err(err).Int64("txn", x.state.Txn).Msg("the appservice does not take a transaction")
		default:
			log.Debug().Err(err).Int64("txn", x.state.Txn).Int("attempts", failures+1).Msg("the appservice does not take a transaction")
		}
		if !wait(ctx, backoff(failures), x.to.wake) {
			return false
		}
	}
}

func (x *sender) attempt(ctx context.Context, txn string) error {
	ctx, cancel := context.WithTimeout(ctx, deliverTimeout)
	defer cancel()
	a, err := x.to.do(ctx, call{
		method: http.MethodPut, path: "/_matrix/app/v1/transactions/" + txn, old: "/transactions/" + txn, body: x.state.Body,
	})
	if err != nil {
		return err
	}
	if !a.ok() {
		return fmt.Errorf("status %d", a.status)
	}
	return nil
}

// backoff is how long to wait after failures+1 attempts: twice as long each
// time, and not all at the same moment.
func backoff(failures int) time.Duration {
	d := lastRetry
	if failures < 9 {
		d = min(firstRetry<<failures, lastRetry)
	}
	return d - time.Duration(rand.Int64N(int64(d/5)))
}

// wait waits for a while or until wake, and tells whether ctx is not done.
func wait(ctx context.Context, d time.Duration, wake <-chan struct{}) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
	case <-wake:
	}
	return true
}
