package client

import (
	"context"
	"crypto/sha1" //nolint:gosec // XEP-0115 and XEP-0084 name things by it
	"encoding/base64"
	"encoding/hex"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"mellium.im/xmpp/jid"
)

// ours are the features that we tell others.
func ours() []string {
	return []string{
		nsDisco, nsPing, nsVersion, nsMUC, nsConfInv, nsStates, nsReceipts, nsMarkers, nsCorrect, nsIDs, nsReply, nsReact, nsRetract,
		nsOOB, nsAvatarM + "+notify", nsNick + "+notify", nsBookmark + "+notify",
	}
}

const node = "https://switchboard.invalid/xmpp"

// identity is what we are (XEP-0030).
func identity() *Element {
	q := El(nsDisco, "query", El("", "identity").Set("category", "client", "type", "bridge", "name", "Switchboard"))
	for _, f := range ours() {
		q.Add(El("", "feature").Set("var", f))
	}
	return q
}

// capabilities are the same in short (XEP-0115).
func capabilities() *Element {
	list := ours()
	slices.Sort(list)
	sum := sha1.Sum([]byte("client/bridge//Switchboard<" + strings.Join(list, "<") + "<")) //nolint:gosec // as above
	return El(nsCaps, "c").Set("hash", "sha-1", "node", node, "ver", base64.StdEncoding.EncodeToString(sum[:]))
}

func features(q *Element) map[string]bool {
	out := make(map[string]bool)
	for _, f := range q.All(nsDisco, "feature") {
		out[f.At("var")] = true
	}
	return out
}

// Begin makes a new stream ready: other clients' messages are copied to us, and
// we are there for others.
func (c *Client) Begin(ctx context.Context) error {
	_, err := c.Ask(ctx, "set", jid.JID{}, El(nsCarbons, "enable"))
	var refused *StanzaError
	if err != nil && !errors.As(err, &refused) { // a server may have no carbons
		return err
	}
	c.Send(El(nsClient, "presence", capabilities()), nil)
	return nil
}

// HasArchive reports whether the account has an archive.
func (c *Client) HasArchive(ctx context.Context) (bool, error) {
	answer, err := c.Ask(ctx, "get", c.Account(), El(nsDisco, "query"))
	if err != nil {
		return false, err
	}
	return features(answer.Get(nsDisco, "query"))[nsMAM], nil
}

// Roster returns the account's contacts.
func (c *Client) Roster(ctx context.Context) ([]RosterItem, error) {
	answer, err := c.Ask(ctx, "get", jid.JID{}, El(nsRoster, "query"))
	if err != nil {
		return nil, err
	}
	var out []RosterItem
	for _, item := range answer.Get(nsRoster, "query").All(nsRoster, "item") {
		if it, ok := rosterItem(item); ok {
			out = append(out, it)
		}
	}
	return out, nil
}

func rosterItem(e *Element) (RosterItem, bool) {
	j, err := jid.Parse(e.At("jid"))
	return RosterItem{JID: j.Bare(), Name: e.At("name"), Subscription: e.At("subscription")}, err == nil
}

// Subscription sends subscribe, subscribed, unsubscribe or unsubscribed to
// somebody.
func (c *Client) Subscription(to jid.JID, kind string) {
	c.Send(El(nsClient, "presence").Set("to", to.Bare().String(), "type", kind), nil)
}

// onPublished handles what contacts publish (XEP-0163).
func (c *Client) onPublished(e *Element) bool {
	items := e.Get(nsPubEvent, "event").Get(nsPubEvent, "items")
	if items == nil {
		return false
	}
	from, err := jid.Parse(e.At("from"))
	if err != nil {
		return true
	}
	item := items.Get(nsPubEvent, "item")
	switch items.At("node") {
	case nsAvatarM:
		if item != nil {
			c.handle(AvatarChanged{from.Bare(), item.Get(nsAvatarM, "metadata").Get(nsAvatarM, "info").At("id")})
		}
	case nsBookmark:
		if c.fromServer(e) {
			c.onBookmarks(items)
		}
	case nsNick:
		if item != nil {
			c.handle(NickChanged{from.Bare(), strings.TrimSpace(item.Get(nsNick, "nick").Content())})
		}
	}
	return true
}

// Avatar fetches an avatar by its hash: one that is published (XEP-0084), or
// else that of the vCard (XEP-0153), which is also what people in rooms have.
func (c *Client) Avatar(ctx context.Context, of jid.JID, hash string) ([]byte, error) {
	var data string
	if of.Resourcepart() == "" {
		answer, err := c.Ask(ctx, "get", of, El(nsPubSub, "pubsub", El("", "items", El("", "item").Set("id", hash)).Set("node", nsAvatar)))
		if err == nil {
			data = answer.Get(nsPubSub, "pubsub").Get(nsPubSub, "items").Get(nsPubSub, "item").Get(nsAvatar, "data").Content()
		}
	}
	if data == "" {
		answer, err := c.Ask(ctx, "get", of, El(nsVCard, "vCard"))
		if err != nil {
			return nil, err
		}
		data = answer.Get(nsVCard, "vCard").Get(nsVCard, "PHOTO").Get(nsVCard, "BINVAL").Content()
	}
	image, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(data), ""))
	if err != nil {
		return nil, fmt.Errorf("the avatar of %s: %w", of, err)
	}
	if sum := sha1.Sum(image); hex.EncodeToString(sum[:]) != strings.ToLower(hash) { //nolint:gosec // as above
		return nil, fmt.Errorf("the avatar of %s is another one than was told", of)
	}
	return image, nil
}

// Slot is where a file can be put, and where all can get it then (XEP-0363).
type Slot struct {
	Put, Get string
	Header   map[string]string // for the upload
}

// ErrNoUpload is that the account's server takes no files.
var ErrNoUpload = errors.New("your XMPP server takes no files (it has no HTTP upload)")

// Uploader finds the service of the account's server that takes files, and the
// largest size in bytes, 0 if it does not say.
func (c *Client) Uploader(ctx context.Context) (service jid.JID, max int64, err error) {
	domain := c.Account().Domain()
	answer, err := c.Ask(ctx, "get", domain, El(nsItems, "query"))
	if err != nil {
		return jid.JID{}, 0, err
	}
	candidates := []jid.JID{domain}
	for _, item := range answer.Get(nsItems, "query").All(nsItems, "item") {
		if j, err := jid.Parse(item.At("jid")); err == nil && len(candidates) < 20 {
			candidates = append(candidates, j)
		}
	}
	for _, j := range candidates {
		info, err := c.Ask(ctx, "get", j, El(nsDisco, "query"))
		q := info.Get(nsDisco, "query")
		if err != nil || !features(q)[nsUpload] {
			continue
		}
		for _, form := range q.All(nsForms, "x") {
			for _, f := range form.All(nsForms, "field") {
				if f.At("var") == "max-file-size" {
					max, _ = strconv.ParseInt(f.Get(nsForms, "value").Content(), 10, 64)
				}
			}
		}
		return j, max, nil
	}
	return jid.JID{}, 0, ErrNoUpload
}

// Slot asks for a place for a file of a size in bytes.
func (c *Client) Slot(ctx context.Context, service jid.JID, name, mimeType string, size int) (Slot, error) {
	request := El(nsUpload, "request").Set("filename", name, "size", strconv.Itoa(size), "content-type", mimeType)
	answer, err := c.Ask(ctx, "get", service, request)
	if err != nil {
		return Slot{}, err
	}
	slot := answer.Get(nsUpload, "slot")
	put := slot.Get(nsUpload, "put")
	out := Slot{Put: put.At("url"), Get: slot.Get(nsUpload, "get").At("url"), Header: make(map[string]string)}
	for _, h := range put.All(nsUpload, "header") {
		switch name := h.At("name"); strings.ToLower(name) {
		case "authorization", "cookie", "expires": // no others are allowed
			out.Header[name] = strings.NewReplacer("\r", "", "\n", "").Replace(h.Text)
		}
	}
	if out.Put == "" || out.Get == "" {
		return Slot{}, errors.New("the server gave no place for the file")
	}
	return out, nil
}
