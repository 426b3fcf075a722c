package whatsapp_test

import (
	"bytes"
	"context"
	"image"
	"image/png"
	"strings"
	"testing"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"google.golang.org/protobuf/proto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"switchboard/bridges/bridge/bridgetest"
	"switchboard/bridges/whatsapp"
	"switchboard/bridges/whatsapp/whatsapptest"
)

// talk is a world in which alice and bob have a private chat.
type talk struct {
	*world
	alice *person
	bob   *whatsapptest.Phone
	room  id.RoomID
}

// talking makes one.
func talking(t *testing.T, change func(*whatsapp.Config, *bridgetest.Options)) *talk {
	t.Helper()
	w := start(t, change)
	bob := w.wa.Phone(t, "15550002", "Bob")
	alice := w.linked("alice", "15550001")
	bob.Say(alice.lid(), "hello Alice")
	room := alice.chat(bob.Account)
	alice.Await("bob's message", bridgetest.Message(room, "hello Alice"))
	return &talk{w, alice, bob, room}
}

// picture is a PNG of a size.
func picture(width, height int) []byte {
	var b bytes.Buffer
	if err := png.Encode(&b, image.NewRGBA(image.Rect(0, 0, width, height))); err != nil {
		panic(err)
	}
	return b.Bytes()
}

const card = "BEGIN:VCARD\r\nVERSION:3.0\r\nFN:Carol Jones\r\nTEL;waid=15550003:+1 555 0003\r\nEND:VCARD"

// upload brings a file to WhatsApp.
func upload(p *whatsapptest.Phone, data []byte, kind whatsmeow.MediaType) whatsmeow.UploadResponse {
	up, err := p.Upload(context.Background(), data, kind)
	if err != nil {
		p.T.Fatal(err)
	}
	return up
}

// TestFilesToMatrix sends each kind of file from a phone.
func TestFilesToMatrix(t *testing.T) {
	k := talking(t, nil)
	data := []byte("the bytes of a file")
	doc := func(name, mimeType, caption string) func(whatsmeow.UploadResponse) *waE2E.Message {
		return func(up whatsmeow.UploadResponse) *waE2E.Message {
			return &waE2E.Message{DocumentMessage: &waE2E.DocumentMessage{
				URL: &up.URL, DirectPath: &up.DirectPath, MediaKey: up.MediaKey, FileEncSHA256: up.FileEncSHA256, FileSHA256: up.FileSHA256,
				FileLength: &up.FileLength, FileName: &name, Mimetype: &mimeType, Caption: &caption,
			}}
		}
	}
	audio := func(voice bool, mimeType string, wave []byte) func(whatsmeow.UploadResponse) *waE2E.Message {
		return func(up whatsmeow.UploadResponse) *waE2E.Message {
			return &waE2E.Message{AudioMessage: &waE2E.AudioMessage{
				URL: &up.URL, DirectPath: &up.DirectPath, MediaKey: up.MediaKey, FileEncSHA256: up.FileEncSHA256, FileSHA256: up.FileSHA256,
				FileLength: &up.FileLength, Mimetype: &mimeType, PTT: &voice, Seconds: proto.Uint32(7), Waveform: wave,
			}}
		}
	}
	for _, c := range []struct {
		name string
		kind whatsmeow.MediaType
		make func(whatsmeow.UploadResponse) *waE2E.Message
		want event.MessageEventContent // Body, FileName, MsgType, and the mimetype, size and duration in Info
	}{
		{"file", whatsmeow.MediaDocument, doc("plan.pdf", "application/pdf", ""), event.MessageEventContent{
			MsgType: event.MsgFile, Body: "plan.pdf", Info: &event.FileInfo{MimeType: "application/pdf"},
		}},
		{"file with caption", whatsmeow.MediaDocument, doc("plan.pdf", "application/pdf", "the plan"), event.MessageEventContent{
			MsgType: event.MsgFile, Body: "the plan", FileName: "plan.pdf", Info: &event.FileInfo{MimeType: "application/pdf"},
		}},
		{"video", whatsmeow.MediaVideo, func(up whatsmeow.UploadResponse) *waE2E.Message {
			return &waE2E.Message{VideoMessage: &waE2E.VideoMessage{
				URL: &up.URL, DirectPath: &up.DirectPath, MediaKey: up.MediaKey, FileEncSHA256: up.FileEncSHA256, FileSHA256: up.FileSHA256,
				FileLength: &up.FileLength, Mimetype: proto.String("video/mp4"), Seconds: proto.Uint32(3), Width: proto.Uint32(640), Height: proto.Uint32(480),
				JPEGThumbnail: picture(8, 6),
			}}
		}, event.MessageEventContent{
			MsgType: event.MsgVideo, Body: "video.mp4", Info: &event.FileInfo{MimeType: "video/mp4", Duration: 3000, Width: 640, Height: 480},
		}},
		{"voice message", whatsmeow.MediaAudio, audio(true, "audio/ogg; codecs=opus", []byte{0, 50, 100}), event.MessageEventContent{
			MsgType: event.MsgAudio, Body: "audio.ogg", Info: &event.FileInfo{MimeType: "audio/ogg; codecs=opus", Duration: 7000},
			MSC3245Voice: &event.MSC3245Voice{}, MSC1767Audio: &event.MSC1767Audio{Duration: 7000, Waveform: []int{0, 512, 1024}},
		}},
		{"audio", whatsmeow.MediaAudio, audio(false, "audio/mpeg", nil), event.MessageEventContent{
			MsgType: event.MsgAudio, Body: "audio.mp3", Info: &event.FileInfo{MimeType: "audio/mpeg", Duration: 7000},
		}},
		{"sticker", whatsmeow.MediaImage, func(up whatsmeow.UploadResponse) *waE2E.Message {
			return &waE2E.Message{StickerMessage: &waE2E.StickerMessage{
				URL: &up.URL, DirectPath: &up.DirectPath, MediaKey: up.MediaKey, FileEncSHA256: up.FileEncSHA256, FileSHA256: up.FileSHA256,
				FileLength: &up.FileLength, Mimetype: proto.String("image/webp"), Width: proto.Uint32(64), Height: proto.Uint32(64),
			}}
		}, event.MessageEventContent{Body: "image.webp", Info: &event.FileInfo{MimeType: "image/webp", Width: 64, Height: 64}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			m := c.make(upload(k.bob, data, c.kind))
			e := k.alice.gets(k.room, ghost(k.bob.Account), func() { k.bob.Send(k.alice.lid(), m) })
			if sticker := e.Type == event.EventSticker; sticker != (c.name == "sticker") {
				t.Errorf("it came as %s", e.Type.Type)
			}
			got, want := e.Content.AsMessage(), c.want
			if got.MsgType != want.MsgType || got.Body != want.Body || got.FileName != want.FileName {
				t.Errorf("it is a %q named %q and %q, want %q, %q and %q", got.MsgType, got.Body, got.FileName, want.MsgType, want.Body, want.FileName)
			}
			i, w := got.GetInfo(), want.Info
			if i.MimeType != w.MimeType || i.Duration != w.Duration || i.Width != w.Width || i.Height != w.Height || i.Size != len(data) {
				t.Errorf("the file is %+v, want %+v", i, w)
			}
			if (got.MSC3245Voice != nil) != (want.MSC3245Voice != nil) || want.MSC1767Audio != nil && len(got.MSC1767Audio.Waveform) != len(want.MSC1767Audio.Waveform) {
				t.Errorf("it is spoken so: %+v, %+v", got.MSC3245Voice, got.MSC1767Audio)
			}
			if b := k.alice.download(got.URL); !bytes.Equal(b, data) {
				t.Errorf("the file holds %q", b)
			}
			if got.MsgType == event.MsgVideo && !bytes.Equal(k.alice.download(i.ThumbnailURL), picture(8, 6)) {
				t.Error("the video has no thumbnail")
			}
		})
	}
	t.Run("gone", func(t *testing.T) {
		up := upload(k.bob, data, whatsmeow.MediaDocument)
		k.wa.DropMedia()
		k.bob.Send(k.alice.lid(), doc("old.pdf", "application/pdf", "")(up))
		k.alice.Await("a notice instead", bridgetest.Message(k.room, "WhatsApp does not keep any more"))
	})
	t.Run("too large", func(t *testing.T) {
		up := upload(k.bob, data, whatsmeow.MediaDocument)
		up.FileLength = 200 << 20
		k.bob.Send(k.alice.lid(), doc("huge.iso", "application/x-iso9660-image", "")(up))
		k.alice.Await("a notice instead", bridgetest.Message(k.room, "A file of 200 MB, which is too large for this server."))
	})
}

// TestFilesToWhatsApp sends each kind of file from Matrix.
func TestFilesToWhatsApp(t *testing.T) {
	k := talking(t, func(c *whatsapp.Config, _ *bridgetest.Options) { c.MaxFileSize = 1 << 20 })
	data := []byte("the bytes of a file")
	for _, c := range []struct {
		name string
		sent event.MessageEventContent
		file []byte
		take func(*waE2E.Message) (whatsmeow.DownloadableMessage, bool) // and whether it is as it should be
	}{
		{"image with caption", event.MessageEventContent{
			MsgType: event.MsgImage, Body: "look", FileName: "dot.png", Info: &event.FileInfo{MimeType: "image/png", Width: 9, Height: 5},
		}, picture(9, 5), func(m *waE2E.Message) (whatsmeow.DownloadableMessage, bool) {
			i := m.GetImageMessage()
			return i, i.GetCaption() == "look" && i.GetMimetype() == "image/png" && i.GetWidth() == 9 && len(i.GetJPEGThumbnail()) > 0
		}},
		{"image that WhatsApp does not show", event.MessageEventContent{
			MsgType: event.MsgImage, Body: "scan.tiff", Info: &event.FileInfo{MimeType: "image/tiff"},
		}, data, func(m *waE2E.Message) (whatsmeow.DownloadableMessage, bool) {
			d := m.GetDocumentMessage()
			return d, d.GetFileName() == "scan.tiff" && d.GetMimetype() == "image/tiff"
		}},
		{"video", event.MessageEventContent{
			MsgType: event.MsgVideo, Body: "cat.mp4", Info: &event.FileInfo{MimeType: "video/mp4", Duration: 4200, Width: 640, Height: 480},
		}, data, func(m *waE2E.Message) (whatsmeow.DownloadableMessage, bool) {
			v := m.GetVideoMessage()
			return v, v.GetSeconds() == 4 && v.GetHeight() == 480 && v.GetCaption() == ""
		}},
		{"voice message", event.MessageEventContent{
			MsgType: event.MsgAudio, Body: "voice.ogg", Info: &event.FileInfo{MimeType: "audio/ogg"},
			MSC3245Voice: &event.MSC3245Voice{}, MSC1767Audio: &event.MSC1767Audio{Duration: 5000, Waveform: []int{0, 512, 1024}},
		}, data, func(m *waE2E.Message) (whatsmeow.DownloadableMessage, bool) {
			a := m.GetAudioMessage()
			wave := a.GetWaveform()
			return a, a.GetPTT() && a.GetSeconds() == 5 && a.GetMimetype() == "audio/ogg; codecs=opus" && len(wave) == 64 && wave[0] == 0 && wave[63] == 100
		}},
		{"audio", event.MessageEventContent{
			MsgType: event.MsgAudio, Body: "song.mp3", Info: &event.FileInfo{MimeType: "audio/mpeg", Duration: 9000},
		}, data, func(m *waE2E.Message) (whatsmeow.DownloadableMessage, bool) {
			a := m.GetAudioMessage()
			return a, !a.GetPTT() && a.GetSeconds() == 9 && a.GetMimetype() == "audio/mpeg"
		}},
		{"file", event.MessageEventContent{
			MsgType: event.MsgFile, Body: "plan.pdf", Info: &event.FileInfo{MimeType: "application/pdf"},
		}, data, func(m *waE2E.Message) (whatsmeow.DownloadableMessage, bool) {
			d := m.GetDocumentMessage()
			return d, d.GetFileName() == "plan.pdf" && d.GetMimetype() == "application/pdf"
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			c.sent.URL = k.alice.uploaded(c.file, c.sent.Info.MimeType)
			m := k.alice.arrives(k.bob, k.room, event.EventMessage, &c.sent)
			source, ok := c.take(m)
			if !ok {
				t.Errorf("it arrived as %v", m)
			}
			if got, err := k.bob.Download(context.Background(), source); err != nil || !bytes.Equal(got, c.file) {
				t.Errorf("the file holds %q, %v", got, err)
			}
		})
	}
	t.Run("sticker", func(t *testing.T) {
		url := k.alice.uploaded(data, "image/webp")
		m := k.alice.arrives(k.bob, k.room, event.EventSticker, map[string]any{
			"body": "a smile", "url": url, "info": map[string]any{"mimetype": "image/webp", "w": 64, "h": 64},
		})
		if s := m.GetStickerMessage(); s.GetMimetype() != "image/webp" || s.GetWidth() != 64 {
			t.Errorf("it arrived as %v", m)
		}
	})
	t.Run("too large", func(t *testing.T) {
		sent := k.alice.Send(k.room, &event.MessageEventContent{
			MsgType: event.MsgFile, Body: "huge.iso", URL: k.alice.uploaded(data, "application/octet-stream"), Info: &event.FileInfo{Size: 5 << 20},
		})
		k.alice.refused(sent, "media too large", "5.0 MiB")
	})
}

// TestPlacesAndContacts sends both both ways.
func TestPlacesAndContacts(t *testing.T) {
	k := talking(t, nil)
	from := func(m *waE2E.Message) *event.MessageEventContent {
		return k.alice.gets(k.room, ghost(k.bob.Account), func() { k.bob.Send(k.alice.lid(), m) }).Content.AsMessage()
	}
	if c := from(&waE2E.Message{LocationMessage: &waE2E.LocationMessage{
		DegreesLatitude: proto.Float64(52.516276), DegreesLongitude: proto.Float64(13.377702), Name: proto.String("Brandenburg Gate"),
	}}); c.MsgType != event.MsgLocation || c.GeoURI != "geo:52.516276,13.377702" || !strings.HasPrefix(c.Body, "Brandenburg Gate\n") {
		t.Errorf("the place is %+v", c)
	}
	if c := from(&waE2E.Message{LiveLocationMessage: &waE2E.LiveLocationMessage{
		DegreesLatitude: proto.Float64(1.5), DegreesLongitude: proto.Float64(-2.25),
	}}); c.MsgType != event.MsgLocation || c.GeoURI != "geo:1.500000,-2.250000" || !strings.HasPrefix(c.Body, "Live location") {
		t.Errorf("the live location is %+v", c)
	}
	if c := from(&waE2E.Message{ContactMessage: &waE2E.ContactMessage{
		DisplayName: proto.String("Carol Jones"), Vcard: proto.String(card),
	}}); c.MsgType != event.MsgFile || c.Body != "Carol Jones.vcf" || c.Info.MimeType != "text/vcard" || strings.TrimSpace(string(k.alice.download(c.URL))) != card {
		t.Errorf("the contact is %+v", c)
	}
	if m := k.alice.arrives(k.bob, k.room, event.EventMessage, &event.MessageEventContent{
		MsgType: event.MsgLocation, Body: "Brandenburg Gate", GeoURI: "geo:52.516276,13.377702;u=20",
	}); m.GetLocationMessage().GetDegreesLatitude() != 52.516276 || m.GetLocationMessage().GetName() != "Brandenburg Gate" {
		t.Errorf("the place arrived as %v", m)
	}
	if m := k.alice.arrives(k.bob, k.room, event.EventMessage, &event.MessageEventContent{
		MsgType: event.MsgFile, Body: "carol.vcf", URL: k.alice.uploaded([]byte(card), "text/vcard"), Info: &event.FileInfo{MimeType: "text/vcard"},
	}); m.GetContactMessage().GetDisplayName() != "Carol Jones" || m.GetContactMessage().GetVcard() != card {
		t.Errorf("the contact arrived as %v", m)
	}
	sent := k.alice.Send(k.room, &event.MessageEventContent{MsgType: event.MsgLocation, Body: "nowhere", GeoURI: "geo:91,0"})
	k.alice.refused(sent, "not on earth")
}
