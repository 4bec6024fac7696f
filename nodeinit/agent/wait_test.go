package agent

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func quiet(out *screen) *console {
	start := time.Now()
	return &console{out: out, log: slog.New(slog.DiscardHandler), sinceBoot: func() time.Duration { return time.Since(start) }}
}

// TestUntil: pauses grow to a bound, a wait that goes on is told every half
// minute, and when since.
func TestUntil(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &screen{}
		start := time.Now()
		var tried []string
		err := quiet(out).until(t.Context(), attempts{deadline: time.Second, first: time.Second, most: 8 * time.Second}, "the server",
			func(ctx context.Context) error {
				tried = append(tried, time.Since(start).String())
				if len(tried) < 9 {
					return errors.New("connection refused")
				}
				return nil
			})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff([]string{"0s", "1s", "3s", "7s", "15s", "23s", "31s", "39s", "47s"}, tried); diff != "" {
			t.Errorf("attempts (-want +got):\n%s", diff)
		}
		want := "[    0.000] agent: waiting for the server (connection refused), for 0s so far; tries again in 1s\n" +
			"[   31.000] agent: waiting for the server (connection refused), for 31s so far; tries again in 8s\n"
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("console (-want +got):\n%s", diff)
		}
	})
}

// TestWaitBecause: another reason is told soon, but not each of many.
func TestWaitBecause(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &screen{}
		c := quiet(out)
		for _, step := range []struct {
			after  time.Duration
			detail string
		}{{0, "refused"}, {time.Second, "timeout"}, {4 * time.Second, "wrong CA"}, {time.Second, "wrong CA"}, {29 * time.Second, "wrong CA"}} {
			time.Sleep(step.after)
			c.waitBecause("the server", step.detail, "tries again")
		}
		want := "[    0.000] agent: waiting for the server (refused), for 0s so far; tries again\n" +
			"[    5.000] agent: waiting for the server (wrong CA), for 5s so far; tries again\n" +
			"[   35.000] agent: waiting for the server (wrong CA), for 35s so far; tries again\n"
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestUntilDeadline: an attempt that hangs is given up.
func TestUntilDeadline(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		out := &screen{}
		n := 0
		err := quiet(out).until(t.Context(), attempts{deadline: 10 * time.Second, first: time.Second, most: time.Second}, "the server",
			func(ctx context.Context) error {
				if n++; n > 1 {
					return nil
				}
				<-ctx.Done()
				return ctx.Err()
			})
		if err != nil || !strings.Contains(out.String(), "deadline exceeded") {
			t.Errorf("%v\n%s", err, out)
		}
	})
}

func TestUntilEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	a := attempts{deadline: time.Minute, first: time.Hour, most: time.Hour}
	fails := errors.New("no")
	err := quiet(&screen{}).until(ctx, a, "x", func(context.Context) error { return finalError{fails} })
	if !errors.Is(err, fails) {
		t.Errorf("a final error: %v", err)
	}
	err = quiet(&screen{}).until(ctx, a, "x", func(context.Context) error { cancel(); return fails })
	if !errors.Is(err, context.Canceled) {
		t.Errorf("stopped: %v", err)
	}
}

func TestSkewed(t *testing.T) {
	now := time.Unix(1_800_000_000, 0)
	for offset, want := range map[time.Duration]bool{
		0: false, time.Second: false, -time.Second: false, 1100 * time.Millisecond: true, -time.Hour: true, 400_000 * time.Hour: true,
	} {
		if got := skewed(now, now.Add(offset)); got != want {
			t.Errorf("%s off: %v", offset, got)
		}
	}
}
