package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"golang.org/x/sys/unix"

	"slipway/configs/disklayout"
)

// MakeExt4 makes an ext4 file system on a partition, with the partition's label
// as its own. What was there is lost. The state partition's says whose it is. A
// partition that is mounted, or part of a disk that is held, is refused.
func (t Tools) MakeExt4(ctx context.Context, p Partition, owner Owner) error {
	// -F: no question about what is there; that is answered by now.
	args := []string{"-q", "-F", "-t", "ext4", "-L", p.Label, "-m", sparePercent(p.Size)}
	if p.Label == disklayout.StateLabel {
		dir, err := ownerDir(owner)
		if err != nil {
			return fmt.Errorf("make ext4 on %s: %w", p.Path, err)
		}
		defer os.RemoveAll(dir)
		args = append(args, "-d", dir)
	}
	f, err := exclusive(p.Path) // mke2fs takes it by itself, and says it less clearly
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		return fmt.Errorf("make ext4: %w", err)
	}
	if _, err := t.run(ctx, t.Mke2fs, "mke2fs", append(args, p.Path)...); err != nil {
		return fmt.Errorf("make ext4 on %s: %w", p.Path, err)
	}
	return nil
}

// spare is what a file system keeps, in bytes, for those who may go past its limits
// (CAP_SYS_RESOURCE): the node's own programs, and no container. With a disk that
// pods have filled, containerd and the kubelet need it to end them, and etcd to go on.
const spare = 256 * disklayout.MiB

// sparePercent is spare as mke2fs takes it, for a partition of size bytes; at most
// mke2fs's own default of 5.
func sparePercent(size int64) string {
	return strconv.FormatFloat(min(5, 100*float64(spare)/float64(size)), 'f', 4, 64)
}

// ownerDir is what a new state partition contains.
func ownerDir(owner Owner) (string, error) {
	dir, err := os.MkdirTemp("", "state")
	if err != nil {
		return "", err
	}
	err = errors.Join(os.Chmod(dir, 0o755), os.WriteFile(filepath.Join(dir, ownerFile), []byte(owner.text()), 0o644))
	return dir, err
}

// MakeFAT makes the boot partition's file system, FAT32 as firmware reads it,
// with the label by which GRUB finds it. What was there is lost.
func MakeFAT(p Partition) error {
	f, err := exclusive(p.Path)
	if err != nil {
		return fmt.Errorf("make FAT: %w", err)
	}
	sector, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKSSZGET)
	if err != nil {
		sector = sysfsSector // an image in a file
	}
	_, err = fat32.Create(file.New(f, false), p.Size, 0, int64(sector), disklayout.BootVolume, false)
	if err := errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("make FAT on %s: %w", p.Path, err)
	}
	return nil
}
