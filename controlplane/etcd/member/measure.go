package member

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"fmt"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"slipway/controlplane/etcd"
)

const (
	syncs   = 64          // writes that are timed,
	syncFor = time.Second // unless they take longer than this together
	signs   = 15
)

// measure times the machine's disk and processor; it takes 2 s at most, and next
// to nothing for data in memory.
func measure(dir string) (etcd.Measured, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return etcd.Measured{}, fmt.Errorf("make etcd's folder: %w", err)
	}
	m := etcd.Measured{Sign: timeSign()}
	memory, err := inMemory(dir)
	if err != nil || memory {
		return m, err
	}
	// The better of two: what else is written while a machine starts is not the
	// disk's fault.
	first, err := timeSync(dir)
	if err != nil {
		return m, err
	}
	second, err := timeSync(dir)
	m.Fsync = min(first, second)
	return m, err
}

// inMemory says whether a folder is on ramfs or tmpfs (statfs(2)).
func inMemory(dir string) (bool, error) {
	var fs unix.Statfs_t
	if err := unix.Statfs(dir, &fs); err != nil {
		return false, fmt.Errorf("look at the filesystem of %s: %w", dir, err)
	}
	return fs.Type == unix.TMPFS_MAGIC || fs.Type == unix.RAMFS_MAGIC, nil
}

// timeSync is the 99th percentile of what etcd does for each write.
func timeSync(dir string) (time.Duration, error) {
	f, err := os.CreateTemp(dir, ".sync-*")
	if err != nil {
		return 0, fmt.Errorf("measure the disk: %w", err)
	}
	defer os.Remove(f.Name())
	defer f.Close()
	var took []time.Duration
	block := make([]byte, 2048)
	for began := time.Now(); len(took) < syncs && time.Since(began) < syncFor; {
		one := time.Now()
		if _, err := f.Write(block); err != nil {
			return 0, fmt.Errorf("measure the disk: %w", err)
		}
		if err := unix.Fdatasync(int(f.Fd())); err != nil {
			return 0, fmt.Errorf("measure the disk: %w", err)
		}
		took = append(took, time.Since(one))
	}
	slices.Sort(took)
	return took[(len(took)-1)*99/100], nil
}

// timeSign is the median of a signature, as each TLS handshake needs one.
func timeSign() time.Duration {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return 0
	}
	var took []time.Duration
	for range signs {
		began := time.Now()
		if _, err := ecdsa.SignASN1(rand.Reader, key, make([]byte, 32)); err != nil {
			return 0
		}
		took = append(took, time.Since(began))
	}
	slices.Sort(took)
	return took[len(took)/2]
}

// free is what is left on a folder's filesystem, in bytes, and its size. What it keeps
// for the node's own programs counts: etcd is one.
func free(dir string) (left, size uint64) {
	var fs unix.Statfs_t
	if unix.Statfs(dir, &fs) != nil {
		return 0, 0
	}
	return fs.Bfree * uint64(fs.Bsize), fs.Blocks * uint64(fs.Bsize)
}
