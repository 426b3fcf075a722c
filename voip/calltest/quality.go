package calltest

import (
	"net"
	"strings"
	"time"
)

// quality is what was measured of a call.
type quality struct {
	codec        string // without "audio/"; "" if no sound came
	ours, theirs string // kinds of addresses that were used: host, srflx, prflx, relay; "" without a connection
	version      int    // of IP, 4 or 6
	roundTrip    time.Duration
	received     int64 // packets of sound that came
	lost         int64 // and that did not
	returned     int64 // packets that went back
	missing      int64 // of these, if reported
	reported     bool
}

// quality tells how the call is, or was.
func (p *peer) quality() quality {
	p.mu.Lock()
	q := quality{
		codec: strings.TrimPrefix(p.codec, "audio/"), received: p.heard.received, lost: p.heard.lost(),
		returned: p.returned, missing: p.missing, reported: p.reported,
	}
	p.mu.Unlock()
	ice := p.pc.SCTP().Transport().ICETransport()
	pair, err := ice.GetSelectedCandidatePair()
	if err != nil || pair == nil {
		return q
	}
	q.ours, q.theirs, q.version = pair.Local.Typ.String(), pair.Remote.Typ.String(), 4
	if ip := net.ParseIP(pair.Remote.Address); ip != nil && ip.To4() == nil {
		q.version = 6
	}
	if stats, ok := ice.GetSelectedCandidatePairStats(); ok {
		q.roundTrip = time.Duration(stats.CurrentRoundTripTime * float64(time.Second))
	}
	return q
}

// percent is how much of all is lost, in percent.
func percent(lost, all int64) float64 {
	if all <= 0 {
		return 0
	}
	return 100 * float64(min(max(lost, 0), all)) / float64(all)
}
