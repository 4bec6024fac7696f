package proc

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"syscall"

	"slipway/nodeinit/supervise"
)

// Runner is where processes run: which cgroup is above theirs, and where
// their lines go. PID 1 has one; tests that may not make cgroups leave
// CgroupRoot empty.
type Runner struct {
	CgroupRoot string                      // a cgroup v2 folder that may have children; empty: no cgroups
	Log        func(unit string) io.Writer // nil: lines are dropped
}

// Logged is a service that is not a Process and wants its lines in the unit's
// log: PID 1 calls LogTo before it starts the unit.
type Logged interface {
	LogTo(w io.Writer)
}

// Adopt prepares units to run here. It is called once for each unit, before
// the supervisor gets it and after the unit's files were written.
func (r Runner) Adopt(units []supervise.Unit) {
	for _, u := range units {
		var log io.Writer
		if r.Log != nil {
			log = r.Log(u.Name)
		}
		switch s := u.Service.(type) {
		case *Process:
			s.cgroupRoot, s.Log, s.inputs = r.CgroupRoot, log, digest(s.Reads)
		case Logged:
			s.LogTo(log)
		}
	}
}

// cgroup is a process's own control group (kernel: admin-guide/cgroup-v2).
// A nil cgroup is none.
type cgroup struct {
	dir *os.File
}

// openCgroup makes the process's cgroup, or finds the one of its last run.
func (p *Process) openCgroup() (*cgroup, error) {
	if p.cgroupRoot == "" {
		return nil, nil
	}
	name := p.Cgroup
	if name == "" {
		name = p.Name
	}
	path := filepath.Join(p.cgroupRoot, name)
	if err := os.MkdirAll(path, 0o755); err != nil {
		return nil, fmt.Errorf("make cgroup of %s: %w", p.Name, err)
	}
	if err := p.setWeight(path); err != nil {
		return nil, err
	}
	dir, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("open cgroup of %s: %w", p.Name, err)
	}
	return &cgroup{dir: dir}, nil
}

// setWeight also takes back what an earlier run had. A process that asks for
// nothing runs without the controller, too.
func (p *Process) setWeight(cgroup string) error {
	const file = "cpu.weight"
	err := os.WriteFile(filepath.Join(cgroup, file), []byte(strconv.Itoa(cmp.Or(p.CPUWeight, 100))), 0)
	if err != nil && p.CPUWeight != 0 {
		return fmt.Errorf("set the weight of %s: %w", p.Name, err)
	}
	return nil
}

// kill sends SIGKILL to all in the cgroup, those forking just now included.
func (c *cgroup) kill() error {
	if c == nil {
		return nil
	}
	err := os.WriteFile(filepath.Join(c.dir.Name(), "cgroup.kill"), []byte("1"), 0)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("kill cgroup %s: %w", c.dir.Name(), err)
	}
	return nil
}

func (c *cgroup) close() {
	if c != nil {
		c.dir.Close()
	}
}

// killSession is kill for a process without a cgroup: its process group, which
// is as near as one comes.
func killSession(pid int, group *cgroup) error {
	if group != nil {
		return nil
	}
	err := syscall.Kill(-pid, syscall.SIGKILL)
	if err != nil && !errors.Is(err, syscall.ESRCH) {
		return fmt.Errorf("kill process group %d: %w", pid, err)
	}
	return nil
}
