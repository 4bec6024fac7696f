package main

import (
	"fmt"
	"io"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
)

func machinesForgetCommand(r *remote) *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:   "forget MACHINE",
		Short: "Drop all that is known of a machine that is gone",
		Long: `Drop all that is known of a machine that is gone: its record and its timeline.

A machine that a cluster has is taken out of it first: slipway node reset does
that for a dead one too. Should a forgotten machine come back, it is a machine
not seen before, and its key waits for approval. One that is installed keeps what
is on its disk: nothing is wiped by this.`,
		Args: cobra.ExactArgs(1),
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			m, err := getMachine(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if err := agree(cmd, yes, fmt.Sprintf("Forget machine %s, last seen %s?", m.GetId(), lastSeen(m))); err != nil {
				return err
			}
			if _, err := c.Inventory.Forget(cmd.Context(), connect.NewRequest(&bootv1.ForgetRequest{Id: m.GetId()})); err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), r.output, m, func(w io.Writer) { fmt.Fprintf(w, "Forgot %s.\n", m.GetId()) })
		}),
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}
