package whatsapp

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"image"
	_ "image/gif" // so that pictures can be measured
	"image/jpeg"
	_ "image/png" // so that pictures can be measured
	"mime"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"golang.org/x/image/draw"
	_ "golang.org/x/image/webp" // so that stickers can be measured
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"maunium.net/go/mautrix/bridgev2"
	"maunium.net/go/mautrix/event"
)

type (
	protoField = protoreflect.FieldDescriptor
	protoValue = protoreflect.Value
)

// file is what a message of WhatsApp carries.
type file struct {
	source  whatsmeow.DownloadableMessage
	kind    event.MessageType
	name    string
	caption string
	info    event.FileInfo
	small   []byte // a JPEG
	sticker bool
	voice   bool
	gif     bool
	wave    []byte
}

// fileOf is the file in a message, or nil.
func fileOf(m *waE2E.Message) *file {
	switch {
	case m.GetImageMessage() != nil:
		i := m.GetImageMessage()
		return &file{source: i, kind: event.MsgImage, caption: i.GetCaption(), small: i.GetJPEGThumbnail(), info: event.FileInfo{
			MimeType: i.GetMimetype(), Width: int(i.GetWidth()), Height: int(i.GetHeight()), Size: int(i.GetFileLength()),
		}}
	case m.GetVideoMessage() != nil, m.GetPtvMessage() != nil:
		v := cmp.Or(m.GetVideoMessage(), m.GetPtvMessage())
		return &file{source: v, kind: event.MsgVideo, caption: v.GetCaption(), small: v.GetJPEGThumbnail(), gif: v.GetGifPlayback(), info: event.FileInfo{
			MimeType: v.GetMimetype(), Width: int(v.GetWidth()), Height: int(v.GetHeight()), Size: int(v.GetFileLength()),
			Duration: int(v.GetSeconds()) * 1000,
		}}
	case m.GetAudioMessage() != nil:
		a := m.GetAudioMessage()
		return &file{source: a, kind: event.MsgAudio, voice: a.GetPTT(), wave: a.GetWaveform(), info: event.FileInfo{
			MimeType: a.GetMimetype(), Size: int(a.GetFileLength()), Duration: int(a.GetSeconds()) * 1000,
		}}
	case m.GetDocumentMessage() != nil:
		d := m.GetDocumentMessage()
		return &file{source: d, kind: event.MsgFile, name: cmp.Or(d.GetFileName(), d.GetTitle()), caption: d.GetCaption(), info: event.FileInfo{
			MimeType: d.GetMimetype(), Size: int(d.GetFileLength()),
		}}
	case m.GetStickerMessage() != nil:
		s := m.GetStickerMessage()
		return &file{source: s, kind: event.MsgImage, sticker: true, info: event.FileInfo{
			MimeType: s.GetMimetype(), Width: int(s.GetWidth()), Height: int(s.GetHeight()), Size: int(s.GetFileLength()),
		}}
	}
	return nil
}

// fileName makes a name for a file that has none.
func fileName(kind event.MessageType, mimeType string) string {
	base := strings.TrimPrefix(string(kind), "m.")
	kindOnly, _, _ := strings.Cut(mimeType, ";")
	known := map[string]string{"image/jpeg": ".jpg", "image/png": ".png", "image/webp": ".webp", "video/mp4": ".mp4", "audio/ogg": ".ogg", "audio/mp4": ".m4a", "audio/mpeg": ".mp3"}
	if ext, ok := known[kindOnly]; ok {
		return base + ext
	}
	if exts, err := mime.ExtensionsByType(kindOnly); err == nil && len(exts) > 0 {
		return base + exts[0]
	}
	return base
}

// download brings a file from WhatsApp to Matrix. What is too large, or is not
// there any more, becomes a notice.
func (s *session) download(ctx context.Context, portal *bridgev2.Portal, intent bridgev2.MatrixAPI, f *file) *event.MessageEventContent {
	log := zerolog.Ctx(ctx)
	kind := strings.TrimPrefix(string(f.kind), "m.")
	if size := int64(f.info.Size); size > s.connector.maxFileSize() {
		return notice(fmt.Sprintf("A %s of %d MB, which is too large for this server. Your phone has it.", kind, size>>20))
	}
	data, err := s.client.Download(ctx, f.source)
	if err != nil {
		log.Warn().Err(err).Msg("a file could not be fetched from WhatsApp")
		if gone(err) {
			return notice(fmt.Sprintf("A %s that WhatsApp does not keep any more. Your phone may have it.", kind))
		}
		return notice(fmt.Sprintf("A %s that could not be fetched from WhatsApp. Your phone has it.", kind))
	}
	content := &event.MessageEventContent{MsgType: f.kind, Info: &f.info}
	content.Body = cmp.Or(f.name, fileName(f.kind, f.info.MimeType))
	f.info.Size = len(data)
	if f.kind == event.MsgImage && f.info.Width == 0 {
		if c, _, err := image.DecodeConfig(bytes.NewReader(data)); err == nil {
			f.info.Width, f.info.Height = c.Width, c.Height
		}
	}
	if content.URL, content.File, err = intent.UploadMedia(ctx, portal.MXID, data, content.Body, f.info.MimeType); err != nil {
		log.Warn().Err(err).Msg("a file from WhatsApp could not be stored")
		return notice(fmt.Sprintf("A %s that this server could not store. Your phone has it.", kind))
	}
	if f.kind == event.MsgVideo {
		s.addThumbnail(ctx, portal, intent, f)
	}
	if f.gif {
		f.info.MauGIF = true
	}
	if f.voice {
		content.MSC3245Voice = &event.MSC3245Voice{}
		content.MSC1767Audio = &event.MSC1767Audio{Duration: f.info.Duration, Waveform: louder(f.wave)}
	}
	return content
}

// gone reports whether a file was deleted from WhatsApp's servers.
func gone(err error) bool {
	return errors.Is(err, whatsmeow.ErrMediaDownloadFailedWith403) || errors.Is(err, whatsmeow.ErrMediaDownloadFailedWith404) ||
		errors.Is(err, whatsmeow.ErrMediaDownloadFailedWith410)
}

// addThumbnail uploads the small picture that comes with a video.
func (s *session) addThumbnail(ctx context.Context, portal *bridgev2.Portal, intent bridgev2.MatrixAPI, f *file) {
	c, _, err := image.DecodeConfig(bytes.NewReader(f.small))
	if err != nil {
		return
	}
	info := &event.FileInfo{MimeType: "image/jpeg", Size: len(f.small), Width: c.Width, Height: c.Height}
	url, enc, err := intent.UploadMedia(ctx, portal.MXID, f.small, "thumbnail.jpg", info.MimeType)
	if err != nil {
		return // the video itself is there
	}
	f.info.ThumbnailURL, f.info.ThumbnailFile, f.info.ThumbnailInfo = url, enc, info
}

// WhatsApp's waveforms have values up to 100, Matrix' up to 1024.
func louder(wave []byte) []int {
	out := make([]int, len(wave))
	for i, v := range wave {
		out[i] = int(v) * 1024 / 100
	}
	return out
}

func quieter(wave []int) []byte {
	const points = 64 // that WhatsApp shows
	if len(wave) == 0 {
		return nil
	}
	out := make([]byte, points)
	for i := range out {
		out[i] = byte(min(max(wave[i*len(wave)/points], 0)*100/1024, 100))
	}
	return out
}

// contacts are address cards, as a file.
func (s *session) contacts(ctx context.Context, portal *bridgev2.Portal, intent bridgev2.MatrixAPI, name string, cards ...*waE2E.ContactMessage) *event.MessageEventContent {
	var all strings.Builder
	for _, c := range cards {
		all.WriteString(strings.TrimSpace(c.GetVcard()) + "\n")
	}
	content := &event.MessageEventContent{
		MsgType: event.MsgFile, Body: cmp.Or(name, "contact") + ".vcf", Info: &event.FileInfo{MimeType: vcard, Size: all.Len()},
	}
	var err error
	if content.URL, content.File, err = intent.UploadMedia(ctx, portal.MXID, []byte(all.String()), content.Body, vcard); err != nil {
		return notice("The contact " + name + ", which this server could not store. Your phone has it.")
	}
	return content
}

const vcard = "text/vcard"

// upload brings a file from Matrix to WhatsApp and returns the message that
// carries it.
func (s *session) upload(ctx context.Context, content *event.MessageEventContent, caption string, info *waE2E.ContextInfo) (*waE2E.Message, error) {
	if size := content.GetInfo().Size; int64(size) > s.connector.maxFileSize() {
		return nil, fail(event.MessageStatusUnsupported, "The file has %d MB, this server carries up to %d MB.", size>>20, s.connector.maxFileSize()>>20)
	}
	data, err := s.connector.br.Bot.DownloadMedia(ctx, content.URL, content.File)
	if err != nil {
		return nil, fmt.Errorf("fetch the file from Matrix: %w", err)
	}
	mimeType := content.GetInfo().MimeType
	if mimeType == "" {
		mimeType = http.DetectContentType(data)
	}
	plainType, _, _ := strings.Cut(mimeType, ";")
	if content.MsgType == event.MsgFile && (plainType == vcard || plainType == "text/x-vcard") {
		return &waE2E.Message{ContactMessage: &waE2E.ContactMessage{
			DisplayName: proto.String(fullName(string(data), content.GetFileName())), Vcard: proto.String(string(data)), ContextInfo: info,
		}}, nil
	}
	form, kind := formOf(content, plainType)
	var up whatsmeow.UploadResponse
	if err := s.untilConnected(ctx, func() (err error) {
		up, err = s.client.Upload(ctx, data, kind)
		return err
	}); err != nil {
		return nil, err
	}
	return s.carry(form, content, up, data, mimeType, caption, info), nil
}

// The forms in which WhatsApp takes files.
const (
	asImage    = "image"
	asVideo    = "video"
	asAudio    = "audio"
	asSticker  = "sticker"
	asDocument = "document"
)

// formOf chooses the form for a file. What WhatsApp's apps do not show as a
// picture, video or sound goes as a document, so that it arrives unharmed.
func formOf(content *event.MessageEventContent, mimeType string) (string, whatsmeow.MediaType) {
	switch content.MsgType {
	case event.CapMsgSticker:
		if mimeType == "image/webp" {
			return asSticker, whatsmeow.MediaImage
		}
		fallthrough
	case event.MsgImage:
		if slices.Contains([]string{"image/jpeg", "image/png"}, mimeType) {
			return asImage, whatsmeow.MediaImage
		}
	case event.MsgVideo:
		if slices.Contains([]string{"video/mp4", "video/3gpp"}, mimeType) {
			return asVideo, whatsmeow.MediaVideo
		}
	case event.MsgAudio:
		return asAudio, whatsmeow.MediaAudio
	}
	return asDocument, whatsmeow.MediaDocument
}

// carry makes the message for a file that is at WhatsApp.
func (s *session) carry(form string, content *event.MessageEventContent, up whatsmeow.UploadResponse, data []byte, mimeType, caption string, info *waE2E.ContextInfo) *waE2E.Message {
	i := content.GetInfo()
	words := optional(caption)
	width, height := proto.Uint32(uint32(max(i.Width, 0))), proto.Uint32(uint32(max(i.Height, 0)))
	seconds := proto.Uint32(uint32(max(i.Duration, 0) / 1000))
	switch form {
	case asImage:
		return &waE2E.Message{ImageMessage: &waE2E.ImageMessage{
			URL: &up.URL, DirectPath: &up.DirectPath, MediaKey: up.MediaKey, FileEncSHA256: up.FileEncSHA256, FileSHA256: up.FileSHA256, FileLength: &up.FileLength,
			Mimetype: &mimeType, Caption: words, Width: width, Height: height, JPEGThumbnail: thumbnail(data), ContextInfo: info,
		}}
	case asVideo:
		return &waE2E.Message{VideoMessage: &waE2E.VideoMessage{
			URL: &up.URL, DirectPath: &up.DirectPath, MediaKey: up.MediaKey, FileEncSHA256: up.FileEncSHA256, FileSHA256: up.FileSHA256, FileLength: &up.FileLength,
			Mimetype: &mimeType, Caption: words, Width: width, Height: height, Seconds: seconds, GifPlayback: proto.Bool(i.MauGIF), ContextInfo: info,
		}}
	case asAudio:
		voice := content.MSC3245Voice != nil
		audio := &waE2E.AudioMessage{
			URL: &up.URL, DirectPath: &up.DirectPath, MediaKey: up.MediaKey, FileEncSHA256: up.FileEncSHA256, FileSHA256: up.FileSHA256, FileLength: &up.FileLength,
			Mimetype: &mimeType, Seconds: seconds, PTT: &voice, ContextInfo: info,
		}
		if voice && strings.HasPrefix(mimeType, "audio/ogg") {
			audio.Mimetype = proto.String("audio/ogg; codecs=opus") // the only one that WhatsApp plays as a voice message
		}
		if content.MSC1767Audio != nil {
			audio.Waveform = quieter(content.MSC1767Audio.Waveform)
			audio.Seconds = proto.Uint32(uint32(max(content.MSC1767Audio.Duration, i.Duration, 0) / 1000))
		}
		return &waE2E.Message{AudioMessage: audio}
	case asSticker:
		return &waE2E.Message{StickerMessage: &waE2E.StickerMessage{
			URL: &up.URL, DirectPath: &up.DirectPath, MediaKey: up.MediaKey, FileEncSHA256: up.FileEncSHA256, FileSHA256: up.FileSHA256, FileLength: &up.FileLength,
			Mimetype: &mimeType, Width: width, Height: height, StickerSentTS: proto.Int64(time.Now().UnixMilli()), ContextInfo: info,
		}}
	}
	name := content.GetFileName()
	return &waE2E.Message{DocumentMessage: &waE2E.DocumentMessage{
		URL: &up.URL, DirectPath: &up.DirectPath, MediaKey: up.MediaKey, FileEncSHA256: up.FileEncSHA256, FileSHA256: up.FileSHA256, FileLength: &up.FileLength,
		Mimetype: &mimeType, FileName: &name, Title: &name, Caption: words, ContextInfo: info,
	}}
}

func optional(s string) *string {
	if s == "" {
		return nil
	}
	return &s
}

// fullName is the name on an address card, or the file's.
func fullName(card, file string) string {
	for line := range strings.Lines(card) {
		if name, ok := strings.CutPrefix(strings.TrimRight(line, "\r\n"), "FN:"); ok {
			return name
		}
	}
	return strings.TrimSuffix(file, ".vcf")
}

// thumbSize is the longest side of the small picture that goes with an image.
const thumbSize = 72

// pixels bounds what is decoded for a thumbnail: a small file may hold a huge
// picture.
const pixels = 50_000_000

// thumbnail makes a small JPEG of a picture, or nothing.
func thumbnail(data []byte) []byte {
	c, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil || c.Width*c.Height > pixels || c.Width <= 0 || c.Height <= 0 {
		return nil
	}
	src, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil
	}
	scale := min(1, thumbSize/float64(max(c.Width, c.Height)))
	small := image.NewRGBA(image.Rect(0, 0, max(1, int(float64(c.Width)*scale)), max(1, int(float64(c.Height)*scale))))
	draw.ApproxBiLinear.Scale(small, small.Bounds(), src, src.Bounds(), draw.Src, nil)
	var out bytes.Buffer
	if err := jpeg.Encode(&out, small, &jpeg.Options{Quality: 60}); err != nil {
		return nil
	}
	return out.Bytes()
}

// avatarSize is the side of the pictures that WhatsApp takes.
const avatarSize = 640

// square makes a JPEG of the middle of a picture.
func square(data []byte) ([]byte, error) {
	c, _, err := image.DecodeConfig(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	if c.Width*c.Height > pixels {
		return nil, fmt.Errorf("it has %d x %d pixels", c.Width, c.Height)
	}
	src, _, err := image.Decode(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	b := src.Bounds()
	side := min(b.Dx(), b.Dy())
	middle := image.Rect(0, 0, side, side).Add(image.Pt(b.Min.X+(b.Dx()-side)/2, b.Min.Y+(b.Dy()-side)/2))
	out := image.NewRGBA(image.Rect(0, 0, min(side, avatarSize), min(side, avatarSize)))
	draw.ApproxBiLinear.Scale(out, out.Bounds(), src, middle, draw.Src, nil)
	var file bytes.Buffer
	if err := jpeg.Encode(&file, out, &jpeg.Options{Quality: 85}); err != nil {
		return nil, err
	}
	return file.Bytes(), nil
}
