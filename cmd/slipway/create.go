package main

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
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
	file      string
	counts    counts
	virtualIP string
	disk      string
	dataSize  string
	waitFlags
}

// counts are how many machines of each role a cluster is to have.
type counts struct{ controlPlanes, etcd, workers int }

func (c counts) all() int { return c.controlPlanes + c.etcd + c.workers }

func clusterCreateCommand(r *remote) *cobra.Command {
	f := createFlags{waitFlags: waitFlags{wait: true}}
	cmd := &cobra.Command{
		Use:   "create NAME",
		Short: "Make a cluster of approved machines, or of those a document names",
		Long: `Make a cluster.

Without -f, it takes approved machines that no cluster has, in the order of
their discovery. It waits until there are enough of them, prints the plan and
asks. Then it waits until every node is Ready: it exits with 0 when all are, and
otherwise says who is not, and why. The same command again changes nothing and
waits on. With --wait=false it waits for nothing: too few machines are an error,
and it is done once the cluster is stored.

Etcd runs on the control planes, or with --etcd on machines of its own. Either
way it is an odd number of them that survives the most failures: 1, 3, 5 or 7.
With --virtual-ip, one healthy control plane holds that address for people.

With --disk any, the machines install themselves: each on the smallest disk that
is suitable. Rules for disks, and other ones for single machines, are written in
a document. What is on such a disk and is not a machine's own is not wiped before
a person agrees: slipway machines wipe.`,
		Example: "  slipway cluster create prod --control-planes 3 --workers 2 --virtual-ip 10.0.0.5\n  slipway cluster create -f prod.yaml",
		Args:    cobra.MaximumNArgs(1),
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			return f.run(cmd, c, optional(args))
		}),
	}
	flags := cmd.Flags()
	flags.StringVarP(&f.file, "file", "f", "", "cluster document")
	flags.IntVar(&f.counts.controlPlanes, "control-planes", 1, "how many machines become control planes: 1, 3, 5 or 7")
	flags.IntVar(&f.counts.workers, "workers", 0, "how many machines become workers")
	flags.IntVar(&f.counts.etcd, "etcd", 0, "how many machines run etcd and nothing else: 1, 3, 5 or 7; none: the control planes run it")
	flags.StringVar(&f.virtualIP, "virtual-ip", "", "unused address of the machines' network, to be held by one healthy control plane")
	flags.StringVar(&f.disk, "disk", machine.NoDisk, "where machines live: none, in RAM; any, on the smallest suitable disk")
	oneOf(cmd, "disk", machine.NoDisk, machine.AnyDisk)
	flags.StringVar(&f.dataSize, "data-size", "", "how much of the disk is for /var, such as 100GiB; left out, all that is left")
	f.register(cmd, "wait until every node is Ready; --wait=false: for nothing", 15*time.Minute)
	return cmd
}

func (f *createFlags) run(cmd *cobra.Command, c *client.Client, name string) error {
	w := newWaiting(cmd, c, f.timeout)
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
	return pointToStatus(cmd, doc.Name)
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
	blank, err := f.blank(name)
	if err != nil {
		return nil, false, err
	}
	known, err := getCluster(ctx, w.Client, name)
	switch {
	case err == nil:
		doc, err := cluster.Parse(known.GetDocument(), name)
		return doc, true, err
	case connect.CodeOf(err) != connect.CodeNotFound:
		return nil, false, err
	}
	if _, err := planFrom(blank, pretended(f.counts.all()), f.counts); err != nil {
		return nil, false, err // more machines would not help
	}
	if f.wait {
		doc, err := w.forMachines(ctx, func(machines []*bootv1.Machine) (*cluster.Cluster, error) {
			return planFrom(blank, machines, f.counts)
		})
		return doc, false, err
	}
	answer, err := w.Inventory.ListMachines(ctx, connect.NewRequest(&bootv1.ListMachinesRequest{}))
	if err != nil {
		return nil, false, err
	}
	doc, err := planFrom(blank, answer.Msg.GetMachines(), f.counts)
	return doc, false, err
}

// blank is the cluster as the flags say, without its machines.
func (f *createFlags) blank(name string) (doc cluster.Cluster, err error) {
	doc.Name, doc.Install.Disk.Word = name, f.disk
	switch {
	case f.disk != machine.NoDisk && f.disk != machine.AnyDisk:
		return doc, fmt.Errorf("%w: --disk is none or any, and not %q: a rule for disks is written in a document, install.disk", errUsage, f.disk)
	case f.dataSize != "" && f.disk == machine.NoDisk:
		return doc, fmt.Errorf("%w: --data-size is of a disk: add --disk any", errUsage)
	}
	if f.virtualIP != "" {
		if doc.VirtualIP, err = netip.ParseAddr(f.virtualIP); err != nil {
			return doc, fmt.Errorf("%w: --virtual-ip %s is not an address", errUsage, f.virtualIP)
		}
	}
	if f.dataSize != "" {
		if err = doc.Install.DataSize.UnmarshalText([]byte(f.dataSize)); err != nil {
			return doc, fmt.Errorf("%w: --data-size %s is not a size such as 100GiB", errUsage, f.dataSize)
		}
	}
	return doc, nil
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
	return doc, odd(doc)
}

// odd refuses to begin with an even number of members of etcd. Later on, on the
// way from one odd number to the next, it may be even.
func odd(doc *cluster.Cluster) error {
	if n, even := doc.Even(); even {
		return fmt.Errorf("%w: %d members of etcd survive no more failures than %d, for etcd needs a majority; make it 1, 3, 5 or 7", errUsage, n, n-1)
	}
	return nil
}

// errTooFew says that more machines must be approved first.
var errTooFew = errors.New("too few machines")

// planFrom gives free approved machines their places, in the order they came.
func planFrom(blank cluster.Cluster, machines []*bootv1.Machine, wanted counts) (*cluster.Cluster, error) {
	doc := &blank
	for _, m := range machines {
		if m.GetPhase() != string(enroll.Approved) || m.GetCluster() != "" || len(doc.Machines) == wanted.all() {
			continue
		}
		doc.Machines = append(doc.Machines, cluster.Machine{ID: m.GetId(), Role: wanted.role(len(doc.Machines))})
	}
	if len(doc.Machines) < wanted.all() {
		return nil, fmt.Errorf("%w: %d needed, %d approved and free; see slipway machines list, then slipway machines approve MACHINE", errTooFew, wanted.all(), len(doc.Machines))
	}
	text, err := cluster.Marshal(doc)
	if err != nil {
		return nil, err
	}
	if doc, err = cluster.Parse(text, "plan"); err != nil {
		return nil, err
	}
	return doc, odd(doc)
}

// pretended are as many approved machines as a plan may need: with them it fails
// for what is wrong with the plan itself.
func pretended(n int) []*bootv1.Machine {
	machines := make([]*bootv1.Machine, max(n, 0))
	for i := range machines {
		machines[i] = &bootv1.Machine{Id: fmt.Sprintf("02-00-00-00-%02x-%02x", i>>8&0xff, i&0xff), Phase: string(enroll.Approved)}
	}
	return machines
}

// role is that of the n-th machine, from 0.
func (c counts) role(n int) machine.Role {
	switch {
	case n < c.controlPlanes:
		return machine.ControlPlane
	case n < c.controlPlanes+c.etcd:
		return machine.EtcdOnly
	}
	return machine.Worker
}

// create shows the plan, asks, and does it.
func (f *createFlags) create(cmd *cobra.Command, c *client.Client, doc *cluster.Cluster) error {
	// Without facts the plan shows rules: what is wrong with the boot service is
	// said once the plan is agreed to.
	var known []*bootv1.Machine
	if answer, err := c.Inventory.ListMachines(cmd.Context(), connect.NewRequest(&bootv1.ListMachinesRequest{})); err == nil {
		known = answer.Msg.GetMachines()
	}
	table := tabwriter.NewWriter(cmd.ErrOrStderr(), 0, 4, 2, ' ', 0)
	row(table, "MACHINE", "ROLE", "HOSTNAME", "DISK THAT IS WRITTEN")
	for _, m := range doc.Machines {
		row(table, m.ID, m.Role, m.Hostname, diskOf(doc.InstallOf(m).Disk, known, m.ID))
	}
	if doc.VirtualIP.IsValid() {
		row(table, "", "virtual IP", doc.VirtualIP)
	}
	if err := table.Flush(); err != nil {
		return fmt.Errorf("print plan: %w", err)
	}
	if err := agree(cmd, f.yes, fmt.Sprintf("Make cluster %s of these machines?", doc.Name)); err != nil {
		return err
	}
	text, err := cluster.Marshal(doc)
	if err != nil {
		return err
	}
	_, err = c.Clusters.CreateCluster(cmd.Context(), connect.NewRequest(&bootv1.CreateClusterRequest{Cluster: text}))
	return err
}
