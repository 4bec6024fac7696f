package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
	"slipway/configs/cluster"
	"slipway/configs/machine"
	"slipway/configs/wipe"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

// lastStep is a reset's step after which the node is gone.
const lastStep = "stop all units and restart"

// resetting is how long a reset may take: its steps have deadlines of their own.
const resetting = 6 * time.Minute

func nodeResetCommand(r *remote) *cobra.Command {
	var force, yes bool
	var wiping wipeFlag
	cmd := &cobra.Command{
		Use: "reset NODE", Short: "Take a node out of its cluster",
		Long: `Take a node out of its cluster.

The machine is taken out of the cluster's document at the boot service. The node
then leaves etcd, leadership moved first, has its Node deleted and restarts, free
for another cluster. It is refused if etcd would lose its quorum, unless forced.

What Slipway wrote to the disk of an installed machine is wiped at the end:
--wipe metadata, the default, has every program see an empty disk; discard tells
an SSD to forget it; zero overwrites all of it. Other disks, and the space that
was left free on this one, are not touched. The machine then boots by the network.

A node that is dead is taken out all the same: out of the document, of etcd's
members and of the Nodes. Should it come back, it resets itself.`,
		Args: cobra.ExactArgs(1),
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			m, err := getMachine(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if err := agree(cmd, yes, resetQuestion(m)); err != nil {
				return err
			}
			reset := &nodeReset{remote: r, boot: c, machine: m, force: force, wipe: wiping.how, out: cmd.OutOrStdout(), progress: cmd.ErrOrStderr()}
			return reset.run(cmd.Context())
		}),
	}
	cmd.Flags().BoolVar(&force, "force", false, "though etcd loses its quorum, or a step fails")
	wiping.register(cmd)
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func resetQuestion(m *bootv1.Machine) string {
	if m.GetCluster() == "" {
		return fmt.Sprintf("Reset machine %s? It is in no cluster, and restarts.", m.GetId())
	}
	return fmt.Sprintf("Take %s (%s, %s) out of cluster %s? Its pods will stop, and what it keeps is lost.",
		m.GetHostname(), m.GetId(), m.GetRole(), m.GetCluster())
}

// nodeReset takes one machine out of its cluster.
type nodeReset struct {
	*remote
	boot     *client.Client
	machine  *bootv1.Machine
	force    bool
	wipe     wipe.How  // how what Slipway wrote to the disk is wiped
	out      io.Writer // the steps
	progress io.Writer // what else is to be said
}

func (r *nodeReset) run(ctx context.Context) error {
	var others []*bootv1.Machine
	if r.machine.GetCluster() != "" {
		c, err := getCluster(ctx, r.boot, r.machine.GetCluster())
		if err != nil {
			return err
		}
		others = slices.DeleteFunc(c.GetMachines(), func(m *bootv1.Machine) bool { return m.GetId() == r.machine.GetId() })
		if err := r.checkWipe(ctx, r.wipe, r.machine); err != nil {
			return err
		}
		if err := r.takeOut(ctx, c); err != nil {
			return err
		}
	}
	steps, err := r.stream(ctx)
	if errors.Is(err, errUnreachable) && steps == 0 {
		fmt.Fprintf(r.progress, "%v\nOnly the rest of the cluster was told. Should the machine come back, it resets itself.\n", err)
		return r.bury(ctx, others)
	}
	return err
}

// takeOut replaces the cluster's document by one without the machine.
func (r *nodeReset) takeOut(ctx context.Context, c *bootv1.Cluster) error {
	document, err := without(c.GetDocument(), r.machine.GetId())
	if err != nil {
		return err
	}
	if _, err := r.boot.Clusters.UpdateCluster(ctx, connect.NewRequest(&bootv1.UpdateClusterRequest{Cluster: document, Force: r.force, Wipe: string(r.wipe)})); err != nil {
		return err
	}
	return r.step(&nodev1.ResetStep{Name: "take it out of the document of cluster " + c.GetName()})
}

// without is a cluster's document without a machine.
func without(document []byte, id string) ([]byte, error) {
	doc, err := cluster.Parse(document, "cluster")
	if err != nil {
		return nil, err
	}
	doc.Machines = slices.DeleteFunc(doc.Machines, func(m cluster.Machine) bool { return m.ID == id })
	if len(doc.Machines) == 0 {
		return nil, fmt.Errorf("%w: machine %s is the only one of cluster %s; slipway cluster delete %s gives the cluster up, and the machine resets itself", errUsage, id, doc.Name, doc.Name)
	}
	return cluster.Marshal(doc)
}

// stream has the node reset itself, shows its steps and counts them.
func (r *nodeReset) stream(ctx context.Context) (steps int, err error) {
	name := r.machine.GetAddress()
	if name == "" {
		return 0, fmt.Errorf("machine %s has no address: %w", r.machine.GetId(), errUnreachable)
	}
	node, err := r.node(ctx, name)
	if err != nil {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, resetting)
	defer cancel()
	stream, err := node.Reset(ctx, connect.NewRequest(&nodev1.ResetRequest{Force: r.force, Wipe: string(r.wipe)}))
	if err != nil {
		return 0, nodeError(name, err)
	}
	defer stream.Close()
	last := ""
	for stream.Receive() {
		steps++
		last = stream.Msg().GetName()
		if err := r.step(stream.Msg()); err != nil {
			return steps, err
		}
	}
	if last == lastStep {
		return steps, nil // that the connection broke then is no surprise
	}
	return steps, nodeError(name, stream.Err())
}

func (r *nodeReset) step(s *nodev1.ResetStep) error {
	return show(r.out, r.output, s, func(w io.Writer) {
		if s.GetProblem() != "" {
			fmt.Fprintf(w, "%s: %s\n", s.GetName(), s.GetProblem())
			return
		}
		fmt.Fprintf(w, "%s: done\n", s.GetName())
	})
}

// buryIfDead is bury for a node that does not answer. One that does leaves by
// itself, and it is better at that: it moves leadership first.
func (r *nodeReset) buryIfDead(ctx context.Context, others []*bootv1.Machine) {
	_, err := nodeStatus(ctx, r.remote, r.machine.GetAddress())
	if !errors.Is(err, errUnreachable) {
		return
	}
	fmt.Fprintf(r.progress, "%s does not answer. Should it come back, it resets itself. Meanwhile:\n", r.machine.GetHostname())
	if err := r.bury(ctx, others); err != nil {
		fmt.Fprintf(r.progress, "The cluster is changed nevertheless. See slipway etcd members: a dead member that is still there is removed by the others within minutes, if they are a quorum.\n")
	}
}

// bury does for a dead node what it would have done itself.
func (r *nodeReset) bury(ctx context.Context, others []*bootv1.Machine) error {
	var errs []error
	if r.machine.GetEtcd().GetMemberId() != "" {
		errs = append(errs, r.removeMember(ctx, etcdMachines(others)))
	}
	if r.machine.GetCluster() != "" && r.machine.GetRole() != string(machine.EtcdOnly) {
		errs = append(errs, r.removeNode(ctx))
	}
	return errors.Join(errs...)
}

// removeMember has another member take the dead one out.
func (r *nodeReset) removeMember(ctx context.Context, others []*bootv1.Machine) error {
	var nodes []etcdNode
	for _, m := range others {
		web, base, err := r.nodeHTTP(ctx, m.GetAddress())
		if err != nil {
			return err
		}
		nodes = append(nodes, etcdNode{m.GetHostname(), nodev1connect.NewEtcdServiceClient(web, base)})
	}
	if len(nodes) == 0 {
		return nil
	}
	_, err := removeMember(ctx, nodes, r.machine.GetHostname())
	if connect.CodeOf(err) == connect.CodeNotFound {
		err = nil // the others were faster
	}
	return r.done("take its member out of etcd", err)
}

// removeNode deletes the dead node's Node.
func (r *nodeReset) removeNode(ctx context.Context) error {
	answer, err := r.boot.Clusters.Kubeconfig(ctx, connect.NewRequest(&bootv1.KubeconfigRequest{Name: r.machine.GetCluster()}))
	if err == nil {
		err = deleteNode(ctx, answer.Msg.GetKubeconfig(), r.machine.GetHostname())
	}
	return r.done("delete its Node", err)
}

// done shows a step of the dead node's and returns what failed in it.
func (r *nodeReset) done(name string, err error) error {
	step := &nodev1.ResetStep{Name: name}
	if err != nil {
		step.Problem = explain(err)
		err = fmt.Errorf("%s: %w", name, err)
	}
	return errors.Join(err, r.step(step))
}
