package main

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
	"slipway/configs/cluster"
)

// updateFlags are what a person may say to whatever changes a cluster's document.
type updateFlags struct {
	waitFlags
	force  bool
	wiping wipeFlag // of machines that leave
}

func (f *updateFlags) register(cmd *cobra.Command) {
	f.waitFlags.register(cmd, "wait until what joins is Ready", 15*time.Minute)
	cmd.Flags().BoolVar(&f.force, "force", false, "do it though etcd loses its quorum")
	f.wiping.register(cmd)
}

func clusterUpdateCommand(r *remote) *cobra.Command {
	var f updateFlags
	var file string
	cmd := &cobra.Command{
		Use:   "update -f FILE",
		Short: "Give a cluster an edited document",
		Long: `Give a cluster an edited document.

Machines that it names anew join; machines that it names no more leave: they
take themselves out of etcd and of the cluster, and reset. For one that is dead
that is done at once, as by slipway node reset. Changes reach one control plane
after the other, each once the one before is well, and then the workers. It
prints what changes and asks.

slipway cluster document prints the present one. A masked key in it stays what
it is.`,
		Example: "  slipway cluster document prod > prod.yaml\n  slipway cluster update -f prod.yaml",
		Args:    cobra.NoArgs,
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			text, err := os.ReadFile(file)
			if err != nil {
				return fmt.Errorf("read cluster document: %w", err)
			}
			doc, err := cluster.Parse(text, file)
			if err != nil {
				return err
			}
			old, err := f.present(cmd.Context(), c, doc.Name)
			if err != nil {
				return err
			}
			return f.change(cmd, r, c, old, doc, "")
		}),
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "cluster document")
	if err := cmd.MarkFlagRequired("file"); err != nil {
		panic(err) // the flag is registered one line above
	}
	f.register(cmd)
	return cmd
}

func clusterDocumentCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "document [NAME]",
		Short: "Print a cluster's document, to edit it; secrets are masked",
		Args:  cobra.MaximumNArgs(1),
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			now, err := getCluster(cmd.Context(), c, optional(args))
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(now.GetDocument())
			return err
		}),
	}
}

func clusterDeleteCommand(r *remote) *cobra.Command {
	var yes bool
	var wiping wipeFlag
	cmd := &cobra.Command{
		Use:   "delete NAME",
		Short: "Give a cluster up: all its machines reset, all its data is lost",
		Args:  cobra.ExactArgs(1),
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			question := fmt.Sprintf("Everything in cluster %s will be lost, and its snapshots cannot be used any more: its keys are forgotten.\nGive it up?", args[0])
			if err := agree(cmd, yes, question); err != nil {
				return err
			}
			now, err := getCluster(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if err := r.checkWipe(cmd.Context(), wiping.how, now.GetMachines()...); err != nil {
				return err
			}
			_, err = c.Clusters.DeleteCluster(cmd.Context(), connect.NewRequest(&bootv1.DeleteClusterRequest{Name: args[0], Wipe: wiping.String()}))
			return err
		}),
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	wiping.register(cmd)
	return cmd
}

// present is the document that a cluster has now; its secrets are masked.
func (f *updateFlags) present(ctx context.Context, c *client.Client, name string) (*cluster.Cluster, error) {
	now, err := getCluster(ctx, c, name)
	if err != nil {
		return nil, err
	}
	return cluster.Parse(now.GetDocument(), now.GetName())
}

// change shows what changes from the old document to the new, asks, and does
// it. With --wait it waits for the machine only, or for all if it is empty.
func (f *updateFlags) change(cmd *cobra.Command, r *remote, c *client.Client, old, doc *cluster.Cluster, only string) error {
	changes, err := compare(old, doc)
	switch {
	case err != nil:
		return err
	case len(changes) == 0:
		fmt.Fprintf(cmd.ErrOrStderr(), "Cluster %s is like that already.\n", doc.Name)
	default:
		if err := f.agree(cmd, doc, changes); err != nil {
			return err
		}
		if err := f.update(cmd, r, c, doc); err != nil {
			return err
		}
	}
	return f.await(cmd, c, doc.Name, func(ctx context.Context, w *waiting) error {
		w.only = only
		return w.forReady(ctx, doc.Name)
	})
}

// update gives the boot service the document. Machines that leave and do not
// answer are then dealt with as slipway node reset does. What of that fails is
// shown, and no failure of the update: the other members remove a dead one too,
// after a while.
func (f *updateFlags) update(cmd *cobra.Command, r *remote, c *client.Client, doc *cluster.Cluster) error {
	text, err := cluster.Marshal(doc)
	if err != nil {
		return err
	}
	before, err := getCluster(cmd.Context(), c, doc.Name)
	if err != nil {
		return err
	}
	gone, others := leaving(before.GetMachines(), doc)
	leave := slices.DeleteFunc(before.GetMachines(), func(m *bootv1.Machine) bool { return slices.Contains(others, m) })
	if err := r.checkWipe(cmd.Context(), f.wiping.how, leave...); err != nil {
		return err
	}
	if _, err = c.Clusters.UpdateCluster(cmd.Context(), connect.NewRequest(&bootv1.UpdateClusterRequest{Cluster: text, Force: f.force, Wipe: f.wiping.String()})); err != nil {
		return err
	}
	for _, m := range gone {
		reset := &nodeReset{remote: r, boot: c, machine: m, force: f.force, wipe: f.wiping.how, out: cmd.ErrOrStderr(), progress: cmd.ErrOrStderr()}
		reset.buryIfDead(cmd.Context(), others)
	}
	return nil
}

// leaving are a cluster's machines that ran and that a document names no more,
// and those that it still names. A machine that another replaces, by name, is
// neither: the other removes the old member itself.
func leaving(machines []*bootv1.Machine, doc *cluster.Cluster) (gone, others []*bootv1.Machine) {
	for _, m := range machines {
		stays := slices.ContainsFunc(doc.Machines, func(p cluster.Machine) bool { return p.ID == m.GetId() })
		named := slices.ContainsFunc(doc.Machines, func(p cluster.Machine) bool { return p.Hostname == m.GetHostname() })
		switch {
		case stays:
			others = append(others, m)
		case !named && m.GetAddress() != "":
			gone = append(gone, m)
		}
	}
	return gone, others
}

// agree shows the changes and asks.
func (f *updateFlags) agree(cmd *cobra.Command, doc *cluster.Cluster, changes []string) error {
	table := tabwriter.NewWriter(cmd.ErrOrStderr(), 0, 4, 2, ' ', 0)
	for _, line := range changes {
		fmt.Fprintln(table, line)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print changes: %w", err)
	}
	if n, even := doc.Even(); even {
		fmt.Fprintf(cmd.ErrOrStderr(), "Note: %d members of etcd survive no more failures than %d; with %d they do.\n", n, n-1, n+1)
	}
	return agree(cmd, f.yes, fmt.Sprintf("Change cluster %s so?", doc.Name))
}

// compare lists what one document has and the other has not: machines that
// leave and join, then lines of the rest.
func compare(old, doc *cluster.Cluster) (changes []string, err error) {
	for _, m := range doc.Machines {
		if !slices.ContainsFunc(old.Machines, func(o cluster.Machine) bool { return o.ID == m.ID }) {
			changes = append(changes, fmt.Sprintf("joins\t%s\t%s\t%s", m.ID, m.Role, m.Hostname))
		}
	}
	for _, m := range old.Machines {
		if !slices.ContainsFunc(doc.Machines, func(o cluster.Machine) bool { return o.ID == m.ID }) {
			changes = append(changes, fmt.Sprintf("leaves and is reset\t%s\t%s\t%s", m.ID, m.Role, m.Hostname))
		}
	}
	before, err := settings(old, doc)
	if err != nil {
		return nil, err
	}
	after, err := settings(doc, old)
	if err != nil {
		return nil, err
	}
	for _, line := range before {
		if !slices.Contains(after, line) {
			changes = append(changes, "- "+line)
		}
	}
	for _, line := range after {
		if !slices.Contains(before, line) {
			changes = append(changes, "+ "+line)
		}
	}
	return changes, nil
}

// settings are the lines of a document without the machines that the other has
// not, and without secrets.
func settings(doc, other *cluster.Cluster) ([]string, error) {
	shown := *doc.Mask()
	shown.Machines = slices.DeleteFunc(slices.Clone(doc.Machines), func(m cluster.Machine) bool {
		return !slices.ContainsFunc(other.Machines, func(o cluster.Machine) bool { return o.ID == m.ID })
	})
	text, err := cluster.Marshal(&shown)
	return strings.Split(strings.TrimRight(string(text), "\n"), "\n"), err
}
