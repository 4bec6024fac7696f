package vmtest

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/qemu"
)

// commandPatience bounds one command in the lab, on the reference computer.
const commandPatience = time.Minute

// Try runs a command of this computer in the lab's network and returns what it printed on
// standard output. The error holds what it printed on standard error.
func (l *Lab) Try(command ...string) (string, error) {
	return l.run(context.Background(), nil, command...)
}

// TryCLI runs `slipway ARGS` as the administrator of the lab's boot service.
func (l *Lab) TryCLI(args ...string) (string, error) {
	return l.Try(append([]string{l.bin}, args...)...)
}

// TryKubectl runs kubectl against the lab's cluster, through `slipway lab kubectl`.
func (l *Lab) TryKubectl(args ...string) (string, error) {
	return l.TryKubectlStdin("", args...)
}

// TryKubectlStdin is TryKubectl with standard input, for `apply -f -`.
func (l *Lab) TryKubectlStdin(stdin string, args ...string) (string, error) {
	return l.output(context.Background(), strings.NewReader(stdin), append([]string{l.bin, "lab", "kubectl", "default", "--"}, args...))
}

// CLI is TryCLI that must work.
func (l *Lab) CLI(t *testing.T, args ...string) string {
	t.Helper()
	return must(t)(l.TryCLI(args...))
}

// Kubectl is TryKubectl that must work.
func (l *Lab) Kubectl(t *testing.T, args ...string) string {
	t.Helper()
	return must(t)(l.TryKubectl(args...))
}

// Apply gives a manifest to kubectl.
func (l *Lab) Apply(t *testing.T, manifest string) {
	t.Helper()
	must(t)(l.TryKubectlStdin(manifest, "apply", "-f", "-"))
}

// Switch performs a power action that must work.
func (l *Lab) Switch(t *testing.T, machine string, action qemu.Action) {
	t.Helper()
	if err := l.Power(t.Context(), machine, action); err != nil {
		t.Fatal(err)
	}
}

// ContextFile is the administrator's context of the lab's boot service.
func (l *Lab) ContextFile() string { return filepath.Join(l.Dir(), "data", "admin.yaml") }

// MachineID is how the boot service names a machine: its MAC address, with dashes.
func (l *Lab) MachineID(t *testing.T, machine string) string {
	t.Helper()
	status, err := l.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range status.Machines {
		if m.Name == machine {
			return machineID(m)
		}
	}
	t.Fatalf("find machine %q: not in this lab", machine)
	return ""
}

func machineID(m qemu.MachineStatus) string { return strings.ReplaceAll(m.MAC, ":", "-") }

func must(t *testing.T) func(string, error) string {
	t.Helper()
	return func(out string, err error) string {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
}

func (l *Lab) run(ctx context.Context, stdin *strings.Reader, command ...string) (string, error) {
	argv, err := l.Enter(command...)
	if err != nil {
		return "", err
	}
	return l.output(ctx, stdin, argv)
}

func (l *Lab) output(ctx context.Context, stdin *strings.Reader, argv []string) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, l.Timeout(commandPatience))
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+l.state, "SLIPWAY_LAB=default", "SLIPWAY_CONTEXT="+l.ContextFile())
	cmd.WaitDelay = time.Second
	if stdin != nil {
		cmd.Stdin = stdin
	}
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		err = fmt.Errorf("run %s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(complaint.String()))
	}
	return string(out), err
}
