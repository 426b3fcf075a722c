package calltest

import (
	"sync/atomic"
	"time"

	"github.com/pion/rtcp"
	"github.com/pion/rtp"
	"github.com/pion/webrtc/v4"
)

const (
	maxMessage  = 1 << 10 // bytes of a message on a data channel that is sent back
	maxMessages = 2000    // on one data channel
	maxRate     = 200     // packets of sound in a second; calls have 50
)

// echoData sends back what comes on a data channel, as far as a test goes.
func echoData(d *webrtc.DataChannel) {
	var count atomic.Int32
	d.OnMessage(func(m webrtc.DataChannelMessage) {
		if len(m.Data) > maxMessage || count.Add(1) > maxMessages {
			return
		}
		if m.IsString {
			d.SendText(string(m.Data)) //nolint:errcheck // the other side sees what is missing
		} else {
			d.Send(m.Data) //nolint:errcheck // the same
		}
	})
}

// late is a packet on its way back.
type late struct {
	packet *rtp.Packet
	due    time.Time
}

// echo sends the sound of from back through to, each packet after delay, until
// the connection ends.
func (p *peer) echo(from *webrtc.TrackRemote, to *webrtc.TrackLocalStaticRTP, delay time.Duration) {
	queue := make(chan late, maxRate*(1+int(delay/time.Second)))
	done := make(chan struct{})
	go func() {
		defer close(done)
		for l := range queue {
			time.Sleep(time.Until(l.due))
			if to.WriteRTP(l.packet) == nil { // a closed connection ends the reading below
				p.mu.Lock()
				p.returned++
				p.mu.Unlock()
			}
		}
	}()
	defer func() {
		close(queue)
		<-done
	}()
	var second time.Time
	var rate int
	for {
		packet, _, err := from.ReadRTP()
		if err != nil {
			return
		}
		p.mu.Lock()
		p.heard.add(packet.SequenceNumber)
		p.mu.Unlock()
		now := time.Now()
		if now.Sub(second) >= time.Second {
			second, rate = now, 0
		}
		if rate++; rate > maxRate {
			continue
		}
		packet.Header.Extension, packet.Header.Extensions, packet.Header.CSRC = false, nil, nil // numbered otherwise on the way back
		select {
		case queue <- late{packet, now.Add(delay)}:
		default: // no call sends that much
		}
	}
}

// listen reads what the other side tells of the sound that came back to it.
func (p *peer) listen(sender *webrtc.RTPSender) {
	for {
		packets, _, err := sender.ReadRTCP()
		if err != nil {
			return
		}
		for _, packet := range packets {
			var reports []rtcp.ReceptionReport
			switch r := packet.(type) {
			case *rtcp.ReceiverReport:
				reports = r.Reports
			case *rtcp.SenderReport:
				reports = r.Reports
			}
			p.mu.Lock()
			for _, r := range reports {
				p.reported, p.missing = true, int64(r.TotalLost)
			}
			p.mu.Unlock()
		}
	}
}

// loss counts packets by their sequence numbers, which begin again after 65535.
type loss struct {
	first, last int64
	received    int64
}

// add counts a packet.
func (l *loss) add(sequence uint16) {
	l.received++
	if l.received == 1 {
		l.first, l.last = int64(sequence), int64(sequence)
		return
	}
	// The difference to the newest, as a number with a sign: late ones are behind it.
	l.last = max(l.last, l.last+int64(int16(sequence-uint16(l.last))))
}

// lost is how many packets are missing.
func (l *loss) lost() int64 {
	if l.received == 0 {
		return 0
	}
	return max(0, l.last-l.first+1-l.received)
}
