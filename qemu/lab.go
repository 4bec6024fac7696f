package qemu

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"

	"golang.org/x/sys/unix"
)

// Lab is the handle of a lab that runs, or whose holder has died.
type Lab struct {
	dir string
}

// Open finds the lab called name below root (see StateRoot), dead or alive. The error is
// ErrNotUp when there is none.
func Open(root, name string) (*Lab, error) {
	lab := &Lab{dir: filepath.Join(root, name)}
	if _, err := os.Stat(filepath.Join(lab.dir, planFile)); err != nil {
		return nil, fmt.Errorf("open lab %s: %w; start it: slipway lab up %s", name, ErrNotUp, name)
	}
	return lab, nil
}

// List opens every lab below root.
func List(root string) ([]*Lab, error) {
	entries, err := os.ReadDir(root)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("list labs: %w", err)
	}
	var labs []*Lab
	for _, entry := range entries {
		if lab, err := Open(root, entry.Name()); err == nil {
			labs = append(labs, lab)
		}
	}
	return labs, nil
}

// Name is the lab's name.
func (l *Lab) Name() string { return filepath.Base(l.dir) }

// Dir is the lab's directory: consoles, logs, disks and what its service keeps there.
func (l *Lab) Dir() string { return l.dir }

// ConsolePath is the file with everything machine's serial console has printed.
func (l *Lab) ConsolePath(machine string) string {
	return filepath.Join(l.dir, filepath.Base(Machine{Name: machine}.consoleFile()))
}

// Status asks the lab. A dead lab answers with StateDead and no error.
func (l *Lab) Status(ctx context.Context) (Status, error) {
	who, err := l.holder()
	if errors.Is(err, ErrNotUp) {
		return Status{Name: l.Name(), State: StateDead, Dir: l.dir}, nil
	}
	starting := Status{Name: l.Name(), State: StateStarting, Dir: l.dir, PID: who.PID, Since: who.Since}
	if errors.Is(err, os.ErrNotExist) {
		return starting, nil
	}
	if err != nil {
		return Status{}, err
	}
	var s Status
	err = call(ctx, l.dir, "GET", "/status", &s)
	if errors.Is(err, os.ErrNotExist) || errors.Is(err, unix.ECONNREFUSED) {
		return starting, nil
	}
	if err != nil {
		return Status{}, err
	}
	s.Dir, s.PID, s.Since = l.dir, who.PID, who.Since
	return s, nil
}

// Power performs an action on a machine and returns when it is done.
func (l *Lab) Power(ctx context.Context, machine string, action Action) error {
	return l.ask(ctx, "POST", "/machines/"+url.PathEscape(machine)+"/"+url.PathEscape(string(action)), nil)
}

// Service performs PowerOn, PowerOff or PowerCycle on the boot service: off is SIGKILL, on
// returns once it accepts connections again.
func (l *Lab) Service(ctx context.Context, action Action) error {
	return l.ask(ctx, "POST", "/service/"+url.PathEscape(string(action)), nil)
}

// ask calls the holder; the error is ErrNotUp when there is none.
func (l *Lab) ask(ctx context.Context, method, path string, out any) error {
	if _, err := l.holder(); err != nil {
		return err
	}
	return call(ctx, l.dir, method, path, out)
}

// holder returns who runs the lab, or ErrNotUp.
func (l *Lab) holder() (holder, error) {
	if !held(l.dir) {
		return holder{}, fmt.Errorf("lab %s: %w; its logs are in %s", l.Name(), ErrNotUp, l.dir)
	}
	var who holder
	err := readJSON(filepath.Join(l.dir, holderFile), &who)
	return who, err
}

// Enter returns the command line that runs command inside the lab's network, with this
// user's files and rights, as a member of the lab: it ends when the lab ends.
func (l *Lab) Enter(command ...string) ([]string, error) {
	who, err := l.holder()
	if err != nil {
		return nil, err
	}
	nsenter, err := exec.LookPath("nsenter")
	if err != nil {
		return nil, fmt.Errorf("enter lab %s: %w (Debian package util-linux)", l.Name(), err)
	}
	args := []string{nsenter, "--target", strconv.Itoa(who.PID), "--net", "--pid"}
	if who.UserNamespace {
		args = append(args, "--user", "--preserve-credentials")
	}
	return append(append(args, "--"), command...), nil
}

// Down ends the lab and returns when all its processes are gone. The directory goes too,
// unless keep is set. It may be repeated, and clears up after a dead holder.
func (l *Lab) Down(ctx context.Context, keep bool) error {
	who, err := l.holder()
	if err == nil {
		err = kill(ctx, who.PID, func() bool { return held(l.dir) })
	} else if errors.Is(err, ErrNotUp) {
		err = nil
	}
	if err != nil {
		return fmt.Errorf("end lab %s: %w", l.Name(), err)
	}
	if keep {
		return nil
	}
	if err := os.RemoveAll(l.dir); err != nil {
		return fmt.Errorf("remove lab %s: %w", l.Name(), err)
	}
	return nil
}

// kill ends process pid and waits until it, and so its process namespace, is gone. Between
// taking hold of the process and killing it, it asks whether it is still the one that is meant.
func kill(ctx context.Context, pid int, meant func() bool) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("find process %d: %w", pid, err)
	}
	defer unix.Close(fd)
	if !meant() {
		return nil
	}
	if err := unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0); err != nil && !errors.Is(err, unix.ESRCH) {
		return fmt.Errorf("kill process %d: %w", pid, err)
	}
	for ctx.Err() == nil {
		ready, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 100)
		if ready > 0 {
			return nil
		}
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("wait for process %d: %w", pid, err)
		}
	}
	return fmt.Errorf("wait for process %d to end: %w", pid, ctx.Err())
}
