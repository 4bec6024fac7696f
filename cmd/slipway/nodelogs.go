package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"time"

	"connectrpc.com/connect"
	"github.com/goccy/go-yaml"
	"github.com/spf13/cobra"

	"slipway/nodeinit/api/nodev1"
)

func nodeLogsCommand(r *remote) *cobra.Command {
	request := &nodev1.LogsRequest{}
	var times bool
	cmd := &cobra.Command{
		Use: "logs NODE UNIT", Short: "Print what a unit wrote, oldest line first", Args: cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			request.Unit = args[1]
			if request.Tail < 0 {
				return fmt.Errorf("%w: --tail %d is not a number of lines", errUsage, request.Tail)
			}
			node, err := r.node(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			lines, err := node.Logs(cmd.Context(), connect.NewRequest(request))
			if err != nil {
				return nodeError(args[0], err)
			}
			return nodeError(args[0], printLines(cmd.Context(), cmd.OutOrStdout(), r.output, times, lines))
		},
	}
	cmd.Flags().BoolVarP(&request.Follow, "follow", "f", false, "stay and print new lines")
	cmd.Flags().Int32Var(&request.Tail, "tail", 0, "print this many lines only; 0: all that is kept")
	cmd.Flags().BoolVar(&times, "timestamps", false, "print when each line was written")
	return cmd
}

func nodeDmesgCommand(r *remote) *cobra.Command {
	request := &nodev1.DmesgRequest{}
	var times bool
	cmd := &cobra.Command{
		Use: "dmesg NODE", Short: "Print what the kernel wrote", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			node, err := r.node(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			lines, err := node.Dmesg(cmd.Context(), connect.NewRequest(request))
			if err != nil {
				return nodeError(args[0], err)
			}
			return nodeError(args[0], printLines(cmd.Context(), cmd.OutOrStdout(), r.output, times, lines))
		},
	}
	cmd.Flags().BoolVarP(&request.Follow, "follow", "f", false, "stay and print new lines")
	cmd.Flags().BoolVar(&times, "timestamps", false, "print when each line was written")
	return cmd
}

// printLines prints a stream until it ends; being interrupted is an end too.
// json is an object a line, yaml a document a line.
func printLines(ctx context.Context, w io.Writer, format string, times bool, lines *connect.ServerStreamForClient[nodev1.LogLine]) error {
	defer lines.Close()
	for lines.Receive() {
		if err := printLine(w, format, times, lines.Msg()); err != nil {
			return err
		}
	}
	if ctx.Err() != nil {
		return nil
	}
	return lines.Err()
}

func printLine(w io.Writer, format string, times bool, line *nodev1.LogLine) error {
	at := line.GetTime().AsTime().Format(time.RFC3339Nano)
	entry := struct {
		Time string `json:"time" yaml:"time"`
		Text string `json:"text" yaml:"text"`
	}{at, line.GetText()}
	switch format {
	case "json":
		return json.NewEncoder(w).Encode(entry)
	case "yaml":
		text, err := yaml.Marshal(entry)
		if err == nil {
			_, err = fmt.Fprintf(w, "---\n%s", text)
		}
		return err
	}
	if times {
		_, err := fmt.Fprintln(w, at, entry.Text)
		return err
	}
	_, err := fmt.Fprintln(w, entry.Text)
	return err
}

func nodeRebootCommand(r *remote) *cobra.Command {
	request := &nodev1.RebootRequest{}
	var yes bool
	cmd := &cobra.Command{
		Use: "reboot NODE", Short: "Shut a node down cleanly and start it again",
		Long: `Shut a node down cleanly and start it again.

Its pods and units are stopped in order and its file systems synced, each step
with a deadline. A machine that runs from RAM boots from the network again and
joins anew.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what := "Reboot"
			if request.PowerOff {
				what = "Power off"
			}
			if err := agree(cmd, yes, fmt.Sprintf("%s node %s? Its pods will stop.", what, args[0])); err != nil {
				return err
			}
			return reboot(cmd, r, args[0], request)
		},
	}
	cmd.Flags().BoolVar(&request.PowerOff, "power-off", false, "leave the machine off")
	cmd.Flags().BoolVar(&request.Kexec, "kexec", false, "restart without the firmware; of installed machines")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func reboot(cmd *cobra.Command, r *remote, name string, request *nodev1.RebootRequest) error {
	node, err := r.node(cmd.Context(), name)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 15*time.Second)
	defer cancel()
	answer, err := node.Reboot(ctx, connect.NewRequest(request))
	if err != nil {
		return nodeError(name, err)
	}
	return show(cmd.OutOrStdout(), r.output, answer.Msg, func(w io.Writer) {
		fmt.Fprintf(w, "Node %s is shutting down.\n", name)
	})
}
