package lifecycle

import (
	"context"
	"log/slog"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Deadline is how long a shutdown may take in all.
const Deadline = 75 * time.Second

// Units is what a shutdown needs of the supervisor.
type Units interface {
	// Retire stops one unit and those that come after it.
	Retire(ctx context.Context, name string) error
	// Stop stops all units, in reverse.
	Stop(ctx context.Context) error
}

// Node is what is shut down.
type Node struct {
	Log       *slog.Logger
	Units     Units
	CloseLogs func()
}

// steps is a shutdown. Pods stop while the node still works for them (network,
// DNS, API), but after kubelet, which would start them again.
func (n Node) steps() []Step {
	return []Step{
		{"arm the watchdog", time.Second, func(context.Context) error { return armWatchdog("/dev/watchdog", Deadline) }},
		{"stop kubelet", 10 * time.Second, func(ctx context.Context) error { return n.Units.Retire(ctx, "kubelet") }},
		{"stop pods", 15 * time.Second, func(ctx context.Context) error { return emptyCgroup(ctx, "/sys/fs/cgroup/kubepods") }},
		{"stop units", 25 * time.Second, func(ctx context.Context) error { return n.Units.Stop(ctx) }},
		{"end other processes", 3 * time.Second, func(ctx context.Context) error { return endProcesses(ctx, "/proc") }},
		{"close logs", time.Second, func(context.Context) error { n.CloseLogs(); return nil }},
		{"unmount", 5 * time.Second, unmountAll},
		{"sync", 10 * time.Second, func(context.Context) error { unix.Sync(); return nil }},
	}
}

// Shutdown ends the node and the machine. It does not return.
func (n Node) Shutdown(powerOff bool) {
	n.Log.Info("shutting down", "powerOff", powerOff, "deadline", Deadline)
	time.AfterFunc(Deadline, func() {
		n.Log.Warn("the shutdown is past its deadline")
		end(powerOff)
	})
	run(n.Log, n.steps())
	n.Log.Info("the end", "powerOff", powerOff)
	end(powerOff)
}

// end is the last call. It may be made twice.
func end(powerOff bool) {
	how := unix.LINUX_REBOOT_CMD_RESTART
	if powerOff {
		how = unix.LINUX_REBOOT_CMD_POWER_OFF
	}
	unix.Reboot(how)
	select {}
}

// Restart restarts the machine at once, after a last try to save what is not
// on disk. It is for a PID 1 that cannot go on; it does not return.
func Restart() {
	time.AfterFunc(5*time.Second, func() { end(false) })
	unix.Sync()
	end(false)
}

// armWatchdog lets the hardware restart the machine some time after the
// shutdown should have. A machine without a watchdog is fine. The file stays
// open: closing it could disarm (kernel: watchdog/watchdog-api).
func armWatchdog(path string, after time.Duration) error {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if os.IsNotExist(err) {
		return nil
	}
	if err != nil {
		return &os.PathError{Op: "open", Path: path, Err: err}
	}
	return unix.IoctlSetPointerInt(fd, unix.WDIOC_SETTIMEOUT, int((after + 15*time.Second).Seconds()))
}
