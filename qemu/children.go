package qemu

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"os/signal"
	"sync"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// children starts processes and reaps strangers: the holder is PID 1 of its namespace, so
// the orphans of its children become its own. Those that exec.Cmd waits for are left to it.
type children struct {
	mu    sync.Mutex
	known map[int]bool
}

// run starts cmd and waits for it.
func (c *children) run(cmd *exec.Cmd) error {
	if err := c.start(cmd); err != nil {
		return err
	}
	return c.wait(cmd)
}

func (c *children) start(cmd *exec.Cmd) error {
	c.mu.Lock() // so that the process is known before reap can see it end
	defer c.mu.Unlock()
	if err := cmd.Start(); err != nil {
		return err
	}
	if c.known == nil {
		c.known = map[int]bool{}
	}
	c.known[cmd.Process.Pid] = true
	return nil
}

func (c *children) wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	c.mu.Lock()
	delete(c.known, cmd.Process.Pid)
	c.mu.Unlock()
	c.reap() // it may have hidden a stranger
	return err
}

// reapLoop reaps strangers until ctx ends.
func (c *children) reapLoop(ctx context.Context) {
	ended := make(chan os.Signal, 1)
	signal.Notify(ended, syscall.SIGCHLD)
	defer signal.Stop(ended)
	for {
		c.reap()
		select {
		case <-ctx.Done():
			return
		case <-ended:
		}
	}
}

// reap collects dead strangers. It looks before it takes, and stops at a process that is
// known: wait calls it again once that one is gone.
func (c *children) reap() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for {
		pid := deadChild()
		if pid == 0 || c.known[pid] {
			return
		}
		_, _ = syscall.Wait4(pid, nil, syscall.WNOHANG, nil)
	}
}

// deadChild returns a child that has ended and was not waited for, and leaves it so.
func deadChild() int {
	var info unix.Siginfo
	for {
		err := unix.Waitid(unix.P_ALL, 0, &info, unix.WEXITED|unix.WNOHANG|unix.WNOWAIT, nil)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil || info.Signo == 0 {
			return 0
		}
		// si_pid is the first field after the three that x/sys names, and their padding.
		return int(*(*int32)(unsafe.Add(unsafe.Pointer(&info), 16)))
	}
}
