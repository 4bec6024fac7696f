package qemu

import (
	"context"
	"fmt"
	"log/slog"
	"os/exec"
	"strings"
	"syscall"
)

// privateMounts makes mounts of this namespace its own, and shows its processes and network
// in /proc and /sys. Some containers forbid the latter two; nothing here depends on them.
func privateMounts(log *slog.Logger) error {
	if err := syscall.Mount("", "/", "", syscall.MS_REC|syscall.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	for _, fs := range []struct{ kind, path string }{{"proc", "/proc"}, {"sysfs", "/sys"}} {
		if err := syscall.Mount(fs.kind, fs.path, fs.kind, syscall.MS_NOSUID|syscall.MS_NODEV|syscall.MS_NOEXEC, ""); err != nil {
			log.Info("keep the computer's view", "path", fs.path, "reason", err)
		}
	}
	return nil
}

// tapName is the network device of the lab's machine number i.
func tapName(i int) string { return fmt.Sprintf("tap%d", i) }

// networkCommands are the `ip` commands, one per line of `ip -batch`, that make the lab's
// network: loopback, a bridge with address, and a tap per machine.
func networkCommands(address string, machines int) []string {
	lines := []string{
		"link set lo up",
		"link add " + Bridge + " type bridge forward_delay 0",
		"addr add " + address + " dev " + Bridge,
		"link set " + Bridge + " up",
	}
	for i := range machines {
		lines = append(lines,
			"tuntap add dev "+tapName(i)+" mode tap",
			"link set "+tapName(i)+" master "+Bridge+" up")
	}
	return lines
}

// makeNetwork runs them.
func makeNetwork(ctx context.Context, procs *children, address string, machines int) error {
	if machines > 0 {
		if err := tunUsable(); err != nil {
			return err
		}
	}
	ip, err := lookSbin("ip")
	if err != nil {
		return fmt.Errorf("make the lab's network: %w", err)
	}
	cmd := exec.CommandContext(ctx, ip, "-batch", "-")
	cmd.Stdin = strings.NewReader(strings.Join(networkCommands(address, machines), "\n") + "\n")
	var out strings.Builder
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := procs.run(cmd); err != nil {
		return fmt.Errorf("make the lab's network: ip: %w: %s", err, strings.TrimSpace(out.String()))
	}
	return nil
}
