package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"slipway/qemu"
)

// contextFile is the boot service's admin context, which `slipway serve` writes.
func contextFile(lab *qemu.Lab) string { return filepath.Join(lab.Dir(), labDataDir, "admin.yaml") }

// splitName reads `[NAME] -- COMMAND...`: the name before the dashes, if any, and the command.
func splitName(args []string) (name string, command []string) {
	if len(args) > 1 && args[1] == "--" {
		return args[0], args[2:]
	}
	return "", args
}

func labExecCommand(o *labOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "exec [NAME] -- COMMAND [ARG...]",
		Short: "Run a command in the lab's network",
		Long: `Run a command of this computer in the lab's network, with this user's files and rights.

It may reach the boot service and the machines, and nothing else. $SLIPWAY_CONTEXT names
the administrator's context of the lab's boot service. The command ends when the lab does.`,
		Example: "  slipway lab exec -- ip addr\n  slipway lab exec -- tcpdump -ni br0",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(_ *cobra.Command, args []string) error {
			name, command := splitName(args)
			if len(command) == 0 {
				return errors.New("run a command in the lab: no command given")
			}
			lab, err := o.open(name)
			if err != nil {
				return err
			}
			return become(lab, command, "SLIPWAY_CONTEXT="+contextFile(lab))
		},
	}
	cmd.Flags().SetInterspersed(false) // flags behind the command are the command's
	return cmd
}

func labKubectlCommand(o *labOptions) *cobra.Command {
	cmd := &cobra.Command{
		Use:     "kubectl [NAME --] ARG...",
		Short:   "Run kubectl against the lab's cluster",
		Example: "  slipway lab kubectl get nodes,pods -A\n  slipway lab kubectl big -- get nodes",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name, rest := splitName(args)
			lab, err := o.open(name)
			if err != nil {
				return err
			}
			kubeconfig, err := labKubeconfig(cmd.Context(), lab)
			if err != nil {
				return err
			}
			kubectl, err := findKubectl(lab)
			if err != nil {
				return err
			}
			return become(lab, append([]string{kubectl}, rest...), "KUBECONFIG="+kubeconfig)
		},
	}
	cmd.Flags().SetInterspersed(false)
	return cmd
}

// become replaces this process by a command in the lab's network.
func become(lab *qemu.Lab, command []string, env ...string) error {
	argv, err := lab.Enter(command...)
	if err != nil {
		return err
	}
	return fmt.Errorf("run %s: %w", argv[0], syscall.Exec(argv[0], argv, append(os.Environ(), env...)))
}

// labKubeconfig returns the path of the kubeconfig of the lab's cluster; it asks the boot
// service for it the first time.
func labKubeconfig(ctx context.Context, lab *qemu.Lab) (string, error) {
	path := filepath.Join(lab.Dir(), "kubeconfig")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	self, err := os.Executable()
	if err != nil {
		return "", fmt.Errorf("find this program: %w", err)
	}
	argv, err := lab.Enter(self, "cluster", "kubeconfig", "--context", contextFile(lab))
	if err != nil {
		return "", err
	}
	var complaint bytes.Buffer
	ask := exec.CommandContext(ctx, argv[0], argv[1:]...)
	ask.Stderr = &complaint
	data, err := ask.Output()
	if err != nil {
		return "", fmt.Errorf("ask the boot service for the kubeconfig: %w: %s", err, strings.TrimSpace(complaint.String()))
	}
	if err := os.WriteFile(path, data, 0o600); err != nil {
		return "", fmt.Errorf("keep the kubeconfig: %w", err)
	}
	return path, nil
}

// findKubectl prefers the one of the lab's image: it has the cluster's version.
func findKubectl(lab *qemu.Lab) (string, error) {
	path := filepath.Join(lab.Dir(), "kubectl")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	path, err := exec.LookPath("kubectl")
	if err != nil {
		return "", fmt.Errorf("find kubectl: not in the image (bin/multicall) and not on this computer: %w", err)
	}
	return path, nil
}
