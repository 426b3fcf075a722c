package browser

import (
	"fmt"
	"testing"

	"switchboard/cmd/dev/chromium"
	"switchboard/cmd/dev/instance"
	"switchboard/homeserver/database/databasetest"
)

// TestConversation lets Alice, on a computer and on a phone, and Bob speak in an
// encrypted room.
func TestConversation(t *testing.T) {
	app, binary := buildApp(t), instance.Binary(t)
	databasetest.EachURL(t, func(t *testing.T, database string) {
		w := newWorld(t, binary, app, database)
		b := chromium.Start(t, nil)
		alice, bob, phone := w.person(b, "alice"), w.person(b, "bob"), w.person(b, "phone")
		w.createUser("bob")
		alice.register("alice", w.Run("token", "create"))
		bob.logIn("bob")
		meet(w, alice, bob)
		write(alice, bob)
		thread(alice, bob)
		alice.Choose(`document.querySelector(".mx_MessageComposer input[type=file]")`, w.picture())
		alice.press("Upload")
		bob.Until(pictured)
		bob.Picture("room")
		phone.logIn("alice")
		verify(t, alice, phone)
		restore(phone)
		count(w, alice, bob, phone)
		w.succeeded()
	})
}

// pictured is that the picture is seen.
const pictured = `find(".mx_MImageBody img")?.naturalWidth === 240`

// meet lets Alice make an encrypted room and invite Bob.
func meet(w *world, alice, bob *person) {
	alice.Navigate(w.screen("new"))
	alice.fill(".mx_CreateRoomDialog_name input", "Kitchen")
	alice.press("Create room")
	alice.secure()
	alice.say(inRoom, "/invite @bob:localhost")
	bob.enters("Kitchen")
	bob.press("Accept")
	bob.press("Later") // to secure his keys
	alice.sees(".mx_EventTile", "/bob joined/")
}

// write lets them send, edit, reply and react.
func write(alice, bob *person) {
	alice.say(inRoom, "Good morning, Bob!")
	bob.reads("Good morning, Bob!")
	alice.act("Good morning, Bob!", "Edit")
	alice.Until(`document.activeElement.closest(".mx_EditMessageComposer")?.textContent.includes("Good morning, Bob!") === true`)
	alice.Type(" Did you sleep well?")
	alice.press("Save")
	bob.reads("Good morning, Bob! Did you sleep well?")
	bob.sees(".mx_EventTile_edited", quote("(edited)"))
	bob.act("Good morning, Bob! Did you sleep well?", "Reply")
	bob.sees(".mx_ReplyPreview", "/Did you sleep well/")
	bob.say(inRoom, "Like a stone.")
	alice.reads("Like a stone.")
	alice.sees(".mx_ReplyTile", "/Did you sleep well/")
	alice.act("Like a stone.", "React")
	alice.Click(element(".mx_EmojiPicker_item", "/^👍/"))
	bob.sees(".mx_ReactionsRowButton", "/👍.*1/")
}

// thread lets Bob begin a thread.
func thread(alice, bob *person) {
	bob.act("Like a stone.", "Reply in thread")
	bob.say(inThread, "And you?")
	alice.sees(".mx_ThreadSummary", "/1 reply.*And you/")
	alice.Click(element(".mx_ThreadSummary", "/And you/"))
	alice.say(inThread, "Well, thank you.")
	bob.sees(inThread+" .mx_EventTile_body", quote("Well, thank you."))
}

// verify lets somebody trust their new login by an older one, which has to know it
// already: both show the same emoji.
func verify(t *testing.T, old, login *person) {
	login.sees("[role=button]", quote("Verify with another device"))
	var id string
	login.Eval("mxMatrixClientPeg.get().getDeviceId()", &id)
	old.Until(fmt.Sprintf(`(async (me, id) => (await mxMatrixClientPeg.get().getCrypto().getUserDeviceInfo([me])).get(me).has(id))(%q, %q)`, "@alice:localhost", id))
	login.press("Verify with another device")
	old.press("Verify Session")
	old.press("Start")
	here, there := old.emoji(), login.emoji()
	login.Picture("verification")
	if here != there {
		t.Errorf("one device shows %s, the other %s", here, there)
	}
	old.press("They match")
	login.press("They match")
	old.press("Got it")
	login.press("Got it")
}

// restore lets the phone read what was said before it was there, by the backup
// whose key it got when it was verified. The preview of a thread that it could
// not decrypt at first stays so until the application starts again.
func restore(phone *person) {
	phone.enters("Kitchen")
	phone.reads("Like a stone.")
	phone.Must("Page.reload", nil, nil)
	phone.sees(".mx_ThreadSummary", "/2 replies.*Well, thank you/")
	phone.sees(".mx_ReactionsRowButton", "/👍.*1/")
	phone.Until(pictured)
	phone.Picture("restored")
}

// count lets Bob write while nobody looks, and Alice read it on one device.
func count(w *world, alice, bob, phone *person) {
	alice.Navigate(w.screen("home"))
	phone.Navigate(w.screen("home"))
	bob.say(inRoom, "Breakfast is ready!")
	bob.say(inRoom, "The coffee gets cold.")
	for _, p := range []*person{alice, phone} {
		p.sees(".mx_RoomTile .mx_NotificationBadge", quote("2"))
		p.Picture("unread-" + p.device)
	}
	alice.enters("Kitchen")
	alice.reads("The coffee gets cold.")
	phone.misses(".mx_RoomTile .mx_NotificationBadge", quote("2"))
}
