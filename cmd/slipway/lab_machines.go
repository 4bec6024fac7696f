package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"slipway/qemu"
)

func labStatusCommand(o *labOptions) *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:   "status [NAME]",
		Short: "Show a lab's machines",
		Args:  cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			lab, err := o.open(firstOr(args))
			if err != nil {
				return err
			}
			status, err := lab.Status(cmd.Context())
			if err != nil {
				return err
			}
			switch output {
			case "json":
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(status)
			case "table":
				return printStatus(cmd.OutOrStdout(), status, time.Now())
			}
			return fmt.Errorf("-o %s: want table or json", output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "table", "table or json")
	return cmd
}

// printStatus writes the table for people.
func printStatus(out io.Writer, s qemu.Status, now time.Time) error {
	fmt.Fprintf(out, "lab %s: %s, holder %d, address %s, accelerator %s\n%s\n", s.Name, s.State, s.PID, s.Address, s.Accel, s.Dir)
	if s.Service != nil {
		fmt.Fprintf(out, "boot service: %s\n", describeProcess(*s.Service, "running", "ended", now))
	}
	table := tabwriter.NewWriter(out, 0, 8, 2, ' ', 0)
	fmt.Fprintln(table, "MACHINE\tMAC\tFIRMWARE\tCPUS\tMEMORY\tPOWER")
	for _, m := range s.Machines {
		fmt.Fprintf(table, "%s\t%s\t%s\t%d\t%d MiB\t%s\n", m.Name, m.MAC, m.Firmware, m.CPUs, m.MemoryMiB,
			describeProcess(m.ProcessStatus, "on", "off", now))
	}
	return table.Flush()
}

func describeProcess(p qemu.ProcessStatus, running, ended string, now time.Time) string {
	switch {
	case p.Since.IsZero():
		return ended
	case p.Running:
		return fmt.Sprintf("%s for %v", running, now.Sub(p.Since).Round(time.Second))
	}
	return fmt.Sprintf("%s for %v (%s)", ended, now.Sub(p.Since).Round(time.Second), p.LastEnd)
}

func labListCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List this user's labs",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			root, err := qemu.StateRoot()
			if err != nil {
				return err
			}
			labs, err := qemu.List(root)
			if err != nil {
				return err
			}
			table := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 8, 2, ' ', 0)
			fmt.Fprintln(table, "LAB\tSTATE\tMACHINES\tDIRECTORY")
			for _, lab := range labs {
				status, err := lab.Status(cmd.Context())
				if err != nil {
					return fmt.Errorf("ask lab %s: %w", lab.Name(), err)
				}
				fmt.Fprintf(table, "%s\t%s\t%d\t%s\n", status.Name, status.State, len(status.Machines), status.Dir)
			}
			return table.Flush()
		},
	}
}

func labConsoleCommand(o *labOptions) *cobra.Command {
	var follow, raw bool
	cmd := &cobra.Command{
		Use:   "console [[NAME] MACHINE]",
		Short: "Print a machine's serial console",
		Long:  "Print everything a machine's serial console has shown since the lab came up. MACHINE may be left out when there is only one.",
		Args:  cobra.MaximumNArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := ""
			if len(args) == 2 {
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
