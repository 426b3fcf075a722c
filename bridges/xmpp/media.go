package xmpp

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"image"
	_ "image/gif"  // so that pictures can be measured
	_ "image/jpeg" // so that pictures can be measured
	_ "image/png"  // so that pictures can be measured
	"io"
	"mime"
	"net/http"
	"net/url"
	"path"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/bridgev2/database"
	"maunium.net/go/mautrix/bridgev2/networkid"
	"maunium.net/go/mautrix/event"

	"switchboard/bridges/xmpp/client"
)

// upload puts a file from Matrix on the account's server and returns its
// address (XEP-0363).
func (s *session) upload(ctx context.Context, content *event.MessageEventContent) (string, error) {
	data, err := s.connector.br.Bot.DownloadMedia(ctx, content.URL, content.File)
	if err != nil {
		return "", fmt.Errorf("fetch the file from Matrix: %w", err)
	}
	mimeType := content.GetInfo().MimeType
	if mimeType == "" {
		mimeType = http.DetectContentType(data)
	}
	slot, err := s.slot(ctx, content.GetFileName(), mimeType, len(data))
	if err != nil {
		return "", failure(err)
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodPut, slot.Put, bytes.NewReader(data))
	if err != nil {
		return "", failure(fmt.Errorf("your server names no valid place for the file: %w", err))
	}
	for name, value := range slot.Header {
		r.Header.Set(name, value)
	}
	r.Header.Set("Content-Type", mimeType)
	resp, err := s.connector.web.Do(r)
	if err != nil {
		return "", failure(fmt.Errorf("your server does not take the file: %w", err))
	}
	_ = resp.Body.Close()
	if resp.StatusCode/100 != 2 {
		return "", failure(fmt.Errorf("your server does not take the file: %s", resp.Status))
	}
	return slot.Get, nil
}

// awaitLink waits for the connection as long as a message may.
func (s *session) awaitLink(ctx context.Context) error {
	late := time.After(s.connector.config.SendTimeout)
	for !s.client.Online() {
		select {
		case <-time.After(100 * time.Millisecond):
		case <-late:
			return errNotSent
		case <-ctx.Done():
			return ctx.Err()
		case <-s.context().Done():
			return errNotSent
		}
	}
	return nil
}

func (s *session) slot(ctx context.Context, name, mimeType string, size int) (slot client.Slot, err error) {
	if err := s.awaitLink(ctx); err != nil {
		return slot, err
	}
	err = ask(ctx, func(ctx context.Context) error {
		service, limit, err := s.client.Uploader(ctx)
		if err != nil {
			return err
		}
		if limit > 0 && int64(size) > limit {
			return fmt.Errorf("the file has %d bytes, your XMPP server takes no more than %d", size, limit)
		}
		slot, err = s.client.Slot(ctx, service, name, mimeType, size)
		return err
	})
	return slot, err
}

// convert makes the Matrix form of a message.
func (s *session) convert(ctx context.Context, portal *bridgev2.Portal, intent bridgev2.MatrixAPI, m *client.Message) (*bridgev2.ConvertedMessage, error) {
	chat := parse(portal.ID)
	out := &bridgev2.ConvertedMessage{ReplyTo: replyTo(chat, m.ReplyTo)}
	author := m.From
	if m.Type != "groupchat" && m.From.Bare().Equal(s.client.Account()) {
		author = author.Bare()
	}
	meta := &MessageMetadata{Origin: m.ID, Text: excerpt(m.Body), Author: author.String()}
	part := func(id string, c *event.MessageEventContent) {
		if c.Mentions == nil {
			c.Mentions = &event.Mentions{}
		}
		out.Parts = append(out.Parts, &bridgev2.ConvertedMessagePart{
			ID: networkid.PartID(id), Type: event.EventMessage, Content: c, DBMetadata: meta,
		})
	}
	body := m.Body
	switch {
	case m.Encryption != "":
		part("", notice(fmt.Sprintf("A message that is encrypted by %s, which the bridge can not read.", m.Encryption)))
		return out, nil
	case strings.HasPrefix(body, "aesgcm://"):
		part("", notice("A file that is encrypted by OMEMO, which the bridge can not read."))
		return out, nil
	}
	if m.URL != "" {
		if body == m.URL {
			body = ""
		}
		part("", s.download(ctx, portal, intent, m.URL))
	}
	if body != "" {
		id := ""
		if m.URL != "" {
			id = "text"
		}
		part(id, s.content(chat, body))
	}
	return out, nil
}

// convertEdit makes the Matrix form of a correction.
func (s *session) convertEdit(_ context.Context, portal *bridgev2.Portal, _ bridgev2.MatrixAPI, existing []*database.Message, m *client.Message) (*bridgev2.ConvertedEdit, error) {
	chat := parse(portal.ID)
	part := existing[len(existing)-1] // the text, behind a file
	if meta, ok := part.Metadata.(*MessageMetadata); ok {
		meta.Text = excerpt(m.Body)
	}
	return &bridgev2.ConvertedEdit{ModifiedParts: []*bridgev2.ConvertedEditPart{{
		Part: part, Type: event.EventMessage, Content: s.content(chat, m.Body),
	}}}, nil
}

func notice(text string) *event.MessageEventContent {
	return &event.MessageEventContent{MsgType: event.MsgNotice, Body: text}
}

var errTooLarge = errors.New("the file is too large for this server")

// download brings a file to Matrix. What can not be fetched stays a link.
func (s *session) download(ctx context.Context, portal *bridgev2.Portal, intent bridgev2.MatrixAPI, address string) *event.MessageEventContent {
	data, mimeType, err := s.fetch(ctx, address)
	if err == nil {
		content := fileContent(address, mimeType, data)
		if content.URL, content.File, err = intent.UploadMedia(ctx, portal.MXID, data, content.Body, mimeType); err == nil {
			return content
		}
	}
	cause := err
	if inside := (*url.Error)(nil); errors.As(err, &inside) {
		cause = inside.Err // without the address, which is a part of the message
	}
	zerolog.Ctx(ctx).Warn().Err(cause).Msg("a file could not be brought to Matrix")
	text := "A file that could not be fetched: " + address
	if errors.Is(err, errTooLarge) {
		text = "A file that is too large for this server: " + address
	}
	return notice(text)
}

func (s *session) fetch(ctx context.Context, address string) (data []byte, mimeType string, err error) {
	u, err := url.Parse(address)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return nil, "", errors.New("that is no web address")
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return nil, "", err
	}
	resp, err := s.connector.web.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return nil, "", fmt.Errorf("the answer is %s", resp.Status)
	}
	limit := s.connector.maxFileSize()
	data, err = io.ReadAll(io.LimitReader(resp.Body, limit+1))
	if err == nil && int64(len(data)) > limit {
		err = errTooLarge
	}
	mimeType, _, bad := mime.ParseMediaType(resp.Header.Get("Content-Type"))
	if bad != nil || mimeType == "application/octet-stream" {
		mimeType, _, _ = strings.Cut(http.DetectContentType(data), ";")
	}
	return data, mimeType, err
}

// fileContent is a file as a Matrix message, but for where it is.
func fileContent(address, mimeType string, data []byte) *event.MessageEventContent {
	name := "file"
	if u, err := url.Parse(address); err == nil && path.Base(u.Path) != "/" && path.Base(u.Path) != "." {
		name = path.Base(u.Path)
	}
	c := &event.MessageEventContent{MsgType: event.MsgFile, Body: name, Info: &event.FileInfo{MimeType: mimeType, Size: len(data)}}
	switch kind, _, _ := strings.Cut(mimeType, "/"); kind {
	case "image":
		c.MsgType = event.MsgImage
		if config, _, err := image.DecodeConfig(bytes.NewReader(data)); err == nil {
			c.Info.Width, c.Info.Height = config.Width, config.Height
		}
	case "video":
		c.MsgType = event.MsgVideo
	case "audio":
		c.MsgType = event.MsgAudio
	}
	return c
}
