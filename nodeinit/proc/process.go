// Package proc runs programs as units: each in its own cgroup, with its output
// line by line in a log, ready when its probe says so, and gone entirely when
// it stops. It also holds what a unit needs around its program: the files it
// reads and the reaping that PID 1 owes to everybody's orphans.
//
// It does not order or restart anything; that is package supervise.
package proc

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"reflect"
	"slices"
	"strconv"
	"sync"
	"syscall"
	"time"

	"slipway/nodeinit/supervise"
)

const (
	// DefaultStopTimeout is how long a process has between the stop signal and SIGKILL.
	DefaultStopTimeout = 20 * time.Second
	// DefaultReadyTimeout is how long a process may take until its probe succeeds.
	// It is for one that hangs: to stop one that is slow makes it begin anew.
	DefaultReadyTimeout = 10 * time.Minute

	probeInterval = 100 * time.Millisecond
	probeTimeout  = 5 * time.Second
	searchPath    = "PATH=/usr/sbin:/usr/bin:/sbin:/bin"
)

// Process is a program run as a service. Its exported fields say all there is
// to know about how it runs; they are not changed while it does.
type Process struct {
	Name string
	Path string
	Args []string // without the program's name
	Env  []string // KEY=value; a PATH is always there
	Dir  string   // working directory; empty: /

	Cgroup       string        // below Runner's CgroupRoot; empty: Name
	Ready        Probe         // nil: ready once started
	ReadyTimeout time.Duration // 0: DefaultReadyTimeout; then it is stopped, and Run fails
	StopSignal   syscall.Signal
	StopTimeout  time.Duration // 0: DefaultStopTimeout; then SIGKILL to its whole cgroup
	OOMScoreAdj  int
	CPUWeight    int // share of a busy processor, 1 to 10000 (cgroup v2, cpu.weight); 0: 100, the kernel's default

	// Reads are the files that the program reads only when it starts. When one
	// is not as it was, the process is another one: Apply restarts it.
	Reads []string

	// LeaveChildren keeps what the process started alive when it ends:
	// containerd's shims, and so its containers, outlive containerd.
	LeaveChildren bool

	Log io.Writer // gets one Write for each line; nil: the lines are dropped

	cgroupRoot string            // set by Runner; empty: no cgroup
	inputs     [sha256.Size]byte // of what Reads held then; set by Runner

	mu       sync.Mutex
	pid      int
	waiting  string
	lastLine string
}

// Run starts the process and blocks until it has ended, and nothing of it is
// left. When ctx is cancelled it is asked to stop; Run then returns nil, or an
// error if it had to be killed. Otherwise the error holds the exit status and
// the last line of output.
func (p *Process) Run(ctx context.Context, ready func()) error {
	group, err := p.openCgroup()
	if err != nil {
		return err
	}
	defer group.close()

	out, in, err := os.Pipe()
	if err != nil {
		return fmt.Errorf("make a pipe for the output of %s: %w", p.Name, err)
	}
	defer out.Close()
	p.setLast("")
	cmd := p.command(in, group)
	err = cmd.Start()
	in.Close()
	if err != nil {
		return fmt.Errorf("start %s: %w", p.Path, err)
	}
	p.setPID(cmd.Process.Pid)
	defer p.setPID(0)
	p.adjustOOM(cmd.Process.Pid)

	drained := make(chan struct{})
	go func() { defer close(drained); p.copyLines(out) }()
	exited := make(chan error, 1)
	go func() { exited <- cmd.Wait() }()

	err = p.watch(ctx, ready, cmd, group, exited)
	if !p.LeaveChildren {
		err = errors.Join(err, group.kill(), killSession(cmd.Process.Pid, group))
	}
	// What was left running may hold the pipe open: give its last lines a moment.
	out.SetReadDeadline(time.Now().Add(time.Second))
	<-drained
	return p.describe(err)
}

// watch waits for the process to be ready, to end, or to be told to stop.
// It returns when the process has ended.
func (p *Process) watch(ctx context.Context, ready func(), cmd *exec.Cmd, group *cgroup, exited chan error) error {
	probing, stop := context.WithTimeout(ctx, orDefault(p.ReadyTimeout, DefaultReadyTimeout))
	defer stop()
	probed := make(chan error, 1)
	go func() { probed <- p.awaitReady(probing) }()

	for {
		select {
		case err := <-exited:
			stop()
			if probed != nil {
				<-probed
			}
			return exitError(err)
		case err := <-probed:
			probed = nil
			if err == nil {
				ready()
				continue
			}
			killed := p.stop(cmd, group, exited)
			if ctx.Err() != nil {
				return killed
			}
			return fmt.Errorf("not ready after %s: %w", orDefault(p.ReadyTimeout, DefaultReadyTimeout), err)
		case <-ctx.Done():
			if probed != nil {
				<-probed
			}
			return p.stop(cmd, group, exited)
		}
	}
}

// stop asks the process to end and waits; after StopTimeout it kills it and
// all in its cgroup. The error says that it came to that.
func (p *Process) stop(cmd *exec.Cmd, group *cgroup, exited <-chan error) error {
	signal := p.StopSignal
	if signal == 0 {
		signal = syscall.SIGTERM
	}
	if err := cmd.Process.Signal(signal); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("signal %s: %w", p.Name, err)
	}
	timeout := orDefault(p.StopTimeout, DefaultStopTimeout)
	deadline := time.NewTimer(timeout)
	defer deadline.Stop()
	select {
	case <-exited:
		return nil
	case <-deadline.C:
	}
	killed := fmt.Errorf("did not stop within %s of %s: killed", timeout, signal)
	if p.LeaveChildren {
		killed = errors.Join(killed, cmd.Process.Kill())
	} else {
		killed = errors.Join(killed, group.kill(), killSession(cmd.Process.Pid, group))
	}
	<-exited
	return killed
}

// awaitReady polls the probe until it succeeds. Its error is the last one of
// the probe.
func (p *Process) awaitReady(ctx context.Context) error {
	if p.Ready == nil {
		return nil
	}
	rest := time.NewTimer(0)
	defer rest.Stop()
	defer p.setWaiting("")
	p.setWaiting(p.Ready.String())
	probe, end := repeatedly(p.Ready)
	defer end()
	for {
		began := time.Now()
		once, cancel := context.WithTimeout(ctx, probeTimeout)
		err := probe(once)
		cancel()
		if err == nil {
			return nil
		}
		if ctx.Err() == nil {
			p.setWaiting(fmt.Sprintf("%s: %v", p.Ready, err))
		}
		rest.Reset(Rest(probeInterval, time.Since(began)))
		select {
		case <-ctx.Done():
			return fmt.Errorf("probe %s: %w", p.Ready, err)
		case <-rest.C:
		}
	}
}

func (p *Process) command(output *os.File, group *cgroup) *exec.Cmd {
	cmd := exec.Command(p.Path, p.Args...)
	cmd.Env = append([]string{searchPath}, p.Env...)
	cmd.Dir = p.Dir
	if cmd.Dir == "" {
		cmd.Dir = "/"
	}
	cmd.Stdout, cmd.Stderr = output, output
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if group != nil {
		cmd.SysProcAttr.UseCgroupFD = true
		cmd.SysProcAttr.CgroupFD = int(group.dir.Fd())
	}
	return cmd
}

// Equal reports whether other is a Process that would run in the same way.
func (p *Process) Equal(other supervise.Service) bool {
	o, ok := other.(*Process)
	return ok && p.Name == o.Name && p.Path == o.Path && p.Dir == o.Dir &&
		slices.Equal(p.Args, o.Args) && slices.Equal(p.Env, o.Env) &&
		p.Cgroup == o.Cgroup && reflect.DeepEqual(p.Ready, o.Ready) && p.ReadyTimeout == o.ReadyTimeout &&
		p.StopSignal == o.StopSignal && p.StopTimeout == o.StopTimeout &&
		p.OOMScoreAdj == o.OOMScoreAdj && p.CPUWeight == o.CPUWeight && p.LeaveChildren == o.LeaveChildren &&
		slices.Equal(p.Reads, o.Reads) && p.inputs == o.inputs
}

// PID is the running process, or 0.
func (p *Process) PID() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.pid
}

// WaitingFor says what keeps a started process from being ready: its probe
// and the probe's last error.
func (p *Process) WaitingFor() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.waiting
}

func (p *Process) setPID(pid int)      { p.mu.Lock(); p.pid = pid; p.mu.Unlock() }
func (p *Process) setWaiting(s string) { p.mu.Lock(); p.waiting = s; p.mu.Unlock() }
func (p *Process) setLast(s string)    { p.mu.Lock(); p.lastLine = s; p.mu.Unlock() }

// describe adds the last line of output to an error: most programs say why
// they end just before they do.
func (p *Process) describe(err error) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err == nil || p.lastLine == "" {
		return err
	}
	return fmt.Errorf("%w: %s", err, p.lastLine)
}

func (p *Process) adjustOOM(pid int) {
	if p.OOMScoreAdj == 0 {
		return
	}
	// A process that is already gone, or a host that forbids it, is no reason to fail.
	os.WriteFile("/proc/"+strconv.Itoa(pid)+"/oom_score_adj", []byte(strconv.Itoa(p.OOMScoreAdj)), 0)
}

// exitError says how a process ended: "exit status 1", "signal: killed". A
// process that ends well by itself is nil: Restart decides what that means.
func exitError(err error) error {
	if err == nil {
		return nil
	}
	return fmt.Errorf("ended: %w", err)
}

func orDefault(d, fallback time.Duration) time.Duration {
	if d == 0 {
		return fallback
	}
	return d
}
