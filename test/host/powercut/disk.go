package powercut

import (
	"errors"
	"io"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"

	"github.com/diskfs/go-diskfs/backend"

	"slipway/nodeinit/install"
)

const (
	sector   = 512
	pageSize = 4096
)

// disk is a disk in memory that remembers all that is done to it. What was
// never written is zero.
type disk struct {
	size  int64
	pages map[int64][]byte // never changed in place: a copy of the map is a snapshot
	rec   install.Record   // the journal's file: old or new, see journal
	log   []event
}

// event is one entry of the log: a write of whole sectors, a flush, or a new
// journal, which is a flush as well.
type event struct {
	at   int64
	data []byte // nil: a flush
	rec  *install.Record
}

func newDisk(size int64) *disk { return &disk{size: size, pages: map[int64][]byte{}} }

// snapshot is the disk as it is, with an empty log.
func (d *disk) snapshot() *disk {
	return &disk{size: d.size, pages: maps.Clone(d.pages), rec: d.rec}
}

func (d *disk) ReadAt(p []byte, at int64) (int, error) {
	for n := 0; n < len(p); {
		page, off := (at+int64(n))/pageSize, (at+int64(n))%pageSize
		length := min(len(p)-n, int(pageSize-off))
		if have, ok := d.pages[page]; ok {
			copy(p[n:n+length], have[off:])
		} else {
			clear(p[n : n+length])
		}
		n += length
	}
	return len(p), nil
}

// WriteAt records whole sectors: that is what a disk is given.
func (d *disk) WriteAt(p []byte, at int64) (int, error) {
	if at < 0 || at+int64(len(p)) > d.size {
		return 0, errors.New("write behind the end of the disk")
	}
	first := at / sector * sector
	block := make([]byte, (at+int64(len(p))-first+sector-1)/sector*sector)
	if _, err := d.ReadAt(block, first); err != nil {
		return 0, err
	}
	copy(block[at-first:], p)
	d.put(block, first)
	d.log = append(d.log, event{at: first, data: block})
	return len(p), nil
}

func (d *disk) put(p []byte, at int64) {
	for n := 0; n < len(p); {
		page, off := (at+int64(n))/pageSize, (at+int64(n))%pageSize
		length := min(len(p)-n, int(pageSize-off))
		next := make([]byte, pageSize)
		copy(next, d.pages[page])
		copy(next[off:], p[n:n+length])
		d.pages[page] = next
		n += length
	}
}

func (d *disk) Sync() error {
	d.log = append(d.log, event{})
	return nil
}

// cut returns the disk as it may be when the power is lost before entry n of a
// log that began at the disk base. All before the last flush is there. Of what
// was written since, each write is there, or not, or some of its sectors are.
func cut(base *disk, log []event, n int, r *rand.Rand) *disk {
	d, flushed := base.snapshot(), 0
	for i, e := range log[:n] {
		if e.data == nil {
			flushed = i + 1
		}
		if e.rec != nil {
			d.rec = *e.rec
		}
	}
	for i, e := range log[:n] {
		if e.data == nil {
			continue
		}
		fate := r.IntN(3)
		for at := 0; at < len(e.data); at += sector {
			if i < flushed || fate == 0 || fate == 1 && r.IntN(2) == 0 {
				d.put(e.data[at:at+sector], e.at+int64(at))
			}
		}
	}
	return d
}

// part is a part of a disk, or all of it.
type part struct {
	*disk
	start, length int64
}

func (p part) ReadAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) > p.length {
		return 0, io.ErrUnexpectedEOF
	}
	return p.disk.ReadAt(b, p.start+at)
}

func (p part) WriteAt(b []byte, at int64) (int, error) {
	if at+int64(len(b)) > p.length {
		return 0, errors.New("write behind the end of the partition")
	}
	return p.disk.WriteAt(b, p.start+at)
}

func (p part) Size() int64   { return p.length }
func (p part) Forget() error { return nil }
func (p part) Close() error  { return nil }

// storage is a part as go-diskfs takes it.
type storage struct {
	part
	*io.SectionReader
}

func (p part) storage() storage { return storage{p, io.NewSectionReader(p, 0, p.length)} }

func (s storage) ReadAt(b []byte, at int64) (int, error)  { return s.part.ReadAt(b, at) }
func (s storage) Size() int64                             { return s.length }
func (s storage) Stat() (fs.FileInfo, error)              { return nil, errors.ErrUnsupported }
func (s storage) Sys() (*os.File, error)                  { return nil, errors.ErrUnsupported }
func (s storage) Writable() (backend.WritableFile, error) { return s, nil }
func (s storage) Path() string                            { return "" }

// journal keeps a Record on a disk, in place of the file on the state
// partition's ext4, which is the kernel's and is not recorded: it is the old one
// or the new one after a cut, as the rename of a synced file on ext4 is.
type journal struct{ m *machine }

func (j journal) Load() (install.Record, error) {
	if !j.m.stateMounted {
		return install.Record{}, install.ErrNoPlace
	}
	return j.m.disk.rec, nil
}

func (j journal) Save(rec install.Record) error {
	if !j.m.stateMounted {
		return install.ErrNoPlace
	}
	j.m.disk.rec = rec
	j.m.disk.log = append(j.m.disk.log, event{rec: &rec})
	return nil
}
