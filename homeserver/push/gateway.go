package push

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"

	"switchboard/homeserver/fedclient"

	"switchboard/homeserver/matrix"
)

// notification is what a gateway is told. Bodies never reach a log.
//
// Spec: https://spec.matrix.org/v1.19/push-gateway-api/#post_matrixpushv1notify
type notification struct {
	Event      matrix.EventID  `json:"event_id,omitempty"`
	Room       matrix.RoomID   `json:"room_id,omitempty"`
	Type       string          `json:"type,omitempty"`
	Sender     matrix.UserID   `json:"sender,omitempty"`
	SenderName string          `json:"sender_display_name,omitempty"`
	RoomName   string          `json:"room_name,omitempty"`
	RoomAlias  string          `json:"room_alias,omitempty"`
	Target     bool            `json:"user_is_target,omitempty"`
	Prio       string          `json:"prio,omitempty"`
	Content    json.RawMessage `json:"content,omitempty"`
	Counts     counts          `json:"counts"`
	Devices    []device        `json:"devices"`
}

type counts struct {
	Unread int `json:"unread"` // 0 is told, too: it clears the badge
}

type device struct {
	AppID   string                     `json:"app_id"`
	Pushkey string                     `json:"pushkey"`
	TS      int64                      `json:"pushkey_ts"` // seconds
	Data    map[string]json.RawMessage `json:"data"`
	Tweaks  map[string]json.RawMessage `json:"tweaks,omitempty"`
}

// largestContent bounds the content that a gateway gets, in bytes: those of the
// phone makers take 4 kB in all.
const largestContent = 4 << 10

// notification makes what the gateway is told of it, or of the badge alone.
func (w *worker) notification(ctx context.Context, it *item, badge int) (*notification, error) {
	data := w.data()
	format := data["format"]
	delete(data, "url")
	d := device{AppID: w.pusher.AppID, Pushkey: w.pusher.Pushkey, TS: w.pusher.CreatedTS / 1000, Data: data}
	n := &notification{Counts: counts{badge}, Devices: []device{d}}
	if it == nil {
		return n, nil
	}
	e := it.event.PDU
	n.Event, n.Room = e.ID, e.Room
	if n.Prio = "low"; it.actions.Highlight || it.actions.Sound != "" || e.Type == "m.room.encrypted" {
		n.Prio = "high"
	}
	if string(format) == `"event_id_only"` {
		return n, nil
	}
	n.Type, n.Sender, n.Target = e.Type, e.Sender, e.Is("m.room.member", string(w.pusher.User))
	n.Devices[0].Tweaks = it.actions.Tweaks()
	if len(e.Content) <= largestContent {
		n.Content = e.Content
	}
	var err error
	n.SenderName, n.RoomName, n.RoomAlias, err = w.names(ctx, it)
	return n, err
}

// names are what people call the sender and the room.
func (w *worker) names(ctx context.Context, it *item) (sender, name, alias string, err error) {
	for _, want := range []struct {
		typ, key, field string
		to              *string
	}{
		{"m.room.member", string(it.event.PDU.Sender), "displayname", &sender},
		{"m.room.name", "", "name", &name},
		{"m.room.canonical_alias", "", "alias", &alias},
	} {
		e, err := w.Rooms.StateEvent(ctx, it.room.Current, want.typ, want.key)
		if err != nil {
			return "", "", "", err
		}
		if e != nil {
			*want.to = e.PDU.ContentString(want.field)
		}
	}
	return sender, name, alias, nil
}

// data is the pusher's data, a copy.
func (w *worker) data() map[string]json.RawMessage {
	var data map[string]json.RawMessage
	if json.Unmarshal(w.pusher.Data, &data) != nil { // it was checked when it came
		return map[string]json.RawMessage{}
	}
	return maps.Clone(data)
}

// largestAnswer bounds what is read of a gateway's answer, in bytes.
const largestAnswer = 64 << 10

// post sends a notification and gives the push keys that the gateway rejects.
func (w *worker) post(ctx context.Context, n *notification) ([]string, error) {
	body, err := json.Marshal(map[string]*notification{"notification": n})
	if err != nil {
		return nil, err
	}
	var gateway string
	if err := json.Unmarshal(w.data()["url"], &gateway); err != nil {
		return nil, fmt.Errorf("url of the pusher: %w", err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPost, gateway, bytes.NewReader(body))
	if err != nil {
		return nil, err
	}
	r.Header.Set("Content-Type", "application/json")
	answer, err := w.Client.Do(r)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", r.URL.Host, fedclient.WithoutURL(err))
	}
	defer answer.Body.Close()
	b, err := io.ReadAll(io.LimitReader(answer.Body, largestAnswer))
	if answer.StatusCode/100 != 2 {
		return nil, fmt.Errorf("status %d", answer.StatusCode)
	}
	if err != nil {
		return nil, err
	}
	var said struct {
		Rejected []string `json:"rejected"`
	}
	if err := json.Unmarshal(b, &said); err != nil {
		return nil, fmt.Errorf("answer of the gateway: %w", err)
	}
	return said.Rejected, nil
}
