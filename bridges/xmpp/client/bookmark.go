package client

import (
	"context"
	"errors"
	"slices"
	"strconv"

	"mellium.im/xmpp/jid"
)

// Bookmark is a room that the account's clients know, and enter by themselves if
// AutoJoin is set (XEP-0402).
type Bookmark struct {
	Room       jid.JID
	Name, Nick string
	Password   string
	AutoJoin   bool
	Extensions *Element // of other clients, kept as they are
}

// element is a bookmark in either form; a child has no name space of its own.
func (b Bookmark) element(space string) *Element {
	e := El(space, "conference", b.Extensions).Set("name", b.Name, "autojoin", strconv.FormatBool(b.AutoJoin))
	if b.Nick != "" {
		e.Add(El("", "nick", b.Nick))
	}
	if b.Password != "" {
		e.Add(El("", "password", b.Password))
	}
	return e
}

// bookmark reads either form.
func bookmark(room string, e *Element) (Bookmark, bool) {
	j, err := jid.Parse(room)
	if err != nil || e == nil || j.Localpart() == "" {
		return Bookmark{}, false
	}
	auto := e.At("autojoin")
	return Bookmark{
		Room: j.Bare(), Name: e.At("name"), Nick: e.Get(e.Space, "nick").Content(), Password: e.Get(e.Space, "password").Content(),
		AutoJoin: auto == "true" || auto == "1", Extensions: e.Get(nsBookmark, "extensions"),
	}, true
}

// refusal returns the error if the other side said it, else nil.
func refusal(err error) *StanzaError {
	var refused *StanzaError
	errors.As(err, &refused)
	return refused
}

// Bookmarks returns the account's bookmarks: those of XEP-0402, and of XEP-0048
// what these have not, for accounts whose other clients know only that.
func (c *Client) Bookmarks(ctx context.Context) ([]Bookmark, error) {
	answer, err := c.Ask(ctx, "get", jid.JID{}, El(nsPubSub, "pubsub", El("", "items").Set("node", nsBookmark)))
	if err != nil && refusal(err) == nil {
		return nil, err
	}
	var out []Bookmark
	for _, item := range answer.Get(nsPubSub, "pubsub").Get(nsPubSub, "items").All(nsPubSub, "item") {
		if b, ok := bookmark(item.At("id"), item.Get(nsBookmark, "conference")); ok {
			out = append(out, b)
		}
	}
	storage, err := c.storage(ctx)
	if err != nil {
		return nil, err
	}
	for _, e := range storage.All(nsStorage, "conference") {
		b, ok := bookmark(e.At("jid"), e)
		if ok && !slices.ContainsFunc(out, func(o Bookmark) bool { return o.Room.Equal(b.Room) }) {
			out = append(out, b)
		}
	}
	return out, nil
}

// storage is what the account keeps by XEP-0048; empty if the server keeps
// nothing.
func (c *Client) storage(ctx context.Context) (*Element, error) {
	answer, err := c.Ask(ctx, "get", jid.JID{}, El(nsPrivate, "query", El(nsStorage, "storage")))
	if err != nil && refusal(err) == nil {
		return nil, err
	}
	if s := answer.Get(nsPrivate, "query").Get(nsStorage, "storage"); s != nil {
		return s, nil
	}
	return El(nsStorage, "storage"), nil
}

// SetBookmark keeps a bookmark for all clients of the account: by XEP-0402, and
// by XEP-0048 if the server takes no other, or has it there.
func (c *Client) SetBookmark(ctx context.Context, b Bookmark) error {
	field := func(name, value string) *Element {
		return El("", "field", El("", "value", value)).Set("var", name)
	}
	options := El("", "publish-options", El(nsForms, "x",
		field("FORM_TYPE", nsPubOpts).Set("type", "hidden"), field("pubsub#persist_items", "true"), field("pubsub#max_items", "max"),
		field("pubsub#send_last_published_item", "never"), field("pubsub#access_model", "whitelist"),
	).Set("type", "submit"))
	publish := El("", "publish", El("", "item", b.element(nsBookmark)).Set("id", b.Room.String())).Set("node", nsBookmark)
	_, published := c.Ask(ctx, "set", jid.JID{}, El(nsPubSub, "pubsub", publish, options))
	if published != nil && refusal(published) == nil {
		return published
	}
	storage, err := c.storage(ctx)
	if err != nil {
		return err
	}
	i := slices.IndexFunc(storage.Children, func(e *Element) bool {
		old, ok := bookmark(e.At("jid"), e)
		return ok && e.Local == "conference" && old.Room.Equal(b.Room)
	})
	if published == nil && i < 0 {
		return nil
	}
	e := b.element(nsStorage).Set("jid", b.Room.String())
	if i < 0 {
		storage.Add(e)
	} else if old, _ := bookmark(b.Room.String(), storage.Children[i]); old.AutoJoin == b.AutoJoin {
		return nil // the server keeps both the same
	} else {
		storage.Children[i] = e
	}
	_, err = c.Ask(ctx, "set", jid.JID{}, El(nsPrivate, "query", storage))
	return err
}

// onBookmarks handles that another client has changed bookmarks.
func (c *Client) onBookmarks(items *Element) {
	for _, item := range items.All(nsPubEvent, "item") {
		if b, ok := bookmark(item.At("id"), item.Get(nsBookmark, "conference")); ok {
			c.handle(BookmarkChanged{b})
		}
	}
	for _, gone := range items.All(nsPubEvent, "retract") {
		if j, err := jid.Parse(gone.At("id")); err == nil {
			c.handle(BookmarkChanged{Bookmark{Room: j.Bare()}})
		}
	}
}
