package snapshot

import (
	"context"
	"log/slog"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// How often the schedule looks, and how long it waits after failures.
const (
	lookEvery = time.Minute // a new cluster, or a new document, is seen by then
	retryMost = 15 * time.Minute
)

// Target is a cluster whose etcd is to be kept by schedule.
type Target struct {
	Cluster string
	Every   time.Duration // negative: never
	Keep    int
	Members []Member
}

// Schedule takes snapshots by the clock. All fields must be set; Run it once.
type Schedule struct {
	Take     func(context.Context, Origin, []Member) (Snapshot, error)
	Store    *Store
	Clusters func(context.Context) ([]Target, error)
	Metrics  prometheus.Registerer
	Log      *slog.Logger
	Now      func() time.Time

	failed map[string]failure
	counts *prometheus.CounterVec
	newest *prometheus.GaugeVec
}

// failure is how often in a row a cluster's snapshot failed, and when it did last.
type failure struct {
	times int
	at    time.Time
}

// Run takes what is due until ctx ends. What is due is counted from the newest
// scheduled snapshot that is kept, so a restart changes nothing.
func (s *Schedule) Run(ctx context.Context) error {
	s.failed = map[string]failure{}
	s.counts = prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "slipway_snapshot_failures_total", Help: "Scheduled snapshots of clusters' etcd that failed.",
	}, []string{"cluster"})
	s.newest = prometheus.NewGaugeVec(prometheus.GaugeOpts{
		Name: "slipway_snapshot_newest_timestamp_seconds", Help: "When a cluster's newest scheduled snapshot was taken; Unix time.",
	}, []string{"cluster"})
	s.Metrics.MustRegister(s.counts, s.newest)
	for {
		next := s.look(ctx)
		timer := time.NewTimer(min(max(next.Sub(s.Now()), time.Second), lookEvery))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return nil
		}
	}
}

// look takes what is due now, and says when the next one is.
func (s *Schedule) look(ctx context.Context) (next time.Time) {
	next = s.Now().Add(lookEvery)
	targets, err := s.Clusters(ctx)
	if err != nil {
		if ctx.Err() == nil {
			s.Log.Error("cannot see which snapshots are due", "unit", unit, "error", err)
		}
		return next
	}
	for _, target := range targets {
		if target.Every < 0 || len(target.Members) == 0 {
			continue
		}
		if at := s.serve(ctx, target); at.Before(next) {
			next = at
		}
	}
	return next
}

// serve takes a cluster's snapshot if it is due, and says when the next one is.
func (s *Schedule) serve(ctx context.Context, target Target) time.Time {
	kept, err := s.Store.List(target.Cluster)
	if err != nil {
		s.Log.Error("cannot see which snapshots are due", "unit", unit, "cluster", target.Cluster, "error", err)
		return s.Now().Add(lookEvery)
	}
	if newest := Newest(kept, s.Now()); newest.ID != "" {
		s.newest.WithLabelValues(target.Cluster).Set(float64(newest.Taken.Unix()))
	}
	at := due(kept, target.Every, s.failed[target.Cluster], s.Now())
	if at.After(s.Now()) || ctx.Err() != nil {
		return at
	}
	one, err := s.Take(ctx, Origin{Cluster: target.Cluster, By: "schedule", Scheduled: true}, target.Members)
	switch {
	case ctx.Err() != nil:
		return s.Now()
	case err != nil:
		f := failure{s.failed[target.Cluster].times + 1, s.Now()}
		s.failed[target.Cluster] = f
		s.counts.WithLabelValues(target.Cluster).Inc()
		s.Log.Error("scheduled snapshot failed", "unit", unit, "cluster", target.Cluster, "times", f.times, "next", f.retry(target.Every), "error", err)
		return f.retry(target.Every)
	}
	delete(s.failed, target.Cluster)
	s.newest.WithLabelValues(target.Cluster).Set(float64(one.Taken.Unix()))
	if err := s.Store.Prune(target.Cluster, target.Keep); err != nil {
		s.Log.Error("old snapshots stay", "unit", unit, "cluster", target.Cluster, "error", err)
	}
	return one.Taken.Add(target.Every)
}

// due is pure: when the next snapshot is to be taken. A kept one from the
// future, of a time when the clock was wrong, does not hold it up.
func due(kept []Snapshot, every time.Duration, f failure, now time.Time) time.Time {
	at := Newest(kept, now).Taken
	if !at.IsZero() {
		at = at.Add(every)
	}
	if again := f.retry(every); again.After(at) && !f.at.After(now) {
		return again
	}
	return at
}

// Newest is the scheduled one that was taken last, of those in List's order; or
// the zero Snapshot. It is pure.
func Newest(kept []Snapshot, now time.Time) (newest Snapshot) {
	for _, one := range kept {
		if one.Scheduled && !one.Taken.After(now) {
			newest = one
		}
	}
	return newest
}

// retry is when a failed one is tried again: after a minute, then two, four,
// and so on to fifteen, but never later than the schedule itself would.
func (f failure) retry(every time.Duration) time.Time {
	if f.times == 0 {
		return time.Time{}
	}
	wait := time.Minute << min(f.times-1, 10)
	return f.at.Add(min(wait, retryMost, every))
}
