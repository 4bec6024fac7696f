package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
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
	"slipway/configs/skew"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

// fleet is the installed machines of a cluster, with the etcd on three of them.
type fleet struct {
	mu         sync.Mutex
	order      []string        // who was upgraded
	written    map[string]bool // has the image in its other slot
	refuses    map[string]bool // writes no image
	at         map[string]bool // runs the new image
	broken     map[string]bool // goes back to the slot before
	dead       map[string]bool // a member of etcd that is not healthy
	kubernetes [2]string       // in slots a and b
	going      int             // how many are on their way
	most       int             // how many were at once
	arrived    chan struct{}   // workers wait for each other there, if it is set
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
	for i, s := range disk.Slots {
		s.Kubernetes = n.kubernetes[i]
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

// rackOfFleet serves a boot service with a cluster of three control planes, of
// which the second leads etcd, and of workers; and a context file for it.
func rackOfFleet(t *testing.T, f *fleet, workers int) (*fakeBoot, string) {
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
	return boot, contextFile
}

// upgradeOfFleet is the upgrade of such a cluster.
func upgradeOfFleet(t *testing.T, f *fleet, workers int) (*upgrade, []*bootv1.Machine, *bytes.Buffer) {
	t.Helper()
	boot, contextFile := rackOfFleet(t, f, workers)
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

// kubelets is an API server by hand that says what its nodes run.
func kubelets(t *testing.T, versions map[string]string) []byte {
	t.Helper()
	var items []string
	for name, v := range versions {
		items = append(items, fmt.Sprintf(`{"metadata":{"name":%q},"status":{"nodeInfo":{"kubeletVersion":%q}}}`, name, v))
	}
	return kubeAPI(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/readyz":
			io.WriteString(w, "ok")
		case "/api/v1/nodes":
			fmt.Fprintf(w, `{"items":[%s]}`, strings.Join(items, ","))
		default:
			http.NotFound(w, r)
		}
	})
}

// TestClusterUpgradeRefusesSkew: the commands ask the cluster's API what runs,
// and what the policy forbids they refuse before any machine is touched.
func TestClusterUpgradeRefusesSkew(t *testing.T) {
	const cluster, worker = "cluster upgrade prod", "node upgrade prod-worker-1"
	for name, c := range map[string]struct {
		command, planes, worker string
		inRAM                   bool // the worker
		refused                 string
		order                   []string // who was upgraded
	}{
		"two minor versions": {command: cluster, planes: "v1.35.3", worker: "v1.35.3",
			refused: "prod-cp-1 has v1.35.3, the image v1.37.1: a control plane goes one minor version at a time: take an image with v1.36 first"},
		"back": {command: cluster, planes: "v1.38.0", worker: "v1.37.1", refused: "prod-cp-3 has v1.38.0, the image v1.37.1: it would go back"},
		"a worker in RAM would be left behind": {command: cluster, planes: "v1.36.0", worker: "v1.33.0", inRAM: true,
			refused: "prod-worker-1 has v1.33.0, the image v1.37.1: its kubelet would be 4 minor versions behind"},
		"a worker before its control planes": {command: worker, planes: "v1.36.0", worker: "v1.36.0", refused: "upgrade the control planes first"},
		"a worker after its control planes":  {command: worker, planes: "v1.37.1", worker: "v1.35.0", order: []string{"prod-worker-1"}},
		"a minor version": {command: cluster, planes: "v1.36.9", worker: "v1.36.9",
			order: []string{"prod-cp-1", "prod-cp-3", "prod-cp-2", "prod-worker-1"}},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fleet{}
			boot, contextFile := rackOfFleet(t, f, 1)
			boot.image = &bootv1.GetImageResponse{Version: v2.Version, Sha256: v2.Sha256, RootHash: v2.RootHash, Kubernetes: "v1.37.1"}
			versions := map[string]string{"elsewhere": "v1.20.0"} // a Node that no machine of the cluster has
			for _, m := range boot.cluster.Machines {
				versions[m.Hostname] = c.planes
				m.Installation = &bootv1.Installation{Disk: &bootv1.SystemDisk{Path: "/dev/vda"}}
				if m.Role == "worker" {
					versions[m.Hostname] = c.worker
				}
				if m.Role == "worker" && c.inRAM {
					m.Installation = nil
				}
			}
			boot.kubeconfig = kubelets(t, versions)
			var out bytes.Buffer
			args := append(strings.Fields(c.command), "--yes", "--no-drain", "--context", contextFile)
			code := run(t.Context(), args, nil, &out, &out)
			if (code == exitFailed) != (c.refused != "") || !strings.Contains(out.String(), c.refused) {
				t.Errorf("exit code %d:\n%s, want %q", code, &out, c.refused)
			}
			if diff := cmp.Diff(c.order, f.order); diff != "" {
				t.Errorf("upgraded (-want +got):\n%s\n%s", diff, &out)
			}
		})
	}
}

func TestSkewNodes(t *testing.T) {
	m := func(id, role, hostname string) *bootv1.Machine {
		return &bootv1.Machine{Id: id, Cluster: "prod", Role: role, Hostname: hostname}
	}
	all := []*bootv1.Machine{m("1", "control-plane", "cp-1"), m("2", "control-plane", "cp-2"), m("3", "etcd", "etcd-1"), m("4", "worker", "worker-1"), m("5", "worker", "no-node")}
	moving := []*bootv1.Machine{m("2", "control-plane", "cp-2"), m("5", "worker", "no-node")}
	versions := map[string]string{"cp-1": "v1.37.1", "cp-2": "v1.36.0", "etcd-1": "v1.30.0", "worker-1": "v1.35.0", "another": "v1.29.0"}
	want := []skew.Node{
		{Name: "cp-1", Version: "v1.37.1", ControlPlane: true, Stays: true},
		{Name: "cp-2", Version: "v1.36.0", ControlPlane: true},
		{Name: "worker-1", Version: "v1.35.0", Stays: true},
	}
	if diff := cmp.Diff(want, skewNodes(all, moving, versions)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
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
