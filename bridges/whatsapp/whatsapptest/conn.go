package whatsapptest

import (
	"context"
	"crypto/cipher"
	"encoding/base64"
	"strconv"
	"sync"
	"time"

	"github.com/coder/websocket"

	waBinary "go.mau.fi/whatsmeow/binary"
	"go.mau.fi/whatsmeow/proto/waWa6"
	"go.mau.fi/whatsmeow/types"
)

// device is a device of an account; number 0 is the phone.
type device struct {
	account      *Account
	number       uint16
	registration []byte
	identity     []byte
	signedKey    waBinary.Node
	oneTimeKeys  []oneTimeKey
	online       bool            // said so
	conn         *conn           // or nil
	unconfirmed  []waBinary.Node // stanzas, oldest first
}

type oneTimeKey struct{ id, public []byte }

func (d *device) jid() types.JID {
	jid := d.account.LID
	jid.Device = d.number
	return jid
}

// give sends a stanza that the device must confirm. The server's mu is held.
func (d *device) give(n waBinary.Node) {
	d.unconfirmed = append(d.unconfirmed, n)
	if d.conn != nil {
		d.conn.send(n)
	}
}

// confirm takes from a device the first stanza of a kind with an ID. The caller
// holds mu.
func (s *Server) confirm(d *device, tag string, id any) {
	if s.forgets {
		return
	}
	for i, n := range d.unconfirmed {
		if n.Tag == tag && n.Attrs["id"] == id {
			d.unconfirmed = append(d.unconfirmed[:i:i], d.unconfirmed[i+1:]...)
			return
		}
	}
}

// lastWord is how long a connection stays open behind the reason for its end, if
// the client does not end it.
const lastWord = time.Minute

// conn is a connection.
type conn struct {
	server   *Server
	socket   *websocket.Conn
	unread   []byte
	read     cipher.AEAD
	write    cipher.AEAD
	reads    uint32
	writes   uint32 // counts in the writer only
	noiseKey []byte
	applies  *waWa6.ClientPayload_DevicePairingRegistrationData // of who wants to be linked
	device   *device                                            // nil until it is known
	linked   types.JID                                          // becomes the device's when it comes again
	code     pairing                                            // under way by code

	mu    sync.Mutex // tier 1, after the server's; guards what follows
	wake  sync.Cond
	queue []waBinary.Node
	ended bool
}

func newConn(s *Server, socket *websocket.Conn) *conn {
	c := &conn{server: s, socket: socket}
	c.wake.L = &c.mu
	return c
}

func (c *conn) readFrame(ctx context.Context) ([]byte, error) {
	for {
		if len(c.unread) >= 3 {
			size := int(c.unread[0])<<16 | int(c.unread[1])<<8 | int(c.unread[2])
			if len(c.unread) >= 3+size {
				frame := c.unread[3 : 3+size]
				c.unread = c.unread[3+size:]
				return frame, nil
			}
		}
		_, more, err := c.socket.Read(ctx)
		if err != nil {
			return nil, err
		}
		c.unread = append(append([]byte(nil), c.unread...), more...)
	}
}

func (c *conn) writeFrame(b []byte) error {
	head := []byte{byte(len(b) >> 16), byte(len(b) >> 8), byte(len(b))}
	return c.socket.Write(c.server.ctx, websocket.MessageBinary, append(head, b...))
}

// send puts a stanza at the end of what is to be written.
func (c *conn) send(n waBinary.Node) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.queue = append(c.queue, n)
	c.wake.Signal()
}

// writeAll writes what is sent until the connection ends.
func (c *conn) writeAll() {
	for {
		c.mu.Lock()
		for len(c.queue) == 0 && !c.ended {
			c.wake.Wait()
		}
		if c.ended {
			c.mu.Unlock()
			return
		}
		n := c.queue[0]
		c.queue = c.queue[1:]
		c.mu.Unlock()
		err := c.writeFrame(c.write.Seal(nil, nonce(c.writes), must(waBinary.Marshal(n)), nil))
		c.writes++
		switch {
		case err != nil:
			_ = c.socket.CloseNow()
		case n.Tag == "failure" || n.Tag == "stream:error":
			// A client that sees the end first may not read the reason any more.
			time.AfterFunc(lastWord, func() { _ = c.socket.CloseNow() })
		}
	}
}

// run serves a connection from the handshake to the end.
func (c *conn) run() {
	ctx, cancel := context.WithCancel(c.server.ctx)
	defer cancel()
	defer c.socket.CloseNow()
	payload, err := c.handshake(ctx)
	if err != nil {
		return
	}
	var writer sync.WaitGroup
	writer.Go(c.writeAll)
	defer writer.Wait()
	defer c.end()
	if payload.DevicePairingData != nil {
		c.offerLink(payload.DevicePairingData)
	} else {
		c.login(payload)
	}
	for {
		n, err := c.readNode(ctx)
		if err != nil {
			return
		}
		c.handle(n)
	}
}

func (c *conn) readNode(ctx context.Context) (*waBinary.Node, error) {
	frame, err := c.readFrame(ctx)
	if err != nil {
		return nil, err
	}
	plain, err := c.read.Open(nil, nonce(c.reads), frame, nil)
	c.reads++
	if err != nil {
		return nil, err
	}
	if plain, err = waBinary.Unpack(plain); err != nil {
		return nil, err
	}
	return waBinary.Unmarshal(plain)
}

// end takes the connection from its device and stops the writer.
func (c *conn) end() {
	c.server.mu.Lock()
	if c.device != nil && c.device.conn == c {
		c.device.conn, c.device.online = nil, false
	}
	delete(c.server.linking, base64.StdEncoding.EncodeToString(c.noiseKey))
	c.server.mu.Unlock()
	c.mu.Lock()
	c.ended = true
	c.wake.Signal()
	c.mu.Unlock()
}

// replaced ends the connection of a device that has come a second time.
var replaced = waBinary.Node{Tag: "stream:error", Attrs: waBinary.Attrs{"code": "409"}, Content: []waBinary.Node{
	{Tag: "conflict", Attrs: waBinary.Attrs{"type": "replaced"}},
}}

// login lets a device in that is linked, and gives it what it missed.
func (c *conn) login(payload *waWa6.ClientPayload) {
	s := c.server
	s.mu.Lock()
	defer s.mu.Unlock()
	account := s.accounts[strconv.FormatUint(payload.GetUsername(), 10)]
	var d *device
	if account != nil {
		jid := account.LID
		jid.Device = uint16(payload.GetDevice())
		d = s.devices[jid]
	}
	switch {
	case d == nil:
		c.send(waBinary.Node{Tag: "failure", Attrs: waBinary.Attrs{"reason": "401"}})
		return
	case d.number > 0 && account.refusal != nil:
		c.send(waBinary.Node{Tag: "failure", Attrs: account.refusal})
		return
	}
	if d.conn != nil {
		d.conn.send(replaced)
	}
	c.device, d.conn = d, c
	c.send(waBinary.Node{Tag: "success", Attrs: waBinary.Attrs{"t": now(), "lid": d.jid(), "location": "test"}})
	for _, n := range d.unconfirmed {
		c.send(n)
	}
	c.send(waBinary.Node{Tag: "ib", Attrs: waBinary.Attrs{"from": types.ServerJID}, Content: []waBinary.Node{
		{Tag: "offline", Attrs: waBinary.Attrs{"count": strconv.Itoa(len(d.unconfirmed))}},
	}})
	if d.number > 0 && account.copied {
		c.send(replaced)
	}
}

// handle takes a stanza.
func (c *conn) handle(n *waBinary.Node) {
	if c.device == nil && n.Tag != "iq" {
		return
	}
	switch n.Tag {
	case "iq":
		if n.Attrs["type"] == "result" {
			c.server.mu.Lock()
			linked := c.linked.User != ""
			c.server.mu.Unlock()
			if linked && n.Attrs["id"] == pairSuccessID {
				c.send(waBinary.Node{Tag: "stream:error", Attrs: waBinary.Attrs{"code": "515"}})
			}
			return
		}
		c.iq(n)
	case "message":
		c.message(n)
	case "receipt":
		c.receipt(n)
	case "ack":
		c.server.mu.Lock()
		class, _ := n.Attrs["class"].(string)
		c.server.confirm(c.device, class, n.Attrs["id"])
		c.server.mu.Unlock()
	case "presence":
		if kind, _ := n.Attrs["type"].(string); kind == "available" || kind == "unavailable" {
			c.server.mu.Lock()
			c.device.online = kind == "available"
			c.server.mu.Unlock()
		}
	case "chatstate":
		c.chatstate(n)
	case "ib":
	default:
		c.server.unexpected(n)
	}
}
