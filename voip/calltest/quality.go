package calltest

import (
	"cmp"
	"fmt"
	"net/netip"
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
	if a, err := netip.ParseAddr(pair.Remote.Address); err == nil {
		q.version = familyOf(a)
		if q.theirs == "prflx" && p.calls.relayed(netip.AddrPortFrom(a, pair.Remote.Port)) { // it came before we heard of it
			q.theirs = "relay"
		}
	}
	if stats, ok := ice.GetSelectedCandidatePairStats(); ok {
		q.roundTrip = time.Duration(stats.CurrentRoundTripTime * float64(time.Second))
	}
	return q
}

// later is what was measured last, with the path and the round trip of before if
// the connection is gone: it forgets them one after the other.
func later(before, now quality) quality {
	if now.theirs == "" {
		now.ours, now.theirs, now.version = before.ours, before.theirs, before.version
	}
	now.roundTrip = cmp.Or(now.roundTrip, before.roundTrip)
	return now
}

// report tells people how a call was. Page is where there is more to be tested,
// or "".
func (q quality) report(length time.Duration, page string) string {
	if q.theirs == "" {
		text := "We did not reach each other: no way between your app and this server carries sound. " +
			"Try another network, such as the mobile one. If that works, it is the first network that blocks calls."
		if page != "" {
			text += " What exactly does not work is told by " + page
		}
		return text
	}
	lines := []string{fmt.Sprintf("The call took %s.", length.Round(time.Second))}
	if q.received == 0 {
		lines = append(lines, "We were connected, but no sound came from you. Is the microphone on, and may your app use it?")
	} else {
		lines = append(lines, "Codec: "+q.codec)
	}
	how := "directly"
	if q.theirs == "relay" {
		how = "through a relay"
	}
	lines = append(lines, fmt.Sprintf("Path: you reach the server %s over IPv%d (candidates: %s here, %s there)", how, q.version, q.ours, q.theirs))
	if q.roundTrip > 0 {
		lines = append(lines, fmt.Sprintf("Round trip: %s", q.roundTrip.Round(100*time.Microsecond)))
	}
	if q.received > 0 {
		lines = append(lines, fmt.Sprintf("Lost on the way here: %.1f %% of %d packets", percent(q.lost, q.lost+q.received), q.lost+q.received))
	}
	if q.reported {
		lines = append(lines, fmt.Sprintf("Lost on the way back: %.1f %% of %d packets", percent(q.missing, q.returned), q.returned))
	}
	return strings.Join(lines, "\n")
}

// percent is how much of all is lost, in percent.
func percent(lost, all int64) float64 {
	if all <= 0 {
		return 0
	}
	return 100 * float64(min(max(lost, 0), all)) / float64(all)
}
