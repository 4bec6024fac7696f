package disk

import (
	"context"
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"

	"slipway/configs/disklayout"
	"slipway/configs/wipe"
)

// Held is a disk that nobody else may write: taken exclusively, so that no
// partition of it can be mounted, and with all agreed to that is lost.
type Held struct {
	tools  Tools
	disk   Disk
	owner  Owner
	device *os.File
	s      storage // device, or what a test puts before it
	block  bool    // a block device, rather than an image in a file
}

// Errors of Take, for callers that tell a person what to do.
var (
	ErrInUse    = errors.New("the disk is in use")
	ErrReplaced = errors.New("this is not the disk that was chosen")
)

// Take takes a disk for its owner. It looks at the disk again while it holds
// it: agreed is the hash of a manifest with this disk alone, and of a disk that
// changed since then it takes nothing (ErrNotAgreed). A disk with something
// mounted on it is ErrInUse.
func (t Tools) Take(ctx context.Context, d Disk, owner Owner, agreed string) (*Held, error) {
	h, err := t.take(ctx, d, owner, agreed)
	if err != nil {
		return nil, fmt.Errorf("take %s: %w", d.Path, err)
	}
	return h, nil
}

func (t Tools) take(ctx context.Context, d Disk, owner Owner, agreed string) (*Held, error) {
	f, err := exclusive(d.Path)
	if err != nil {
		return nil, err
	}
	h := &Held{tools: t, disk: d, owner: owner, device: f, s: f}
	if err := h.check(ctx, agreed); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return h, nil
}

// exclusive opens a device that nothing else has taken: no mount, no swap, no
// device built on it.
func exclusive(path string) (*os.File, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%w: %s", ErrInUse, path)
	}
	return f, err
}

func (h *Held) check(ctx context.Context, agreed string) error {
	info, err := h.device.Stat()
	if err != nil {
		return err
	}
	if h.block = info.Mode()&os.ModeDevice != 0; h.block {
		if err := h.refresh(); err != nil {
			return err
		}
	}
	found, err := h.look(ctx)
	if err != nil {
		return err
	}
	return Agreed(Manifest{Disks: []Target{found.target(h.owner, h.disk)}}, agreed)
}

// refresh reads what the kernel says of the disk now, and refuses a path that
// has become another disk's.
func (h *Held) refresh() error {
	name := h.disk.Name
	s := sysfs{h.tools.root(), "sys/block/" + name}
	now := read(s, name, uses{})
	if now.Size != h.disk.Size || now.Serial != h.disk.Serial || now.WWN != h.disk.WWN || now.Model != h.disk.Model {
		return fmt.Errorf("%w: it was %s, and is %s", ErrReplaced, h.disk, now)
	}
	h.disk = now
	return nil
}

func (h *Held) look(ctx context.Context) (finding, error) {
	return h.tools.look(ctx, h.s, h.disk)
}

// Close lets the disk go. Its partitions cannot be written, mounted or given
// file systems before that: they are part of what is held.
func (h *Held) Close() error { return h.device.Close() }

// Partition gives the disk the partitions of a plan and returns them when their
// device nodes are there. On a disk that has an installation of the owner
// nothing is lost: partitions that are as planned keep their content, others
// that Slipway did not make stay where they are. On any other disk all is wiped
// first that programs know it by. It may be repeated, after a power cut too.
func (h *Held) Partition(ctx context.Context, plan []disklayout.Partition) ([]Partition, error) {
	if err := h.partition(ctx, plan); err != nil {
		return nil, fmt.Errorf("partition %s: %w", h.disk.Path, err)
	}
	return h.announce(ctx, plan)
}

func (h *Held) partition(ctx context.Context, plan []disklayout.Partition) error {
	found, err := h.look(ctx)
	if err != nil {
		return err
	}
	ours := found.table != nil && found.table.GUID == h.owner.guid() && found.own(h.owner, h.disk)
	if !ours || !found.table.has(plan, h.disk) {
		if err := h.repartition(ctx, found, ours, plan); err != nil {
			return err
		}
	} else if found.claim == "" {
		return nil
	}
	return writeClaim(h.s, h.disk, "")
}

// repartition writes another table than the disk has.
func (h *Held) repartition(ctx context.Context, found finding, ours bool, plan []disklayout.Partition) error {
	next := newTable(h.owner, h.disk, plan)
	if ours {
		merged, err := found.table.merge(h.owner, h.disk, plan)
		if err != nil {
			return err
		}
		next = merged
	} else if err := h.clear(ctx, found); err != nil {
		return err
	}
	if err := h.wipeNew(ctx, found, ours, plan); err != nil {
		return err
	}
	return h.writeTable(next, plan)
}

// wipeNew wipes the places of partitions that are not there yet: a disk that
// looks blank may have had the same partitions in another life, and their file
// systems would be taken for ours.
func (h *Held) wipeNew(ctx context.Context, found finding, ours bool, plan []disklayout.Partition) error {
	for _, p := range plan {
		if ours {
			if have, ok := found.table.find(p.Label); ok && same(have, p, h.disk) {
				continue
			}
		}
		if err := h.wipe(ctx, span{p.Start, p.Size}, wipe.Metadata); err != nil {
			return fmt.Errorf("wipe the place of %s: %w", p.Label, err)
		}
	}
	return nil
}

// clear claims the disk and wipes what it was: its first sector first, so that
// no BIOS starts a loader of which the rest is gone.
func (h *Held) clear(ctx context.Context, found finding) error {
	if found.claim != h.owner.guid() {
		if err := writeClaim(h.s, h.disk, h.owner.guid()); err != nil {
			return err
		}
	}
	if err := h.writeFirst(zeros[:h.disk.SectorSize]); err != nil {
		return err
	}
	return h.wipeSignatures(ctx)
}

func (h *Held) writeFirst(begin []byte) error {
	if _, err := h.s.WriteAt(begin, 0); err != nil {
		return fmt.Errorf("write the first sector: %w", err)
	}
	return h.s.Sync()
}

// writeTable writes a table and reads it back. With the table the first sector
// gets the signature by which a BIOS takes it for a program.
func (h *Held) writeTable(next *table, plan []disklayout.Partition) error {
	if err := h.writeFirst(disklayout.NoBoot[:]); err != nil {
		return err
	}
	if err := next.write(h.s, h.disk); err != nil {
		return fmt.Errorf("write the partition table: %w", err)
	}
	back, err := readTable(h.s, h.disk)
	if err != nil {
		return fmt.Errorf("read the partition table back: %w", err)
	}
	if !back.has(plan, h.disk) || back.GUID != h.owner.guid() {
		return errors.New("read the partition table back: the disk has not kept it")
	}
	return nil
}
