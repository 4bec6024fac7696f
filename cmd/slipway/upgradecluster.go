package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
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
	return journey{machine: m, hash: image.GetRootHash(), start: func(ctx context.Context, node nodev1connect.NodeServiceClient) (steps, error) {
		return node.Upgrade(ctx, connect.NewRequest(&nodev1.UpgradeRequest{Sha256: image.GetSha256(), Kexec: u.kexec}))
	}}
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

// checkSkew refuses what Kubernetes' version-skew policy forbids for the
// machines that are to be upgraded.
func (u *upgrade) checkSkew(ctx context.Context, machines []*bootv1.Machine, image *bootv1.GetImageResponse) error {
	api, err := u.kube(ctx)
	if err != nil {
		return err
	}
	versions, err := api.Versions(ctx)
	if err != nil {
		return err
	}
	return skew.Check(skewNodes(machines, versions), image.GetKubernetes())
}

// skewNodes are the machines that have a Node, with what runs there.
func skewNodes(machines []*bootv1.Machine, versions map[string]string) (nodes []skew.Node) {
	for _, m := range machines {
		if v, ok := versions[m.GetHostname()]; ok && hasNode(m) {
			nodes = append(nodes, skew.Node{Name: m.GetHostname(), Version: v, ControlPlane: m.GetRole() == string(machine.ControlPlane)})
		}
	}
	return nodes
}

// all upgrades a cluster: its control planes and members of etcd one after the
// other, each once all others are well; then its workers, some at once. The
// first that fails stops what has not begun.
func (u *upgrade) all(ctx context.Context, c *bootv1.Cluster, image *bootv1.GetImageResponse, atOnce int) error {
	planes, workers := inTurn(c.GetMachines())
	for _, m := range planes {
		if err := u.awaitOthers(ctx, c.GetName(), m); err != nil {
			return err
		}
		if err := u.one(ctx, u.toImage(m, image)); err != nil {
			return err
		}
	}
	if err := u.awaitOthers(ctx, c.GetName(), nil); err != nil {
		return err
	}
	group, groupCtx := errgroup.WithContext(ctx)
	group.SetLimit(atOnce)
	for _, m := range workers {
		group.Go(func() error {
			if groupCtx.Err() != nil {
				return nil // another one failed
			}
			return u.one(ctx, u.toImage(m, image)) // one that has begun goes on to its end
		})
	}
	return group.Wait()
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
// well: etcd's quorum stands without that one then.
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
			waits = unwell(answer.Msg.GetCluster().GetMachines(), but.GetId())
		}
		if waits == "" {
			return nil
		}
		if waits != said {
			said = waits
			u.say(journey{machine: &bootv1.Machine{Hostname: cluster}}, "waits for %s", waits)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("%w: after %v, cluster %s still waits for %s; the same command goes on where it stopped", errDeadline, u.timeout, cluster, waits))
		}
	}
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
