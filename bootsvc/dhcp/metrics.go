package dhcp

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"slipway/bootsvc/lease"
)

type metrics struct {
	packets        *prometheus.CounterVec
	received, sent prometheus.Counter
}

func newMetrics(s Seams) metrics {
	bytes := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "slipway_dhcp_bytes_total",
		Help: "Bytes of DHCP, without UDP and IP headers, by direction (in, out).",
	}, []string{"direction"})
	m := metrics{
		packets: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "slipway_dhcp_packets_total",
			Help: "DHCP packets by direction (in, out) and message type.",
		}, []string{"direction", "type"}),
		received: bytes.WithLabelValues("in"),
		sent:     bytes.WithLabelValues("out"),
	}
	s.Metrics.MustRegister(m.packets, bytes, leases{
		table: s.Table,
		now:   s.Now,
		description: prometheus.NewDesc("slipway_dhcp_leases",
			"Addresses held, by state (bound, offered).", []string{"state"}, nil),
	})
	return m
}

// packet counts one. Kinds that only a hostile client sends share a label.
func (m metrics) packet(direction, kind string) {
	switch kind {
	case "DISCOVER", "OFFER", "REQUEST", "DECLINE", "ACK", "NAK", "RELEASE", "INFORM", "unreadable":
	default:
		kind = "other"
	}
	m.packets.WithLabelValues(direction, kind).Inc()
}

// leases counts the table when it is asked, so that expiry needs no event.
type leases struct {
	table       *lease.Table
	now         func() time.Time
	description *prometheus.Desc
}

func (l leases) Describe(ch chan<- *prometheus.Desc) { ch <- l.description }

func (l leases) Collect(ch chan<- prometheus.Metric) {
	held := map[bool]float64{}
	for _, x := range l.table.Active(l.now()) {
		held[x.Bound]++
	}
	ch <- prometheus.MustNewConstMetric(l.description, prometheus.GaugeValue, held[true], "bound")
	ch <- prometheus.MustNewConstMetric(l.description, prometheus.GaugeValue, held[false], "offered")
}
