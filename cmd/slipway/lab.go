package main

import (
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"slipway/qemu"
)

// labOptions are shared by the commands of `slipway lab`.
type labOptions struct {
	name string
}

func labCommand() *cobra.Command {
	o := &labOptions{}
	cmd := &cobra.Command{
		Use:   "lab",
		Short: "Run a rack of QEMU machines on this computer",
		Long: `Run a rack of QEMU machines on this computer, on a network of their own.

The machines boot from the real boot service over a virtual network that has no route
out; this computer's own network is not touched, and no root is needed where users may
make namespaces. Several labs run side by side under different names.`,
	}
	name := os.Getenv("SLIPWAY_LAB")
	if name == "" {
		name = "default"
	}
	cmd.PersistentFlags().StringVar(&o.name, "lab", name, "name of the lab; also $SLIPWAY_LAB")
	cmd.AddCommand(
		labUpCommand(o), labDownCommand(o), labStatusCommand(o), labListCommand(),
		labConsoleCommand(o), labPowerCommand(o), labLogsCommand(o), labServiceCommand(o),
		labExecCommand(o), labKubectlCommand(o), labHoldCommand(),
	)
	return cmd
}

// open finds the lab called name, or the one that --lab names when it is empty.
func (o *labOptions) open(name string) (*qemu.Lab, error) {
	if name == "" {
		name = o.name
	}
	root, err := qemu.StateRoot()
	if err != nil {
		return nil, err
	}
	return qemu.Open(root, name)
}

// exists says whether there is a lab called name.
func (o *labOptions) exists(name string) bool {
	_, err := o.open(name)
	return err == nil
}

// firstOr returns the first argument, or "".
func firstOr(args []string) string {
	if len(args) > 0 {
		return args[0]
	}
	return ""
}

func labDownCommand(o *labOptions) *cobra.Command {
	var keep bool
	cmd := &cobra.Command{
		Use:   "down [NAME]",
		Short: "End a lab: machines, boot service and network",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lab, err := o.open(firstOr(args))
			if errors.Is(err, qemu.ErrNotUp) {
				fmt.Fprintln(cmd.ErrOrStderr(), "nothing to end: the lab is not up")
				return nil
			}
			if err != nil {
				return err
			}
			if err := lab.Down(cmd.Context(), keep); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "lab %s is down\n", lab.Name())
			return nil
		},
	}
	cmd.Flags().BoolVar(&keep, "keep", false, "keep the lab's directory: consoles, logs, disks, the boot service's data")
	return cmd
}

// labHoldCommand is the process that keeps a lab; `lab up` starts it in its namespaces.
func labHoldCommand() *cobra.Command {
	return &cobra.Command{
		Use:    "hold",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM)
			defer stop()
			return qemu.Hold(ctx, slog.New(slog.NewTextHandler(os.Stderr, nil)))
		},
	}
}
