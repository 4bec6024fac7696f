package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"
	"google.golang.org/protobuf/types/known/timestamppb"

	"slipway/bootsvc/api/bootv1"
	"slipway/configs/cluster"
)

// rack is machines in phases, in the order of their discovery.
func rack(phases ...string) (machines []*bootv1.Machine) {
	for i, phase := range phases {
		m := &bootv1.Machine{Id: fmt.Sprintf("52-54-00-00-00-%02d", i+1)}
		m.Phase, m.Cluster, _ = strings.Cut(phase, "@")
		machines = append(machines, m)
	}
	return machines
}

func TestAPlanTakesApprovedMachinesInOrder(t *testing.T) {
	doc, err := planFrom(cluster.Cluster{Name: "prod"}, rack("discovered", "approved", "ready@test", "approved", "enrolling", "approved", "approved", "approved"), counts{controlPlanes: 1, etcd: 1, workers: 2})
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, m := range doc.Machines {
		got = append(got, fmt.Sprintf("%s %s %s", m.ID, m.Role, m.Hostname))
	}
	want := []string{
		"52-54-00-00-00-02 control-plane prod-cp-1",
		"52-54-00-00-00-04 etcd prod-etcd-1",
		"52-54-00-00-00-06 worker prod-worker-1",
		"52-54-00-00-00-07 worker prod-worker-2",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Error(diff)
	}
}

// TestPlansOfSeveralControlPlanes: as many as etcd's members may be, and no
// number that etcd gains nothing by.
func TestPlansOfSeveralControlPlanes(t *testing.T) {
	for wanted, refused := range map[counts]string{
		{controlPlanes: 1}:                      "",
		{controlPlanes: 3}:                      "",
		{controlPlanes: 5}:                      "",
		{controlPlanes: 7}:                      "",
		{controlPlanes: 2, etcd: 5, workers: 1}: "", // etcd is not on the control planes then
		{controlPlanes: 2}:                      "2 members of etcd survive no more failures than 1, for etcd needs a majority; make it 1, 3, 5 or 7",
		{controlPlanes: 4}:                      "4 members of etcd survive no more failures than 3",
		{controlPlanes: 6}:                      "6 members of etcd survive no more failures than 5",
		{controlPlanes: 3, etcd: 4}:             "4 members of etcd survive no more failures than 3",
		{controlPlanes: 8}:                      "8 members: etcd's writes would wait for 5 of them",
		{controlPlanes: 9}:                      "9 members: etcd's writes would wait for 5 of them",
		{controlPlanes: 1, etcd: 9}:             "9 members: etcd's writes would wait for 5 of them",
	} {
		doc, err := planFrom(cluster.Cluster{Name: "prod"}, rack(slices.Repeat([]string{"approved"}, 10)...), wanted)
		if refused != "" {
			if err == nil || !strings.Contains(err.Error(), refused) {
				t.Errorf("%+v: %v, want %q", wanted, err, refused)
			}
			continue
		}
		if err != nil {
			t.Errorf("%+v: %v", wanted, err)
			continue
		}
		members := doc.EtcdMachines()
		if n := max(wanted.etcd, wanted.controlPlanes); len(doc.Machines) != wanted.all() || len(members) != n || !strings.HasSuffix(members[n-1].Hostname, fmt.Sprintf("-%d", n)) {
			t.Errorf("%+v: %d machines, members %+v", wanted, len(doc.Machines), members)
		}
	}
}

func TestPlansThatCannotBe(t *testing.T) {
	for name, test := range map[string]struct {
		name   string
		wanted counts
		vip    string
		want   string
	}{
		"too few machines":       {"prod", counts{controlPlanes: 3}, "", "too few machines: 3 needed, 2 approved"},
		"no control plane":       {"prod", counts{workers: 1}, "", "no machine is a control plane"},
		"an even number":         {"prod", counts{controlPlanes: 2}, "", "etcd needs a majority"},
		"a name that is no DNS":  {"Prod!", counts{controlPlanes: 1}, "", "not a DNS label"},
		"an address of the pods": {"prod", counts{controlPlanes: 1}, "10.244.0.9", "virtualIP"},
	} {
		vip, _ := netip.ParseAddr(test.vip)
		if _, err := planFrom(cluster.Cluster{Name: test.name, VirtualIP: vip}, rack("approved", "approved"), test.wanted); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}

func TestAMissedDeadlineNamesWhoAndWhy(t *testing.T) {
	c := &bootv1.Cluster{Machines: []*bootv1.Machine{
		{Id: "52-54-00-00-00-01", Hostname: "prod-cp-1", Phase: "ready"},
		{Id: "52-54-00-00-00-02", Hostname: "prod-worker-1", Phase: "joining", WaitingFor: "kubelet"},
		{Id: "52-54-00-00-00-03", Hostname: "prod-worker-2", WaitingFor: "its first packet"},
	}}
	err := missed(c, time.Minute)
	const want = "not in time: after 1m0s, prod-worker-1 (52-54-00-00-00-02) is joining and waits for kubelet; " +
		"prod-worker-2 (52-54-00-00-00-03) is not seen yet and waits for its first packet; see slipway machines timeline MACHINE"
	if !errors.Is(err, errDeadline) || err.Error() != want {
		t.Errorf("the error is %v", err)
	}
}

func TestProgressPrintsChangesOnly(t *testing.T) {
	var out bytes.Buffer
	w := waiting{out: &out, start: time.Now(), last: map[string]string{}}
	for _, phase := range []string{"booting", "booting", "ready", "ready"} {
		w.show([]*bootv1.Machine{{Id: "1", Hostname: "prod-cp-1", Phase: phase}, {Id: "52-54-00-00-00-02"}})
	}
	for _, missing := range []string{"3 needed, 0 approved", "3 needed, 0 approved", "3 needed, 1 approved"} {
		w.showShort(missing)
	}
	if lines := strings.Count(out.String(), "\n"); lines != 5 || !strings.Contains(out.String(), "prod-cp-1  ready\n") {
		t.Errorf("progress printed\n%s", out.String())
	}
}

// TestAPlanThatNoMachineMends: what is wrong with the counts is said at once; who
// waits for machines waits for nothing else.
func TestAPlanThatNoMachineMends(t *testing.T) {
	for wanted, refused := range map[counts]string{
		{controlPlanes: 300}: "members: etcd's writes would wait",
		{controlPlanes: 2}:   "etcd needs a majority",
		{workers: 2}:         "no machine is a control plane",
		{controlPlanes: 3, etcd: 5, workers: 200}: "",
	} {
		_, err := planFrom(cluster.Cluster{Name: "prod"}, pretended(wanted.all()), wanted)
		if refused == "" && err != nil || refused != "" && (err == nil || !strings.Contains(err.Error(), refused)) {
			t.Errorf("%+v: %v, want %q", wanted, err, refused)
		}
	}
}

func TestWaitingEnds(t *testing.T) {
	restarting := connect.NewError(connect.CodeUnavailable, errors.New("connection refused"))
	for name, test := range map[string]struct {
		looks []error // what each look returns; done after the last
		want  error
		took  time.Duration
	}{
		"at once":                      {nil, nil, 0},
		"after a while":                {[]error{nil, nil}, nil, 2 * pollInterval},
		"over a restart":               {[]error{restarting, nil}, nil, 2 * pollInterval},
		"at a refusal":                 {[]error{nil, errTooFew}, errTooFew, pollInterval},
		"at the deadline":              {make([]error, 100), errDeadline, time.Minute},
		"at the deadline, unreachable": {slices.Repeat([]error{restarting}, 100), errDeadline, time.Minute},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				began := time.Now()
				ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
				defer cancel()
				w := waiting{command: t.Context(), timeout: time.Minute}
				err := w.until(ctx, func() (bool, error) {
					if len(test.looks) == 0 {
						return true, nil
					}
					next := test.looks[0]
					test.looks = test.looks[1:]
					return false, next
				})
				if took := time.Since(began); !errors.Is(err, test.want) || took != test.took {
					t.Errorf("%v after %v, want %v after %v", err, took, test.want, test.took)
				}
			})
		})
	}
}

func TestTimelineTable(t *testing.T) {
	start := time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	var events []*bootv1.Event
	for _, e := range []struct {
		after  float64
		name   string
		detail string
	}{
		{0, "dhcp", "DISCOVER"}, {0.5, "dhcp", "REQUEST"}, {1, "tftp", "undionly.kpxe"}, {3.25, "http", "/boot.ipxe"},
		{5, "http", "/image/kernel"}, {14, "kernel", ""}, {20, "ready", ""}, {4000, "dhcp", "renewed"}, {4001, "etcd", "restarted"},
	} {
		at := timestamppb.New(start.Add(time.Duration(e.after * float64(time.Second))))
		events = append(events, &bootv1.Event{Name: e.name, Detail: e.detail, Time: at})
	}
	const want = `PHASE   AT     TOOK   DETAIL
DHCP    0.0s   0.0s   DISCOVER
TFTP    1.0s   1.0s   undionly.kpxe
HTTP    3.2s   2.2s   /boot.ipxe
kernel  14.0s  10.8s  -
Ready   20.0s  6.0s   -
total   20.0s  -      -
`
	if diff := cmp.Diff(want, tableText(events, false)); diff != "" {
		t.Error(diff)
	}
	if all := tableText(events, true); strings.Count(all, "\n") != len(events)+2 {
		t.Errorf("all events are\n%s", all)
	}
	if none := tableText(nil, false); strings.Count(none, "\n") != 1 {
		t.Errorf("no events are\n%s", none)
	}
}

func tableText(events []*bootv1.Event, all bool) string {
	var out bytes.Buffer
	w := tabwriter.NewWriter(&out, 0, 4, 2, ' ', 0)
	timelineTable(w, events, all)
	w.Flush()
	return out.String()
}

// TestOverdueIsNotReady: a machine that lost its power still says that it is ready.
func TestOverdueIsNotReady(t *testing.T) {
	c := &bootv1.Cluster{Name: "prod", Machines: []*bootv1.Machine{
		{Hostname: "prod-cp-1", Phase: "ready"},
		{Hostname: "prod-cp-2", Phase: "ready", Late: true, WaitingFor: "its next report; last heard of 45s ago"},
	}}
	var out bytes.Buffer
	clusterTable(&out, c)
	if !strings.Contains(out.String(), "1/2") || !strings.Contains(out.String(), "last heard of 45s ago") {
		t.Error(out.String())
	}
	if err := missed(c, time.Minute); strings.Contains(err.Error(), "prod-cp-1") || !strings.Contains(err.Error(), "prod-cp-2 () is ready and waits for its next report") {
		t.Error(err)
	}
}

func TestFormats(t *testing.T) {
	m := &bootv1.Machine{Id: "52-54-00-00-00-01", WaitingFor: "nothing", Facts: &bootv1.Facts{Cpus: 2}}
	for format, want := range map[string][]string{
		"json": {`"id": "52-54-00-00-00-01"`, `"waiting_for": "nothing"`, `"hostname": ""`},
		"yaml": {"id: 52-54-00-00-00-01\n", "waiting_for: nothing\n", "cpus: 2\n"},
	} {
		var out bytes.Buffer
		if err := show(&out, format, m, nil); err != nil {
			t.Fatal(err)
		}
		for _, part := range want {
			if !strings.Contains(out.String(), part) {
				t.Errorf("%s: %q is not in\n%s", format, part, out.String())
			}
		}
	}
}
