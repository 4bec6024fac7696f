package install

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Partition is a Device of the kernel.
type Partition struct {
	*os.File
	size int64
}

// OpenPartition opens a partition for its own: one that is mounted is refused.
func OpenPartition(path string) (*Partition, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if err != nil {
		return nil, err
	}
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("size of %s: %w", path, err), f.Close())
	}
	return &Partition{f, size}, nil
}

// Size implements Device.
func (p *Partition) Size() int64 { return p.size }

// Forget implements Device.
func (p *Partition) Forget() error {
	if err := p.Sync(); err != nil { // only what is written can be dropped
		return err
	}
	return unix.Fadvise(int(p.Fd()), 0, 0, unix.FADV_DONTNEED)
}
