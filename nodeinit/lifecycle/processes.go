package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const pollInterval = 50 * time.Millisecond

// emptyCgroup asks all processes in a cgroup and below to end, and kills them
// when ctx is done. A cgroup that is not there is empty.
func emptyCgroup(ctx context.Context, root string) error {
	for _, pid := range members(root) {
		signal := syscall.SIGTERM
		if status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid)); err == nil && deaf(string(status)) {
			signal = syscall.SIGKILL
		}
		syscall.Kill(pid, signal) // it may just have ended
	}
	err := until(ctx, func() bool { return len(members(root)) == 0 })
	if err == nil {
		return nil
	}
	left := len(members(root))
	kill := os.WriteFile(filepath.Join(root, "cgroup.kill"), []byte("1"), 0)
	return errors.Join(fmt.Errorf("%d processes in %s did not end: killed", left, root), kill)
}

// deaf reads /proc/PID/status (proc(5)) and reports whether SIGTERM is lost on
// the process: the first of a PID namespace gets only signals that it has
// handlers for (pid_namespaces(7)), and a container's "sleep" has none. To wait
// for it would be in vain.
func deaf(status string) bool {
	first, caught := false, uint64(0)
	for line := range strings.Lines(status) {
		key, value, _ := strings.Cut(line, ":")
		fields := strings.Fields(value)
		switch {
		case key == "NSpid" && len(fields) > 1:
			first = fields[len(fields)-1] == "1"
		case key == "SigCgt" && len(fields) == 1:
			caught, _ = strconv.ParseUint(fields[0], 16, 64)
		}
	}
	return first && caught&(1<<(syscall.SIGTERM-1)) == 0
}

// members lists the processes in a cgroup and below.
func members(root string) (pids []int) {
	filepath.WalkDir(root, func(path string, entry fs.DirEntry, err error) error {
		if err != nil || entry.Name() != "cgroup.procs" {
			return nil // also a cgroup that has just gone
		}
		text, _ := os.ReadFile(path)
		for field := range strings.FieldsSeq(string(text)) {
			// Processes of another PID namespace above ours would be 0.
			if pid, err := strconv.Atoi(field); err == nil && pid > 0 {
				pids = append(pids, pid)
			}
		}
		return nil
	})
	return pids
}

// endProcesses asks every process but PID 1 to end, waits, and kills what is
// left when half of the time is over. The kernel spares PID 1 from both signals.
func endProcesses(ctx context.Context, proc string) error {
	if os.Getpid() != 1 {
		return errors.New("end all processes: not PID 1")
	}
	syscall.Kill(-1, syscall.SIGTERM)
	deadline, _ := ctx.Deadline()
	half, cancel := context.WithDeadline(ctx, time.Now().Add(time.Until(deadline)/2))
	defer cancel()
	gone := func() bool { return len(programs(proc)) == 0 }
	if until(half, gone) == nil {
		return nil
	}
	killed := programs(proc)
	syscall.Kill(-1, syscall.SIGKILL)
	err := fmt.Errorf("killed %s", strings.Join(killed, ", "))
	return errors.Join(err, until(ctx, gone))
}

// programs names the processes that are programs: not PID 1, not the kernel's
// threads, not what is dead and not yet reaped. The latter two have no command line.
func programs(proc string) (names []string) {
	entries, err := os.ReadDir(proc)
	if err != nil {
		return nil
	}
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || pid == 1 {
			continue
		}
		line, _ := os.ReadFile(filepath.Join(proc, e.Name(), "cmdline"))
		if name, _, _ := strings.Cut(string(line), "\x00"); name != "" {
			names = append(names, fmt.Sprintf("%s[%d]", filepath.Base(name), pid))
		}
	}
	return names
}

// until polls: neither the end of a process that is not ours nor an empty
// cgroup can be waited for more simply.
func until(ctx context.Context, done func() bool) error {
	tick := time.NewTicker(pollInterval)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
	return nil
}
