package disk

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strings"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"slipway/configs/disklayout"
)

// announce makes the kernel's partitions those of the disk's table, and returns
// those of a plan when their device nodes are there.
func (h *Held) announce(ctx context.Context, plan []disklayout.Partition) ([]Partition, error) {
	t, err := readTable(h.s, h.disk)
	if err != nil {
		return nil, fmt.Errorf("tell the kernel the partitions of %s: %w", h.disk.Path, err)
	}
	want := h.named(t)
	if h.block {
		if err := h.tellKernel(want); err != nil {
			return nil, fmt.Errorf("tell the kernel the partitions of %s: %w", h.disk.Path, err)
		}
	}
	h.disk.Partitions = want
	planned := slices.DeleteFunc(slices.Clone(want), func(p Partition) bool {
		return !slices.ContainsFunc(plan, func(q disklayout.Partition) bool { return q.Label == p.Label })
	})
	if !h.block {
		return planned, nil
	}
	return planned, awaitNodes(ctx, planned)
}

// named are the partitions of a table, named as the kernel names them.
func (h *Held) named(t *table) []Partition {
	if t == nil {
		return nil
	}
	between := ""
	if strings.TrimRight(h.disk.Name, "0123456789") != h.disk.Name {
		between = "p" // nvme0n1p1, where sda has sda1
	}
	var list []Partition
	for _, p := range t.Partitions {
		suffix := fmt.Sprint(between, p.Index)
		list = append(list, Partition{
			Name: h.disk.Name + suffix, Path: h.disk.Path + suffix, Label: p.Name, Number: p.Index,
			Start: int64(p.Start) * h.disk.SectorSize, Size: int64(p.Size),
		})
	}
	slices.SortFunc(list, func(a, b Partition) int { return a.Number - b.Number })
	return list
}

// tellKernel has the kernel read the table by itself, since then it also knows
// the labels. What is not as wanted after that, because its parser is not built
// in or a program has a partition open for reading, is told one by one.
func (h *Held) tellKernel(want []Partition) error {
	_ = unix.IoctlSetInt(int(h.device.Fd()), unix.BLKRRPART, 0)
	have := partitions(sysfs{h.tools.root(), "sys/block/" + h.disk.Name})
	for _, p := range have {
		if !slices.ContainsFunc(want, p.samePlace) {
			if err := blkpg(h.device, unix.BLKPG_DEL_PARTITION, p); err != nil {
				return fmt.Errorf("remove %s: %w", p.Name, err)
			}
		}
	}
	for _, p := range want {
		if !slices.ContainsFunc(have, p.samePlace) {
			if err := blkpg(h.device, unix.BLKPG_ADD_PARTITION, p); err != nil {
				return fmt.Errorf("add %s: %w", p.Name, err)
			}
		}
	}
	return nil
}

func (p Partition) samePlace(o Partition) bool {
	return p.Number == o.Number && p.Start == o.Start && p.Size == o.Size
}

// blkpg is linux/blkpg.h: one partition, whatever the table on the disk says.
func blkpg(f *os.File, operation int32, p Partition) error {
	part := struct {
		start, length  int64
		number         int32
		device, volume [64]byte
		_              [4]byte
	}{start: p.Start, length: p.Size, number: int32(p.Number)}
	arg := unix.BlkpgIoctlArg{Op: operation, Datalen: int32(unsafe.Sizeof(part)), Data: (*byte)(unsafe.Pointer(&part))}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), unix.BLKPG, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return errno
	}
	return nil
}

// nodeDeadline is for the kernel's devtmpfs, which takes milliseconds.
const nodeDeadline = 10 * time.Second

// awaitNodes waits for the device nodes of partitions.
func awaitNodes(ctx context.Context, list []Partition) error {
	ctx, cancel := context.WithTimeout(ctx, nodeDeadline)
	defer cancel()
	for _, p := range list {
		if err := awaitNode(ctx, p.Path); err != nil {
			return fmt.Errorf("wait for the device node %s: %w", p.Path, err)
		}
	}
	return nil
}

func awaitNode(ctx context.Context, path string) error {
	for {
		_, err := os.Stat(path)
		if !errors.Is(err, fs.ErrNotExist) {
			return err
		}
		select {
		case <-time.After(20 * time.Millisecond):
		case <-ctx.Done():
			return fmt.Errorf("not there: %w", context.Cause(ctx))
		}
	}
}
