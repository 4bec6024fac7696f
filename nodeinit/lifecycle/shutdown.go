package lifecycle

import (
	"context"
	"log/slog"
	"time"

	"golang.org/x/sys/unix"
)

// Deadline is how long a shutdown may take in all, but for the wiping of a disk.
const Deadline = 75 * time.Second

// Units is what a shutdown needs of the supervisor.
type Units interface {
	// Retire stops one unit and those that come after it.
	Retire(ctx context.Context, name string) error
	// Stop stops all units, in reverse.
	Stop(ctx context.Context) error
}

// End is how a machine ends.
type End struct {
	PowerOff bool
	Kexec    bool  // by the kernel that was loaded, not by the firmware; else as ever
	Wipe     *Step // of the disk, once nothing uses it
}

// Node is what is shut down.
type Node struct {
	Log       *slog.Logger
	Units     Units
	CloseLogs func()
	Watchdog  *Watchdog
}

// steps is a shutdown. Pods stop while the node still works for them (network,
// DNS, API), but after kubelet, which would start them again.
func (n Node) steps(how End) []Step {
	list := []Step{
		{"arm the watchdog", time.Second, func(context.Context) error { return n.Watchdog.guard(how.deadline()) }},
		{"stop kubelet", 10 * time.Second, func(ctx context.Context) error { return n.Units.Retire(ctx, "kubelet") }},
		{"stop pods", 15 * time.Second, func(ctx context.Context) error { return emptyCgroup(ctx, "/sys/fs/cgroup/kubepods") }},
		{"stop units", 25 * time.Second, func(ctx context.Context) error { return n.Units.Stop(ctx) }},
		{"end other processes", 3 * time.Second, func(ctx context.Context) error { return endProcesses(ctx, "/proc") }},
		{"close logs", time.Second, func(context.Context) error { n.CloseLogs(); return nil }},
		{"unmount", 5 * time.Second, unmountAll},
		{"sync", 10 * time.Second, func(context.Context) error { unix.Sync(); return nil }},
	}
	if how.Wipe != nil {
		list = append(list, *how.Wipe)
	}
	return list
}

// deadline is how long this end may take.
func (e End) deadline() time.Duration {
	if e.Wipe == nil {
		return Deadline
	}
	return Deadline + e.Wipe.Deadline + patience
}

// Shutdown ends the node and the machine. It does not return.
func (n Node) Shutdown(how End) { n.shutdown(how, n.steps(how), end) }

func (n Node) shutdown(how End, steps []Step, end func(End)) {
	time.AfterFunc(how.deadline(), func() {
		say(n.Log, slog.LevelWarn, "the shutdown is past its deadline")
		end(how)
	})
	say(n.Log, slog.LevelInfo, "shutting down", "powerOff", how.PowerOff, "kexec", how.Kexec, "deadline", how.deadline())
	run(n.Log, steps)
	say(n.Log, slog.LevelInfo, "the end", "powerOff", how.PowerOff, "kexec", how.Kexec)
	end(how)
}

// say logs, and goes on when that takes too long: a serial line that is not read
// must not be what keeps a machine from ending.
func say(log *slog.Logger, level slog.Level, text string, args ...any) {
	said := make(chan struct{})
	go func() { log.Log(context.Background(), level, text, args...); close(said) }()
	late := time.NewTimer(patience)
	defer late.Stop()
	select {
	case <-said:
	case <-late.C:
	}
}

// end is the last call. It may be made twice.
func end(how End) {
	if how.PowerOff {
		unix.Reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
	}
	if how.Kexec {
		unix.Reboot(unix.LINUX_REBOOT_CMD_KEXEC) // returns if there is no kernel loaded
	}
	unix.Reboot(unix.LINUX_REBOOT_CMD_RESTART)
	select {}
}

// Restart restarts the machine at once, after a last try to save what is not
// on disk. It is for a PID 1 that cannot go on; it does not return.
func Restart() {
	time.AfterFunc(5*time.Second, func() { end(End{}) })
	unix.Sync()
	end(End{})
}
