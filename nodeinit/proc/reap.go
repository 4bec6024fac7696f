package proc

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// Reap collects orphans: processes whose parent ended before them, which the
// kernel hands to PID 1 (or to a child subreaper). It blocks until ctx is
// cancelled. It must be called from the main goroutine, locked to the main
// thread since before it started anything, or it refuses.
//
// It leaves this program's own children to exec.Cmd.Wait, without either
// knowing of the other: the kernel gives an orphan to the first living thread
// of its new parent, the main thread (kernel/exit.c, find_new_reaper), while a
// child belongs to the thread that forked it. The main thread forks nothing,
// so a wait on it alone (__WNOTHREAD, wait(2)) sees only orphans. What would
// break this is a thread that forks and then ends, which a Go thread does only
// when a goroutine returns locked to it: PID 1 has none.
func Reap(ctx context.Context) error {
	if unix.Gettid() != os.Getpid() {
		return fmt.Errorf("reap orphans: not on the main thread")
	}
	runtime.LockOSThread()
	children := make(chan os.Signal, 1) // one is enough: each wakes a loop that takes all
	signal.Notify(children, syscall.SIGCHLD)
	defer signal.Stop(children)
	for {
		if err := reapAll(); err != nil {
			return err
		}
		select {
		case <-ctx.Done():
			return nil
		case <-children:
		}
	}
}

func reapAll() error {
	for {
		pid, err := unix.Wait4(-1, nil, unix.WNOHANG|unix.WNOTHREAD, nil)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.ECHILD), err == nil && pid == 0:
			return nil
		case err != nil:
			return fmt.Errorf("reap orphans: %w", err)
		}
	}
}
