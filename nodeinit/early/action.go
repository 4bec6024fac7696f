// Package early makes a bare kernel into something that units can run on:
// file systems, device nodes, kernel settings, control groups, the switch from
// the initramfs to the root image. What is to be done is data, in tables.go;
// one loop does it. PID 1 calls it, first thing.
package early

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// action is one thing done to the machine. String is what it is, for errors.
type action interface {
	do() error
	String() string
}

// apply does all actions in their order, whatever becomes of each: a node with
// one mount missing can still tell somebody. Errors are joined.
func apply(log *slog.Logger, actions []action) error {
	var errs []error
	for _, a := range actions {
		err := a.do()
		if o, optional := a.(optional); optional && err != nil {
			log.Info("skipped", "action", o.String(), "reason", err)
		} else if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", a, err))
		}
	}
	return errors.Join(errs...)
}

// optional is an action that a kernel may not offer.
type optional struct{ action }

// mount attaches a file system; the mount point is made.
type mount struct {
	fs, target string
	flags      uintptr
	options    string
}

func (m mount) String() string { return fmt.Sprintf("mount %s on %s", m.fs, m.target) }

func (m mount) do() error {
	if err := os.MkdirAll(m.target, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	return unix.Mount(m.fs, m.target, m.fs, m.flags, m.options)
}

// remount changes how a mount behaves (propagation flags).
type remount struct {
	target string
	flags  uintptr
}

func (m remount) String() string { return fmt.Sprintf("change mount %s to %#x", m.target, m.flags) }
func (m remount) do() error      { return unix.Mount("", m.target, "", m.flags, "") }

// move moves a mount to a new place.
type move struct{ from, to string }

func (m move) String() string { return fmt.Sprintf("move mount %s to %s", m.from, m.to) }
func (m move) do() error      { return unix.Mount(m.from, m.to, "", unix.MS_MOVE, "") }

// bind shows a file in a second place.
type bind struct{ from, to string }

func (b bind) String() string { return fmt.Sprintf("bind %s on %s", b.from, b.to) }
func (b bind) do() error      { return unix.Mount(b.from, b.to, "", unix.MS_BIND, "") }

// dir makes a folder and those above it.
type dir struct {
	path string
	mode os.FileMode
}

func (d dir) String() string { return "make folder " + d.path }

func (d dir) do() error {
	if err := os.MkdirAll(d.path, 0o755); err != nil {
		return err
	}
	return os.Chmod(d.path, d.mode) // whatever the umask is
}

// link makes a symbolic link; one that is there is replaced.
type link struct{ path, to string }

func (l link) String() string { return fmt.Sprintf("link %s to %s", l.path, l.to) }

func (l link) do() error {
	if err := os.Remove(l.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return os.Symlink(l.to, l.path)
}

// set writes a value to a file of the kernel, which must exist.
type set struct{ path, value string }

func (s set) String() string { return fmt.Sprintf("set %s to %s", s.path, s.value) }

func (s set) do() error {
	file, err := os.OpenFile(s.path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = file.WriteString(s.value)
	return errors.Join(err, file.Close())
}

// copyTree copies a folder of plain files, folders and links.
type copyTree struct{ from, to string }

func (c copyTree) String() string { return fmt.Sprintf("copy %s to %s", c.from, c.to) }

func (c copyTree) do() error {
	return filepath.WalkDir(c.from, func(path string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		rel, err := filepath.Rel(c.from, path)
		if err != nil {
			return err
		}
		return copyOne(path, filepath.Join(c.to, rel), entry)
	})
}

func copyOne(from, to string, entry fs.DirEntry) error {
	info, err := entry.Info()
	if err != nil {
		return err
	}
	switch {
	case entry.IsDir():
		return os.MkdirAll(to, info.Mode().Perm())
	case info.Mode()&fs.ModeSymlink != 0:
		target, err := os.Readlink(from)
		if err != nil {
			return err
		}
		return link{to, target}.do()
	default:
		data, err := os.ReadFile(from)
		if err != nil {
			return err
		}
		return os.WriteFile(to, data, info.Mode().Perm())
	}
}
