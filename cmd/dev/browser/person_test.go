package browser

import (
	"fmt"
	"net/url"
	"strings"
	"time"

	"switchboard/cmd/dev/chromium"
)

// person is somebody's application on one device: what they do and see.
type person struct {
	*chromium.Page
	device string
}

// person opens the application on a device, with nobody logged in.
func (w *world) person(b *chromium.Browser, device string) *person {
	p := &person{Page: b.Open(w.screen("login")), device: device}
	p.Look(1200, 800, "light")
	w.t.Cleanup(func() {
		if w.t.Failed() {
			p.Picture("end-" + device)
		}
	})
	return p
}

// screen is the address of a screen of the application.
func (w *world) screen(name string) string {
	return w.app + "/?" + url.Values{"server": {w.address}}.Encode() + "#/" + name
}

// element is an expression for the last visible element of a kind whose text,
// label or value is as wanted: a JavaScript string for all of it, or a regular
// expression.
func element(css, text string) string { return fmt.Sprintf("find(%q, %s)", css, text) }

func quote(text string) string { return fmt.Sprintf("%q", text) }

// fill writes into a field.
func (p *person) fill(field, text string) {
	p.Click(element(field, "/(?:)/"))
	p.Type(text)
}

// press clicks on a button by its whole text.
func (p *person) press(text string) {
	p.Click(element("button, input[type=submit], [role=button], [role=menuitem]", quote(text)))
}

// sees waits for an element.
func (p *person) sees(css, text string) { p.Until(fmt.Sprintf("Boolean(%s)", element(css, text))) }

// misses waits until there is no such element.
func (p *person) misses(css, text string) { p.Until(fmt.Sprintf("!%s", element(css, text))) }

// reads waits for a message.
func (p *person) reads(text string) { p.sees(".mx_EventTile_body", quote(text)) }

// say sends a message, in the room or, if that is where, in its open thread.
func (p *person) say(where, text string) {
	p.fill(where+" .mx_SendMessageComposer [contenteditable]", text)
	p.Enter()
}

const (
	inRoom   = ".mx_RoomView_body"
	inThread = ".mx_ThreadView"
)

// act does something with a message, by the buttons that stand above it while the
// mouse is on it. The button is pressed as soon as it is seen: when the messages
// move under the mouse it is gone.
func (p *person) act(message, action string) {
	const press = `(() => { const button = %s; button?.click(); return button !== null; })()`
	button, pressed := element(".mx_MessageActionBar [role=button]", quote(action)), false
	for end := time.Now().Add(chromium.Patience); !pressed && time.Now().Before(end); {
		p.Point(element(".mx_EventTile_body", quote(message)))
		p.Eval(fmt.Sprintf(press, button), &pressed)
	}
	if !pressed {
		p.Click(button) // which says what the page shows instead
	}
}

// enters opens a room.
func (p *person) enters(room string) { p.Click(element(".mx_RoomTile", "/"+room+"/")) }

// register makes the first account, with the token that its screen asks for.
func (p *person) register(name, token string) {
	p.press("Create an account")
	p.fill("#mx_RegistrationForm_username", name)
	p.fill("#mx_RegistrationForm_password", password)
	p.fill("#mx_RegistrationForm_passwordConfirm", password)
	p.press("Register")
	p.fill("input[name=registrationTokenField]", strings.TrimSpace(token))
	p.press("Continue")
	p.press("Skip") // whom one will write with
	p.sees(".mx_LeftPanel", "/Home/")
}

// logIn logs in to an account.
func (p *person) logIn(name string) {
	p.fill("#mx_LoginForm_username", name)
	p.fill("#mx_LoginForm_password", password)
	p.press("Sign in")
}

// secure stores the keys of the account on the server, under a key that the
// person keeps.
func (p *person) secure() {
	p.sees(".mx_Toast_title", quote("Set up Secure Backup"))
	p.press("Continue")
	p.sees(".mx_Dialog_title", quote("Set up Secure Backup"))
	p.press("Continue")
	p.sees(".mx_Dialog_title", quote("Save your Security Key"))
	p.press("Copy")
	p.press("Continue")
	p.press("Done")
}

// emoji are the seven by which a person knows that two devices speak with each
// other.
func (p *person) emoji() string {
	const shown = ".mx_VerificationShowSas_emojiSas_block"
	p.sees(shown, "/./")
	var text string
	p.Eval(fmt.Sprintf(`[...document.querySelectorAll(%q)].map((e) => e.textContent).join(" ")`, shown), &text)
	return text
}
