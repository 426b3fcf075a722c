package jitsi

import (
	"cmp"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"

	"switchboard/homeserver/matrix"
	"switchboard/homeserver/room"
)

// widgetType is the type of the state events that hold a room's widgets.
const widgetType = "im.vector.modular.widgets"

// Widgets puts calls into rooms and takes them away.
type Widgets struct {
	Config Config
	Rooms  *room.Service
	HTTP   *http.Client // asks the Jitsi server how members prove who they are
}

// Widget is a call in a room.
type Widget struct {
	ID      string // the state key
	Sender  matrix.UserID
	content widgetContent
}

// widgetContent is the content of its event, as Element writes it.
type widgetContent struct {
	Type string     `json:"type"`
	Name string     `json:"name"`
	URL  string     `json:"url"`
	Data widgetData `json:"data"`
}

type widgetData struct {
	Conference string `json:"conferenceId"`
	RoomName   string `json:"roomName,omitempty"`
	AudioOnly  bool   `json:"isAudioOnly"`
	VideoRoom  bool   `json:"isVideoChannel"`
	Domain     string `json:"domain"`
	Auth       string `json:"auth,omitempty"`
}

// Call is a call to put into a room.
type Call struct {
	Room  matrix.RoomID
	Name  string        // what the widget is called; "": Jitsi
	Audio bool          // without pictures
	As    matrix.UserID // who puts it there; "": whoever of this server has the most power in the room
}

// Add puts a call into a room, unless it is there already, and takes away calls
// that are stale. It tells what became of the room, line by line.
func (w *Widgets) Add(ctx context.Context, c Call) (done []string, err error) {
	actor, list, err := w.list(ctx, c.Room, c.As)
	if err != nil {
		return nil, err
	}
	content, err := w.content(ctx, actor, c)
	if err != nil {
		return nil, err
	}
	there := false
	for _, old := range list {
		reason, err := w.stale(ctx, c.Room, old)
		switch {
		case err != nil:
			return done, err
		case reason == "" && old.content.Data.Auth == content.Data.Auth && !there:
			there = true
			done = append(done, "the call of "+string(old.Sender)+" is there already")
			continue
		case reason == "":
			reason = "there is another one"
		}
		if err := w.remove(ctx, actor, c.Room, old); err != nil {
			return done, err
		}
		done = append(done, fmt.Sprintf("removed the call of %s: %s", old.Sender, reason))
	}
	if there {
		return done, nil
	}
	if err := w.send(ctx, actor, c.Room, rand.Text()[:24], content); err != nil {
		return done, err
	}
	return append(done, fmt.Sprintf("%s put a call into the room", actor)), nil
}

// Remove takes all calls out of a room, or only those that are stale. As is who
// does it, "" as in a Call. It tells what was removed, line by line.
func (w *Widgets) Remove(ctx context.Context, id matrix.RoomID, as matrix.UserID, onlyStale bool) (done []string, err error) {
	actor, list, err := w.list(ctx, id, as)
	if err != nil {
		return nil, err
	}
	for _, old := range list {
		reason, err := w.stale(ctx, id, old)
		if err != nil {
			return done, err
		}
		if reason == "" && onlyStale {
			continue
		}
		if err := w.remove(ctx, actor, id, old); err != nil {
			return done, err
		}
		if reason != "" {
			reason = ": " + reason
		}
		done = append(done, fmt.Sprintf("removed the call of %s%s", old.Sender, reason))
	}
	return done, nil
}

// list gives the calls in a room, the newest first, and who will change them.
func (w *Widgets) list(ctx context.Context, id matrix.RoomID, as matrix.UserID) (actor matrix.UserID, list []Widget, err error) {
	if actor = as; actor == "" {
		if actor, err = w.Rooms.Ablest(ctx, id, widgetType); err != nil {
			return "", nil, err
		}
	}
	if actor == "" {
		return "", nil, matrix.Errorf(matrix.Forbidden, "nobody of this server has the power to change the widgets of %s; let somebody there give it to a member", id)
	}
	events, err := w.Rooms.StateOfType(ctx, actor, id, widgetType)
	if err != nil {
		return "", nil, err
	}
	for _, e := range events {
		old := Widget{ID: *e.PDU.StateKey, Sender: e.PDU.Sender}
		if json.Unmarshal(e.PDU.Content, &old.content) != nil {
			continue // whatever that is
		}
		if old.content.Type == "jitsi" || old.content.Type == "m.jitsi" {
			list = append([]Widget{old}, list...)
		}
	}
	return actor, list, nil
}

// stale tells why a call cannot be joined any more, or by others than those of
// the room; "" if all is well.
func (w *Widgets) stale(ctx context.Context, id matrix.RoomID, old Widget) (string, error) {
	data := old.content.Data
	switch {
	case !strings.EqualFold(data.Domain, w.Config.Domain):
		return fmt.Sprintf("it is at %q", data.Domain), nil
	case data.Auth == Authentication && !strings.EqualFold(data.Conference, Conference(id)):
		return "it is that of another room", nil
	}
	levels, err := w.Rooms.Standing(ctx, id, old.Sender)
	if err == nil && levels == nil {
		return "who began it has left", nil
	}
	return "", err
}

func (w *Widgets) remove(ctx context.Context, actor matrix.UserID, id matrix.RoomID, old Widget) error {
	return w.send(ctx, actor, id, old.ID, struct{}{})
}

func (w *Widgets) send(ctx context.Context, actor matrix.UserID, id matrix.RoomID, key string, content any) error {
	b, err := json.Marshal(content)
	if err == nil {
		_, err = w.Rooms.Send(ctx, room.Sending{User: actor, Room: id, Type: widgetType, StateKey: &key, Content: b})
	}
	return err
}

// content is what a call looks like to clients. They fill in what begins with $.
func (w *Widgets) content(ctx context.Context, actor matrix.UserID, c Call) (widgetContent, error) {
	auth, err := w.authentication(ctx)
	if err != nil {
		return widgetContent{}, err
	}
	conference := Conference(c.Room)
	if auth != Authentication { // nobody is kept out who knows the name
		conference = "Jitsi" + rand.Text()[:24]
	}
	fragment := "conferenceDomain=$domain&conferenceId=$conferenceId&isAudioOnly=$isAudioOnly&startWithAudioMuted=$startWithAudioMuted" +
		"&startWithVideoMuted=$startWithVideoMuted&isVideoChannel=$isVideoChannel&displayName=$matrix_display_name&avatarUrl=$matrix_avatar_url" +
		"&userId=$matrix_user_id&roomId=$matrix_room_id&theme=$theme&roomName=$roomName&supportsScreensharing=true" +
		"&language=$org.matrix.msc2873.client_language"
	if auth != "" {
		fragment += "&auth=" + url.QueryEscape(auth)
	}
	names, err := w.Rooms.StateOfType(ctx, actor, c.Room, "m.room.name")
	if err != nil {
		return widgetContent{}, err
	}
	var name string
	for _, e := range names { // one, at most
		name = e.PDU.ContentString("name")
	}
	return widgetContent{
		Type: "jitsi", Name: cmp.Or(c.Name, "Jitsi"), URL: w.Config.Page + "?confId=" + conference + "#" + fragment,
		Data: widgetData{Conference: conference, RoomName: name, AudioOnly: c.Audio, Domain: w.Config.Domain, Auth: auth},
	}, nil
}

// authentication asks the Jitsi server how members prove who they are; "" if
// they need not.
func (w *Widgets) authentication(ctx context.Context) (string, error) {
	if w.Config.Domain == "" {
		return "", errors.New("no Jitsi server is configured; set jitsi.domain")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "https://"+w.Config.Domain+WellKnownPath, nil)
	if err != nil {
		return "", err
	}
	body, _, err := fetch(w.HTTP, r)
	var status *statusError
	if errors.As(err, &status) && status.status == http.StatusNotFound {
		return "", nil
	}
	var answer struct {
		Auth string `json:"auth"`
	}
	if err == nil {
		err = json.Unmarshal(body, &answer)
	}
	if err != nil {
		return "", fmt.Errorf("ask %s how members prove who they are: %w", w.Config.Domain, err)
	}
	return answer.Auth, nil
}
