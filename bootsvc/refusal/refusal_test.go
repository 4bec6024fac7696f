package refusal

import (
	"bytes"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
)

// recorder returns a Recorder, its log and its clock.
func recorder() (*Recorder, *bytes.Buffer, *time.Time) {
	log, now := &bytes.Buffer{}, time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	text := slog.NewTextHandler(log, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}})
	return New(slog.New(text), prometheus.NewRegistry(), func() time.Time { return now }), log, &now
}

func counted(t *testing.T, r *Recorder, service, reason string) float64 {
	t.Helper()
	var m dto.Metric
	if err := r.count.WithLabelValues(service, reason).Write(&m); err != nil {
		t.Fatal(err)
	}
	return m.GetCounter().GetValue()
}

func TestOneSource(t *testing.T) {
	r, log, now := recorder()
	for range 100 {
		r.Refuse("tftp", "10.0.0.5", "no such file", "file", "x")
	}
	r.Refuse("tftp", "10.0.0.6", "no such file", "file", "y")
	*now = now.Add(perSource)
	r.Refuse("tftp", "10.0.0.5", "no such file", "file", "z")
	want := `level=WARN msg=refused unit=tftp source=10.0.0.5 reason="no such file" file=x
level=WARN msg=refused unit=tftp source=10.0.0.6 reason="no such file" file=y unlogged=99
level=WARN msg=refused unit=tftp source=10.0.0.5 reason="no such file" file=z
`
	if log.String() != want {
		t.Errorf("the log is\n%s\nwant\n%s", log, want)
	}
	if n := counted(t, r, "tftp", "no such file"); n != 102 {
		t.Errorf("%v counted, want 102", n)
	}
}

// TestFlood: a million forged sources neither fill the log nor the memory.
func TestFlood(t *testing.T) {
	r, log, now := recorder()
	const floods = 100_000
	for i := range floods {
		*now = now.Add(time.Millisecond)
		r.Refuse("dhcp", fmt.Sprint(i), "malformed")
	}
	seconds := floods / 1000
	if lines := strings.Count(log.String(), "\n"); lines > maxLines*(seconds/int(perSource.Seconds())+1) {
		t.Errorf("%d lines in %d s", lines, seconds)
	}
	if len(r.last) > maxSources {
		t.Errorf("%d sources remembered", len(r.last))
	}
	if n := counted(t, r, "dhcp", "malformed"); n != floods {
		t.Errorf("%v counted, want %d", n, floods)
	}
}
