package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"os"
	"testing"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/inventory"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

// scriptRacks serves the scripts a rack of machines that live on disks, and
// gives the contexts of two boot services: one serves a newer image, the other
// one that cannot be installed.
func scriptRacks(t *testing.T) (newer, outdated []byte) {
	t.Helper()
	mux := http.NewServeMux()
	mux.Handle(nodev1connect.NewNodeServiceHandler(refusingNode{}))
	cluster := &bootv1.Cluster{Name: "prod"}
	kubeconfig := kubeAPI(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/readyz":
			io.WriteString(w, "ok")
		case "/api/v1/nodes":
			io.WriteString(w, `{"items":[
				{"metadata":{"name":"prod-cp-1"},"status":{"nodeInfo":{"kubeletVersion":"v1.37.0"}}},
				{"metadata":{"name":"prod-worker-1"},"status":{"nodeInfo":{"kubeletVersion":"v1.37.0"}}},
				{"metadata":{"name":"prod-worker-2"},"status":{"nodeInfo":{"kubeletVersion":"v1.37.0"}}}]}`)
		}
	})
	context := func(image *bootv1.GetImageResponse) []byte {
		boot := &scriptBoot{fakeBoot: &fakeBoot{cluster: cluster, kubeconfig: kubeconfig}, served: image}
		addrs, file := startRack(t, boot.handler(), mux)
		cluster.Machines = scriptMachines(addrs[0])
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
	outdated = context(&bootv1.GetImageResponse{Version: "v0.9.0", Kubernetes: "v1.37.1"})
	return context(&bootv1.GetImageResponse{Version: "v2.0.0", Kubernetes: "v1.37.1", Sha256: "5a", RootHash: "bb"}), outdated
}

// scriptMachines are two that are installed, one in RAM, one that asks to wipe
// its disk, one that is held.
func scriptMachines(node string) []*bootv1.Machine {
	manifest := &bootv1.WipeManifest{Hash: bytes.Repeat([]byte{0xab}, 32), Text: "wipe manifest 1\ndisk 8 bytes\n  whole disk: ext4\n"}
	installed := &bootv1.Installation{Disk: slotsOf(slots("a", "a", "", "")), Next: "disk"}
	list := []*bootv1.Machine{
		{Id: "52-54-00-00-00-01", Role: "control-plane", Hostname: "prod-cp-1", Installation: installed},
		{Id: "52-54-00-00-00-02", Role: "worker", Hostname: "prod-worker-1", Installation: installed},
		{Id: "52-54-00-00-00-03", Role: "worker", Hostname: "prod-worker-2"},
	}
	for _, m := range list {
		m.Cluster, m.Phase, m.Address = "prod", "ready", node
	}
	held := inventory.Machine{ID: "52-54-00-00-00-05"}
	held.Installation.Disk.Path, held.Installation.Returns = "/dev/sda", inventory.MaxReturns+1
	return append(list,
		&bootv1.Machine{Id: "52-54-00-00-00-04", Phase: "installing", WaitingFor: "a person", Installation: &bootv1.Installation{Wipe: manifest}},
		&bootv1.Machine{Id: held.ID, Phase: "booting", WaitingFor: held.Held(), Installation: &bootv1.Installation{
			Disk: &bootv1.SystemDisk{Path: "/dev/sda"}, Next: "hold", Held: held.Held(),
		}})
}

// slotsOf is a node's disk as the boot service has it.
func slotsOf(d *nodev1.SystemDisk) *bootv1.SystemDisk {
	disk := &bootv1.SystemDisk{Path: d.Path, Booted: d.Booted, Good: d.Good}
	for _, s := range d.Slots {
		disk.Slots = append(disk.Slots, &bootv1.Slot{Name: s.Name, Version: s.Version, RootHash: s.RootHash, Kubernetes: s.Kubernetes})
	}
	return disk
}

// scriptBoot is a fakeBoot that takes a person's word for machines.
type scriptBoot struct {
	*fakeBoot
	served *bootv1.GetImageResponse
}

func (b *scriptBoot) handler() http.Handler { return handlerOf(b) }

func (b *scriptBoot) GetCluster(context.Context, *connect.Request[bootv1.GetClusterRequest]) (*connect.Response[bootv1.GetClusterResponse], error) {
	c := &bootv1.Cluster{Name: b.cluster.GetName()}
	for _, m := range b.cluster.GetMachines() {
		if m.GetCluster() == c.GetName() {
			c.Machines = append(c.Machines, m)
		}
	}
	return connect.NewResponse(&bootv1.GetClusterResponse{Cluster: c}), nil
}

func (b *scriptBoot) GetImage(context.Context, *connect.Request[bootv1.GetImageRequest]) (*connect.Response[bootv1.GetImageResponse], error) {
	return connect.NewResponse(b.served), nil
}

func (b *scriptBoot) AgreeWipe(_ context.Context, r *connect.Request[bootv1.AgreeWipeRequest]) (*connect.Response[bootv1.AgreeWipeResponse], error) {
	return connect.NewResponse(&bootv1.AgreeWipeResponse{Machine: &bootv1.Machine{Id: r.Msg.GetId(), WaitingFor: "the machine to take the agreement"}}), nil
}

func (b *scriptBoot) BootFrom(_ context.Context, r *connect.Request[bootv1.BootFromRequest]) (*connect.Response[bootv1.BootFromResponse], error) {
	return connect.NewResponse(&bootv1.BootFromResponse{Machine: &bootv1.Machine{Id: r.Msg.GetId(), Installation: &bootv1.Installation{Next: r.Msg.GetFrom()}}}), nil
}

func (b *scriptBoot) Forget(context.Context, *connect.Request[bootv1.ForgetRequest]) (*connect.Response[bootv1.ForgetResponse], error) {
	return connect.NewResponse(&bootv1.ForgetResponse{}), nil
}

// refusingNode runs a newer image than it is asked for.
type refusingNode struct {
	nodev1connect.UnimplementedNodeServiceHandler
}

func (refusingNode) Status(context.Context, *connect.Request[nodev1.StatusRequest]) (*connect.Response[nodev1.StatusResponse], error) {
	return connect.NewResponse(&nodev1.StatusResponse{SystemDisk: slots("a", "a", "", "")}), nil
}

func (refusingNode) Upgrade(_ context.Context, r *connect.Request[nodev1.UpgradeRequest], _ *connect.ServerStream[nodev1.UpgradeStep]) error {
	if r.Msg.GetOlder() {
		return connect.NewError(connect.CodeFailedPrecondition, errors.New("there is no such image"))
	}
	return connect.NewError(connect.CodeFailedPrecondition, errors.New("the image is older than the running system"))
}
