package calltest

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/pion/stun/v3"

	"switchboard/homeserver/fedclient"
)

// Examination tries everything that calls need of the server, from the server
// itself: what clients are told of the relay, one address after the other.
type Examination struct {
	// Credentials are fresh ones, as a client gets them, each time of another user.
	// No URIs, or none at all (nil), mean that there is no relay.
	Credentials func(ctx context.Context) (*Credentials, error)

	// Relay is the relay of this process; nil if it is another one, of which less
	// is known.
	Relay Relay

	// HTTPS is an address of the server's web listener, "host:port" as clients
	// reach it, to learn whether this machine reaches itself by its public
	// address. It may be "".
	HTTPS string

	// Roots are the authorities that are trusted. Nil means those of the system.
	Roots *x509.CertPool

	patience time.Duration // how long anything may take, if that is longer than usual: tests run on busy machines
}

// wait is how long something may take.
func (e *Examination) wait(limit time.Duration) time.Duration { return max(limit, e.patience) }

// Level says how bad a finding is.
type Level string

// The levels.
const (
	Good    Level = "ok"
	Unsure  Level = "unsure"  // cannot be known from here, or is bad only for some
	Problem Level = "problem" // calls fail
)

// Finding is one thing that was looked at.
type Finding struct {
	Level Level  `json:"level"`
	What  string `json:"what"`          // a URI, or a word such as "DNS"
	Text  string `json:"text"`          // what was seen
	Fix   string `json:"fix,omitempty"` // what to do
}

// Report is the result of an examination.
type Report struct {
	Findings []Finding `json:"findings"`
}

// Count is how many findings have a level.
func (r Report) Count(l Level) (n int) {
	for _, f := range r.Findings {
		if f.Level == l {
			n++
		}
	}
	return n
}

func (r *Report) add(l Level, what, text, fix string) {
	r.Findings = append(r.Findings, Finding{l, what, text, fix})
}

const (
	examineTimeout = 45 * time.Second // for all together
	tryTimeout     = 6 * time.Second  // for a server that does not answer
)

// Run examines. It takes seconds, and less than a minute.
func (e *Examination) Run(ctx context.Context) Report {
	ctx, cancel := context.WithTimeout(ctx, e.wait(examineTimeout))
	defer cancel()
	var r Report
	have, err := e.Credentials(ctx)
	switch {
	case err != nil:
		r.add(Problem, "credentials", fmt.Sprintf("clients get none: %v", err), "See to voip.provider and its section in the configuration.")
		return r
	case have == nil || len(have.URIs) == 0:
		r.add(Problem, "relay", "there is none, so that calls reach only people whose network can be reached",
			"Set voip.provider to builtin, or to external for a TURN server of your own.")
		return r
	}
	r.add(Good, "credentials", "clients get them", "")
	var uris []uri
	for _, text := range have.URIs {
		u, err := parseURI(text)
		if err != nil {
			r.add(Problem, text, err.Error(), "Correct the URI in the configuration.")
			continue
		}
		uris = append(uris, u)
	}
	e.names(ctx, &r, uris)
	e.ports(ctx, &r)
	r.Findings = append(r.Findings, e.tryAll(ctx, uris)...)
	if e.Relay != nil && r.Count(Problem) == 0 {
		r.add(Unsure, "from outside", "this machine can test everything but the way through your router and firewall from elsewhere",
			"Open the page /calltest on a phone in the mobile network. For somebody without an account: switchboard calltest link")
	}
	return r
}

// names compares what the DNS says with the addresses of this machine.
func (e *Examination) names(ctx context.Context, r *Report, uris []uri) {
	var external []netip.Addr
	if e.Relay != nil {
		external = e.Relay.External()
		e.external(r, external)
	}
	seen := map[string]bool{}
	for _, u := range uris {
		if _, err := netip.ParseAddr(u.host); err == nil || seen[u.host] {
			continue
		}
		seen[u.host] = true
		found := resolve(ctx, u.host)
		if len(found) == 0 {
			r.add(Problem, "DNS", "there is no address for "+u.host, "Make an A record for it, and an AAAA record if this machine has IPv6.")
			continue
		}
		right := true
		for _, family := range []int{4, 6} {
			isFamily := func(a netip.Addr) bool { return familyOf(a) == family }
			in, here := slices.DeleteFunc(slices.Clone(found), func(a netip.Addr) bool { return !isFamily(a) }), slices.IndexFunc(external, isFamily)
			kind := map[int]string{4: "A", 6: "AAAA"}[family]
			switch {
			case e.Relay == nil || len(in) == 0:
			case here < 0:
				right = false
				r.add(Problem, "DNS", fmt.Sprintf("%s has the address %s, but this machine has no IPv%d", u.host, in[0], family),
					fmt.Sprintf("Remove the %s record, or let voip.turn.host be a name without one.", kind))
			case !slices.Contains(in, external[here]):
				right = false
				r.add(Problem, "DNS", fmt.Sprintf("%s has the address %s, but others see this machine as %s", u.host, in[0], external[here]),
					fmt.Sprintf("Correct the %s record. If it is meant to lead to a proxy, which carries no calls, set voip.turn.host to a name that leads here.", kind))
			}
		}
		if right {
			r.add(Good, "DNS", fmt.Sprintf("%s is %s", u.host, joined(found)), "")
		}
	}
}

// external looks at the addresses from which relayed packets come.
func (e *Examination) external(r *Report, external []netip.Addr) {
	if len(external) == 0 {
		r.add(Problem, "address", "the address of this machine is not known", "Set voip.turn.external_ips.")
	}
	for _, a := range external {
		if !fedclient.Public(a) {
			r.add(Unsure, "address", fmt.Sprintf("%s is no public address: calls with people elsewhere fail", a),
				"If this machine is behind a router, set voip.turn.external_ips to the public address of that, or let UDP to the STUN servers of voip.turn.stun_servers out. In a network of its own all is well.")
		} else {
			r.add(Good, "address", "others see this machine as "+a.String(), "")
		}
	}
}

func joined(addrs []netip.Addr) string {
	var words []string
	for _, a := range addrs {
		words = append(words, a.String())
	}
	return strings.Join(words, " and ")
}

// ports looks whether the relay finds free ports.
func (e *Examination) ports(ctx context.Context, r *Report) {
	if e.Relay == nil {
		return
	}
	first, last := e.Relay.Ports()
	if first == last {
		r.add(Good, "relay ports", fmt.Sprintf("all calls share UDP port %d, which must be open and forwarded", first), "")
		return
	}
	const most = 1000 // of a large range, some are tried
	taken, all, step := 0, 0, (int(last)-int(first))/most+1
	for port := int(first); port <= int(last); port += step {
		all++
		var config net.ListenConfig
		c, err := config.ListenPacket(ctx, "udp4", fmt.Sprintf(":%d", port))
		if err != nil {
			taken++
			continue
		}
		c.Close()
	}
	text := fmt.Sprintf("UDP %d to %d, which must be open and forwarded; %d of %d tried are free", first, last, all-taken, all)
	if taken > all/2 {
		r.add(Unsure, "relay ports", text, "Take another range in voip.turn.min_port and max_port, or find out what uses these (ss -lunp).")
		return
	}
	r.add(Good, "relay ports", text, "")
}

// tryAll tries each URI at each address, all at once.
func (e *Examination) tryAll(ctx context.Context, uris []uri) []Finding {
	type target struct {
		uri
		at netip.Addr
	}
	var targets []target
	for _, u := range uris {
		for _, a := range resolve(ctx, u.host) {
			targets = append(targets, target{u, a})
		}
	}
	results := make([]error, len(targets))
	details := make([]string, len(targets))
	var group sync.WaitGroup
	for i, t := range targets {
		group.Go(func() { details[i], results[i] = e.try(ctx, t.uri, t.at) })
	}
	var loops bool // this machine reaches itself by its public address
	if e.HTTPS != "" {
		group.Go(func() { loops = reaches(ctx, e.HTTPS) })
	}
	group.Wait()
	loops = loops || slices.Contains(results, nil)
	var found []Finding
	for i, t := range targets {
		what := t.text
		if _, err := netip.ParseAddr(t.host); err != nil && t.at.Is6() {
			what += " (IPv6)"
		}
		found = append(found, e.judge(t.uri, what, details[i], results[i], loops)...)
	}
	return append(found, e.hairpin(loops)...)
}

// hairpin tells whether this machine reaches itself by its public address, where
// that is not its own.
func (e *Examination) hairpin(loops bool) []Finding {
	if e.Relay == nil || !slices.ContainsFunc(e.Relay.External(), func(a netip.Addr) bool { return !isLocal(a) }) {
		return nil
	}
	if loops {
		return []Finding{{Good, "hairpin", "the router lets this machine reach itself by its public address", ""}}
	}
	return []Finding{{Unsure, "hairpin", "this machine does not reach itself by its public address: the router forwards nothing, or it does not let its own network in by its public address (hairpin NAT)",
		"People in this machine's own network may fail to call. Turn on NAT loopback in the router, or let the DNS of this network lead to this machine directly."}}
}

// isLocal tells whether an address is one of this machine's interfaces.
func isLocal(a netip.Addr) bool {
	list, err := net.InterfaceAddrs()
	return err == nil && slices.ContainsFunc(list, func(i net.Addr) bool {
		n, ok := i.(*net.IPNet)
		if !ok {
			return false
		}
		own, ok := netip.AddrFromSlice(n.IP)
		return ok && own.Unmap() == a
	})
}

// reaches tells whether something listens at an address over TCP.
func reaches(ctx context.Context, address string) bool {
	dialer := net.Dialer{Timeout: tryTimeout}
	c, err := dialer.DialContext(ctx, "tcp", address)
	if err != nil {
		return false
	}
	c.Close()
	return true
}

// judge says what an attempt means.
func (e *Examination) judge(u uri, what, detail string, err error, loops bool) []Finding {
	var found []Finding
	var cert certificateError
	if errors.As(err, &cert) && cert.soft { // it works until then
		found, err = append(found, Finding{Unsure, what, cert.text, cert.fix}), nil
	}
	port := strings.ToUpper(u.transport) + " port " + u.port
	var at stepError
	switch {
	case err == nil:
		return append(found, Finding{Good, what, detail, ""})
	case errors.As(err, &cert):
		return append(found, Finding{Problem, what, cert.text, cert.fix})
	case !errors.As(err, &at):
		return append(found, Finding{Problem, what, err.Error(), ""})
	}
	text := fmt.Sprintf("%s: %v", at.step, at.err)
	switch at.step {
	case stepConnect, stepBinding:
		if e.Relay != nil && !loops {
			return append(found, Finding{Unsure, what, "no answer by the public address of this machine, from which nothing comes back here",
				"Forward " + port + " in the router to this machine and open it in the firewall. Whether that is done can only be seen from outside: switchboard calltest link"})
		}
		return append(found, Finding{Problem, what, text, "Open " + port + " in the firewall, and forward it in the router to this machine. Does another program use it?"})
	case stepAllocate:
		var refused *stun.TurnError
		if errors.As(at.err, &refused) && (refused.ErrorCodeAttr.Code == stun.CodeAllocQuotaReached || refused.ErrorCodeAttr.Code == stun.CodeInsufficientCapacity) {
			fix := "It has no relayed address left: raise its quotas, or give it more ports."
			if e.Relay != nil {
				fix = "It has no relayed address left: raise voip.turn.total_quota, or let more ports be between voip.turn.min_port and max_port."
			}
			return append(found, Finding{Problem, what, text, fix})
		}
		return append(found, Finding{Problem, what, text, "It is no TURN server that answers, or one that does not know our secret: see that nothing else listens at " + port + ", and that voip.external.secret is right."})
	}
	return append(found, Finding{Problem, what, text, "The relay gives addresses, but nothing comes through: see voip.turn.external_ips, voip.turn.deny_peers and the firewall of this machine."})
}
