package vmtest

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
)

// Slipway is the command line of `slipway ARGS` as the administrator of the lab's boot
// service, for Try, TryWithin and Start.
func (l *Lab) Slipway(args ...string) []string {
	return append([]string{l.bin, "--context", l.ContextFile()}, args...)
}

// KubectlCommand is the command line of kubectl in the lab's network, for Start.
func (l *Lab) KubectlCommand(t *testing.T, args ...string) []string {
	t.Helper()
	l.Kubectl(t, "version", "--client") // fetches the kubeconfig
	return append([]string{"env", "KUBECONFIG=" + l.Dir() + "/kubeconfig", l.Dir() + "/kubectl"}, args...)
}

// TryWithin is Try with an own limit, which is not scaled.
func (l *Lab) TryWithin(limit time.Duration, command ...string) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	argv, err := l.Enter(command...)
	if err != nil {
		return "", err
	}
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	out, err := cmd.CombinedOutput()
	return string(out), err
}

// Process is a command that runs beside the story.
type Process struct {
	cmd  *exec.Cmd
	said bytes.Buffer
}

// Start runs a command of this computer in the lab's network until Stop.
func (l *Lab) Start(t *testing.T, command ...string) *Process {
	t.Helper()
	argv, err := l.Enter(command...)
	if err != nil {
		t.Fatal(err)
	}
	p := &Process{cmd: exec.Command(argv[0], argv[1:]...)}
	p.cmd.Env = append(os.Environ(), "XDG_STATE_HOME="+l.state)
	p.cmd.Stdout, p.cmd.Stderr = &p.said, &p.said
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return p
}

// Stop kills the command and everything it started, and prints what it said if the story failed.
func (p *Process) Stop(t *testing.T) {
	t.Helper()
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL) // fails only if all have ended
	_ = p.cmd.Wait()                                      // killed
	if t.Failed() {
		t.Logf("%s said:\n%s", p.cmd.Args, &p.said)
	}
}
