package snapshot

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrFull says that the disk has no room for a snapshot.
var ErrFull = errors.New("the disk is full")

// spare is how many bytes stay free on the disk: the boot service keeps its own
// state there too, and must not be stopped by a snapshot.
const spare = 256 << 20

// step is how many bytes are written between two looks at the free space.
const step = 16 << 20

// room refuses to begin with what does not fit. size is in bytes.
func (s *Store) room(size int64) error {
	free, err := s.free(s.dir)
	if err != nil {
		return fmt.Errorf("look for space in %s: %w", s.dir, err)
	}
	if free < size+spare {
		return s.full(free, size)
	}
	return nil
}

// full says what is missing, and what became of the snapshots that are there.
func (s *Store) full(free, size int64) error {
	kept, _ := s.List("") // for the text only
	return fmt.Errorf("%w: %s has %s free and needs %s for it, of which %s stay free for the boot service itself; "+
		"the snapshots that are kept (%d) were not touched, and nothing of this one was left: make room, or keep fewer with etcd.snapshots.keep",
		ErrFull, s.dir, gigabytes(free), gigabytes(size+spare), gigabytes(spare), len(kept))
}

// explain turns what the system says of a full disk into ErrFull.
func (s *Store) explain(err error, size int64) error {
	if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
		return err
	}
	free, _ := s.free(s.dir) // for the text only
	return s.full(free, size)
}

// write writes a new file from a reader, within MaxSize and the disk's room.
func (s *Store) write(path string, from io.Reader) error {
	bounded := &io.LimitedReader{R: from, N: MaxSize + 1}
	if err := writeSynced(path, &roomy{from: bounded, store: s}); err != nil {
		return err
	}
	if bounded.N == 0 {
		return fmt.Errorf("%w: more than %s came, which no etcd holds", ErrBad, gigabytes(MaxSize))
	}
	return nil
}

// roomy is a reader that fails when the disk it is written to gets full.
type roomy struct {
	from  io.Reader
	store *Store
	read  int64 // bytes
	next  int64 // when it looks again
}

func (r *roomy) Read(p []byte) (int, error) {
	if r.read >= r.next {
		if err := r.store.room(step); err != nil {
			return 0, err
		}
		r.next += step
	}
	n, err := r.from.Read(p)
	r.read += int64(n)
	return n, err
}

// writeSynced writes a new file, mode 0600, and waits until the disk has it.
func writeSynced(path string, from io.Reader) error {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.CopyBuffer(struct{ io.Writer }{file}, from, make([]byte, 1<<20))
	return errors.Join(err, file.Sync(), file.Close())
}

// syncFolder waits until the disk has the folder's names.
func syncFolder(dir string) error {
	folder, err := os.Open(dir)
	if err != nil {
		return err
	}
	return errors.Join(folder.Sync(), folder.Close())
}

func freeSpace(dir string) (int64, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return 0, err
	}
	return int64(fs.Bavail) * fs.Bsize, nil
}

// tidy removes what was being written when an earlier process ended.
func (s *Store) tidy() error {
	files, err := filepath.Glob(filepath.Join(s.dir, "*", "*"))
	if err != nil {
		return fmt.Errorf("look through %s: %w", s.dir, err)
	}
	var errs []error
	for _, file := range files {
		errs = append(errs, s.tidyFile(file))
	}
	return errors.Join(errs...)
}

func (s *Store) tidyFile(file string) error {
	base, ending := strings.TrimSuffix(file, filepath.Ext(file)), filepath.Ext(file)
	switch {
	case strings.HasPrefix(filepath.Base(file), part):
		s.log.Warn("removed a half-written snapshot: take it again", "unit", unit, "file", file)
	case ending == ".json" && missing(base+".db"):
		s.log.Warn("removed the description of a snapshot whose file is not there", "unit", unit, "file", file)
	case ending == ".db" && missing(base+".json"):
		s.log.Warn("this file is none of the snapshots that are kept: slipway cluster restore --snapshot FILE takes it", "unit", unit, "file", file)
		return nil
	default:
		return nil
	}
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("tidy up: %w", err)
	}
	return nil
}

func missing(file string) bool {
	_, err := os.Stat(file)
	return errors.Is(err, fs.ErrNotExist)
}

// gigabytes is a number of bytes for people.
func gigabytes(bytes int64) string {
	if bytes >= 1<<30 {
		return fmt.Sprintf("%.1f GiB", float64(bytes)/(1<<30))
	}
	return fmt.Sprintf("%.1f MiB", float64(bytes)/(1<<20))
}
