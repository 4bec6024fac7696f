// Package refusal records what the boot service would not do: one counter and
// one log line for each refused packet or request, whichever server refused
// it. The lines are rationed by source and in all, so that a flood of bad
// packets fills a counter and not the disk.
package refusal

import (
	"log/slog"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// The ration of log lines. A counter is never rationed.
const (
	perSource  = 10 * time.Second // between two lines about one source and reason
	maxSources = 1024             // remembered sources; the others share one ration
	maxLines   = 50               // lines in one perSource, whoever caused them
)

// Recorder counts and logs refusals. It is safe for concurrent use.
type Recorder struct {
	log   *slog.Logger
	count *prometheus.CounterVec
	now   func() time.Time

	mu     sync.Mutex
	last   map[source]time.Time
	silent uint64 // refusals without a line since the last line
	window time.Time
	lines  int // since window
}

type source struct{ service, source, reason string }

// New returns a Recorder that counts in slipway_refusals_total{service,reason}.
// A process has one: it panics when reg has that counter already.
func New(log *slog.Logger, reg prometheus.Registerer, now func() time.Time) *Recorder {
	count := prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "slipway_refusals_total",
		Help: "Packets and requests that a boot server refused, by service and reason.",
	}, []string{"service", "reason"})
	reg.MustRegister(count)
	return &Recorder{log: log, count: count, now: now, last: map[source]time.Time{}}
}

// Refuse records that service refused something from a source, an address of
// any kind. The reason is one of a few fixed phrases, never a client's own
// words; those belong in attrs, as slog takes them.
func (r *Recorder) Refuse(service, from, reason string, attrs ...any) {
	r.count.WithLabelValues(service, reason).Inc()
	silent, ok := r.admit(source{service, from, reason})
	if !ok {
		return
	}
	attrs = append([]any{"unit", service, "source", from, "reason", reason}, attrs...)
	if silent > 0 {
		attrs = append(attrs, "unlogged", silent)
	}
	r.log.Warn("refused", attrs...)
}

// admit says whether a line may be written, and how many were not since the last.
func (r *Recorder) admit(s source) (silent uint64, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	now := r.now()
	if now.Sub(r.window) >= perSource {
		r.window, r.lines = now, 0
	}
	if len(r.last) >= maxSources {
		r.forget(now)
	}
	if _, known := r.last[s]; !known && len(r.last) >= maxSources {
		s = source{}
	}
	last, seen := r.last[s]
	if r.lines >= maxLines || (seen && now.Sub(last) < perSource) {
		r.silent++
		return 0, false
	}
	r.last[s] = now
	r.lines++
	silent, r.silent = r.silent, 0
	return silent, true
}

// forget drops the sources whose ration is full again.
func (r *Recorder) forget(now time.Time) {
	for s, last := range r.last {
		if now.Sub(last) >= perSource {
			delete(r.last, s)
		}
	}
}
