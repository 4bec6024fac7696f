package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
	"slipway/configs/cluster"
	"slipway/configs/enroll"
)

// renewFlags are what restore and recover have in common: both start a
// cluster's etcd anew.
type renewFlags struct{ waitFlags }

func (f *renewFlags) register(cmd *cobra.Command) {
	f.waitFlags.register(cmd, "wait until etcd has its members again and every node is Ready", 15*time.Minute)
}

// restoreFlags are what a person may say to slipway cluster restore.
type restoreFlags struct {
	renewFlags
	snapshot, file string
	force          bool
}

func clusterRestoreCommand(r *remote) *cobra.Command {
	var f restoreFlags
	cmd := &cobra.Command{
		Use:   "restore NAME --snapshot FILE_OR_ID",
		Short: "Start a cluster's etcd anew from a snapshot",
		Long: `Start a cluster's etcd anew from a snapshot.

All that was written after the snapshot is given up. What the members hold now
is put aside on their disks and not deleted. With -f, the cluster moves to the
machines and addresses of another document at the same time. A snapshot of
another cluster is refused; with --force it is taken.

Until a second member is a voter, only one machine has the data. If that one runs
from RAM and restarts, it is restored from the same snapshot again, and what was
written in between is lost: of a single control plane in RAM, at each start.`,
		Example: "  slipway cluster restore prod --snapshot prod-20260601T120000Z --wait\n  slipway cluster restore prod --snapshot prod.db -f new-machines.yaml --wait",
		Args:    cobra.ExactArgs(1),
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			return f.run(cmd, c, args[0])
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.snapshot, "snapshot", "", "a file, or the ID of a snapshot that the boot service keeps")
	flags.StringVarP(&f.file, "file", "f", "", "cluster document with other machines")
	flags.BoolVar(&f.force, "force", false, "though the snapshot is of another cluster")
	f.register(cmd)
	return cmd
}

func (f *restoreFlags) run(cmd *cobra.Command, c *client.Client, name string) error {
	if f.snapshot == "" {
		return fmt.Errorf("%w: --snapshot is missing: a file, or an ID of slipway cluster snapshots", errUsage)
	}
	var document []byte
	if f.file != "" {
		doc, err := (&createFlags{file: f.file}).read(name)
		if err != nil {
			return err
		}
		if document, err = cluster.Marshal(doc); err != nil {
			return err
		}
	}
	one, err := findSnapshot(cmd.Context(), c, name, f.snapshot)
	if err != nil {
		return err
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Snapshot %s: revision %d, taken %s.\nAll that cluster %s has written since is given up. Its API does not answer until etcd has started.\n",
		one.GetId(), one.GetRevision(), taken(one), name)
	if err := agree(cmd, f.yes, fmt.Sprintf("Start the etcd of cluster %s anew from it?", name)); err != nil {
		return err
	}
	answer, err := c.Clusters.RestoreCluster(cmd.Context(), connect.NewRequest(&bootv1.RestoreClusterRequest{
		Cluster: name, Snapshot: one.GetId(), Document: document, Force: f.force,
	}))
	if err != nil {
		return err
	}
	return f.follow(cmd, c, answer.Msg.GetCluster(), nil)
}

// taken is when a snapshot was taken. Of one that came from a file, nobody knows.
func taken(one *bootv1.Snapshot) string {
	if one.GetBy() == "upload" {
		return "at a time that the file does not tell"
	}
	return one.GetTaken().AsTime().Local().Format(time.DateTime)
}

func clusterRecoverCommand(r *remote) *cobra.Command {
	var f renewFlags
	cmd := &cobra.Command{
		Use:   "recover [NAME]",
		Short: "Rebuild etcd's quorum from the member that holds most, when the others are gone",
		Long: `Rebuild etcd's quorum from one member, when most of them are gone for good.

It shows which members answer, from which one etcd would go on, and what may be
lost, and asks. The members that answer join it again; their data is put aside.
While a quorum answers, it refuses: there is nothing to recover.`,
		Args: cobra.MaximumNArgs(1),
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			return f.recover(cmd, c, optional(args))
		}),
	}
	f.register(cmd)
	return cmd
}

func (f *renewFlags) recover(cmd *cobra.Command, c *client.Client, name string) error {
	plan, err := c.Clusters.PlanRecovery(cmd.Context(), connect.NewRequest(&bootv1.PlanRecoveryRequest{Cluster: name}))
	if err != nil {
		return err
	}
	table := tabwriter.NewWriter(cmd.ErrOrStderr(), 0, 4, 2, ' ', 0)
	recoveryTable(table, plan.Msg, time.Now())
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print plan: %w", err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "\n%s\n", plan.Msg.GetLoss())
	if err := agree(cmd, f.yes, fmt.Sprintf("Go on with %s alone?", plan.Msg.GetSurvivors()[0].GetHostname())); err != nil {
		return err
	}
	answer, err := c.Clusters.RecoverCluster(cmd.Context(), connect.NewRequest(&bootv1.RecoverClusterRequest{Cluster: name, Digest: plan.Msg.GetDigest()}))
	if err != nil {
		return err
	}
	return f.follow(cmd, c, answer.Msg.GetCluster(), plan.Msg.GetSilent())
}

func recoveryTable(w io.Writer, plan *bootv1.PlanRecoveryResponse, now time.Time) {
	row(w, "MEMBER", "ANSWERS", "REVISION", "RAFT INDEX", "LAST LEADER")
	for _, s := range plan.GetSurvivors() {
		row(w, s.GetHostname(), "yes", s.GetRevision(), s.GetRaftIndex(), ago(s.GetLastLeader().AsTime(), now))
	}
	for _, name := range plan.GetSilent() {
		row(w, name, "no", "", "", "")
	}
}

// follow waits, if a person wants that, for etcd's new generation. Machines that
// are given up are not waited for.
func (f *renewFlags) follow(cmd *cobra.Command, c *client.Client, began *bootv1.Cluster, givenUp []string) error {
	return f.await(cmd, c, began.GetName(), func(ctx context.Context, w *waiting) error {
		return w.forRenewal(ctx, began, givenUp)
	})
}

// renewalSettles is for how long all must be well. A node looks at its Node ten
// seconds after the last look ended, which took fifteen at most while the API was
// away: only then it says whether the etcd of now knows that Node.
const renewalSettles = 30 * time.Second

// steady is since when all is well; zero: it is not.
type steady struct{ since time.Time }

// after says whether all has been well for long enough at now, when it is well or not.
func (s *steady) after(now time.Time, well bool) bool {
	switch {
	case !well:
		s.since = time.Time{}
	case s.since.IsZero():
		s.since = now
	}
	return well && now.Sub(s.since) >= renewalSettles
}

// forRenewal waits until all that is not given up runs with the generation of
// etcd that began, or with one from the same snapshot, and has for a while.
func (w *waiting) forRenewal(ctx context.Context, began *bootv1.Cluster, givenUp []string) error {
	name := began.GetName()
	var latest *bootv1.Cluster
	var missing []string
	var well steady
	err := w.until(ctx, func() (bool, error) {
		now, err := getCluster(ctx, w.Client, name)
		if err != nil {
			return well.after(time.Now(), false), err
		}
		latest = now
		w.show(latest.GetMachines())
		if err := superseded(began, latest); err != nil {
			return false, err
		}
		missing, err = notRenewed(latest, givenUp)
		return well.after(time.Now(), err == nil && len(missing) == 0), err
	})
	switch {
	case errors.Is(err, errDeadline) && !well.since.IsZero():
		return fmt.Errorf("%w: all is well, and was not yet for %s", err, renewalSettles)
	case errors.Is(err, errDeadline):
		return fmt.Errorf("%w: %s; see slipway machines timeline MACHINE", err, strings.Join(missing, "; "))
	case err != nil:
		return err
	}
	_, err = fmt.Fprintf(w.out, "Cluster %s is Ready on generation %d of its etcd.\n", name, latest.GetEtcdGeneration())
	return err
}

// superseded says that what began will not be waited for in vain: a later
// generation took its place, with other data. One from the same snapshot is as
// good: its machine had lost what it had, and restored it once more.
func superseded(began, latest *bootv1.Cluster) error {
	if latest.GetEtcdGeneration() == began.GetEtcdGeneration() || began.GetEtcdSnapshot() != "" && latest.GetEtcdSnapshot() == began.GetEtcdSnapshot() {
		return nil
	}
	return fmt.Errorf("generation %d of etcd, which was begun here, gave way to generation %d with other data: somebody restored or recovered cluster %s again; see slipway machines timeline MACHINE",
		began.GetEtcdGeneration(), latest.GetEtcdGeneration(), latest.GetName())
}

// notRenewed names the machines that do not yet run with the cluster's
// generation of etcd, and what they wait for.
func notRenewed(c *bootv1.Cluster, givenUp []string) (missing []string, err error) {
	doc, err := cluster.Parse(c.GetDocument(), c.GetName())
	if err != nil {
		return nil, err
	}
	members := doc.EtcdMachines()
	for _, m := range c.GetMachines() {
		isMember := slices.ContainsFunc(members, func(p cluster.Machine) bool { return p.ID == m.GetId() })
		etcd := m.GetEtcd()
		joined := !isMember || etcd.GetGeneration() == c.GetEtcdGeneration() && etcd.GetVoter() && etcd.GetHealthy()
		switch {
		case isMember && slices.Contains(givenUp, m.GetHostname()):
		case m.GetPhase() != string(enroll.Ready) || !m.GetCurrent():
			missing = append(missing, fmt.Sprintf("%s is %s and waits for %s", m.GetHostname(), orUnseen(m.GetPhase()), orNothing(m.GetWaitingFor())))
		case !joined:
			missing = append(missing, m.GetHostname()+" is no healthy voter of etcd yet")
		}
	}
	return missing, nil
}
