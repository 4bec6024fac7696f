package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"unsafe"

	"golang.org/x/sys/unix"

	"slipway/configs/wipe"
)

// ErrNoDiscard is of a disk that cannot be told that it is not needed.
var ErrNoDiscard = errors.New("the disk has no discard; ask for zero, or for metadata only")

// CanErase refuses a way of wiping that a disk does not know, before anything is
// wiped.
func (t Tools) CanErase(d Disk, how wipe.How) error {
	if how == wipe.Discard && (sysfs{t.root(), "sys/block/" + d.Name}).number("queue/discard_max_bytes") == 0 {
		return fmt.Errorf("wipe %s: %w", d.Path, ErrNoDiscard)
	}
	return nil
}

const mib = int64(1) << 20

// span is a part of a disk, in bytes.
type span struct{ start, length int64 }

func (s span) end() int64 { return s.start + s.length }

// edges are the first and the last MiB of a span: where partition tables, and
// RAID, LVM, ZFS, LUKS and file systems have what they are known by.
func (s span) edges() []span {
	if s.length <= 2*mib {
		return []span{s}
	}
	return []span{{s.start, mib}, {s.end() - mib, mib}}
}

// without is a span without the place of another.
func (s span) without(hole span) []span {
	if hole.end() <= s.start || s.end() <= hole.start {
		return []span{s}
	}
	var list []span
	if s.start < hole.start {
		list = append(list, span{s.start, hole.start - s.start})
	}
	if hole.end() < s.end() {
		list = append(list, span{hole.end(), s.end() - hole.end()})
	}
	return list
}

// wipeSignatures wipes what programs know the disk and its partitions by, until
// wipefs finds nothing: behind one copy of a mark there may be another.
func (h *Held) wipeSignatures(ctx context.Context) error {
	places := []span{{0, h.disk.Size}}
	for _, p := range h.disk.Partitions {
		places = append(places, span{p.Start, p.Size})
	}
	for _, place := range places {
		if err := h.wipe(ctx, place, wipe.Metadata); err != nil {
			return err
		}
	}
	var marks []mark
	for range 100 {
		var err error
		if marks, err = h.tools.marks(ctx, h.disk); err != nil || len(marks) == 0 {
			return err
		}
		for _, m := range marks {
			if err := h.zero(ctx, span{h.begin(m.device) + m.offset, m.length}); err != nil {
				return err
			}
		}
		if err := h.s.Sync(); err != nil {
			return err
		}
	}
	return fmt.Errorf("wipe signatures: %s is still found on %s", marks[0].kind, marks[0].device)
}

// begin is where a device of wipefs begins on the disk.
func (h *Held) begin(device string) int64 {
	for _, p := range h.disk.Partitions {
		if device == p.base() {
			return p.Start
		}
	}
	return 0
}

// base is the partition's name as wipefs says it.
func (p Partition) base() string { return p.Path[strings.LastIndexByte(p.Path, '/')+1:] }

// wipe wipes a part of the disk, all but the claim, and waits until the disk
// has it.
func (h *Held) wipe(ctx context.Context, place span, how wipe.How) error {
	parts := []span{place}
	if how == wipe.Metadata {
		parts = place.edges()
	}
	for _, part := range parts {
		for _, p := range part.without(span{claimOffset, h.disk.SectorSize}) {
			if err := h.wipePart(ctx, p, how); err != nil {
				return err
			}
		}
	}
	return h.s.Sync()
}

func (h *Held) wipePart(ctx context.Context, p span, how wipe.How) error {
	if how != wipe.Discard {
		return h.zero(ctx, p)
	}
	if err := h.discard(ctx, p); err != nil {
		return err
	}
	// A disk may answer with the old content after a discard (SBC-4 4.7.3.4).
	for _, edge := range p.edges() {
		if err := h.zero(ctx, edge); err != nil {
			return err
		}
	}
	return nil
}

var zeros [mib]byte

// zero writes zeros. The kernel does it where it can: many disks have a command
// for it.
func (h *Held) zero(ctx context.Context, p span) error {
	const atOnce = 256 * mib
	for at := p.start; at < p.end(); {
		if err := ctx.Err(); err != nil {
			return err
		}
		n := min(atOnce, p.end()-at)
		if n < mib || !h.block || blockRange(h.device, unix.BLKZEROOUT, span{at, n}) != nil {
			n = min(mib, n)
			if _, err := h.s.WriteAt(zeros[:n], at); err != nil {
				return err
			}
		}
		at += n
	}
	return nil
}

func (h *Held) discard(ctx context.Context, p span) error {
	const atOnce = 1024 * mib
	if !h.block {
		return h.zero(ctx, p)
	}
	for at := p.start; at < p.end(); at += atOnce {
		if err := ctx.Err(); err != nil {
			return err
		}
		err := blockRange(h.device, unix.BLKDISCARD, span{at, min(atOnce, p.end()-at)})
		if errors.Is(err, unix.EOPNOTSUPP) {
			return ErrNoDiscard
		}
		if err != nil {
			return fmt.Errorf("discard: %w", err)
		}
	}
	return nil
}

// blockRange is one of the kernel's commands for a part of a block device.
func blockRange(f *os.File, command uintptr, s span) error {
	arg := [2]uint64{uint64(s.start), uint64(s.length)}
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), command, uintptr(unsafe.Pointer(&arg)))
	if errno != 0 {
		return errno
	}
	return nil
}

// erasePartition wipes a partition that is not in use.
func erasePartition(ctx context.Context, p Partition, how wipe.How, take taker) error {
	h, err := take(p)
	if err != nil {
		return err
	}
	return errors.Join(h.wipe(ctx, span{0, p.Size}, how), h.Close())
}

// takePartition takes a partition's device.
func takePartition(p Partition) (*Held, error) {
	f, err := exclusive(p.Path)
	if err != nil {
		return nil, err
	}
	return &Held{disk: Disk{SectorSize: 0, Size: p.Size}, device: f, s: f, block: true}, nil
}
