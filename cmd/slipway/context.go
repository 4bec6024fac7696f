package main

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
	"slipway/configs/enroll"
)

// defaultDataDir is where slipway serve keeps its state.
const defaultDataDir = "/var/lib/slipway"

// remote is what commands that speak to a boot service have in common.
type remote struct {
	contextFile string
	output      string
}

func (r *remote) register(cmd *cobra.Command) {
	def := os.Getenv("SLIPWAY_CONTEXT")
	if def == "" {
		def = filepath.Join(defaultDataDir, "admin.yaml")
	}
	cmd.PersistentFlags().StringVar(&r.contextFile, "context", def, "file that says where the boot service is and who you are; also $SLIPWAY_CONTEXT")
	cmd.PersistentFlags().StringVarP(&r.output, "output", "o", "table", "table, json or yaml")
}

// client opens the boot service's API.
func (r *remote) client() (*client.Client, error) {
	if err := checkOutput(r.output); err != nil {
		return nil, err
	}
	c, err := client.Load(r.contextFile)
	if err != nil {
		return nil, err
	}
	return c.New()
}

// withClient is the RunE of a command that asks the boot service.
func (r *remote) withClient(run func(cmd *cobra.Command, c *client.Client, args []string) error) func(*cobra.Command, []string) error {
	return func(cmd *cobra.Command, args []string) error {
		c, err := r.client()
		if err != nil {
			return err
		}
		return run(cmd, c, args)
	}
}

// getCluster shows one cluster; without a name, the only one there is.
func getCluster(ctx context.Context, c *client.Client, name string) (*bootv1.Cluster, error) {
	answer, err := c.Clusters.GetCluster(ctx, connect.NewRequest(&bootv1.GetClusterRequest{Name: name}))
	if err != nil {
		return nil, err
	}
	return answer.Msg.GetCluster(), nil
}

// machineID reads what a person calls a machine: its ID, or its host name, or
// nothing at all when there is only one.
func machineID(ctx context.Context, c *client.Client, text string) (string, error) {
	if id, err := enroll.ParseMachineID(text); err == nil {
		return id, nil
	}
	answer, err := c.Inventory.ListMachines(ctx, connect.NewRequest(&bootv1.ListMachinesRequest{}))
	if err != nil {
		return "", err
	}
	machines := answer.Msg.GetMachines()
	if text == "" {
		if len(machines) != 1 {
			return "", fmt.Errorf("%w: there are %d machines, so name one: see slipway machines list", errUsage, len(machines))
		}
		return machines[0].GetId(), nil
	}
	for _, m := range machines {
		if m.GetHostname() == text {
			return m.GetId(), nil
		}
	}
	return "", fmt.Errorf("no machine has the ID or host name %q: see slipway machines list", text)
}

// getMachine shows one machine with its timeline.
func getMachine(ctx context.Context, c *client.Client, text string) (*bootv1.Machine, error) {
	id, err := machineID(ctx, c, text)
	if err != nil {
		return nil, err
	}
	answer, err := c.Inventory.GetMachine(ctx, connect.NewRequest(&bootv1.GetMachineRequest{Id: id}))
	if connect.CodeOf(err) == connect.CodeNotFound {
		return nil, fmt.Errorf("machine %s has not been seen: see slipway machines list", id)
	}
	if err != nil {
		return nil, err
	}
	return answer.Msg.GetMachine(), nil
}
