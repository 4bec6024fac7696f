package qemu

import (
	"errors"
	"os"
	"os/exec"
	"sync"
	"time"
)

// process is something the holder runs that may be started again. Its zero value, with
// procs set, has not run yet. Methods may be called at the same time, start only once at a time.
type process struct {
	procs *children

	mu    sync.Mutex
	cmd   *exec.Cmd     // nil: does not run
	ended chan struct{} // closed when cmd has ended
	since time.Time     // of the last start or end
	last  string        // how it ended last
}

// start runs cmd, its output appended to the file log, and a goroutine that records its end.
func (p *process) start(cmd *exec.Cmd, log string) error {
	out, err := os.OpenFile(log, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	defer out.Close() // the process has its own copy
	cmd.Stdout, cmd.Stderr = out, out
	if err := p.procs.start(cmd); err != nil {
		return err
	}
	ended := make(chan struct{})
	p.mu.Lock()
	p.cmd, p.ended, p.since = cmd, ended, time.Now()
	p.mu.Unlock()
	go func() { // ends with cmd; closes ended
		err := p.procs.wait(cmd)
		p.mu.Lock()
		defer p.mu.Unlock()
		p.cmd, p.since, p.last = nil, time.Now(), "exit status 0"
		if err != nil {
			p.last = err.Error()
		}
		close(ended)
	}()
	return nil
}

// kill ends the process at once and returns when it is gone.
func (p *process) kill() error {
	p.mu.Lock()
	cmd, ended := p.cmd, p.ended
	p.mu.Unlock()
	if cmd == nil {
		return nil
	}
	if err := cmd.Process.Kill(); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return err
	}
	<-ended // a killed process ends
	return nil
}

func (p *process) running() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.cmd != nil
}

// done is closed when the process that was started last has ended.
func (p *process) done() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.ended
}

func (p *process) status() ProcessStatus {
	p.mu.Lock()
	defer p.mu.Unlock()
	s := ProcessStatus{Running: p.cmd != nil, Since: p.since, LastEnd: p.last}
	if p.cmd != nil {
		s.PID = p.cmd.Process.Pid
	}
	return s
}
