package main

import (
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
)

func clusterCommand() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{Use: "cluster", Short: "Make clusters of approved machines, and reach them"}
	r.register(cmd)
	cmd.AddCommand(clusterCreateCommand(r), clusterDocumentCommand(r), clusterUpdateCommand(r), clusterDeleteCommand(r), clusterStatusCommand(r), clusterUpgradeCommand(r))
	cmd.AddCommand(clusterKubeconfigCommand(r), clusterCredentialCommand(r))
	cmd.AddCommand(clusterRotateCACommand(r), clusterRotateKeyCommand(r), clusterRotateAccountKeyCommand(r))
	cmd.AddCommand(clusterSnapshotCommand(r), clusterSnapshotsCommand(r), clusterRestoreCommand(r), clusterRecoverCommand(r))
	return cmd
}

func clusterStatusCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "status [NAME]",
		Short: "Show a cluster and its machines; without a name, the only one there is",
		Args:  cobra.MaximumNArgs(1),
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			cluster, err := getCluster(cmd.Context(), c, optional(args))
			if err != nil {
				return err
			}
			kept, err := c.Clusters.ListSnapshots(cmd.Context(), connect.NewRequest(&bootv1.ListSnapshotsRequest{Cluster: cluster.GetName()}))
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), r.output, cluster, func(w io.Writer) {
				clusterTable(w, cluster)
				rotationTable(w, cluster, time.Now())
				if text := overdue(cluster, kept.Msg.GetSnapshots(), time.Now()); text != "" {
					fmt.Fprintf(w, "\n%s\n", text)
				}
			})
		}),
	}
}

func clusterTable(w io.Writer, c *bootv1.Cluster) {
	row(w, "CLUSTER", "ENDPOINT", "READY")
	row(w, c.GetName(), c.GetEndpoint(), fmt.Sprintf("%d/%d", len(c.GetMachines())-len(notReady(c)), len(c.GetMachines())))
	fmt.Fprintln(w)
	row(w, "HOSTNAME", "ROLE", "PHASE", "ETCD", "ADDRESS", "MACHINE", "WAITING FOR")
	for _, m := range c.GetMachines() {
		row(w, m.GetHostname(), m.GetRole(), m.GetPhase(), memberState(m.GetEtcd()), m.GetAddress(), m.GetId(), m.GetWaitingFor())
	}
}

// memberState is what a machine's member of etcd is, in a word; empty without one.
func memberState(e *bootv1.EtcdState) string {
	switch {
	case e.GetMemberId() == "" && !e.GetVoter():
		return ""
	case !e.GetHealthy():
		return "unhealthy"
	case !e.GetVoter():
		return "learner"
	case e.GetLeader():
		return "leader"
	}
	return "voter"
}

func optional(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return args[0]
}
