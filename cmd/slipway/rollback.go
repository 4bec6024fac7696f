package main

import (
	"context"
	"fmt"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/configs/skew"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

func nodeRollbackCommand(r *remote) *cobra.Command {
	var f upgradeFlags
	cmd := &cobra.Command{
		Use:   "rollback NODE",
		Short: "Have an installed node run what it ran before its last upgrade",
		Long: `Have an installed node run what it ran before its last upgrade.

Its other slot still holds that. It is booted as an upgrade is: once, and for
good when the node is well.

What Kubernetes' version-skew policy forbids is refused before anything is changed:
a control plane goes back by one minor version at most, and after the workers that
are newer than that. --no-skew-check leaves that out, should the cluster's API not
answer, or should you know better.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, m, c, err := f.forNode(cmd, r, args[0])
			if err != nil {
				return err
			}
			now, then, err := u.slotsOf(cmd.Context(), m)
			if err != nil {
				return err
			}
			if c != nil && !f.anySkew {
				if err := u.checkBack(cmd.Context(), c.GetMachines(), m, now, then); err != nil {
					return skewed(fmt.Sprintf("roll %s back to slot %s", name(m), then.GetName()), err)
				}
			}
			if err := agree(cmd, f.yes, fmt.Sprintf("Have %s run what is in its slot %s, %s? It restarts.", name(m), then.GetName(), imageOf(then))); err != nil {
				return err
			}
			return u.back(cmd.Context(), m, then)
		},
	}
	f.register(cmd)
	f.registerSkew(cmd)
	return cmd
}

// slotsOf are what an installed machine runs, and what it would go back to.
func (u *upgrade) slotsOf(ctx context.Context, m *bootv1.Machine) (now, then *nodev1.Slot, err error) {
	node, err := u.node(ctx, m.GetAddress())
	if err != nil {
		return nil, nil, err
	}
	disk, _, err := u.disk(ctx, node, journey{machine: m})
	if err != nil {
		return nil, nil, err
	}
	if disk == nil {
		return nil, nil, runsFromRAM(m)
	}
	for _, s := range disk.GetSlots() {
		switch {
		case s.GetName() == disk.GetBooted():
			now = s
		case s.GetRootHash() != "":
			then = s
		}
	}
	if then == nil {
		return nil, nil, fmt.Errorf("%s has nothing in its other slot to go back to", name(m))
	}
	return now, then, nil
}

// checkBack refuses what Kubernetes' version-skew policy forbids if one machine
// of a cluster goes back. The same Kubernetes as runs needs nobody's answer.
func (u *upgrade) checkBack(ctx context.Context, all []*bootv1.Machine, m *bootv1.Machine, now, then *nodev1.Slot) error {
	switch {
	case !hasNode(m):
		return nil
	case then.GetKubernetes() == "":
		u.say(journey{machine: m}, "slot %s was written by an older Slipway, which did not record its Kubernetes: the version-skew policy is not checked", then.GetName())
		return nil
	case then.GetKubernetes() == now.GetKubernetes():
		return nil
	}
	nodes, err := u.skewNodes(ctx, all, []*bootv1.Machine{m})
	if err != nil {
		return err
	}
	return skew.CheckBack(nodes, then.GetKubernetes())
}

// back takes a machine to its other slot.
func (u *upgrade) back(ctx context.Context, m *bootv1.Machine, to *nodev1.Slot) error {
	return u.alone(ctx, journey{machine: m, hash: to.GetRootHash(), start: func(ctx context.Context, node nodev1connect.NodeServiceClient) (steps, error) {
		return node.Rollback(ctx, connect.NewRequest(&nodev1.RollbackRequest{Kexec: u.kexec, HealthyWithinMs: u.healthy.Milliseconds()}))
	}})
}
