package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

// fleet is the installed machines of a cluster, with the etcd on three of them.
type fleet struct {
	mu      sync.Mutex
	order   []string        // who was upgraded
	written map[string]bool // has the image in its other slot
	refuses map[string]bool // writes no image
	at      map[string]bool // runs the new image
	broken  map[string]bool // goes back to the slot before
	dead    map[string]bool // a member of etcd that is not healthy
	going   int             // how many are on their way
	most    int             // how many were at once
	arrived chan struct{}   // workers wait for each other there, if it is set
}

// fleetNode is one of them.
type fleetNode struct {
	nodev1connect.UnimplementedNodeServiceHandler
	*fleet
	name string
}

// fleetEtcd is its etcd.
type fleetEtcd struct {
	nodev1connect.UnimplementedEtcdServiceHandler
	*fleet
}

func (n fleetNode) Status(context.Context, *connect.Request[nodev1.StatusRequest]) (*connect.Response[nodev1.StatusResponse], error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	disk := slots("a", "a", "", "")
	switch {
	case n.at[n.name]:
		disk = slots("b", "b", "", "")
	case slices.Contains(n.order, n.name):
		disk = slots("a", "a", "", "its kernel panicked")
	}
	return connect.NewResponse(&nodev1.StatusResponse{SystemDisk: disk}), nil
}

func (n fleetEtcd) Members(context.Context, *connect.Request[nodev1.EtcdMembersRequest]) (*connect.Response[nodev1.EtcdMembersResponse], error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	answer := &nodev1.EtcdMembersResponse{}
	for _, name := range []string{"prod-cp-1", "prod-cp-2", "prod-cp-3"} {
		answer.Members = append(answer.Members, &nodev1.EtcdMember{Id: name, Name: name, Healthy: !n.dead[name]})
	}
	return connect.NewResponse(answer), nil
}

func (n fleetNode) Upgrade(_ context.Context, r *connect.Request[nodev1.UpgradeRequest], out *connect.ServerStream[nodev1.UpgradeStep]) error {
	n.mu.Lock()
	if r.Msg.GetPrepare() || !n.written[n.name] {
		defer n.mu.Unlock()
		if n.written[n.name] = r.Msg.GetPrepare() && !n.refuses[n.name]; !n.written[n.name] {
			return connect.NewError(connect.CodeFailedPrecondition, errors.New("it has no image"))
		}
		return nil
	}
	n.order = append(n.order, n.name)
	n.going++
	n.most = max(n.most, n.going)
	meet := n.arrived
	n.mu.Unlock()
	if meet != nil && strings.Contains(n.name, "worker") {
		select {
		case meet <- struct{}{}:
		case <-meet:
		}
	}
	n.mu.Lock()
	defer n.mu.Unlock()
	n.going--
	n.at[n.name] = !n.broken[n.name]
	return out.Send(&nodev1.UpgradeStep{Name: lastStep, Ended: true})
}

// upgradeOfFleet is the upgrade of three control planes, of which the second
// leads etcd, and of workers.
func upgradeOfFleet(t *testing.T, f *fleet, workers int) (*upgrade, []*bootv1.Machine, *bytes.Buffer) {
	t.Helper()
	f.at, f.written = map[string]bool{}, map[string]bool{}
	names := []string{"prod-cp-1", "prod-cp-2", "prod-cp-3"}
	for n := range workers {
		names = append(names, fmt.Sprintf("prod-worker-%d", n+1))
	}
	var nodes []http.Handler
	for _, name := range names {
		node, mux := fleetNode{fleet: f, name: name}, http.NewServeMux()
		mux.Handle(nodev1connect.NewNodeServiceHandler(node))
		mux.Handle(nodev1connect.NewEtcdServiceHandler(fleetEtcd{fleet: f}))
		nodes = append(nodes, mux)
	}
	boot := &fakeBoot{cluster: &bootv1.Cluster{Name: "prod"}}
	addrs, contextFile := startRack(t, boot.handler(), nodes...)
	for i, name := range names {
		m := &bootv1.Machine{Id: fmt.Sprintf("52-54-00-00-00-%02d", i+1), Cluster: "prod", Role: "worker", Hostname: name, Address: addrs[i], Phase: "ready"}
		if i < 3 {
			m.Role, m.Etcd = "control-plane", &bootv1.EtcdState{Voter: true, Healthy: true, Leader: i == 1}
		}
		boot.cluster.Machines = append(boot.cluster.Machines, m)
	}
	identity, err := client.Load(contextFile)
	if err != nil {
		t.Fatal(err)
	}
	service, err := identity.New()
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	return &upgrade{
		remote: &remote{contextFile: contextFile, output: "table"}, boot: service, out: &out, every: time.Millisecond,
		upgradeFlags: upgradeFlags{timeout: 20 * time.Second, noDrain: true},
	}, boot.cluster.Machines, &out
}

// TestUpgradeOfACluster: control planes go one after the other, etcd's leader
// last, then the workers; nobody goes twice, and after a failure nobody else.
func TestUpgradeOfACluster(t *testing.T) {
	f := &fleet{broken: map[string]bool{"prod-cp-3": true}}
	u, machines, out := upgradeOfFleet(t, f, 2)
	run := func() error { return u.all(t.Context(), "prod", machines, v2, 1) }
	if err := run(); !errors.Is(err, errWentBack) || !strings.Contains(err.Error(), "prod-cp-3: it went back to the slot before: its kernel panicked") {
		t.Errorf("%v\n%s", err, out)
	}
	if diff := cmp.Diff([]string{"prod-cp-1", "prod-cp-3"}, f.order); diff != "" {
		t.Errorf("until the first failure (-want +got):\n%s", diff)
	}
	f.broken, f.order = nil, nil
	if err := run(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
	if diff := cmp.Diff([]string{"prod-cp-3", "prod-cp-2", "prod-worker-1", "prod-worker-2"}, f.order); diff != "" || f.most != 1 {
		t.Errorf("the second time, %d at once (-want +got):\n%s", f.most, diff)
	}
}

// TestUpgradeThatIsRefused: a machine that does not take the image stops it
// before anything restarts.
func TestUpgradeThatIsRefused(t *testing.T) {
	f := &fleet{refuses: map[string]bool{"prod-cp-1": true}}
	u, machines, out := upgradeOfFleet(t, f, 1)
	if err := u.all(t.Context(), "prod", machines, v2, 1); err == nil || !strings.Contains(err.Error(), "ask node prod-cp-1: failed_precondition: it has no image") || len(f.order) != 0 {
		t.Errorf("%v, upgraded %v\n%s", err, f.order, out)
	}
}

// TestUpgradeOfWorkers: a number of them go at once; one that has begun is not
// left in the middle when another fails, and the error is of all that failed.
func TestUpgradeOfWorkers(t *testing.T) {
	f := &fleet{broken: map[string]bool{"prod-worker-1": true, "prod-worker-2": true}, arrived: make(chan struct{})}
	u, machines, out := upgradeOfFleet(t, f, 4)
	err := u.all(t.Context(), "prod", machines, v2, 2)
	if err == nil || !strings.Contains(err.Error(), "prod-worker-1: it went back") || !strings.Contains(err.Error(), "prod-worker-2: it went back") {
		t.Errorf("%v\n%s", err, out)
	}
	if len(f.order) != 5 || f.most != 2 {
		t.Errorf("%v went, %d at once", f.order, f.most)
	}
}

// TestUpgradeWaitsForEtcd: what the boot service thinks of a member does not
// count when etcd knows better.
func TestUpgradeWaitsForEtcd(t *testing.T) {
	f := &fleet{dead: map[string]bool{"prod-cp-2": true}}
	u, machines, out := upgradeOfFleet(t, f, 0)
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	u.out = writer(func(text []byte) (int, error) {
		if bytes.Contains(text, []byte("to be healthy")) {
			stop()
		}
		return out.Write(text)
	})
	err := u.all(ctx, "prod", machines, v2, 1)
	if !errors.Is(err, errDeadline) || !strings.Contains(err.Error(), "prod-cp-2 to be healthy; if its machine is gone for good, slipway etcd remove prod-cp-2") || len(f.order) != 0 {
		t.Errorf("%v, upgraded %v\n%s", err, f.order, out)
	}
}

type writer func([]byte) (int, error)

func (w writer) Write(text []byte) (int, error) { return w(text) }

func TestAiling(t *testing.T) {
	well := func(n string) *nodev1.EtcdMember { return &nodev1.EtcdMember{Id: "id-" + n, Name: n, Healthy: true} }
	for want, members := range map[string][]*nodev1.EtcdMember{
		"":                              {well("a"), well("b"), {Name: "but"}},
		"etcd's member b to be a voter": {well("a"), {Name: "b", Learner: true, Healthy: true}},
		"etcd's member id-c to start":   {well("a"), {Id: "id-c"}},
		"etcd's member c to be healthy; if its machine is gone for good, slipway etcd remove c": {well("a"), {Name: "c"}},
	} {
		if got := ailing(members, "but"); got != want {
			t.Errorf("waits for %q, want %q", got, want)
		}
	}
}
