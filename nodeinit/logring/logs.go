package logring

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"
)

// FileSize bounds one log file, in bytes. A full one becomes NAME.log.1, and
// the one before it goes: a unit has at most twice this much on disk.
const FileSize = 1 << 20

// Logs is the logs of all units, by name.
type Logs struct {
	dir string

	mu   sync.Mutex
	logs map[string]*unitLog
}

// Open makes Logs that also write to files in dir, which is made when it is
// first needed. Without a dir there are only rings.
func Open(dir string) *Logs {
	return &Logs{dir: dir, logs: make(map[string]*unitLog)}
}

// Writer is where a unit's lines go. It is the same for each call.
func (l *Logs) Writer(unit string) io.Writer { return l.log(unit) }

// Ring is a unit's ring, or an error if the unit never had one.
func (l *Logs) Ring(unit string) (*Ring, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if log := l.logs[unit]; log != nil {
		return &log.ring, nil
	}
	var names []string
	for name := range l.logs {
		names = append(names, name)
	}
	slices.Sort(names)
	return nil, fmt.Errorf("no log of unit %q; there are %q", unit, names)
}

func (l *Logs) log(unit string) *unitLog {
	l.mu.Lock()
	defer l.mu.Unlock()
	log := l.logs[unit]
	if log == nil {
		log = &unitLog{}
		if l.dir != "" {
			log.file.path = filepath.Join(l.dir, unit+".log")
		}
		l.logs[unit] = log
	}
	return log
}

// Close closes the files, so that their file system can be unmounted. The
// rings go on.
func (l *Logs) Close() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, log := range l.logs {
		log.mu.Lock()
		log.file.close()
		log.file.path = ""
		log.mu.Unlock()
	}
}

type unitLog struct {
	ring Ring
	mu   sync.Mutex
	file file
}

// Write never fails: a full disk must not stop a unit.
func (u *unitLog) Write(b []byte) (int, error) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.file.write(b)
	return u.ring.Write(b)
}

// file is a log file that is opened when it is first written, and replaced
// when it is full.
type file struct {
	path string // empty: none
	f    *os.File
	size int64
}

func (f *file) write(b []byte) {
	if f.path == "" || f.f == nil && f.open() != nil {
		return
	}
	stamp := time.Now().UTC().Format("2006-01-02T15:04:05.000Z ")
	n, _ := f.f.Write(append([]byte(stamp), b...))
	if f.size += int64(n); f.size >= FileSize {
		f.close()
		os.Rename(f.path, f.path+".1")
	}
}

func (f *file) open() error {
	if err := os.MkdirAll(filepath.Dir(f.path), 0o755); err != nil {
		return err
	}
	opened, err := os.OpenFile(f.path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o640)
	if err != nil {
		return err
	}
	info, err := opened.Stat()
	if err != nil {
		opened.Close()
		return err
	}
	f.f, f.size = opened, info.Size()
	return nil
}

func (f *file) close() {
	if f.f != nil {
		f.f.Close()
		f.f = nil
	}
}
