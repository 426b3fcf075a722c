package main

import (
	"net/http"
	"net/http/pprof"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	"github.com/rs/zerolog"
)

// metrics is what Prometheus may know.
type metrics struct {
	registry *prometheus.Registry
	requests *prometheus.HistogramVec
	running  prometheus.Gauge
}

// newMetrics makes the metrics of any command that serves, and more.
func newMetrics(more ...prometheus.Collector) *metrics {
	m := &metrics{
		registry: prometheus.NewRegistry(),
		requests: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name:    "switchboard_http_request_seconds",
			Help:    "How long requests took, by route and status. Long polls wait on purpose.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30, 60},
		}, []string{"method", "route", "status"}),
		running: prometheus.NewGauge(prometheus.GaugeOpts{
			Name: "switchboard_http_requests_running",
			Help: "How many requests are being answered, long polls included.",
		}),
	}
	build := prometheus.NewGauge(prometheus.GaugeOpts{
		Name: "switchboard_build_info",
		Help: "Always 1; the labels say which build this is.",
		ConstLabels: prometheus.Labels{
			"version": version(), "go": goVersion(), "bridges": strings.Join(buildBridges(), ","),
		},
	})
	build.Set(1)
	m.registry.MustRegister(m.requests, m.running, build,
		collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	m.registry.MustRegister(more...)
	return m
}

// logPosition shows the newest position of the log.
func logPosition(position func() int64) prometheus.Collector {
	return prometheus.NewGaugeFunc(prometheus.GaugeOpts{
		Name: "switchboard_log_position",
		Help: "The newest position of the log: it grows with everything that is stored.",
	}, func() float64 { return float64(position()) })
}

// handler is the page that Prometheus reads.
func (m *metrics) handler() http.Handler {
	mux := http.NewServeMux()
	mux.Handle("GET /_switchboard/metrics", promhttp.HandlerFor(m.registry, promhttp.HandlerOpts{}))
	return mux
}

// count notes each request of h, here and in the log. Requests without a route
// share one label, so that strangers cannot make labels.
func (m *metrics) count(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		m.running.Inc()
		defer m.running.Dec()
		start := time.Now()
		sw := &statusWriter{ResponseWriter: w, status: http.StatusOK}
		h.ServeHTTP(sw, r)
		method, route, ok := strings.Cut(r.Pattern, " ")
		if !ok {
			method, route = "", "other"
		}
		took := time.Since(start)
		m.requests.WithLabelValues(method, route, strconv.Itoa(sw.status)).Observe(took.Seconds())
		zerolog.Ctx(r.Context()).Debug().Str("route", r.Pattern).Int("status", sw.status).Dur("took", took).Str("address", r.RemoteAddr).Msg("request")
	})
}

// statusWriter keeps the status of an answer.
type statusWriter struct {
	http.ResponseWriter
	status int
}

// WriteHeader implements http.ResponseWriter.
func (w *statusWriter) WriteHeader(status int) {
	if status >= 200 { // not those before the answer, such as 100
		w.status = status
	}
	w.ResponseWriter.WriteHeader(status)
}

// Unwrap is for http.ResponseController.
func (w *statusWriter) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// profiles are Go's own pages for developers.
func profiles() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/cmdline", pprof.Cmdline)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	return mux
}

// bridgeMetrics shows how the bridges are.
type bridgeMetrics []hosted

var (
	bridgeRunning = prometheus.NewDesc("switchboard_bridge_running",
		"1 if the bridge's connector has started.", []string{"bridge"}, nil)
	bridgeLogin = prometheus.NewDesc("switchboard_bridge_login",
		"1 if the login is connected to its network; the label says what else it is.", []string{"bridge", "login", "state"}, nil)
	bridgeEvents = prometheus.NewDesc("switchboard_bridge_events_total",
		"What became of users' events on their way to the network.", []string{"bridge", "status"}, nil)
)

// Describe implements prometheus.Collector.
func (bridgeMetrics) Describe(out chan<- *prometheus.Desc) {
	out <- bridgeRunning
	out <- bridgeLogin
	out <- bridgeEvents
}

// Collect implements prometheus.Collector.
func (b bridgeMetrics) Collect(out chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, yes bool, labels ...string) {
		value := 0.
		if yes {
			value = 1
		}
		out <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, value, labels...)
	}
	for _, host := range b {
		h := host.Health()
		gauge(bridgeRunning, h.Running, host.id)
		for _, l := range h.Logins {
			gauge(bridgeLogin, l.State == "CONNECTED", host.id, l.ID, l.State)
		}
		for status, n := range h.Told {
			out <- prometheus.MustNewConstMetric(bridgeEvents, prometheus.CounterValue, float64(n), host.id, string(status))
		}
	}
}
