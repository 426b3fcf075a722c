package calltest

import (
	"context"
	"crypto/rand"
	"fmt"
	"io"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pion/ice/v4"
	"github.com/pion/interceptor"
	"github.com/pion/logging"
	"github.com/pion/webrtc/v4"

	"switchboard/homeserver/matrix"
)

const (
	maxSDP        = 32 << 10         // a browser's offer with all its candidates has less than 10 KiB
	maxCandidates = 64               // that the other side may name
	maxMedia      = 8                // sections of an offer
	gathering     = 10 * time.Second // for the addresses of this computer, which take milliseconds
	connecting    = 30 * time.Second // until a peer that nobody reaches ends
)

// peer is the server's end of one test call: it answers an offer, and sends
// back what comes from there.
type peer struct {
	pc      *webrtc.PeerConnection
	calls   *Service
	left    bool // the place is given back; guarded by Service.mu
	closing sync.Once
	gone    chan struct{} // closed when the connection is over

	mu         sync.Mutex // tier 1; guards all below
	connected  bool
	candidates int // named by the other side
	codec      string
	heard      loss  // of what came
	returned   int64 // packets that went back
	missing    int64 // of these, as the other side tells
	reported   bool  // the other side has told
}

// open answers an offer. The voice goes back after delay; the peer ends by
// itself after life. Errors are M_LIMIT_EXCEEDED and M_BAD_JSON.
func (s *Service) open(ctx context.Context, offer string, delay, life time.Duration) (*peer, string, error) {
	if err := checkOffer(offer); err != nil {
		return nil, "", err
	}
	if err := s.take(); err != nil {
		return nil, "", err
	}
	p, answer, err := s.connect(ctx, offer, delay, life)
	if err == nil && !s.settle(p) {
		err = matrix.Errorf(matrix.LimitExceeded, "the server stops; try again in a minute")
	} else if err != nil {
		s.settle(nil)
	}
	if err != nil {
		if p != nil {
			p.close()
		}
		return nil, "", err
	}
	go p.expire(life)
	return p, answer, nil
}

// checkOffer refuses what no client would send.
func checkOffer(offer string) error {
	switch {
	case len(offer) > maxSDP:
		return matrix.Errorf(matrix.TooLarge, "the offer has more than %d bytes", maxSDP)
	case strings.Count(offer, "a=candidate:") > maxCandidates:
		return matrix.Errorf(matrix.BadJSON, "the offer names more than %d addresses", maxCandidates)
	case strings.Count(offer, "m=") > maxMedia:
		return matrix.Errorf(matrix.BadJSON, "the offer has more than %d parts", maxMedia)
	}
	return nil
}

// connect makes the connection and its answer, with all addresses in it. A peer
// that comes with an error must be closed.
func (s *Service) connect(ctx context.Context, offer string, delay, life time.Duration) (*peer, string, error) {
	api, err := s.api()
	if err != nil {
		return nil, "", err
	}
	pc, err := api.NewPeerConnection(webrtc.Configuration{ICEServers: s.servers(ctx, life+s.wait(connecting))})
	if err != nil {
		return nil, "", fmt.Errorf("call test: %w", err)
	}
	p := &peer{calls: s, pc: pc, gone: make(chan struct{}), candidates: strings.Count(offer, "a=candidate:")}
	pc.OnConnectionStateChange(p.changed)
	pc.OnDataChannel(echoData)
	if err := p.voice(offer, delay); err != nil {
		return p, "", err
	}
	if err := pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: p.reachable(offer)}); err != nil {
		return p, "", matrix.Errorf(matrix.BadJSON, "the offer cannot be understood: %v", err)
	}
	answer, err := p.answer(ctx)
	return p, answer, err
}

// servers are the relay that a peer uses itself, for life.
func (s *Service) servers(ctx context.Context, life time.Duration) []webrtc.ICEServer {
	if s.Relay != nil {
		if s.Relay.Local() == "" {
			return nil
		}
		c := s.Relay.TestCredentials("peer-"+rand.Text()[:8], life)
		return []webrtc.ICEServer{{URLs: []string{s.Relay.Local()}, Username: c.Username, Credential: c.Password}}
	}
	c, err := s.elsewhere(ctx, "calltest")
	if c == nil || err != nil {
		return nil // then it can be reached from fewer places
	}
	for _, text := range c.URIs {
		if u, err := parseURI(text); err == nil && u.turn && !u.secure && u.transport == "udp" { // it tells our address, too
			return []webrtc.ICEServer{{URLs: []string{"stun:" + u.address()}}, {URLs: []string{text}, Username: c.Username, Credential: c.Password}}
		}
	}
	return []webrtc.ICEServer{{URLs: c.URIs, Username: c.Username, Credential: c.Password}}
}

// elsewhere are a user's credentials of a relay that is not this server's; nil if
// there is none.
func (s *Service) elsewhere(ctx context.Context, user string) (*Credentials, error) {
	if s.Elsewhere == nil {
		return nil, nil
	}
	return s.Elsewhere(ctx, user)
}

// answer makes the answer to the offer that is set.
func (p *peer) answer(ctx context.Context) (string, error) {
	answer, err := p.pc.CreateAnswer(nil)
	if err != nil {
		return "", matrix.Errorf(matrix.BadJSON, "the offer cannot be answered: %v", err)
	}
	gathered := webrtc.GatheringCompletePromise(p.pc)
	if err := p.pc.SetLocalDescription(answer); err != nil {
		return "", fmt.Errorf("call test: %w", err)
	}
	select {
	case <-gathered:
	case <-time.After(p.calls.wait(gathering)):
	case <-ctx.Done():
		return "", ctx.Err()
	}
	return fit(p.pc.LocalDescription().SDP, p.pc.RemoteDescription().SDP), nil
}

// fit lets each part of an answer go no other way than the offer allows. Pion
// offers both ways for a call that is held, too, which browsers refuse.
func fit(answer, offer string) string {
	const part = "\r\nm="
	parts, offered := strings.Split(answer, part), strings.Split(offer, part)
	for i := 1; i < len(parts) && i < len(offered); i++ {
		for offers, answers := range map[string]string{"a=sendonly": "a=recvonly", "a=recvonly": "a=sendonly", "a=inactive": "a=inactive"} {
			if strings.Contains(offered[i], "\r\n"+offers) {
				parts[i] = strings.Replace(parts[i], "a=sendrecv", answers, 1)
			}
		}
	}
	return strings.Join(parts, part)
}

// maySend tells whether a peer may send to an address that the other side
// names: to what is public, and to relayed addresses of this server. Whoever is
// nearer sends first, and gets answers.
func (s *Service) maySend(to netip.AddrPort) bool {
	return s.relayed(to) || !s.Refuses(to.Addr()) && !s.own(to.Addr())
}

// own tells whether an address is one by which the world reaches this computer.
func (s *Service) own(a netip.Addr) bool {
	return s.Relay != nil && slices.Contains(s.Relay.External(), a)
}

// relayed tells whether an address is a relayed one of this server.
func (s *Service) relayed(a netip.AddrPort) bool {
	if !s.own(a.Addr()) {
		return false
	}
	first, last := s.Relay.Ports()
	return first <= a.Port() && a.Port() <= last
}

// reachable is an offer without the addresses to which the peer must not send.
func (p *peer) reachable(offer string) string {
	var kept strings.Builder
	for line := range strings.Lines(offer) {
		if c, ok := strings.CutPrefix(line, "a="); !ok || !strings.HasPrefix(c, "candidate:") || p.mayTry(c) {
			kept.WriteString(line)
		}
	}
	return kept.String()
}

// mayTry tells whether the peer may send to a candidate.
func (p *peer) mayTry(candidate string) bool {
	f := strings.Fields(candidate)
	if len(f) < 6 {
		return false
	}
	to, err := netip.ParseAddrPort(net.JoinHostPort(f[4], f[5]))
	return err == nil && p.calls.maySend(netip.AddrPortFrom(to.Addr().Unmap(), to.Port()))
}

// renegotiate answers a further offer of the same call.
func (p *peer) renegotiate(ctx context.Context, offer string) (string, error) {
	if err := checkOffer(offer); err != nil {
		return "", err
	}
	if err := p.pc.SetRemoteDescription(webrtc.SessionDescription{Type: webrtc.SDPTypeOffer, SDP: p.reachable(offer)}); err != nil {
		return "", matrix.Errorf(matrix.BadJSON, "the offer cannot be understood: %v", err)
	}
	return p.answer(ctx)
}

// voice prepares the way back for the sound of an offer, in the best codec
// that it has.
func (p *peer) voice(offer string, delay time.Duration) error {
	if !strings.Contains(offer, "m=audio") {
		return nil
	}
	codec, lower := codecs[0], strings.ToLower(offer)
	for _, c := range codecs {
		if _, name, _ := strings.Cut(c.MimeType, "/"); strings.Contains(lower, " "+strings.ToLower(name)+"/") {
			codec = c
			break
		}
	}
	back, err := webrtc.NewTrackLocalStaticRTP(codec.RTPCodecCapability, "echo", "calltest")
	if err != nil {
		return fmt.Errorf("call test: %w", err)
	}
	sender, err := p.pc.AddTrack(back)
	if err != nil {
		return fmt.Errorf("call test: %w", err)
	}
	p.pc.OnTrack(func(t *webrtc.TrackRemote, _ *webrtc.RTPReceiver) {
		p.mu.Lock()
		p.codec = t.Codec().MimeType
		p.mu.Unlock()
		p.echo(t, back, delay)
	})
	go p.listen(sender)
	return nil
}

// codecs are the sounds that peers take, best first. There is no video among
// them, so that video is refused.
var codecs = []webrtc.RTPCodecParameters{
	{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeOpus, ClockRate: 48000, Channels: 2, SDPFmtpLine: "minptime=10;useinbandfec=1"}, PayloadType: 111},
	{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypeG722, ClockRate: 8000}, PayloadType: 9},
	{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypePCMU, ClockRate: 8000}, PayloadType: 0},
	{RTPCodecCapability: webrtc.RTPCodecCapability{MimeType: webrtc.MimeTypePCMA, ClockRate: 8000}, PayloadType: 8},
}

// api makes what peers are made with. The external addresses may change, so it
// is made anew each time.
func (s *Service) api() (*webrtc.API, error) {
	media, registry := &webrtc.MediaEngine{}, &interceptor.Registry{}
	for _, c := range codecs {
		if err := media.RegisterCodec(c, webrtc.RTPCodecTypeAudio); err != nil {
			return nil, fmt.Errorf("call test: %w", err)
		}
	}
	if err := webrtc.ConfigureRTCPReports(registry); err != nil {
		return nil, fmt.Errorf("call test: %w", err)
	}
	settings, err := s.settings()
	if err != nil {
		return nil, fmt.Errorf("call test: %w", err)
	}
	return webrtc.NewAPI(webrtc.WithMediaEngine(media), webrtc.WithInterceptorRegistry(registry), webrtc.WithSettingEngine(settings)), nil
}

// settings are how peers reach the network: at their own addresses, at ports that
// a router forwards, and, through the relay, at one of its own.
func (s *Service) settings() (e webrtc.SettingEngine, err error) {
	e.LoggerFactory = &logging.DefaultLoggerFactory{Writer: io.Discard} // what goes wrong is seen from its results
	e.SetICEMulticastDNSMode(ice.MulticastDNSModeDisabled)
	e.SetNetworkTypes([]webrtc.NetworkType{webrtc.NetworkTypeUDP4, webrtc.NetworkTypeUDP6})
	e.SetIncludeLoopbackCandidate(s.Loopback)
	e.SetSCTPMaxReceiveBufferSize(64 << 10)
	if s.patience > 0 {
		e.SetICETimeouts(s.patience, s.patience, 2*time.Second)
	}
	if s.Relay == nil {
		return e, nil
	}
	if first, last := s.Relay.Ports(); first != last {
		err = e.SetEphemeralUDPPortRange(first, last)
	}
	if err == nil {
		err = e.SetICEAddressRewriteRules(rewrites(s.Relay.External())...)
	}
	return e, err
}

// rewrites adds the external addresses to those of the computer.
func rewrites(external []netip.Addr) (rules []webrtc.ICEAddressRewriteRule) {
	for _, a := range external {
		types := []webrtc.NetworkType{webrtc.NetworkTypeUDP4}
		if a.Is6() {
			types[0] = webrtc.NetworkTypeUDP6
		}
		rules = append(rules, webrtc.ICEAddressRewriteRule{
			External: []string{a.String()}, AsCandidateType: webrtc.ICECandidateTypeHost, Mode: webrtc.ICEAddressRewriteAppend, Networks: types,
		})
	}
	return rules
}

// changed takes note of what becomes of the connection.
func (p *peer) changed(state webrtc.PeerConnectionState) {
	switch state {
	case webrtc.PeerConnectionStateConnected:
		p.mu.Lock()
		p.connected = true
		p.mu.Unlock()
	case webrtc.PeerConnectionStateFailed, webrtc.PeerConnectionStateClosed:
		go p.close() // which waits for this function
	}
}

// expire ends the peer after life, or sooner if nobody reaches it.
func (p *peer) expire(life time.Duration) {
	defer p.close()
	limit := p.calls.wait(connecting)
	select {
	case <-p.gone:
		return
	case <-time.After(min(life, limit)):
	}
	p.mu.Lock()
	connected := p.connected
	p.mu.Unlock()
	if !connected {
		return
	}
	select {
	case <-p.gone:
	case <-time.After(life - limit):
	}
}

// addCandidate takes another address of the other side. Those behind the limit,
// and those to which it must not send, are passed over.
func (p *peer) addCandidate(c webrtc.ICECandidateInit) error {
	p.mu.Lock()
	p.candidates++
	many := p.candidates > maxCandidates
	p.mu.Unlock()
	if many || !p.mayTry(c.Candidate) {
		return nil
	}
	return p.pc.AddICECandidate(c)
}

// close ends the connection and gives its place back. It may be called more
// than once; each call returns when the peer has ended.
func (p *peer) close() {
	p.closing.Do(func() {
		p.pc.GracefulClose() //nolint:errcheck // there is nothing more to be done
		p.calls.leave(p)
		close(p.gone)
	})
}
