package main

import (
	"context"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
	"slipway/configs/cluster"
	"slipway/configs/machine"
)

// joinFlags are what a person may say to slipway node join.
type joinFlags struct {
	updateFlags
	cluster, role, replace string
}

func nodeJoinCommand(r *remote) *cobra.Command {
	var f joinFlags
	cmd := &cobra.Command{
		Use:   "join MACHINE",
		Short: "Let a machine join a cluster, also in the place of another",
		Long: `Let a machine join a cluster.

A control plane becomes a member of etcd as a learner and is promoted once it
has caught up. With --replace it takes the place, the name and the role of
another machine: of a dead one, or of one that leaves and resets itself.

The same command again changes nothing and waits on.`,
		Example: `  slipway node join 52-54-00-12-34-56 --role control-plane --wait
  slipway node join 52-54-00-12-34-56 --replace prod-cp-2 --wait`,
		Args: cobra.ExactArgs(1),
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			return f.run(cmd, r, c, args[0])
		}),
	}
	flags := cmd.Flags()
	flags.StringVar(&f.cluster, "cluster", "", "the cluster; may be left out if there is only one")
	flags.StringVar(&f.role, "role", "", "worker, control-plane or etcd (default: worker, or that of the machine it replaces)")
	flags.StringVar(&f.replace, "replace", "", "host name of the machine whose place it takes")
	f.register(cmd)
	return cmd
}

func (f *joinFlags) run(cmd *cobra.Command, r *remote, c *client.Client, name string) error {
	id, err := machineID(cmd.Context(), c, name)
	if err != nil {
		return err
	}
	old, err := f.present(cmd.Context(), c, f.cluster)
	if err != nil {
		return err
	}
	if err := free(cmd.Context(), c, id, old.Name); err != nil {
		return err
	}
	doc, err := joined(old, id, machine.Role(f.role), f.replace)
	if err != nil {
		return err
	}
	return f.change(cmd, r, c, old, doc, id)
}

// free refuses a machine of another cluster.
func free(ctx context.Context, c *client.Client, id, name string) error {
	answer, err := c.Inventory.GetMachine(ctx, connect.NewRequest(&bootv1.GetMachineRequest{Id: id}))
	switch {
	case connect.CodeOf(err) == connect.CodeNotFound:
		return nil // it joins when it comes
	case err != nil:
		return err
	case answer.Msg.GetMachine().GetCluster() != "" && answer.Msg.GetMachine().GetCluster() != name:
		return fmt.Errorf("machine %s belongs to cluster %s as %s", id, answer.Msg.GetMachine().GetCluster(), answer.Msg.GetMachine().GetHostname())
	}
	return nil
}

// joined is the document with one machine more, or with the machine in the
// place of the one with the host name replace. It is pure.
func joined(old *cluster.Cluster, id string, role machine.Role, replace string) (*cluster.Cluster, error) {
	doc := *old
	doc.Machines = slices.Clone(old.Machines)
	if at := slices.IndexFunc(doc.Machines, func(m cluster.Machine) bool { return m.ID == id }); at >= 0 {
		m := doc.Machines[at]
		if role != "" && m.Role != role || replace != "" && m.Hostname != replace {
			return nil, fmt.Errorf("machine %s is %s with the role %s already: slipway node reset takes it out first", id, m.Hostname, m.Role)
		}
		return &doc, nil
	}
	if replace == "" {
		if role == "" {
			role = machine.Worker
		}
		doc.Machines = append(doc.Machines, cluster.Machine{ID: id, Role: role, Hostname: nextName(old, role)})
		return &doc, doc.Validate()
	}
	at := slices.IndexFunc(doc.Machines, func(m cluster.Machine) bool { return m.Hostname == replace || m.ID == replace })
	switch {
	case at < 0:
		return nil, fmt.Errorf("cluster %s has no machine %s to replace: see slipway cluster status %s", old.Name, replace, old.Name)
	case role != "" && role != doc.Machines[at].Role:
		return nil, fmt.Errorf("%w: %s has the role %s, and whatever replaces it too", errUsage, replace, doc.Machines[at].Role)
	}
	doc.Machines[at].ID = id
	return &doc, doc.Validate()
}

// nextName is a host name that no machine of the cluster has: one number higher
// than the highest, for a name that was used before may still be a Node.
func nextName(doc *cluster.Cluster, role machine.Role) string {
	prefix := doc.Name + "-" + map[machine.Role]string{machine.ControlPlane: "cp", machine.Worker: "worker", machine.EtcdOnly: "etcd"}[role] + "-"
	last := 0
	for _, m := range doc.Machines {
		if n, err := strconv.Atoi(strings.TrimPrefix(m.Hostname, prefix)); err == nil && strings.HasPrefix(m.Hostname, prefix) {
			last = max(last, n)
		}
	}
	return prefix + strconv.Itoa(last+1)
}
