package main

import (
	"encoding/json"
	"fmt"
	"io"
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
	if s.State == qemu.StateDead {
		fmt.Fprintf(out, "lab %s: dead: its holder has ended; logs and consoles are in %s\n", s.Name, s.Dir)
		return nil
	}
	fmt.Fprintf(out, "lab %s: %s, holder %d, address %s, accelerator %s, files in %s\n", s.Name, s.State, s.PID, s.Address, s.Accel, s.Dir)
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
