package main

import (
	"context"
	"errors"
	"os"
	"os/signal"
	"syscall"

	"github.com/spf13/cobra"

	"slipway/qemu"
)

func labConsoleCommand(o *labOptions) *cobra.Command {
	var follow, raw bool
	cmd := &cobra.Command{
		Use:   "console [[NAME] MACHINE]",
		Short: "Print a machine's serial console",
		Long: `Print everything a machine's serial console has shown since the lab came up.

MACHINE may be left out when there is only one. A single argument that is the name of a lab
is taken for that.`,
		Args: cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 2 || len(args) == 1 && o.exists(args[0]) {
				name, args = args[0], args[1:]
			}
			lab, err := o.open(name)
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			machine := firstOr(args)
			if machine == "" {
				if machine, err = onlyMachine(ctx, lab); err != nil {
					return err
				}
			}
			out := cmd.OutOrStdout()
			if !raw {
				out = qemu.PlainWriter(out)
			}
			return lab.Follow(ctx, machine, out, follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until Ctrl-C")
	cmd.Flags().BoolVar(&raw, "raw", false, "keep terminal commands")
	return cmd
}

// onlyMachine is the name of the lab's machine when there is exactly one.
func onlyMachine(ctx context.Context, lab *qemu.Lab) (string, error) {
	status, err := lab.Status(ctx)
	if err != nil {
		return "", err
	}
	if len(status.Machines) != 1 {
		return "", errors.New("choose a machine: `slipway lab status` lists them")
	}
	return status.Machines[0].Name, nil
}

func labPowerCommand(o *labOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "power [NAME] MACHINE on|off|cycle|reset|button|link-down|link-up",
		Short: "Press a machine's buttons, pull its plugs",
		Long: `Press a machine's buttons, pull its plugs.

  on, off, cycle      off cuts the power: the guest is not asked
  reset               the reset button
  button              the power button: asks the guest to shut down
  link-down, link-up  pull the network cable, plug it in again`,
		Args: cobra.RangeArgs(2, 3),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 3 {
				name, args = args[0], args[1:]
			}
			lab, err := o.open(name)
			if err != nil {
				return err
			}
			return lab.Power(cmd.Context(), args[0], qemu.Action(args[1]))
		},
	}
}

func labLogsCommand(o *labOptions) *cobra.Command {
	var follow bool
	cmd := &cobra.Command{
		Use:   "logs [NAME]",
		Short: "Print what the lab's boot service says",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lab, err := o.open(firstOr(args))
			if err != nil {
				return err
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return lab.FollowService(ctx, cmd.OutOrStdout(), follow)
		},
	}
	cmd.Flags().BoolVarP(&follow, "follow", "f", false, "go on until Ctrl-C")
	return cmd
}

func labServiceCommand(o *labOptions) *cobra.Command {
	return &cobra.Command{
		Use:   "service [NAME] on|off|cycle",
		Short: "Kill the lab's boot service, start it again",
		Args:  cobra.RangeArgs(1, 2),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 2 {
				name, args = args[0], args[1:]
			}
			lab, err := o.open(name)
			if err != nil {
				return err
			}
			return lab.Service(cmd.Context(), qemu.Action(args[0]))
		},
	}
}
