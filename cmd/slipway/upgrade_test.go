package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
	"slipway/controlplane/apiclient"
	"slipway/controlplane/apiclient/apitest"
	"slipway/controlplane/drain"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

func slots(booted, good, trying, failure string) *nodev1.SystemDisk {
	return &nodev1.SystemDisk{Path: "/dev/vda", Booted: booted, Good: good, Trying: trying, Failure: failure,
		Slots: []*nodev1.Slot{{Name: "a", Version: "v1", RootHash: "aa"}, {Name: "b", Version: "v2", RootHash: "bb", Kubernetes: "v1.37.1"}}}
}

func TestVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		disk      *nodev1.SystemDisk
		up, since time.Duration
		done      bool
		waits     string // empty with a failure
		failed    string
	}{
		"it has not gone down yet":   {slots("a", "a", "b", ""), time.Hour, time.Second, false, "its restart", ""},
		"it is about to":             {slots("a", "a", "", ""), time.Hour, time.Minute, false, "its restart", ""},
		"it runs, and is not good":   {slots("b", "a", "b", ""), time.Second, time.Minute, false, "its slot to be known as good", ""},
		"it runs, and is good":       {slots("b", "b", "", ""), time.Minute, 2 * time.Minute, true, "", ""},
		"it went back, and says why": {slots("a", "a", "", "its kernel panicked"), time.Second, time.Minute, false, "", "its kernel panicked"},
		"it went back, and does not": {slots("a", "a", "", ""), time.Second, time.Minute, false, "", "does not say why"},
		"it comes up once more":      {slots("a", "a", "b", ""), time.Second, time.Minute, false, "its restart", ""},
	} {
		done, waits, failed := verdict(c.disk, c.up, c.since, "bb")
		if done != c.done || waits != c.waits || (failed != nil) != (c.failed != "") || failed != nil && !strings.Contains(failed.Error(), c.failed) {
			t.Errorf("%s: done %t, waits for %q, failed %v", name, done, waits, failed)
		}
	}
}

// asked is what was asked of a node, and of Kubernetes for it, in its order.
type asked struct {
	mu   sync.Mutex
	list []string
}

func (a *asked) add(what string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.list = append(a.list, what)
}

func (a *asked) has(what string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(a.list, what)
}

func (a *asked) String() string {
	a.mu.Lock()
	defer a.mu.Unlock()
	return strings.Join(a.list, ", ")
}

// upgradable is a node that takes its upgrade and then tells of one state after
// the other.
type upgradable struct {
	nodev1connect.UnimplementedNodeServiceHandler
	asked
	states  []*nodev1.SystemDisk // the last one stays
	refuses string               // why it writes no image
}

func (n *upgradable) Status(context.Context, *connect.Request[nodev1.StatusRequest]) (*connect.Response[nodev1.StatusResponse], error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	now := n.states[0]
	if len(n.states) > 1 {
		n.states = n.states[1:]
	}
	return connect.NewResponse(&nodev1.StatusResponse{SystemDisk: now}), nil
}

func (n *upgradable) Upgrade(_ context.Context, r *connect.Request[nodev1.UpgradeRequest], out *connect.ServerStream[nodev1.UpgradeStep]) error {
	if !r.Msg.GetPrepare() {
		n.add("upgrade " + r.Msg.GetSha256())
		return errors.Join(out.Send(&nodev1.UpgradeStep{Name: lastStep, Ended: true}), connect.NewError(connect.CodeUnavailable, errors.New("it went down")))
	}
	n.add("prepare " + r.Msg.GetSha256())
	const write = "root image"
	if n.refuses != "" {
		return errors.Join(out.Send(&nodev1.UpgradeStep{Name: write, Ended: true, Problem: n.refuses}), connect.NewError(connect.CodeFailedPrecondition, errors.New(n.refuses)))
	}
	return errors.Join(out.Send(&nodev1.UpgradeStep{Name: write}), out.Send(&nodev1.UpgradeStep{Name: write, Ended: true}))
}

func (n *upgradable) Rollback(_ context.Context, _ *connect.Request[nodev1.RollbackRequest], out *connect.ServerStream[nodev1.UpgradeStep]) error {
	n.add("rollback")
	return out.Send(&nodev1.UpgradeStep{Name: lastStep, Ended: true})
}

// kubernetes is an API server by hand with one node more than is upgraded.
type kubernetes struct{ *asked }

func (k kubernetes) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	switch {
	case r.Method == http.MethodPatch:
		body, _ := io.ReadAll(r.Body)
		what := "uncordon"
		if strings.Contains(string(body), `"unschedulable":true`) {
			what = "cordon"
		}
		k.add(what)
		io.WriteString(w, "{}")
	case r.URL.Path == "/api/v1/nodes/prod-worker-1" && k.has("cordon"):
		io.WriteString(w, `{"metadata":{"annotations":{"slipway.internal/cordoned":"upgrade"}},"spec":{"unschedulable":true}}`)
	case r.URL.Path == "/api/v1/nodes/prod-worker-1":
		io.WriteString(w, `{}`)
	case r.URL.Path == "/api/v1/nodes":
		io.WriteString(w, `{"items":[{"metadata":{"name":"prod-worker-1"}},{"metadata":{"name":"prod-worker-2"}}]}`)
	case r.URL.Path == "/readyz":
		io.WriteString(w, "ok")
	default: // pods
		k.add("look at pods")
		io.WriteString(w, `{"items":[]}`)
	}
}

// upgradeOf is the upgrade of a worker that is such a node.
func upgradeOf(t *testing.T, node *upgradable) (*upgrade, *bootv1.Machine, *bytes.Buffer) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(nodev1connect.NewNodeServiceHandler(node))
	boot := &fakeBoot{}
	addrs, contextFile := startRack(t, boot.handler(), mux)
	api, err := apiclient.Open(apiclient.Access(apitest.Serve(t, kubernetes{&node.asked})))
	if err != nil {
		t.Fatal(err)
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
	u := &upgrade{
		remote: &remote{contextFile: contextFile, output: "table"}, boot: service, out: &out, every: time.Millisecond,
		upgradeFlags: upgradeFlags{timeout: 10 * time.Second, draining: 10 * time.Second},
		kube:         func(context.Context) (drain.Node, error) { return drain.Node{API: api}, nil },
	}
	return u, &bootv1.Machine{Id: "52-54-00-00-00-04", Cluster: "prod", Role: "worker", Hostname: "prod-worker-1", Address: addrs[0]}, &out
}

var v2 = &bootv1.GetImageResponse{Version: "v2", Sha256: "5a", RootHash: "bb"}

// TestUpgradeOfANode: its pods are evicted only when the image is written and checked.
func TestUpgradeOfANode(t *testing.T) {
	const departs = "root image: done\nits pods are evicted\nstop all units and restart: done\n"
	const whole = "prepare 5a, cordon, look at pods, upgrade 5a, uncordon"
	for name, c := range map[string]struct {
		states      []*nodev1.SystemDisk
		refuses     string
		out, failed string
		asked       string
	}{
		"to its end": {[]*nodev1.SystemDisk{slots("a", "a", "", ""), slots("b", "a", "b", ""), slots("b", "b", "", "")}, "",
			departs + "waits for its slot to be known as good\nit runs from slot b, which is good\n", "", whole},
		"and back": {[]*nodev1.SystemDisk{slots("a", "a", "", ""), slots("a", "a", "", "no kubelet")}, "",
			departs, "it went back to the slot before: no kubelet", whole},
		"an image that it refuses": {[]*nodev1.SystemDisk{slots("a", "a", "", "")}, "the image is for another kind of computer",
			"root image: the image is for another kind of computer\n", "another kind of computer", "prepare 5a"},
		"again":                {[]*nodev1.SystemDisk{slots("b", "b", "", "")}, "", "it runs that already\n", "", ""},
		"while it is on trial": {[]*nodev1.SystemDisk{slots("b", "a", "b", ""), slots("b", "b", "", "")}, "", "it runs from slot b, which is good\n", "", ""},
		"in RAM":               {[]*nodev1.SystemDisk{nil}, "", "", "runs from RAM", ""},
	} {
		node := &upgradable{states: c.states, refuses: c.refuses}
		u, m, out := upgradeOf(t, node)
		err := u.one(t.Context(), u.toImage(m, v2))
		if (err != nil) != (c.failed != "") || err != nil && !strings.Contains(err.Error(), c.failed) {
			t.Errorf("%s: %v, want %q", name, err, c.failed)
		}
		if got := strings.ReplaceAll(out.String(), "prod-worker-1: ", ""); got != c.out {
			t.Errorf("%s: it says\n%s, want\n%s", name, got, c.out)
		}
		if got := node.asked.String(); got != c.asked {
			t.Errorf("%s: they were asked to %q, want %q", name, got, c.asked)
		}
	}
}

// TestUpgradeAsJSON: programs get an object for each thing that is said.
func TestUpgradeAsJSON(t *testing.T) {
	u, m, out := upgradeOf(t, &upgradable{states: []*nodev1.SystemDisk{slots("b", "b", "", "")}})
	u.remote.output = "json"
	if err := u.one(t.Context(), u.toImage(m, v2)); err != nil {
		t.Fatal(err)
	}
	var said struct{ Machine, Name, Text string }
	if err := json.Unmarshal(out.Bytes(), &said); err != nil || said.Machine != m.GetId() || said.Name != "prod-worker-1" || said.Text != "it runs that already" {
		t.Errorf("%v, said %s", err, out)
	}
}

func TestUnwell(t *testing.T) {
	plane := func(n string, change func(*bootv1.Machine)) *bootv1.Machine {
		m := &bootv1.Machine{Id: n, Hostname: "cp-" + n, Address: "10.0.0." + n, Role: "control-plane", Phase: "ready", Etcd: &bootv1.EtcdState{Voter: true, Healthy: true}}
		if change != nil {
			change(m)
		}
		return m
	}
	joining := func(m *bootv1.Machine) { m.Phase, m.WaitingFor = "joining", "etcd" }
	learner := func(m *bootv1.Machine) { m.Etcd.Voter = false }
	sick := func(m *bootv1.Machine) { m.Etcd.Healthy = false }
	noEtcd := func(m *bootv1.Machine) { m.Etcd = nil }
	worker := &bootv1.Machine{Id: "9", Role: "worker", Phase: "joining"}
	for want, machines := range map[string][]*bootv1.Machine{
		"": {plane("1", joining), plane("2", nil), plane("3", nil), worker},
		"cp-2 to be ready: it is joining and waits for etcd": {plane("1", nil), plane("2", joining)},
		"cp-2 to be a healthy voter of etcd":                 {plane("1", nil), plane("2", learner)},
		"cp-3 to be a healthy voter of etcd":                 {plane("1", nil), plane("2", nil), plane("3", sick)},
	} {
		if got := unwell(machines, "1"); got != want {
			t.Errorf("waits for %q, want %q", got, want)
		}
	}
	if got := unwell([]*bootv1.Machine{plane("1", noEtcd), plane("2", noEtcd)}, "1"); got != "" {
		t.Errorf("with an etcd of others, waits for %q", got)
	}
}

// TestUnwellByItsOwnWord: a machine whose Node is Ready may lack a unit that the
// others rely on; it says so itself.
func TestUnwellByItsOwnWord(t *testing.T) {
	without := slots("a", "a", "", "")
	without.WaitingFor = "unit kube-scheduler to be ready"
	u, m, _ := upgradeOf(t, &upgradable{states: []*nodev1.SystemDisk{without, slots("a", "a", "", "")}})
	m.Role, m.Phase = "control-plane", "ready"
	for _, want := range []string{"prod-worker-1 to be well: it waits for unit kube-scheduler to be ready", ""} {
		if got := u.unwell(t.Context(), []*bootv1.Machine{m}, nil); got != want {
			t.Errorf("waits for %q, want %q", got, want)
		}
	}
}

func TestInTurn(t *testing.T) {
	leader := &bootv1.Machine{Id: "1", Role: "control-plane", Etcd: &bootv1.EtcdState{Leader: true}}
	planes, workers := inTurn([]*bootv1.Machine{leader, {Id: "2", Role: "worker"}, {Id: "3", Role: "control-plane"}, {Id: "4", Role: "etcd"}})
	var order []string
	for _, m := range slices.Concat(planes, workers) {
		order = append(order, m.GetId())
	}
	if got := strings.Join(order, " "); got != "3 4 1 2" {
		t.Errorf("the order is %s", got)
	}
}

func TestAgreedHash(t *testing.T) {
	hash := bytes.Repeat([]byte{0xab}, 32)
	for said, want := range map[string]string{
		strings.Repeat("ab", 32): "", "ABABABABABAB": "", "abababababab…": "and not", "ababab": "too few", "abababababac": "has changed",
	} {
		got, err := agreedHash(said, hash)
		if (err == nil) != (want == "") || err != nil && !strings.Contains(err.Error(), want) || err == nil && !bytes.Equal(got, hash) {
			t.Errorf("%q: %x, %v; want %q", said, got, err, want)
		}
	}
}
