package whatsapp

import (
	"context"
	"encoding/json"
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

	"switchboard/bridges/bridge"
)

// The ways to log in, their steps, and the field in them.
const (
	flowQR   = "qr"
	flowCode = "code"

	stepQR       = "switchboard.whatsapp.qr"
	stepPhone    = "switchboard.whatsapp.phone"
	stepCode     = "switchboard.whatsapp.code"
	stepPasskey  = "switchboard.whatsapp.passkey"
	stepHandoff  = "switchboard.whatsapp.handoff"
	stepComplete = "switchboard.whatsapp.complete"

	fieldPhone = "phone"
)

// GetLoginFlows implements bridgev2.NetworkConnector.
func (c *Connector) GetLoginFlows() []bridgev2.LoginFlow {
	return []bridgev2.LoginFlow{
		{ID: flowQR, Name: "QR code", Description: "Scan a QR code with your phone"},
		{ID: flowCode, Name: "Pairing code", Description: "Enter a code of eight letters in your phone"},
	}
}

// CreateLogin implements bridgev2.NetworkConnector.
func (c *Connector) CreateLogin(_ context.Context, user *bridgev2.User, flow string) (bridgev2.LoginProcess, error) {
	if flow != flowQR && flow != flowCode {
		return nil, bridgev2.ErrInvalidLoginFlowID
	}
	l := &login{connector: c, user: user, byCode: flow == flowCode, events: make(chan any, 16)}
	l.client = c.client(c.store.NewDevice(), user.Log)
	l.client.DisableLoginAutoReconnect = true // the session connects, with a client of its own
	l.client.InitialAutoReconnect = false
	l.client.AddEventHandler(l.keep)
	return l, nil
}

// login links a new device to a WhatsApp account.
type login struct {
	connector *Connector
	user      *bridgev2.User
	client    *whatsmeow.Client
	byCode    bool
	events    chan any
	codes     []string // QR codes that were not shown yet
	shown     int
	paired    *events.PairSuccess
}

var (
	_ bridgev2.LoginProcessDisplayAndWait = (*login)(nil)
	_ bridgev2.LoginProcessUserInput      = (*login)(nil)
	_ bridgev2.LoginProcessWebAuthn       = (*login)(nil)
)

// keep takes the events that matter, and never waits for anybody.
func (l *login) keep(e any) {
	switch e.(type) {
	case *events.QR, *events.PairSuccess, *events.PairError, *events.ManualLoginReconnect, *events.ClientOutdated,
		*events.QRScannedWithoutMultidevice, *events.PairPasskeyRequest, *events.PairPasskeyConfirmation,
		*events.PairPasskeyError, *events.Disconnected, *events.ConnectFailure, *events.TemporaryBan:
		select {
		case l.events <- e:
		default:
		}
	}
}

// Start implements bridgev2.LoginProcess.
func (l *login) Start(ctx context.Context) (*bridgev2.LoginStep, error) {
	if !l.byCode {
		return l.connect(ctx)
	}
	return &bridgev2.LoginStep{
		Type: bridgev2.LoginStepTypeUserInput, StepID: stepPhone,
		Instructions: "WhatsApp wants to know the phone number of the account to show a code for it.",
		UserInputParams: &bridgev2.LoginUserInputParams{Fields: []bridgev2.LoginInputDataField{{
			Type: bridgev2.LoginInputFieldTypePhoneNumber, ID: fieldPhone, Name: "phone number",
			Description: "With the country code, such as +49 151 23456789.",
		}}},
	}, nil
}

// SubmitUserInput implements bridgev2.LoginProcessUserInput.
func (l *login) SubmitUserInput(ctx context.Context, in map[string]string) (*bridgev2.LoginStep, error) {
	if _, err := l.connect(ctx); err != nil {
		return nil, err
	}
	code, err := l.client.PairPhone(ctx, in[fieldPhone], true, whatsmeow.PairClientChrome, "Chrome (Linux)")
	if err != nil {
		l.Cancel()
		if errors.Is(err, whatsmeow.ErrPhoneNumberTooShort) || errors.Is(err, whatsmeow.ErrPhoneNumberIsNotInternational) {
			return nil, errors.New("that is no phone number with a country code, such as +49 151 23456789")
		}
		return nil, fmt.Errorf("WhatsApp gives no code for this number: %w", err)
	}
	return &bridgev2.LoginStep{
		Type: bridgev2.LoginStepTypeDisplayAndWait, StepID: stepCode,
		Instructions:         "On your phone open WhatsApp, Settings, Linked devices, Link a device, Link with phone number instead, and enter this code.",
		DisplayAndWaitParams: &bridgev2.LoginDisplayAndWaitParams{Type: bridgev2.LoginDisplayTypeCode, Data: code},
	}, nil
}

// connectTimeout is how long WhatsApp may take to answer.
const connectTimeout = 30 * time.Second

// connect opens the connection and returns the step that shows the first code.
func (l *login) connect(ctx context.Context) (*bridgev2.LoginStep, error) {
	if err := l.client.Connect(); err != nil {
		return nil, fmt.Errorf("WhatsApp can not be reached: %w", err)
	}
	select {
	case e := <-l.events:
		if qr, ok := e.(*events.QR); ok {
			l.codes = qr.Codes
			return l.nextQR()
		}
		return nil, l.fail(e)
	case <-time.After(connectTimeout):
		l.Cancel()
		return nil, errors.New("WhatsApp does not answer, try again later")
	case <-ctx.Done():
		l.Cancel()
		return nil, ctx.Err()
	}
}

// nextQR shows the next code.
func (l *login) nextQR() (*bridgev2.LoginStep, error) {
	if len(l.codes) == 0 {
		l.Cancel()
		return nil, errors.New("no phone has scanned a code in time; say `login qr` for new ones")
	}
	code := l.codes[0]
	l.codes = l.codes[1:]
	l.shown++
	return &bridgev2.LoginStep{
		Type: bridgev2.LoginStepTypeDisplayAndWait, StepID: stepQR,
		Instructions:         "On your phone open WhatsApp, Settings, Linked devices, Link a device, and scan this code.",
		DisplayAndWaitParams: &bridgev2.LoginDisplayAndWaitParams{Type: bridgev2.LoginDisplayTypeQR, Data: code},
	}, nil
}

// WhatsApp takes each QR code for codeTime, but the first one for three times
// that; a pairing code for as long as several of them.
const (
	codeTime    = 20 * time.Second
	firstCode   = 3
	pairingCode = 8
)

// Wait implements bridgev2.LoginProcessDisplayAndWait.
func (l *login) Wait(ctx context.Context) (*bridgev2.LoginStep, error) {
	patience := l.connector.codeTime
	switch {
	case l.byCode:
		patience *= pairingCode
	case l.shown <= 1:
		patience *= firstCode
	}
	timer := time.NewTimer(patience)
	defer timer.Stop()
	for {
		select {
		case e := <-l.events:
			if step, err := l.take(ctx, e); step != nil || err != nil {
				return step, err
			}
		case <-timer.C:
			if l.paired != nil {
				return l.complete(ctx)
			}
			if l.byCode {
				l.Cancel()
				return nil, errors.New("the code was not entered in time; say `login code` for a new one")
			}
			return l.nextQR()
		case <-ctx.Done():
			l.Cancel()
			return nil, ctx.Err()
		}
	}
}

// take handles what happens while somebody waits. Nothing and no error means
// that there is more to wait for.
func (l *login) take(ctx context.Context, e any) (*bridgev2.LoginStep, error) {
	switch e := e.(type) {
	case *events.PairSuccess:
		l.paired = e
		return nil, nil
	case *events.ManualLoginReconnect:
		return l.complete(ctx)
	case *events.PairPasskeyRequest:
		key, err := json.Marshal(e.PublicKey)
		if err != nil {
			return nil, l.fail(e)
		}
		return &bridgev2.LoginStep{
			Type: bridgev2.LoginStepTypeWebAuthn, StepID: stepPasskey,
			Instructions:   "WhatsApp asks for the passkey of this account.",
			WebAuthnParams: &bridgev2.LoginWebAuthnParams{URL: "https://web.whatsapp.com/", PublicKey: key},
		}, nil
	case *events.PairPasskeyConfirmation:
		return l.confirm(ctx, e)
	case *events.QRScannedWithoutMultidevice:
		return nil, l.fail(e)
	case *events.Disconnected:
		if l.paired != nil {
			return l.complete(ctx)
		}
		return nil, l.fail(e)
	default:
		return nil, l.fail(e)
	}
}

// fail ends the login and tells why in plain words.
func (l *login) fail(e any) error {
	l.Cancel()
	switch e := e.(type) {
	case *events.ClientOutdated:
		return errors.New("this version of the bridge is too old for WhatsApp; whoever runs this server must update it")
	case *events.PairError:
		return fmt.Errorf("the phone and the bridge do not agree: %w; try again", e.Error)
	case *events.QRScannedWithoutMultidevice:
		return errors.New("your phone's WhatsApp is too old to link devices; update it and try again")
	case *events.PairPasskeyError:
		return fmt.Errorf("the passkey was not accepted: %w", e.Error)
	case *events.Disconnected:
		return errors.New("WhatsApp has closed the connection; try again")
	case *events.TemporaryBan:
		return errors.New(banText(e))
	case *events.ConnectFailure:
		return fmt.Errorf("WhatsApp refuses: %s", e.Reason)
	default:
		return fmt.Errorf("WhatsApp said something unexpected (%T); try again", e)
	}
}

// SubmitWebAuthnResponse implements bridgev2.LoginProcessWebAuthn.
func (l *login) SubmitWebAuthnResponse(ctx context.Context, response json.RawMessage) (*bridgev2.LoginStep, error) {
	var answer types.WebAuthnResponse
	if err := json.Unmarshal(response, &answer); err != nil {
		return nil, fmt.Errorf("that is not what a passkey answers: %w", err)
	}
	if err := l.client.SendPasskeyResponse(ctx, &answer); err != nil {
		l.Cancel()
		return nil, fmt.Errorf("the passkey was not accepted: %w", err)
	}
	return l.Wait(ctx)
}

// confirm goes on after a passkey, and shows the code that the phone shows too,
// if there is one.
func (l *login) confirm(ctx context.Context, e *events.PairPasskeyConfirmation) (*bridgev2.LoginStep, error) {
	if err := l.client.SendPasskeyConfirmation(ctx); err != nil {
		l.Cancel()
		return nil, fmt.Errorf("the passkey was not accepted: %w", err)
	}
	if e.SkipHandoffUX {
		return nil, nil
	}
	return &bridgev2.LoginStep{
		Type: bridgev2.LoginStepTypeDisplayAndWait, StepID: stepHandoff,
		Instructions:         "Your phone shows a code. Confirm there only if it is this one.",
		DisplayAndWaitParams: &bridgev2.LoginDisplayAndWaitParams{Type: bridgev2.LoginDisplayTypeCode, Data: e.Code},
	}, nil
}

// Cancel implements bridgev2.LoginProcess.
func (l *login) Cancel() {
	l.client.RemoveEventHandlers()
	l.client.Disconnect()
}

// complete makes the login and lets its session connect.
func (l *login) complete(ctx context.Context) (*bridgev2.LoginStep, error) {
	l.Cancel()
	store := l.client.Store
	if store.ID == nil || store.LID.IsEmpty() {
		return nil, errors.New("WhatsApp did not tell which account this is; try again")
	}
	meta := &LoginMetadata{Device: *store.ID}
	name := "+" + store.ID.User
	ul, err := l.user.NewLogin(ctx, &database.UserLogin{ID: loginID(store.LID), RemoteName: name, Metadata: meta}, &bridgev2.NewLoginParams{
		DeleteOnConflict: true,
		LoadUserLogin: func(ctx context.Context, ul *bridgev2.UserLogin) error {
			if old, ok := ul.Client.(*session); ok { // what it needs to end is locked here
				bridge.Go(ctx, "end the old session", func() error { old.replaced(ctx, meta.Device); return nil })
			}
			return l.connector.LoadUserLogin(ctx, ul)
		},
	})
	if err != nil {
		return nil, err
	}
	zerolog.Ctx(ctx).Info().Str("user", string(l.user.MXID)).Msg("linked to a WhatsApp account")
	ul.Client.Connect(ul.Log.WithContext(l.connector.br.BackgroundCtx))
	return &bridgev2.LoginStep{
		Type: bridgev2.LoginStepTypeComplete, StepID: stepComplete,
		Instructions: strings.Join([]string{
			"You are linked as " + name + ".",
			"Your chats appear here as your phone sends them, and whenever something is written in one.",
			"Say `start-chat +number` to write to somebody.",
		}, " "),
		CompleteParams: &bridgev2.LoginCompleteParams{UserLoginID: ul.ID, UserLogin: ul},
	}, nil
}
