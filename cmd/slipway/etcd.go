package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/configs/machine"
	"slipway/controlplane/etcd"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

func etcdCommand() *cobra.Command {
	r := &etcdRemote{}
	cmd := &cobra.Command{
		Use: "etcd", Short: "Look after the members of a cluster's etcd",
		Long: `Look after the members of a cluster's etcd.

The members themselves answer, over the node API. NODE is an address, or a
machine's ID or host name; left out, it is any machine of the cluster that runs
a member, or all of them where that is the question. Which these are is asked of
the boot service.

Machines join and leave with the cluster's document, and what that needs of etcd
happens by itself: see slipway node join and slipway node reset.`,
	}
	r.register(cmd)
	cmd.PersistentFlags().StringVar(&r.cluster, "cluster", "", "the cluster (default: the only one there is)")
	cmd.AddCommand(
		etcdMembersCommand(r), etcdStatusCommand(r), etcdRemoveCommand(r), etcdPromoteCommand(r),
		etcdDefragCommand(r), etcdForfeitCommand(r), etcdSnapshotCommand(r),
	)
	return cmd
}

// etcdRemote is what commands that speak to members of etcd have in common.
type etcdRemote struct {
	remote
	cluster string
}

// etcdNode is a machine that may run a member.
type etcdNode struct {
	name string
	etcd nodev1connect.EtcdServiceClient
}

// nodes are the ones that are named, or all of the cluster that may run a member.
func (r *etcdRemote) nodes(ctx context.Context, names []string) ([]etcdNode, error) {
	var list []etcdNode
	add := func(name, address string) error {
		web, base, err := r.nodeHTTP(ctx, address)
		if err != nil {
			return err
		}
		list = append(list, etcdNode{name, nodev1connect.NewEtcdServiceClient(web, base)})
		return nil
	}
	if len(names) > 0 {
		for _, name := range names {
			if err := add(name, name); err != nil {
				return nil, err
			}
		}
		return list, nil
	}
	machines, err := r.members(ctx)
	if err != nil {
		return nil, err
	}
	for _, m := range machines {
		if err := add(m.GetHostname(), m.GetAddress()); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// members are the cluster's machines that may run a member: those of the role
// etcd, or else the control planes.
func (r *etcdRemote) members(ctx context.Context) ([]*bootv1.Machine, error) {
	c, err := r.client()
	if err != nil {
		return nil, err
	}
	cluster, err := getCluster(ctx, c, r.cluster)
	if err != nil {
		return nil, err
	}
	members := etcdMachines(cluster.GetMachines())
	if len(members) == 0 {
		return nil, fmt.Errorf("no machine of cluster %s that may run a member of etcd has an address yet: see slipway cluster status", cluster.GetName())
	}
	return members, nil
}

func etcdMachines(all []*bootv1.Machine) []*bootv1.Machine {
	byRole := map[string][]*bootv1.Machine{}
	for _, m := range all {
		if m.GetAddress() != "" {
			byRole[m.GetRole()] = append(byRole[m.GetRole()], m)
		}
	}
	if dedicated := byRole[string(machine.EtcdOnly)]; len(dedicated) > 0 {
		return dedicated
	}
	return byRole[string(machine.ControlPlane)]
}

// etcdCall bounds one question to a member, and etcdRemoval a removal, for which
// it may wait for others. One that is off is noticed sooner: see nodeHTTP.
const (
	etcdCall    = 15 * time.Second
	etcdRemoval = etcd.SettleTime + 2*etcdCall
)

// first asks one node after the other until one answers, and returns its answer.
func first[A any](ctx context.Context, nodes []etcdNode, ask func(context.Context, nodev1connect.EtcdServiceClient) (*connect.Response[A], error)) (*A, error) {
	return firstWithin(ctx, etcdCall, nodes, ask)
}

// firstWithin is first with a bound for each node.
func firstWithin[A any](ctx context.Context, bound time.Duration, nodes []etcdNode, ask func(context.Context, nodev1connect.EtcdServiceClient) (*connect.Response[A], error)) (*A, error) {
	var errs []error
	for _, n := range nodes {
		answer, err := once(ctx, bound, n, ask)
		if err == nil {
			return answer, nil
		}
		if !errors.Is(err, errUnreachable) {
			return nil, err // this one answered
		}
		errs = append(errs, err)
	}
	return nil, errors.Join(errs...)
}

func once[A any](ctx context.Context, bound time.Duration, n etcdNode, ask func(context.Context, nodev1connect.EtcdServiceClient) (*connect.Response[A], error)) (*A, error) {
	ctx, cancel := context.WithTimeout(ctx, bound)
	defer cancel()
	answer, err := ask(ctx, n.etcd)
	if err != nil {
		return nil, nodeError(n.name, err)
	}
	return answer.Msg, nil
}

func etcdMembersCommand(r *etcdRemote) *cobra.Command {
	return &cobra.Command{
		Use: "members [NODE]", Short: "List the members, as one of them knows them", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			nodes, err := r.nodes(cmd.Context(), args)
			if err != nil {
				return err
			}
			list, err := first(cmd.Context(), nodes, func(ctx context.Context, e nodev1connect.EtcdServiceClient) (*connect.Response[nodev1.EtcdMembersResponse], error) {
				return e.Members(ctx, connect.NewRequest(&nodev1.EtcdMembersRequest{}))
			})
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), r.output, list, func(w io.Writer) { etcdMemberTable(w, list.GetMembers()) })
		},
	}
}

func etcdMemberTable(w io.Writer, members []*nodev1.EtcdMember) {
	row(w, "NAME", "ID", "LEADER", "LEARNER", "HEALTHY", "PEER URLS")
	for _, m := range members {
		row(w, m.GetName(), m.GetId(), tick(m.GetLeader()), tick(m.GetLearner()), tick(m.GetHealthy()), commas(m.GetPeerUrls()))
	}
}

func etcdRemoveCommand(r *etcdRemote) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use: "remove MEMBER [NODE]", Short: "Take a member out, for good",
		Long: `Take a member out, for good. MEMBER is its ID or name.

Its data is of no use afterwards. Refused if the members that remain and answer
would be no quorum: etcd itself does not allow that, so it cannot be forced. When
most members are gone for good, slipway cluster recover goes on without them. A
machine that is still in the cluster's document joins again: take it out of that,
as slipway node reset does.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := agree(cmd, yes, fmt.Sprintf("Take %s out of etcd? Its data is of no use afterwards.", args[0])); err != nil {
				return err
			}
			nodes, err := r.nodes(cmd.Context(), args[1:])
			if err != nil {
				return err
			}
			answer, err := removeMember(cmd.Context(), nodes, args[0])
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), r.output, answer, func(w io.Writer) { fmt.Fprintf(w, "%s is no member any more.\n", args[0]) })
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

// removeMember has the first node that answers take a member out.
func removeMember(ctx context.Context, nodes []etcdNode, member string) (*nodev1.EtcdRemoveResponse, error) {
	return firstWithin(ctx, etcdRemoval, nodes, func(ctx context.Context, e nodev1connect.EtcdServiceClient) (*connect.Response[nodev1.EtcdRemoveResponse], error) {
		return e.Remove(ctx, connect.NewRequest(&nodev1.EtcdRemoveRequest{Member: member}))
	})
}

func etcdPromoteCommand(r *etcdRemote) *cobra.Command {
	return &cobra.Command{
		Use: "promote MEMBER [NODE]", Short: "Make a learner that has caught up a voter",
		Long: `Make a learner that has caught up a voter. MEMBER is its ID or name.

Learners promote themselves when they have caught up; this is for one that does
not. etcd refuses it for one that has not caught up.`,
		Args: cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			nodes, err := r.nodes(cmd.Context(), args[1:])
			if err != nil {
				return err
			}
			answer, err := first(cmd.Context(), nodes, func(ctx context.Context, e nodev1connect.EtcdServiceClient) (*connect.Response[nodev1.EtcdPromoteResponse], error) {
				return e.Promote(ctx, connect.NewRequest(&nodev1.EtcdPromoteRequest{Member: args[0]}))
			})
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), r.output, answer, func(w io.Writer) { fmt.Fprintf(w, "%s is a voter.\n", args[0]) })
		},
	}
}

func etcdForfeitCommand(r *etcdRemote) *cobra.Command {
	return &cobra.Command{
		Use: "forfeit-leadership [NODE]", Short: "Have the leader hand over to another voter", Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			nodes, err := r.nodes(cmd.Context(), args)
			if err != nil {
				return err
			}
			leader, err := leading(statusOf(cmd.Context(), nodes), nodes)
			if err != nil {
				return err
			}
			answer, err := once(cmd.Context(), etcdCall, leader, func(ctx context.Context, e nodev1connect.EtcdServiceClient) (*connect.Response[nodev1.EtcdForfeitLeadershipResponse], error) {
				return e.ForfeitLeadership(ctx, connect.NewRequest(&nodev1.EtcdForfeitLeadershipRequest{}))
			})
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), r.output, answer, func(w io.Writer) { fmt.Fprintf(w, "%s leads.\n", answer.GetLeader()) })
		},
	}
}

// leading is the node whose member leads. With a single one that is it anyway:
// to forfeit what it has not is no error.
func leading(statuses []etcdAnswer, nodes []etcdNode) (etcdNode, error) {
	if len(nodes) == 1 {
		return nodes[0], nil
	}
	var errs []error
	for _, s := range statuses {
		if s.leads() {
			return s.node, nil
		}
		if s.err != nil {
			errs = append(errs, s.err)
		}
	}
	return etcdNode{}, errors.Join(append(errs, errors.New("none of the members that answer leads: see slipway etcd status"))...)
}
