package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
	"slipway/configs/cluster"
	"slipway/configs/enroll"
	"slipway/configs/machine"
)

// createFlags are what a person may say to slipway cluster create.
type createFlags struct {
	file                   string
	controlPlanes, workers int
	yes, wait              bool
	timeout                time.Duration
}

func clusterCreateCommand(r *remote) *cobra.Command {
	var f createFlags
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a cluster of approved machines, or of those a document names",
		Long: `Make a cluster.

Without -f, it takes approved machines that no cluster has, in the order of
their discovery. It prints the plan and asks. With --wait it first waits until
there are enough of them, and then until every node is Ready. The same command
again changes nothing and waits on.`,
		Example: "  slipway cluster create prod --control-planes 3 --workers 2 --wait\n  slipway cluster create -f prod.yaml",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			return f.run(cmd, c, optional(args))
		},
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "file", "f", "", "cluster document")
	flags.IntVar(&f.controlPlanes, "control-planes", 1, "how many machines become control planes: 1, 3, 5 or 7")
	flags.IntVar(&f.workers, "workers", 0, "how many machines become workers")
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	flags.BoolVar(&f.wait, "wait", false, "wait until every node is Ready")
	flags.DurationVar(&f.timeout, "timeout", 15*time.Minute, "how long --wait waits")
	return cmd
}

func (f *createFlags) run(cmd *cobra.Command, c *client.Client, name string) error {
	w := &waiting{Client: c, command: cmd.Context(), timeout: f.timeout, out: cmd.OutOrStdout(), start: time.Now(), last: map[string]string{}}
	ctx, cancel := cmd.Context(), func() {}
	if f.wait {
		ctx, cancel = context.WithTimeout(ctx, f.timeout)
	}
	defer cancel()
	doc, exists, err := f.document(ctx, w, name)
	if err != nil {
		return err
	}
	if !exists {
		if err := f.create(cmd, c, doc); err != nil {
			return err
		}
	}
	if f.wait {
		return w.forReady(ctx, doc.Name)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "See how it goes: slipway cluster status %s\n", doc.Name)
	return nil
}

// document is the cluster that is wanted, and whether it exists already.
func (f *createFlags) document(ctx context.Context, w *waiting, name string) (*cluster.Cluster, bool, error) {
	if f.file != "" {
		doc, err := f.read(name)
		return doc, false, err
	}
	if name == "" {
		return nil, false, fmt.Errorf("%w: a cluster needs a name, or a document with -f", errUsage)
	}
	known, err := w.Clusters.GetCluster(ctx, connect.NewRequest(&bootv1.GetClusterRequest{Name: name}))
	switch {
	case err == nil:
		doc, err := cluster.Parse(known.Msg.GetCluster().GetDocument(), name)
		return doc, true, err
	case connect.CodeOf(err) != connect.CodeNotFound:
		return nil, false, err
	}
	if f.wait {
		doc, err := w.forMachines(ctx, func(machines []*bootv1.Machine) (*cluster.Cluster, error) {
			return planFrom(name, machines, f.controlPlanes, f.workers)
		})
		return doc, false, err
	}
	answer, err := w.Inventory.ListMachines(ctx, connect.NewRequest(&bootv1.ListMachinesRequest{}))
	if err != nil {
		return nil, false, err
	}
	doc, err := planFrom(name, answer.Msg.GetMachines(), f.controlPlanes, f.workers)
	return doc, false, err
}

func (f *createFlags) read(name string) (*cluster.Cluster, error) {
	data, err := os.ReadFile(f.file)
	if err != nil {
		return nil, fmt.Errorf("read cluster document: %w", err)
	}
	doc, err := cluster.Parse(data, f.file)
	if err != nil {
		return nil, err
	}
	if name != "" && name != doc.Name {
		return nil, fmt.Errorf("%w: the document's name is %s and not %s", errUsage, doc.Name, name)
	}
	return doc, nil
}

// errTooFew says that more machines must be approved first.
var errTooFew = errors.New("too few machines")

// planFrom gives free approved machines their places, in the order they came.
func planFrom(name string, machines []*bootv1.Machine, controlPlanes, workers int) (*cluster.Cluster, error) {
	doc := &cluster.Cluster{Name: name}
	wanted := controlPlanes + workers
	for _, m := range machines {
		if m.GetPhase() != string(enroll.Approved) || m.GetCluster() != "" || len(doc.Machines) == wanted {
			continue
		}
		role := machine.ControlPlane
		if len(doc.Machines) >= controlPlanes {
			role = machine.Worker
		}
		doc.Machines = append(doc.Machines, cluster.Machine{ID: m.GetId(), Role: role})
	}
	if len(doc.Machines) < wanted {
		return nil, fmt.Errorf("%w: %d needed, %d approved and free; see slipway machines list, then slipway machines approve MACHINE", errTooFew, wanted, len(doc.Machines))
	}
	text, err := cluster.Marshal(doc)
	if err != nil {
		return nil, err
	}
	return cluster.Parse(text, "plan")
}

// create shows the plan, asks, and does it.
func (f *createFlags) create(cmd *cobra.Command, c *client.Client, doc *cluster.Cluster) error {
	table := tabwriter.NewWriter(cmd.ErrOrStderr(), 0, 4, 2, ' ', 0)
	row(table, "MACHINE", "ROLE", "HOSTNAME")
	for _, m := range doc.Machines {
		row(table, m.ID, m.Role, m.Hostname)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print plan: %w", err)
	}
	if !f.yes {
		agreed, err := confirm(cmd, fmt.Sprintf("Make cluster %s of these machines?", doc.Name))
		if err != nil {
			return err
		}
		if !agreed {
			return errors.New("nothing was changed")
		}
	}
	text, err := cluster.Marshal(doc)
	if err != nil {
		return err
	}
	_, err = c.Clusters.CreateCluster(cmd.Context(), connect.NewRequest(&bootv1.CreateClusterRequest{Cluster: text}))
	return err
}
