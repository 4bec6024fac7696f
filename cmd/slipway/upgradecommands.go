package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/configs/machine"
	"slipway/controlplane/drain"
)

func (f *upgradeFlags) register(cmd *cobra.Command) {
	flags := cmd.Flags()
	flags.BoolVar(&f.kexec, "kexec", false, "restart without the firmware, which saves its time")
	flags.BoolVar(&f.force, "force", false, "evict pods that nothing would make anew, too")
	flags.BoolVar(&f.noDrain, "no-drain", false, "do not evict pods before the restart")
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	flags.DurationVar(&f.timeout, "timeout", 15*time.Minute, "how long a machine may take from its restart until it is known to be good")
	flags.DurationVar(&f.healthy, "health-timeout", 10*time.Minute, "how long after its kernel's start a machine may take to be healthy, before it goes back")
	flags.DurationVar(&f.draining, "drain-timeout", 10*time.Minute, "how long its pods may take to go")
}

func (f *upgradeFlags) registerOlder(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.older, "older", false, "though the image is older than what runs; Kubernetes itself never goes back")
}

func (f *upgradeFlags) registerSkew(cmd *cobra.Command) {
	cmd.Flags().BoolVar(&f.anySkew, "no-skew-check", false, "do not ask whether Kubernetes' version-skew policy allows it")
}

// skewed is why a machine is not taken to another version.
func skewed(doing string, err error) error {
	return fmt.Errorf("%s: %w; --no-skew-check goes on all the same", doing, err)
}

// of is the upgrade of machines of a cluster; of a machine without one if nil.
func (f *upgradeFlags) of(cmd *cobra.Command, r *remote, c *bootv1.Cluster) (*upgrade, error) {
	boot, err := r.client()
	if err != nil {
		return nil, err
	}
	u := &upgrade{remote: r, upgradeFlags: *f, boot: boot, out: cmd.OutOrStdout(), every: lookPeriod}
	if c == nil {
		u.kube = func(context.Context) (drain.Node, error) {
			return drain.Node{}, errors.New("the machine is in no cluster")
		}
		return u, nil
	}
	api, err := openKube(cmd.Context(), boot, c)
	if err != nil {
		return nil, err
	}
	u.kube = api.ready
	return u, nil
}

const upgradeLong = `

The image is written to the slot that is not in use and checked; the pods are
evicted; the machine restarts from that slot, once. If its config is applied, its
kubelet Ready and its member of etcd healthy in time, the slot is known as good.
Otherwise - a bad image, a panic, a hang, a node that does not get well - the
machine is back on the slot before by itself, and says why.`

func nodeUpgradeCommand(r *remote) *cobra.Command {
	var f upgradeFlags
	cmd := &cobra.Command{
		Use:   "upgrade NODE",
		Short: "Have an installed node run the boot service's image",
		Long: "Have an installed node run the image that the boot service serves." + upgradeLong + `

What Kubernetes' version-skew policy forbids is refused before anything is changed.
--no-skew-check leaves that out, should the cluster's API not answer, or should
you know better.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			u, m, c, err := f.forNode(cmd, r, args[0])
			if err != nil {
				return err
			}
			image, err := u.image(cmd.Context())
			if err != nil {
				return err
			}
			if c != nil && !f.anySkew {
				if err := u.checkSkew(cmd.Context(), c.GetMachines(), []*bootv1.Machine{m}, image); err != nil {
					return skewed("upgrade "+name(m), err)
				}
			}
			if err := agree(cmd, f.yes, fmt.Sprintf("Upgrade %s to %s, Kubernetes %s? It restarts.", name(m), image.GetVersion(), image.GetKubernetes())); err != nil {
				return err
			}
			return u.alone(cmd.Context(), u.toImage(m, image))
		},
	}
	f.register(cmd)
	f.registerOlder(cmd)
	f.registerSkew(cmd)
	return cmd
}

// forNode is the upgrade of one machine, and the cluster that has it, if one does.
func (f *upgradeFlags) forNode(cmd *cobra.Command, r *remote, node string) (*upgrade, *bootv1.Machine, *bootv1.Cluster, error) {
	boot, err := r.client()
	if err != nil {
		return nil, nil, nil, err
	}
	m, err := getMachine(cmd.Context(), boot, node)
	if err != nil {
		return nil, nil, nil, err
	}
	if m.GetAddress() == "" {
		return nil, nil, nil, fmt.Errorf("machine %s has no address yet: it is %s and waits for %s", m.GetId(), m.GetPhase(), waitsFor(m))
	}
	var c *bootv1.Cluster
	if m.GetCluster() != "" {
		answer, err := boot.Clusters.GetCluster(cmd.Context(), connect.NewRequest(&bootv1.GetClusterRequest{Name: m.GetCluster()}))
		if err != nil {
			return nil, nil, nil, err
		}
		c = answer.Msg.GetCluster()
	}
	u, err := f.of(cmd, r, c)
	return u, m, c, err
}

// alone is one, of a machine that is upgraded for itself: a control plane or a
// member of etcd goes when all others are well.
func (u *upgrade) alone(ctx context.Context, j journey) error {
	if j.machine.GetCluster() != "" && j.machine.GetRole() != string(machine.Worker) {
		if err := u.awaitOthers(ctx, j.machine.GetCluster(), j.machine); err != nil {
			return err
		}
	}
	return u.one(ctx, j)
}

func clusterUpgradeCommand(r *remote) *cobra.Command {
	var f upgradeFlags
	var atOnce int
	cmd := &cobra.Command{
		Use:   "upgrade [NAME]",
		Short: "Have all of a cluster's installed machines run the boot service's image",
		Long: `Have all of a cluster's installed machines run the image that the boot service
serves: the control planes one after the other, each once all others are well and
etcd's quorum stands without it; then the workers, --parallel of them at a time.
The first that fails stops it. The same command goes on where it stopped.` + upgradeLong + `

A way that Kubernetes' version-skew policy forbids is refused before anything is
changed: control planes go one minor version at a time.`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if atOnce < 1 {
				return fmt.Errorf("%w: --parallel is 1 or more, and not %d", errUsage, atOnce)
			}
			boot, err := r.client()
			if err != nil {
				return err
			}
			answer, err := boot.Clusters.GetCluster(cmd.Context(), connect.NewRequest(&bootv1.GetClusterRequest{Name: optional(args)}))
			if err != nil {
				return err
			}
			return f.cluster(cmd, r, answer.Msg.GetCluster(), atOnce)
		},
	}
	f.register(cmd)
	f.registerOlder(cmd)
	cmd.Flags().IntVar(&atOnce, "parallel", 1, "how many workers may be upgraded at the same time")
	return cmd
}

// cluster checks, shows the plan, asks, and does it.
func (f *upgradeFlags) cluster(cmd *cobra.Command, r *remote, c *bootv1.Cluster, atOnce int) error {
	u, err := f.of(cmd, r, c)
	if err != nil {
		return err
	}
	image, err := u.image(cmd.Context())
	if err != nil {
		return err
	}
	var fromRAM []*bootv1.Machine
	installed := slices.DeleteFunc(slices.Clone(c.GetMachines()), func(m *bootv1.Machine) bool {
		ram := m.GetInstallation().GetDisk() == nil
		if ram {
			fromRAM = append(fromRAM, m)
		}
		return ram
	})
	if len(installed) == 0 {
		return fmt.Errorf("no machine of cluster %s is installed: those that run from RAM get the image at their next start, slipway node reboot NODE", c.GetName())
	}
	if err := u.checkSkew(cmd.Context(), c.GetMachines(), installed, image); err != nil {
		return err
	}
	if err := f.plan(cmd, c, image, installed, fromRAM); err != nil {
		return err
	}
	if err := u.all(cmd.Context(), c.GetName(), installed, image, atOnce); err != nil {
		return err
	}
	runs := "Cluster " + c.GetName() + " runs"
	if len(fromRAM) > 0 {
		runs = fmt.Sprintf("The %d installed machines of cluster %s run", len(installed), c.GetName())
	}
	return show(cmd.OutOrStdout(), r.output, image, func(w io.Writer) {
		fmt.Fprintf(w, "%s %s, Kubernetes %s.\n", runs, image.GetVersion(), image.GetKubernetes())
	})
}

// plan shows what will be done, in its order, and asks.
func (f *upgradeFlags) plan(cmd *cobra.Command, c *bootv1.Cluster, image *bootv1.GetImageResponse, installed, fromRAM []*bootv1.Machine) error {
	table := tabwriter.NewWriter(cmd.ErrOrStderr(), 0, 4, 2, ' ', 0)
	row(table, "MACHINE", "ROLE", "HOSTNAME", "RUNS", "WILL RUN")
	planes, workers := inTurn(installed)
	for _, m := range slices.Concat(planes, workers) {
		row(table, m.GetId(), m.GetRole(), m.GetHostname(), runs(m.GetInstallation().GetDisk()), image.GetVersion())
	}
	for _, m := range fromRAM {
		row(table, m.GetId(), m.GetRole(), m.GetHostname(), "from RAM", "not touched")
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print plan: %w", err)
	}
	if len(fromRAM) > 0 {
		fmt.Fprintf(cmd.ErrOrStderr(), "What runs from RAM gets %s at its next start, with a key to approve: slipway node reboot NODE, one at a time.\n", image.GetVersion())
	}
	return agree(cmd, f.yes, fmt.Sprintf("Upgrade cluster %s to %s, Kubernetes %s?", c.GetName(), image.GetVersion(), image.GetKubernetes()))
}

// runs is the version in the slot that a machine runs from.
func runs(d *bootv1.SystemDisk) string {
	for _, s := range d.GetSlots() {
		if s.GetName() == d.GetBooted() {
			return s.GetVersion()
		}
	}
	return "?"
}
