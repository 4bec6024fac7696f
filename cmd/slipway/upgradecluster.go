package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"connectrpc.com/connect"
	"golang.org/x/sync/errgroup"

	"slipway/bootsvc/api/bootv1"
	"slipway/configs/enroll"
	"slipway/configs/machine"
	"slipway/configs/skew"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

// toImage is the journey to the image that the boot service serves.
func (u *upgrade) toImage(m *bootv1.Machine, image *bootv1.GetImageResponse) journey {
	part := func(prepare bool) begin {
		return func(ctx context.Context, node nodev1connect.NodeServiceClient) (steps, error) {
			return node.Upgrade(ctx, connect.NewRequest(&nodev1.UpgradeRequest{
				Sha256: image.GetSha256(), Kexec: u.kexec, Older: u.older, HealthyWithinMs: u.healthy.Milliseconds(), Prepare: prepare,
			}))
		}
	}
	return journey{machine: m, hash: image.GetRootHash(), prepare: part(true), start: part(false)}
}

// image is what the boot service serves. It must be one that can be installed.
func (u *upgrade) image(ctx context.Context) (*bootv1.GetImageResponse, error) {
	answer, err := u.boot.Inventory.GetImage(ctx, connect.NewRequest(&bootv1.GetImageRequest{}))
	if err != nil {
		return nil, err
	}
	if answer.Msg.GetRootHash() == "" {
		return nil, fmt.Errorf("the boot service's image %s can only run from RAM: build it again with slipway image build", answer.Msg.GetVersion())
	}
	return answer.Msg, nil
}

// checkSkew refuses what Kubernetes' version-skew policy forbids if some of a
// cluster's machines are upgraded and the others stay as they are.
func (u *upgrade) checkSkew(ctx context.Context, all, moving []*bootv1.Machine, image *bootv1.GetImageResponse) error {
	nodes, err := u.skewNodes(ctx, all, moving)
	if err != nil {
		return err
	}
	return skew.Check(nodes, image.GetKubernetes())
}

// skewNodes asks the cluster's API what its nodes run.
func (u *upgrade) skewNodes(ctx context.Context, all, moving []*bootv1.Machine) ([]skew.Node, error) {
	api, err := u.kube(ctx)
	if err != nil {
		return nil, err
	}
	versions, err := api.Versions(ctx)
	if err != nil {
		return nil, err
	}
	return skewNodes(all, moving, versions), nil
}

// skewNodes are the machines that have a Node, with what runs there.
func skewNodes(all, moving []*bootv1.Machine, versions map[string]string) (nodes []skew.Node) {
	for _, m := range all {
		v, ok := versions[m.GetHostname()]
		if !ok || !hasNode(m) {
			continue
		}
		moves := slices.ContainsFunc(moving, func(other *bootv1.Machine) bool { return other.GetId() == m.GetId() })
		nodes = append(nodes, skew.Node{Name: m.GetHostname(), Version: v, ControlPlane: m.GetRole() == string(machine.ControlPlane), Stays: !moves})
	}
	return nodes
}

// all upgrades a cluster: its control planes and members of etcd one after the
// other, each once all others are well; then its workers, some at once. The
// first that fails stops what has not begun.
func (u *upgrade) all(ctx context.Context, cluster string, machines []*bootv1.Machine, image *bootv1.GetImageResponse, atOnce int) error {
	planes, workers := inTurn(machines)
	for _, m := range planes {
		if err := u.awaitOthers(ctx, cluster, m); err != nil {
			return err
		}
		if err := u.one(ctx, u.toImage(m, image)); err != nil {
			return err
		}
	}
	if len(workers) == 0 {
		return nil
	}
	if err := u.awaitOthers(ctx, cluster, nil); err != nil {
		return err
	}
	return u.some(ctx, workers, image, atOnce)
}

// some upgrades workers, a number of them at once. One that has begun goes on to
// its end, though another fails; the error is of all that failed.
func (u *upgrade) some(ctx context.Context, workers []*bootv1.Machine, image *bootv1.GetImageResponse, atOnce int) error {
	var failed atomic.Bool
	errs := make([]error, len(workers))
	var group errgroup.Group
	group.SetLimit(atOnce)
	for i, m := range workers {
		group.Go(func() error {
			if failed.Load() {
				return nil
			}
			if errs[i] = u.one(ctx, u.toImage(m, image)); errs[i] != nil {
				failed.Store(true)
			}
			return nil
		})
	}
	return errors.Join(group.Wait(), errors.Join(errs...))
}

// inTurn are the machines of which one at a time is upgraded, and the others.
// The leader of etcd comes last: each time it goes, all wait for another one.
func inTurn(machines []*bootv1.Machine) (planes, workers []*bootv1.Machine) {
	for _, m := range machines {
		if m.GetRole() == string(machine.Worker) {
			workers = append(workers, m)
		} else {
			planes = append(planes, m)
		}
	}
	slices.SortStableFunc(planes, func(a, b *bootv1.Machine) int {
		return boolToInt(a.GetEtcd().GetLeader()) - boolToInt(b.GetEtcd().GetLeader())
	})
	return planes, workers
}

func boolToInt(b bool) int {
	if b {
		return 1
	}
	return 0
}

// awaitOthers waits until every control plane and member of etcd but one is
// well: etcd's quorum stands without that one then. What the boot service knows
// may be minutes old, so that the machines and etcd itself are asked too.
func (u *upgrade) awaitOthers(ctx context.Context, cluster string, but *bootv1.Machine) error {
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	ticker := time.NewTicker(u.every)
	defer ticker.Stop()
	said := ""
	for {
		answer, err := u.boot.Clusters.GetCluster(ctx, connect.NewRequest(&bootv1.GetClusterRequest{Name: cluster}))
		if err != nil && !passing(err) {
			return err
		}
		waits := "the boot service"
		if err == nil {
			waits = u.unwell(ctx, answer.Msg.GetCluster().GetMachines(), but)
		}
		switch {
		case ctx.Err() != nil && said != "":
			waits = said // nobody could answer in no time
		case waits == "":
			return nil
		}
		if waits != said {
			said = waits
			u.say(journey{machine: &bootv1.Machine{Hostname: cluster}}, "waits for %s", waits)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%w: after %v, cluster %s still waits for %s; the same command goes on where it stopped", errDeadline, u.timeout, cluster, waits)
		}
	}
}

// unwell says what keeps all but one machine from being well; empty if nothing does.
func (u *upgrade) unwell(ctx context.Context, machines []*bootv1.Machine, but *bootv1.Machine) string {
	if waits := unwell(machines, but.GetId()); waits != "" {
		return waits
	}
	for _, m := range machines {
		if m.GetId() == but.GetId() || m.GetRole() == string(machine.Worker) {
			continue
		}
		status, err := nodeStatus(ctx, u.remote, m.GetAddress())
		if err != nil {
			return name(m) + " to answer: " + explain(err)
		}
		if ill := status.GetSystemDisk().GetWaitingFor(); ill != "" { // its scheduler may be the last one
			return name(m) + " to be well: it waits for " + ill
		}
	}
	return u.ailing(ctx, machines, but)
}

// ailing asks etcd for its members.
func (u *upgrade) ailing(ctx context.Context, machines []*bootv1.Machine, but *bootv1.Machine) string {
	var nodes []etcdNode
	for _, m := range etcdMachines(machines) {
		if m.GetId() == but.GetId() || m.GetEtcd() == nil { // without one, etcd is someone else's
			continue
		}
		web, base, err := u.nodeHTTP(ctx, m.GetAddress())
		if err != nil {
			return "etcd to answer: " + explain(err)
		}
		nodes = append(nodes, etcdNode{name(m), nodev1connect.NewEtcdServiceClient(web, base)})
	}
	if len(nodes) == 0 {
		return "" // the only member: the cluster stands still while it restarts
	}
	list, err := first(ctx, nodes, func(ctx context.Context, e nodev1connect.EtcdServiceClient) (*connect.Response[nodev1.EtcdMembersResponse], error) {
		return e.Members(ctx, connect.NewRequest(&nodev1.EtcdMembersRequest{}))
	})
	if err != nil {
		return "etcd to answer: " + explain(err)
	}
	return ailing(list.GetMembers(), but.GetHostname())
}

// ailing names the first member of etcd, but one, that is no healthy voter: also
// one whose machine is gone for good, for it counts when votes are counted. It
// is pure.
func ailing(members []*nodev1.EtcdMember, but string) string {
	for _, m := range members {
		switch {
		case m.GetName() == but:
		case m.GetName() == "":
			return "etcd's member " + m.GetId() + " to start"
		case m.GetLearner():
			return "etcd's member " + m.GetName() + " to be a voter"
		case !m.GetHealthy():
			return "etcd's member " + m.GetName() + " to be healthy; if its machine is gone for good, slipway etcd remove " + m.GetName()
		}
	}
	return ""
}

// unwell names the first control plane or member of etcd, but one, that is not
// well; empty if all are. It is pure.
func unwell(machines []*bootv1.Machine, but string) string {
	members := etcdMachines(machines)
	external := !slices.ContainsFunc(members, func(m *bootv1.Machine) bool { return m.GetEtcd() != nil })
	for _, m := range machines {
		if m.GetId() == but || m.GetRole() == string(machine.Worker) {
			continue
		}
		switch etcd := m.GetEtcd(); {
		case m.GetPhase() != string(enroll.Ready):
			return fmt.Sprintf("%s to be ready: it is %s and waits for %s", name(m), orUnseen(m.GetPhase()), orNothing(m.GetWaitingFor()))
		case external || !slices.Contains(members, m):
		case !etcd.GetVoter() || !etcd.GetHealthy():
			return name(m) + " to be a healthy voter of etcd"
		}
	}
	return ""
}
