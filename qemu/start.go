package qemu

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// Leash is a lab in the hands of the process that started it. Until it is released, the lab
// ends with that process, however that ends.
type Leash struct {
	*Lab
	cmd   *exec.Cmd
	conn  net.Conn
	ended chan struct{} // closed when the holder and all of the lab are gone
}

// Start makes a lab below root and returns when its machines are powered on, or with an
// error and no lab. hold is the command line, with an absolute path, of a process that calls
// Hold. Each step is told to progress. When ctx ends before Start returns, so does the lab.
func Start(ctx context.Context, root string, c Config, hold []string, progress func(string)) (*Leash, error) {
	c = c.WithDefaults()
	if err := c.Validate(); err != nil {
		return nil, fmt.Errorf("start lab: %w", err)
	}
	host, err := FindHost(ctx, c.Machines)
	if err != nil {
		return nil, fmt.Errorf("start lab %s: %w", c.Name, err)
	}
	leash, err := launch(filepath.Join(root, c.Name), plan{Config: c, Host: host}, hold)
	if err != nil {
		return nil, fmt.Errorf("start lab %s: %w", c.Name, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = leash.conn.Close() })
	defer stop()
	if err := leash.awaitReady(progress); err != nil {
		leash.Cut()
		if ctx.Err() != nil {
			err = ctx.Err()
		}
		return nil, fmt.Errorf("start lab %s: %w (its logs are in %s)", c.Name, err, leash.dir)
	}
	return leash, nil
}

// launch claims dir and starts the holder in it.
func launch(dir string, p plan, hold []string) (*Leash, error) {
	lock, err := claim(dir)
	if err != nil {
		return nil, err
	}
	defer lock.Close() // the holder has its own copy, and with it the lock
	if err := writeJSON(filepath.Join(dir, planFile), p); err != nil {
		return nil, err
	}
	conn, theirs, err := socketPair()
	if err != nil {
		return nil, err
	}
	defer theirs.Close()
	leash := &Leash{Lab: &Lab{dir: dir}, conn: conn, ended: make(chan struct{})}
	who := holder{UserNamespace: true, Since: time.Now()}
	leash.cmd, err = startHolder(dir, hold, []*os.File{theirs, lock}, syscall.CLONE_NEWUSER)
	if err != nil && os.Geteuid() == 0 {
		who.UserNamespace = false // there may be none, and root needs none
		leash.cmd, err = startHolder(dir, hold, []*os.File{theirs, lock}, 0)
	}
	if err != nil {
		return nil, errors.Join(namespaceError(err), conn.Close())
	}
	go func() { // ends with the holder; closes ended
		_ = leash.cmd.Wait() // its last words are on the leash and in its log
		close(leash.ended)
	}()
	who.PID = leash.cmd.Process.Pid
	if err := writeJSON(filepath.Join(dir, holderFile), who); err != nil {
		leash.Cut()
		return nil, err
	}
	return leash, nil
}

// startHolder starts the holder as PID 1 of new namespaces. inherit becomes leashFD, lockFD.
func startHolder(dir string, hold []string, inherit []*os.File, user uintptr) (*exec.Cmd, error) {
	log, err := os.OpenFile(filepath.Join(dir, holderLog), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(hold[0], hold[1:]...)
	cmd.Dir, cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = dir, log, log, inherit
	cmd.SysProcAttr = isolation(user)
	return cmd, cmd.Start()
}

// awaitReady passes on what the holder reports until it is ready.
func (l *Leash) awaitReady(tell func(string)) error {
	lines := json.NewDecoder(bufio.NewReader(l.conn))
	for {
		var p progress
		if err := lines.Decode(&p); err != nil {
			if errors.Is(err, io.EOF) {
				return fmt.Errorf("the holder ended early: %s", strings.TrimSpace(tail(filepath.Join(l.dir, holderLog), 2000)))
			}
			return fmt.Errorf("listen to the holder: %w", err)
		}
		switch {
		case p.Error != "":
			return errors.New(p.Error)
		case p.Ready:
			return nil
		default:
			tell(p.Doing)
		}
	}
}

// Release lets the lab live on without this process.
func (l *Leash) Release() error {
	_, err := l.conn.Write([]byte{'r'})
	if err = errors.Join(err, l.conn.Close()); err != nil {
		return fmt.Errorf("release lab %s: %w", l.Name(), err)
	}
	return nil
}

// Ended is closed when the lab has ended and all its processes are gone.
func (l *Leash) Ended() <-chan struct{} { return l.ended }

// Cut ends the lab at once and returns when all its processes are gone. Its directory stays:
// Down removes it. It may be repeated.
func (l *Leash) Cut() {
	_ = l.conn.Close()
	_ = l.cmd.Process.Kill() // fails only if it has ended
	<-l.ended
}
