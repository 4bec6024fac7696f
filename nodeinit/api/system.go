package api

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// System is where the kernel tells of itself; a test has another.
type System struct {
	Proc    string // /proc
	Cgroups string // above the units' cgroups
	Kmsg    string // /dev/kmsg
}

// kernel is the kernel's release.
func (System) kernel() string {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return ""
	}
	return unix.ByteSliceToString(name.Release[:])
}

// uptime is the time since the kernel started. It goes on as the clock is set.
func (System) uptime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_BOOTTIME, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

// memory is /proc/meminfo (proc(5)), in bytes. What cannot be read is 0.
func (s System) memory() map[string]uint64 {
	values := make(map[string]uint64)
	text, _ := os.ReadFile(filepath.Join(s.Proc, "meminfo"))
	for line := range strings.Lines(string(text)) {
		name, rest, _ := strings.Cut(line, ":")
		fields := strings.Fields(rest)
		if len(fields) == 2 && fields[1] == "kB" {
			kib, _ := strconv.ParseUint(fields[0], 10, 64)
			values[name] = kib << 10
		}
	}
	return values
}

// unitCPU is the processor time that a unit's cgroup has used (kernel:
// admin-guide/cgroup-v2, cpu.stat); 0 if it has none.
func (s System) unitCPU(unit string) time.Duration {
	text, _ := os.ReadFile(filepath.Join(s.Cgroups, unit, "cpu.stat"))
	for line := range strings.Lines(string(text)) {
		if value, ok := strings.CutPrefix(line, "usage_usec "); ok {
			usec, _ := strconv.ParseInt(strings.TrimSpace(value), 10, 64)
			return time.Duration(usec) * time.Microsecond
		}
	}
	return 0
}

// unitMemory is what a unit's cgroup holds; 0 if it has none.
func (s System) unitMemory(unit string) uint64 {
	text, _ := os.ReadFile(filepath.Join(s.Cgroups, unit, "memory.current"))
	bytes, _ := strconv.ParseUint(strings.TrimSpace(string(text)), 10, 64)
	return bytes
}
