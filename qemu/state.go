package qemu

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// The files of a lab's directory, which is also the working directory of its processes.
const (
	lockFile    = "lock"        // locked for as long as the holder lives
	planFile    = "lab.json"    // plan: what the holder is to run
	holderFile  = "holder.json" // holder: who runs it
	controlFile = "control"     // Unix socket: HTTP
	holderLog   = "holder.log"
	serviceLog  = "service.log"
)

// ErrNotUp means that no holder runs under a lab's name.
var ErrNotUp = errors.New("lab is not up")

// plan is what Start writes for Hold.
type plan struct {
	Config Config `json:"config"`
	Host   Host   `json:"host"`
}

// holder is what Start records about the process it made.
type holder struct {
	PID           int       `json:"pid"`           // as seen from outside
	UserNamespace bool      `json:"userNamespace"` // false when root may not make one
	Since         time.Time `json:"since"`
}

// StateRoot is the folder of all labs of this user: $XDG_STATE_HOME/slipway/lab, by default
// ~/.local/state/slipway/lab.
func StateRoot() (string, error) {
	state := os.Getenv("XDG_STATE_HOME")
	if state == "" {
		home, err := os.UserHomeDir()
		if err != nil {
			return "", fmt.Errorf("find the home directory: %w", err)
		}
		state = filepath.Join(home, ".local", "state")
	}
	root, err := filepath.Abs(filepath.Join(state, "slipway", "lab"))
	if err != nil {
		return "", fmt.Errorf("find the state directory: %w", err)
	}
	return root, nil
}

// claim takes the lock of the lab in dir, which it creates, and empties dir of what a dead
// holder left. The caller passes the file on to the holder, or closes it.
func claim(dir string) (*os.File, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("make the lab's directory: %w", err)
	}
	lock, err := os.OpenFile(filepath.Join(dir, lockFile), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		return nil, fmt.Errorf("open the lab's lock: %w", err)
	}
	// A lock of the open file (OFD): the holder inherits it, and held can look without taking it.
	want := unix.Flock_t{Type: unix.F_WRLCK}
	if err := unix.FcntlFlock(lock.Fd(), unix.F_OFD_SETLK, &want); err != nil {
		return nil, errors.Join(fmt.Errorf("lab %s is already up: end it with `slipway lab down`, or choose another name", filepath.Base(dir)), lock.Close())
	}
	entries, err := os.ReadDir(dir)
	for _, entry := range entries {
		if entry.Name() != lockFile {
			err = errors.Join(err, os.RemoveAll(filepath.Join(dir, entry.Name())))
		}
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("clear the lab's directory: %w", err), lock.Close())
	}
	return lock, nil
}

// held reports whether a holder lives in dir.
func held(dir string) bool {
	lock, err := os.Open(filepath.Join(dir, lockFile))
	if err != nil {
		return false
	}
	defer lock.Close()
	other := unix.Flock_t{Type: unix.F_WRLCK}
	err = unix.FcntlFlock(lock.Fd(), unix.F_OFD_GETLK, &other)
	return err == nil && other.Type != unix.F_UNLCK
}

func writeJSON(path string, value any) error {
	data, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	if err := os.WriteFile(path, append(data, '\n'), 0o600); err != nil {
		return fmt.Errorf("write %s: %w", filepath.Base(path), err)
	}
	return nil
}

func readJSON(path string, value any) error {
	data, err := os.ReadFile(path)
	if err != nil {
		return fmt.Errorf("read %s: %w", filepath.Base(path), err)
	}
	if err := json.Unmarshal(data, value); err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return nil
}
