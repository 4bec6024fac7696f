package main

import (
	"bytes"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/configs/cluster"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

// fakeBoot is a boot service by hand with one cluster.
type fakeBoot struct {
	bootv1connect.UnimplementedInventoryServiceHandler
	bootv1connect.UnimplementedClusterServiceHandler
	cluster    *bootv1.Cluster
	kubeconfig []byte
	image      *bootv1.GetImageResponse
	update     *bootv1.UpdateClusterRequest
	deleted    *bootv1.DeleteClusterRequest
	refusal    error
}

func (f *fakeBoot) handler() http.Handler { return handlerOf(f) }

func handlerOf(f interface {
	bootv1connect.InventoryServiceHandler
	bootv1connect.ClusterServiceHandler
}) http.Handler {
	mux := http.NewServeMux()
	mux.Handle(bootv1connect.NewInventoryServiceHandler(f))
	mux.Handle(bootv1connect.NewClusterServiceHandler(f))
	return mux
}

func (f *fakeBoot) ListMachines(context.Context, *connect.Request[bootv1.ListMachinesRequest]) (*connect.Response[bootv1.ListMachinesResponse], error) {
	return connect.NewResponse(&bootv1.ListMachinesResponse{Machines: f.cluster.Machines}), nil
}

func (f *fakeBoot) GetMachine(_ context.Context, r *connect.Request[bootv1.GetMachineRequest]) (*connect.Response[bootv1.GetMachineResponse], error) {
	for _, m := range f.cluster.Machines {
		if m.Id == r.Msg.Id {
			return connect.NewResponse(&bootv1.GetMachineResponse{Machine: m}), nil
		}
	}
	return nil, connect.NewError(connect.CodeNotFound, errors.New("no such machine"))
}

func (f *fakeBoot) GetCluster(context.Context, *connect.Request[bootv1.GetClusterRequest]) (*connect.Response[bootv1.GetClusterResponse], error) {
	return connect.NewResponse(&bootv1.GetClusterResponse{Cluster: f.cluster}), nil
}

func (f *fakeBoot) UpdateCluster(_ context.Context, r *connect.Request[bootv1.UpdateClusterRequest]) (*connect.Response[bootv1.UpdateClusterResponse], error) {
	if f.refusal != nil && !r.Msg.Force {
		return nil, f.refusal
	}
	f.update = r.Msg
	return connect.NewResponse(&bootv1.UpdateClusterResponse{Cluster: f.cluster}), nil
}

func (f *fakeBoot) DeleteCluster(_ context.Context, r *connect.Request[bootv1.DeleteClusterRequest]) (*connect.Response[bootv1.DeleteClusterResponse], error) {
	f.deleted = r.Msg
	return connect.NewResponse(&bootv1.DeleteClusterResponse{}), nil
}

func (f *fakeBoot) Kubeconfig(context.Context, *connect.Request[bootv1.KubeconfigRequest]) (*connect.Response[bootv1.KubeconfigResponse], error) {
	return connect.NewResponse(&bootv1.KubeconfigResponse{Kubeconfig: f.kubeconfig}), nil
}

func (f *fakeBoot) GetImage(context.Context, *connect.Request[bootv1.GetImageRequest]) (*connect.Response[bootv1.GetImageResponse], error) {
	return connect.NewResponse(f.image), nil
}

// resettable is a node that resets itself.
type resettable struct {
	nodev1connect.UnimplementedNodeServiceHandler
	steps []*nodev1.ResetStep
	end   error
	asked *nodev1.ResetRequest
}

func (r *resettable) Reset(_ context.Context, request *connect.Request[nodev1.ResetRequest], out *connect.ServerStream[nodev1.ResetStep]) error {
	r.asked = request.Msg
	for _, s := range r.steps {
		if err := out.Send(s); err != nil {
			return err
		}
	}
	return r.end
}

// CheckReset refuses discard: its disk has none.
func (r *resettable) CheckReset(_ context.Context, request *connect.Request[nodev1.CheckResetRequest]) (*connect.Response[nodev1.CheckResetResponse], error) {
	if request.Msg.Wipe == "discard" {
		return nil, connect.NewError(connect.CodeFailedPrecondition, errors.New("the disk has no discard"))
	}
	return connect.NewResponse(&nodev1.CheckResetResponse{}), nil
}

// prodCluster has three control planes and a worker, at the addresses.
func prodCluster(t *testing.T, addresses map[string]string) *bootv1.Cluster {
	t.Helper()
	c := &bootv1.Cluster{Name: "prod"}
	text := "apiVersion: slipway/v1\nkind: Cluster\nname: prod\nmachines:\n"
	for _, m := range []*bootv1.Machine{
		{Id: "52-54-00-00-00-01", Role: "control-plane", Hostname: "prod-cp-1"},
		{Id: "52-54-00-00-00-02", Role: "control-plane", Hostname: "prod-cp-2"},
		{Id: "52-54-00-00-00-03", Role: "control-plane", Hostname: "prod-cp-3"},
		{Id: "52-54-00-00-00-04", Role: "worker", Hostname: "prod-worker-1"},
	} {
		text += "- {id: " + m.Id + ", role: " + m.Role + "}\n"
		m.Cluster, m.Address = "prod", addresses[m.Hostname]
		if m.Role == "control-plane" {
			m.Etcd = &bootv1.EtcdState{MemberId: "a1", Voter: true}
		}
		c.Machines = append(c.Machines, m)
	}
	doc, err := cluster.Parse([]byte(text), "test")
	if err != nil {
		t.Fatal(err)
	}
	if c.Document, err = cluster.Marshal(doc); err != nil {
		t.Fatal(err)
	}
	return c
}

// reset runs slipway node reset with a yes.
func reset(t *testing.T, contextFile string, args ...string) (int, string) {
	t.Helper()
	var out bytes.Buffer
	code := run(t.Context(), append([]string{"node", "reset", "--yes", "--context", contextFile}, args...), nil, &out, &out)
	return code, out.String()
}

func TestNodeReset(t *testing.T) {
	node := &resettable{steps: []*nodev1.ResetStep{
		{Name: "leave etcd"}, {Name: "tell the boot service", Problem: "connection refused"}, {Name: lastStep},
	}, end: connect.NewError(connect.CodeUnavailable, errors.New("it went down"))}
	mux := http.NewServeMux()
	mux.Handle(nodev1connect.NewNodeServiceHandler(node))
	boot := &fakeBoot{}
	addrs, contextFile := startRack(t, boot.handler(), mux)
	boot.cluster = prodCluster(t, map[string]string{"prod-cp-2": addrs[0]})

	boot.refusal = connect.NewError(connect.CodeFailedPrecondition, errors.New("etcd would lose its quorum"))
	if code, out := reset(t, contextFile, "prod-cp-2"); code != exitFailed || out != "slipway: etcd would lose its quorum\n" || node.asked != nil {
		t.Errorf("refused: exit code %d, asked %v: %s", code, node.asked, out)
	}
	code, out := reset(t, contextFile, "prod-cp-2", "--force")
	want := `take it out of the document of cluster prod: done
leave etcd: done
tell the boot service: connection refused
stop all units and restart: done
`
	if diff := cmp.Diff(want, out); diff != "" || code != 0 || !node.asked.GetForce() {
		t.Errorf("exit code %d, asked %v (-want +got):\n%s", code, node.asked, diff)
	}
	left, err := cluster.Parse(boot.update.GetCluster(), "update")
	if err != nil || len(left.Machines) != 3 || left.Machines[1].Hostname != "prod-cp-3" {
		t.Errorf("the document now: %v\n%s", err, boot.update.GetCluster())
	}
}

// TestNodeResetWipes: how the disk is wiped is known to the boot service before the node is let
// go, which it may hear of there first. What the disk does not know is refused before that.
func TestNodeResetWipes(t *testing.T) {
	node := &resettable{steps: []*nodev1.ResetStep{{Name: lastStep}}}
	mux := http.NewServeMux()
	mux.Handle(nodev1connect.NewNodeServiceHandler(node))
	boot := &fakeBoot{}
	addrs, contextFile := startRack(t, boot.handler(), mux)
	boot.cluster = prodCluster(t, map[string]string{"prod-worker-1": addrs[0]})
	if code, out := reset(t, contextFile, "prod-worker-1", "--wipe", "discard"); code != exitFailed || !strings.Contains(out, "the disk has no discard") || boot.update != nil || node.asked != nil {
		t.Errorf("exit code %d, update %v, asked %v:\n%s", code, boot.update, node.asked, out)
	}
	if code, out := reset(t, contextFile, "prod-worker-1", "--wipe", "zero"); code != 0 || boot.update.GetWipe() != "zero" || node.asked.GetWipe() != "zero" {
		t.Errorf("exit code %d, update %v, asked %v:\n%s", code, boot.update, node.asked, out)
	}
	file := filepath.Join(t.TempDir(), "prod.yaml")
	without, err := without(boot.cluster.Document, "52-54-00-00-00-04")
	if err == nil {
		err = os.WriteFile(file, without, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, leaves := range [][]string{
		{"cluster", "update", "-f", file},
		{"cluster", "delete", "prod"},
		{"node", "join", "52-54-00-00-00-05", "--replace", "prod-worker-1"},
	} {
		wipes := func(how string) (int, string) {
			boot.update, boot.deleted = nil, nil
			var out bytes.Buffer
			code := run(t.Context(), append(leaves, "--yes", "--context", contextFile, "--wipe", how), nil, &out, &out)
			return code, out.String()
		}
		if code, out := wipes("discard"); code != exitFailed || !strings.Contains(out, "the disk has no discard") || boot.update != nil || boot.deleted != nil {
			t.Errorf("%q: exit code %d, update %v, deleted %v:\n%s", leaves, code, boot.update, boot.deleted, out)
		}
		if code, out := wipes("zero"); code != 0 || boot.update.GetWipe()+boot.deleted.GetWipe() != "zero" {
			t.Errorf("%q: exit code %d, update %v, deleted %v:\n%s", leaves, code, boot.update, boot.deleted, out)
		}
	}
}

// TestNodeResetFails: a step that fails on the node is the command's failure.
func TestNodeResetFails(t *testing.T) {
	node := &resettable{
		steps: []*nodev1.ResetStep{{Name: "leave etcd", Problem: "no quorum"}},
		end:   connect.NewError(connect.CodeFailedPrecondition, errors.New("leave etcd: no quorum")),
	}
	mux := http.NewServeMux()
	mux.Handle(nodev1connect.NewNodeServiceHandler(node))
	boot := &fakeBoot{}
	addrs, contextFile := startRack(t, boot.handler(), mux)
	boot.cluster = prodCluster(t, map[string]string{"prod-cp-2": addrs[0]})
	code, out := reset(t, contextFile, "prod-cp-2")
	if code != exitFailed || !strings.HasSuffix(out, "leave etcd: no quorum\nslipway: leave etcd: no quorum\n") {
		t.Errorf("exit code %d:\n%s", code, out)
	}
}

// TestNodeResetOfTheDead: without the node, what it would have done is done for it.
func TestNodeResetOfTheDead(t *testing.T) {
	var calls []string
	other := &fakeEtcd{calls: &calls, status: &nodev1.EtcdStatusResponse{Name: "prod-cp-1"}}
	boot := &fakeBoot{}
	addrs, contextFile := startRack(t, boot.handler(), other.handler())
	boot.cluster = prodCluster(t, map[string]string{"prod-cp-1": addrs[0], "prod-cp-2": deadAddress(t)})
	boot.kubeconfig = kubeAPI(t, func(w http.ResponseWriter, r *http.Request) { calls = append(calls, r.Method+" "+r.URL.Path) })

	code, out := reset(t, contextFile, "prod-cp-2")
	if code != 0 {
		t.Errorf("exit code %d", code)
	}
	for _, want := range []string{
		"document of cluster prod: done\n", "not reachable", "Should the machine come back, it resets itself.\n",
		"take its member out of etcd: done\n", "delete its Node: done\n",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is not in:\n%s", want, out)
		}
	}
	want := []string{"prod-cp-1 removes prod-cp-2", "DELETE /api/v1/nodes/prod-cp-2"}
	if diff := cmp.Diff(want, calls); diff != "" {
		t.Errorf("calls (-want +got):\n%s", diff)
	}
}

// deadAddress is one where nobody listens.
func deadAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// kubeAPI serves a cluster's API and gives a kubeconfig for it.
func kubeAPI(t *testing.T, handler http.HandlerFunc) []byte {
	t.Helper()
	ca, pair, key := issueFor(t, "test API")
	s := httptest.NewUnstartedServer(handler)
	s.TLS = serverTLS(t, ca, pair, key)
	s.StartTLS()
	t.Cleanup(s.Close)
	return kubeconfigFor(t, s.URL, ca, pair, key)
}

// TestUpdateWithoutADeadMachine: a machine that a document names no more and that
// does not answer is taken out of etcd at once, as by slipway node reset. One
// that answers leaves by itself, and one that is replaced is the other's to remove.
func TestUpdateWithoutADeadMachine(t *testing.T) {
	for name, test := range map[string]struct {
		alive  bool
		edit   func(*cluster.Cluster)
		others error // of those asked to remove the member
		calls  []string
		said   []string
	}{
		"dead": {
			edit:  func(doc *cluster.Cluster) { doc.Machines = slices.Delete(doc.Machines, 1, 2) },
			calls: []string{"prod-cp-1 removes prod-cp-2", "DELETE /api/v1/nodes/prod-cp-2"},
			said:  []string{"prod-cp-2 does not answer. Should it come back, it resets itself", "take its member out of etcd: done\n", "delete its Node: done\n"},
		},
		"dead, and the others are no quorum": {
			edit:   func(doc *cluster.Cluster) { doc.Machines = slices.Delete(doc.Machines, 1, 2) },
			others: connect.NewError(connect.CodeFailedPrecondition, errors.New("those who answer are no quorum")),
			calls:  []string{"DELETE /api/v1/nodes/prod-cp-2"},
			said:   []string{"take its member out of etcd: those who answer are no quorum", "changed nevertheless", "within minutes"},
		},
		"alive":             {alive: true, edit: func(doc *cluster.Cluster) { doc.Machines = slices.Delete(doc.Machines, 1, 2) }},
		"dead and replaced": {edit: func(doc *cluster.Cluster) { doc.Machines[1].ID = "52-54-00-00-00-09" }},
		"none leaves":       {edit: func(doc *cluster.Cluster) { doc.CertificateLifetime = time.Hour }},
	} {
		t.Run(name, func(t *testing.T) {
			var calls []string
			other := &fakeEtcd{calls: &calls, status: &nodev1.EtcdStatusResponse{Name: "prod-cp-1"}, removal: test.others}
			mux := http.NewServeMux()
			mux.Handle(nodev1connect.NewNodeServiceHandler(&resettable{}))
			boot := &fakeBoot{}
			addrs, contextFile := startRack(t, boot.handler(), other.handler(), mux)
			second := deadAddress(t)
			if test.alive {
				second = addrs[1]
			}
			boot.cluster = prodCluster(t, map[string]string{"prod-cp-1": addrs[0], "prod-cp-2": second})
			boot.kubeconfig = kubeAPI(t, func(w http.ResponseWriter, r *http.Request) { calls = append(calls, r.Method+" "+r.URL.Path) })
			doc, err := cluster.Parse(boot.cluster.GetDocument(), "test")
			if err != nil {
				t.Fatal(err)
			}
			test.edit(doc)
			text, err := cluster.Marshal(doc)
			if err != nil {
				t.Fatal(err)
			}
			file := filepath.Join(t.TempDir(), "prod.yaml")
			if err := os.WriteFile(file, text, 0o600); err != nil {
				t.Fatal(err)
			}
			var out bytes.Buffer
			code := run(t.Context(), []string{"cluster", "update", "--yes", "--context", contextFile, "-f", file}, nil, &out, &out)
			if code != 0 || boot.update == nil {
				t.Errorf("exit code %d, update %v", code, boot.update)
			}
			for _, part := range test.said {
				if !strings.Contains(out.String(), part) {
					t.Errorf("%q is not in:\n%s", part, out.String())
				}
			}
			if diff := cmp.Diff(test.calls, calls); diff != "" {
				t.Errorf("calls (-want +got):\n%s\n%s", diff, out.String())
			}
		})
	}
}
