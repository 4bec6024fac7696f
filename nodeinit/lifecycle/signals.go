package lifecycle

import (
	"context"
	"os"
	"os/signal"

	"golang.org/x/sys/unix"
)

// Signalled blocks until somebody asks PID 1 to end, or ctx is done (ok is
// false). It says whether to power off:
//
//	SIGINT, SIGTERM             restart (the kernel sends SIGINT for Ctrl-Alt-Del)
//	SIGPWR, SIGUSR2             power off
func Signalled(ctx context.Context) (powerOff, ok bool) {
	// Without this the kernel itself restarts at once on Ctrl-Alt-Del. It can
	// only fail for want of privilege, where there is no such key for us.
	unix.Reboot(unix.LINUX_REBOOT_CMD_CAD_OFF)
	asked := make(chan os.Signal, 1)
	signal.Notify(asked, unix.SIGINT, unix.SIGTERM, unix.SIGPWR, unix.SIGUSR2)
	defer signal.Stop(asked)
	select {
	case <-ctx.Done():
		return false, false
	case s := <-asked:
		return s == unix.SIGPWR || s == unix.SIGUSR2, true
	}
}
