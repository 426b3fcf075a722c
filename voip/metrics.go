package voip

import (
	"strconv"
	"sync"
	"sync/atomic"

	"github.com/pion/stun/v3"
	"github.com/prometheus/client_golang/prometheus"
)

// reason is why a packet went nowhere.
type reason int

const (
	malformed reason = iota
	noAllocation
	noPermission
	tooFast
	tooOften
	tooMany
	reasons
)

var reasonNames = [reasons]string{"malformed", "no_allocation", "no_permission", "too_fast", "too_often", "too_many"}

// direction is where data go.
type direction int

const (
	toPeer direction = iota
	toClient
	directions
)

var directionNames = [directions]string{"to_peer", "to_client"}

// counters count the data of one loop.
type counters struct {
	packets [directions]atomic.Uint64
	bytes   [directions]atomic.Uint64
}

// metrics count what a relay does. No label names a user or an address.
type metrics struct {
	sessions atomic.Uint64
	drops    [reasons]atomic.Uint64
	apart    counters // of what no loop did

	mu      sync.Mutex // tier 3; guards answers
	answers map[answered]uint64
}

// answered is a kind of answer.
type answered struct {
	method stun.Method
	code   stun.ErrorCode // 0: it succeeded
}

func (m *metrics) dropped(why reason) { m.drops[why].Add(1) }

func (m *metrics) answered(method stun.Method, code stun.ErrorCode) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.answers == nil {
		m.answers = map[answered]uint64{}
	}
	m.answers[answered{method, code}]++
}

func (m *metrics) relayed(on *loop, where direction, n int) {
	c := &m.apart
	if on != nil {
		c = on.tally()
	}
	c.packets[where].Add(1)
	c.bytes[where].Add(uint64(n))
}

var (
	descSessions = prometheus.NewDesc("switchboard_turn_allocations", "How many clients have relayed addresses.", nil, nil)
	descMade     = prometheus.NewDesc("switchboard_turn_allocations_total", "How many got some.", nil, nil)
	descStreams  = prometheus.NewDesc("switchboard_turn_streams", "How many clients are connected over TCP or TLS.", nil, nil)
	descPackets  = prometheus.NewDesc("switchboard_turn_packets_total", "Relayed packets.", []string{"direction"}, nil)
	descBytes    = prometheus.NewDesc("switchboard_turn_bytes_total", "Bytes in relayed packets.", []string{"direction"}, nil)
	descDrops    = prometheus.NewDesc("switchboard_turn_dropped_total", "Packets that went nowhere.", []string{"reason"}, nil)
	descAnswers  = prometheus.NewDesc("switchboard_turn_answers_total", "Answers to requests; the code is that of the error, or 0.", []string{"method", "code"}, nil)
)

// Describe implements prometheus.Collector.
func (r *Relay) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{descSessions, descMade, descStreams, descPackets, descBytes, descDrops, descAnswers} {
		out <- d
	}
}

// Collect implements prometheus.Collector.
func (r *Relay) Collect(out chan<- prometheus.Metric) {
	tell := func(d *prometheus.Desc, kind prometheus.ValueType, n uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, kind, float64(n), labels...)
	}
	tell(descSessions, prometheus.GaugeValue, uint64(r.Sessions()))
	tell(descMade, prometheus.CounterValue, r.count.sessions.Load())
	r.gate.mu.Lock()
	tell(descStreams, prometheus.GaugeValue, uint64(len(r.gate.all)))
	r.gate.mu.Unlock()
	for d := range directions {
		packets, bytes := r.count.apart.packets[d].Load(), r.count.apart.bytes[d].Load()
		for _, c := range r.network.counters() {
			packets += c.packets[d].Load()
			bytes += c.bytes[d].Load()
		}
		tell(descPackets, prometheus.CounterValue, packets, directionNames[d])
		tell(descBytes, prometheus.CounterValue, bytes, directionNames[d])
	}
	for why := range reasons {
		tell(descDrops, prometheus.CounterValue, r.count.drops[why].Load(), reasonNames[why])
	}
	r.count.mu.Lock()
	defer r.count.mu.Unlock()
	for a, n := range r.count.answers {
		tell(descAnswers, prometheus.CounterValue, n, a.method.String(), strconv.Itoa(int(a.code)))
	}
}
