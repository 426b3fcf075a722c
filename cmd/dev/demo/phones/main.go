// Command phones is the WhatsApp side of the demo: a WhatsApp server, the phone
// of Alice, by which she links the bridge, and that of Wanda, who chats with
// her. It takes orders on standard input and tells on standard output what
// Wanda's phone shows, both as lines of JSON, until the input ends.
package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"

	"go.mau.fi/whatsmeow"
	"go.mau.fi/whatsmeow/proto/waE2E"
	"google.golang.org/protobuf/proto"

	"switchboard/bridges/whatsapp/whatsapptest"
)

// order is what the demo wants: the field that is set says what.
type order struct {
	Scan    string `json:"scan"`    // the QR code that Alice's phone sees
	Text    string `json:"text"`    // what Wanda writes to Alice
	Picture string `json:"picture"` // the file that she sends to her
}

// told is what the demo reads.
type told struct {
	Server  string `json:"server,omitempty"` // the bridge's option test_server
	From    string `json:"from,omitempty"`
	Text    string `json:"text,omitempty"`
	Picture string `json:"picture,omitempty"` // a file
}

func main() {
	dir, err := os.MkdirTemp("", "switchboard-phones-")
	if err != nil {
		fmt.Fprintln(os.Stderr, "phones:", err)
		os.Exit(1)
	}
	p := &program{ctx: context.Background(), dir: dir}
	defer p.end()
	server := whatsapptest.NewServer()
	p.Cleanup(server.Close)
	s := stage{p, server.Phone(p, "15550001", "Alice"), server.Phone(p, "15550002", "Wanda")}
	news := make(chan struct{}, 1)
	s.wanda.AddEventHandler(func(any) {
		select {
		case news <- struct{}{}:
		default:
		}
	})
	orders := make(chan order)
	go func() {
		defer close(orders)
		for in := json.NewDecoder(bufio.NewReader(os.Stdin)); ; {
			var o order
			if in.Decode(&o) != nil {
				return
			}
			orders <- o
		}
	}()
	s.tell(told{Server: whatsapptest.Settings(server.Address())})
	for shown := 0; ; {
		select {
		case o, ok := <-orders:
			if !ok {
				return
			}
			s.carryOut(o)
		case <-news:
			for _, m := range s.wanda.Messages()[shown:] {
				shown++
				s.tell(told{From: m.Info.PushName, Text: whatsapptest.Text(m.Message), Picture: s.picture(m.Message)})
			}
		}
	}
}

// stage is where the demo plays.
type stage struct {
	*program
	alice, wanda *whatsapptest.Phone
}

func (s stage) carryOut(o order) {
	switch to := s.alice.Account.LID; {
	case o.Scan != "":
		s.alice.Scan(o.Scan)
	case o.Picture != "":
		data, err := os.ReadFile(o.Picture)
		if err != nil {
			s.Fatal(err)
		}
		up, err := s.wanda.Upload(s.ctx, data, whatsmeow.MediaImage)
		if err != nil {
			s.Fatal(err)
		}
		s.wanda.Send(to, &waE2E.Message{ImageMessage: &waE2E.ImageMessage{
			URL: &up.URL, DirectPath: &up.DirectPath, MediaKey: up.MediaKey, FileEncSHA256: up.FileEncSHA256,
			FileSHA256: up.FileSHA256, FileLength: &up.FileLength, Mimetype: proto.String("image/png"),
		}})
	default:
		s.wanda.Say(to, o.Text)
	}
}

// picture stores the picture of a message in a file, if it has one.
func (s stage) picture(m *waE2E.Message) string {
	image := m.GetImageMessage()
	if image == nil {
		return ""
	}
	data, err := s.wanda.Download(s.ctx, image)
	file := filepath.Join(s.dir, "picture")
	if err == nil {
		err = os.WriteFile(file, data, 0o600)
	}
	if err != nil {
		s.Fatal(err)
	}
	return file
}

func (s stage) tell(t told) {
	if err := json.NewEncoder(os.Stdout).Encode(t); err != nil {
		s.Fatal(err)
	}
}

// program is a whatsapptest.T: what fails ends it.
type program struct {
	ctx  context.Context //nolint:containedctx // a T has one
	dir  string
	ends []func()
}

func (p *program) end() {
	for i := len(p.ends) - 1; i >= 0; i-- {
		p.ends[i]()
	}
	os.RemoveAll(p.dir)
}

// Fatalf implements whatsapptest.T.
func (p *program) Fatalf(format string, args ...any) {
	p.Logf(format, args...)
	p.end()
	os.Exit(1)
}

// Fatal implements whatsapptest.T.
func (p *program) Fatal(args ...any) { p.Fatalf("%s", fmt.Sprint(args...)) }

// Logf implements whatsapptest.T.
func (p *program) Logf(format string, args ...any) {
	fmt.Fprintf(os.Stderr, "phones: "+format+"\n", args...)
}

// Cleanup implements whatsapptest.T.
func (p *program) Cleanup(f func()) { p.ends = append(p.ends, f) }

// Context implements whatsapptest.T.
func (p *program) Context() context.Context { return p.ctx }

// Helper implements whatsapptest.T.
func (p *program) Helper() {}

// TempDir implements whatsapptest.T.
func (p *program) TempDir() string {
	dir, err := os.MkdirTemp(p.dir, "")
	if err != nil {
		p.Fatal(err)
	}
	return dir
}
