package agent

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/configs/enroll"
)

// reports is a boot service that takes reports, when it is up.
type reports struct {
	bootv1connect.MachineServiceClient
	down atomic.Bool
	got  []*bootv1.ReportRequest
}

func (r *reports) Report(_ context.Context, request *connect.Request[bootv1.ReportRequest]) (*connect.Response[bootv1.ReportResponse], error) {
	if r.down.Load() {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("connection refused"))
	}
	r.got = append(r.got, request.Msg)
	return connect.NewResponse(&bootv1.ReportResponse{}), nil
}

func startReporter(t *testing.T, server *reports, s store) (*reporter, func()) {
	start := time.Now()
	clock := clock{sinceBoot: func() time.Duration { return time.Since(start) }}
	r := newReporter(server, s, quiet(&screen{}), clock)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error)
	go func() { done <- r.run(ctx) }()
	return r, func() { cancel(); <-done }
}

// TestReporterCatchesUp: events wait while the boot service is down, and
// still say how long ago they were.
func TestReporterCatchesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server := &reports{}
		server.down.Store(true)
		r, stop := startReporter(t, server, store{dir: t.TempDir()})
		defer stop()
		r.event(event{name: "kernel"})
		r.state(enroll.Joining, "unit etcd to be ready")
		time.Sleep(time.Minute)
		r.event(event{name: "etcd", at: time.Minute})
		r.event(event{name: "etcd", at: time.Minute}) // once per name
		server.down.Store(false)
		time.Sleep(reporting.most)
		synctest.Wait()
		if len(server.got) == 0 {
			t.Fatal("no report")
		}
		first := server.got[0]
		got := map[string]bool{}
		for _, e := range first.Events {
			age := time.Duration(e.AgeMs) * time.Millisecond
			got[e.Name] = e.Name == "kernel" && age >= time.Minute || e.Name == "etcd" && age <= reporting.most
		}
		if diff := cmp.Diff(map[string]bool{"kernel": true, "etcd": true}, got); diff != "" || len(first.Events) != 2 {
			t.Errorf("%v: %s", first.Events, diff)
		}
		if first.Phase != "joining" || first.WaitingFor != "unit etcd to be ready" {
			t.Errorf("report %v", first)
		}
	})
}

// TestReporterRemembers: what was told is not told again by the next agent.
func TestReporterRemembers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, dir := &reports{}, store{dir: t.TempDir()}
		r, stop := startReporter(t, server, dir)
		r.event(event{name: "kernel"})
		synctest.Wait()
		stop()
		r, stop = startReporter(t, server, dir)
		r.event(event{name: "kernel"})
		r.event(event{name: "configured"})
		time.Sleep(2 * heartbeat) // an idle machine is heard of too
		synctest.Wait()
		stop()
		var names []string
		for _, report := range server.got {
			for _, e := range report.Events {
				names = append(names, e.Name)
			}
		}
		if diff := cmp.Diff([]string{"kernel", "configured"}, names); diff != "" || len(server.got) < 4 {
			t.Errorf("%d reports: %s", len(server.got), diff)
		}
	})
}

// TestWipedStays: a disk that is about to be wiped is not told as the machine's
// again by whoever looks at it meanwhile.
func TestWipedStays(t *testing.T) {
	server := &reports{}
	r := newReporter(server, store{dir: t.TempDir()}, quiet(&screen{}), clock{sinceBoot: sinceBoot})
	disk := &bootv1.SystemDisk{Path: "/dev/vda"}
	r.systemDisk(disk)
	r.wipe()
	r.systemDisk(disk)
	if err := r.send(t.Context()); err != nil || server.got[0].SystemDisk != nil || !server.got[0].Wiped {
		t.Errorf("%v, it told %v", err, server.got)
	}
}
