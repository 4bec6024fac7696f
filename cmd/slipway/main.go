// Command slipway takes a rack of bare machines to a Kubernetes cluster: it is
// the boot service, the image builder, and the operator's command line.
//
// Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a deadline passed before what
// was waited for came true, 4 the boot service refused, 5 it was not reachable.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/configs/version"
)

// The exit codes, for scripts.
const (
	exitFailed      = 1
	exitUsage       = 2
	exitDeadline    = 3
	exitRefused     = 4
	exitUnreachable = 5
)

// errUsage says that a command was called wrongly.
var errUsage = errors.New("wrong usage")

// errDeadline says that what was waited for did not come true in time.
var errDeadline = errors.New("not in time")

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	code := run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr)
	stop()
	os.Exit(code)
}

// run is the whole program but for its process. It returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	root := rootCommand()
	root.SetArgs(args)
	root.SetIn(stdin)
	root.SetOut(stdout)
	root.SetErr(stderr)
	err := root.ExecuteContext(ctx)
	if err == nil {
		return 0
	}
	fmt.Fprintln(stderr, "slipway:", explain(err))
	return exitCode(err)
}

func rootCommand() *cobra.Command {
	root := &cobra.Command{
		Use:   "slipway",
		Short: "From bare machines to a Kubernetes cluster",
		Long: `Slipway takes bare machines to a Kubernetes cluster.

  slipway serve                        run the boot service on the machines' network
  slipway machines list                see which machines have booted, approve them
  slipway cluster create prod          make a cluster of the approved ones

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 a deadline passed,
4 the boot service refused, 5 the boot service was not reachable.`,
		SilenceErrors:     true,
		SilenceUsage:      true,
		DisableAutoGenTag: true,
	}
	root.SetFlagErrorFunc(func(cmd *cobra.Command, err error) error {
		return fmt.Errorf("%w: %w; see %s --help", errUsage, err, cmd.CommandPath())
	})
	root.AddCommand(
		serveCommand(), machinesCommand(), clusterCommand(), nodeCommand(), etcdCommand(), configCommand(), versionCommand(),
		imageCommand(), labCommand(), caCommand(),
	)
	checkUsage(root)
	return root
}

// checkUsage makes wrong arguments and unknown subcommands errors of usage,
// and commands that only group others show their help.
func checkUsage(cmd *cobra.Command) {
	check := cmd.Args
	cmd.Args = func(cmd *cobra.Command, args []string) error {
		if check == nil {
			check = cobra.ArbitraryArgs
			if cmd.HasSubCommands() {
				check = unknownSubcommand
			}
		}
		if err := check(cmd, args); err != nil {
			return fmt.Errorf("%w: %w; see %s --help", errUsage, err, cmd.CommandPath())
		}
		return nil
	}
	if !cmd.Runnable() {
		cmd.RunE = func(cmd *cobra.Command, _ []string) error { return cmd.Help() }
	}
	for _, child := range cmd.Commands() {
		checkUsage(child)
	}
}

func unknownSubcommand(cmd *cobra.Command, args []string) error {
	if len(args) > 0 {
		return fmt.Errorf("unknown command %q for %q", args[0], cmd.CommandPath())
	}
	return nil
}

func versionCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "version",
		Short: "Print the version of this program",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			_, err := fmt.Fprintln(cmd.OutOrStdout(), version.Version)
			return err
		},
	}
}

// exitCode says with which code an error ends the program.
func exitCode(err error) int {
	switch {
	case errors.Is(err, errUsage):
		return exitUsage
	case errors.Is(err, errDeadline):
		return exitDeadline
	case errors.Is(err, errUnreachable):
		return exitUnreachable
	}
	switch connect.CodeOf(err) {
	case connect.CodeUnauthenticated, connect.CodePermissionDenied:
		return exitRefused
	case connect.CodeUnavailable:
		return exitUnreachable
	}
	return exitFailed
}

// explain is an error as a person reads it: without the protocol's code words.
func explain(err error) string {
	var answer *connect.Error
	if !errors.As(err, &answer) {
		return err.Error()
	}
	switch answer.Code() {
	case connect.CodeUnauthenticated, connect.CodePermissionDenied:
		return "refused: " + answer.Message()
	case connect.CodeUnavailable:
		return "cannot reach the boot service: " + answer.Message()
	}
	return answer.Message()
}
