package snapshot

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// fakeTaker takes snapshots that need no etcd: it describes them only.
type fakeTaker struct {
	store *Store
	fails map[time.Duration]bool // by time since the start
	start time.Time
	calls []string
}

func (f *fakeTaker) take(_ context.Context, o Origin, _ []Member) (Snapshot, error) {
	since := time.Since(f.start)
	f.calls = append(f.calls, fmt.Sprint(o.Cluster, "@", since))
	if f.fails[since] {
		return Snapshot{}, errors.New("no member answers")
	}
	one := Snapshot{Cluster: o.Cluster, By: o.By, Scheduled: o.Scheduled, Contents: Contents{Size: 1}}
	return keepFake(f.store, one)
}

// keepFake keeps a snapshot of one byte, unchecked.
func keepFake(s *Store, one Snapshot) (Snapshot, error) {
	folder := s.dir + "/" + one.Cluster
	temp := folder + "/" + part + "fake"
	if err := errors.Join(os.MkdirAll(folder, 0o700), writeSynced(temp, strings.NewReader("x"))); err != nil {
		return Snapshot{}, err
	}
	return s.commit(one, temp)
}

func runSchedule(t *testing.T, f *fakeTaker, targets []Target, length time.Duration) *Schedule {
	t.Helper()
	s := &Schedule{
		Take: f.take, Store: f.store, Metrics: prometheus.NewRegistry(), Log: slog.New(slog.DiscardHandler), Now: time.Now,
		Clusters: func(context.Context) ([]Target, error) { return targets, nil },
	}
	ctx, cancel := context.WithTimeout(t.Context(), length)
	defer cancel()
	if err := s.Run(ctx); err != nil {
		t.Error(err)
	}
	return s
}

func newFake(t *testing.T) *fakeTaker {
	store, err := Open(t.TempDir(), slog.New(slog.DiscardHandler), time.Now)
	if err != nil {
		t.Fatal(err)
	}
	return &fakeTaker{store: store, start: time.Now(), fails: map[time.Duration]bool{}}
}

var someone = []Member{{Hostname: "prod-cp-1"}}

func TestTheScheduleKeepsItsTimes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		targets := []Target{
			{Cluster: "prod", Every: 10 * time.Minute, Keep: 2, Members: someone},
			{Cluster: "never", Every: -1, Keep: 2, Members: someone},
			{Cluster: "external", Every: time.Minute, Keep: 2},
		}
		runSchedule(t, f, targets, 25*time.Minute)
		// Another process goes on where the first one stopped.
		runSchedule(t, f, targets, 10*time.Minute)
		want := []string{"prod@0s", "prod@10m0s", "prod@20m0s", "prod@30m0s"}
		if !slices.Equal(f.calls, want) {
			t.Errorf("taken at %v, want %v", f.calls, want)
		}
		if kept, err := f.store.List("prod"); err != nil || len(kept) != 2 {
			t.Errorf("kept are %d, %v", len(kept), err)
		}
	})
}

func TestFailuresAreTriedAgainAndCounted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := newFake(t)
		for _, minute := range []int{0, 1, 3, 7, 15} {
			f.fails[time.Duration(minute)*time.Minute] = true
		}
		s := runSchedule(t, f, []Target{{Cluster: "prod", Every: time.Hour, Keep: 2, Members: someone}}, 100*time.Minute)
		want := []string{"prod@0s", "prod@1m0s", "prod@3m0s", "prod@7m0s", "prod@15m0s", "prod@30m0s", "prod@1h30m0s"}
		if !slices.Equal(f.calls, want) {
			t.Errorf("taken at %v, want %v", f.calls, want)
		}
		if n := value(t, s.counts.WithLabelValues("prod")); n != 5 {
			t.Errorf("%v failures were counted", n)
		}
		if at := value(t, s.newest.WithLabelValues("prod")); at != float64(f.start.Add(90*time.Minute).Unix()) {
			t.Errorf("the newest is of %v", at)
		}
	})
}

func TestWhenTheNextIsDue(t *testing.T) {
	at := func(hours ...int) (kept []Snapshot) {
		for _, h := range hours {
			kept = append(kept, Snapshot{ID: "x", Taken: noon.Add(time.Duration(h) * time.Hour), Scheduled: true})
		}
		return kept
	}
	manual := Snapshot{ID: "x", Taken: noon}
	for name, test := range map[string]struct {
		kept []Snapshot
		f    failure
		want time.Time
	}{
		"none yet":                          {nil, failure{}, time.Time{}},
		"only by hand":                      {[]Snapshot{manual}, failure{}, time.Time{}},
		"one":                               {at(-1), failure{}, noon.Add(5 * time.Hour)},
		"late":                              {at(-30, -9), failure{}, noon.Add(-3 * time.Hour)},
		"one from the future":               {at(-9, 9000), failure{}, noon.Add(-3 * time.Hour)},
		"only from the future":              {at(9000), failure{}, time.Time{}},
		"failed once":                       {at(-9), failure{1, noon}, noon.Add(time.Minute)},
		"failed many times":                 {at(-9), failure{400, noon}, noon.Add(15 * time.Minute)},
		"failed when the clock was ahead":   {at(-9), failure{1, noon.Add(9000 * time.Hour)}, noon.Add(-3 * time.Hour)},
		"a failure that is long over":       {at(-1), failure{1, noon.Add(-2 * time.Hour)}, noon.Add(5 * time.Hour)},
		"failed before there was the first": {nil, failure{2, noon}, noon.Add(2 * time.Minute)},
	} {
		if got := due(test.kept, 6*time.Hour, test.f, noon); !got.Equal(test.want) {
			t.Errorf("%s: %v, want %v", name, got, test.want)
		}
	}
}

func value(t *testing.T, m prometheus.Metric) float64 {
	t.Helper()
	var d dto.Metric
	if err := m.Write(&d); err != nil {
		t.Fatal(err)
	}
	return d.GetCounter().GetValue() + d.GetGauge().GetValue()
}
