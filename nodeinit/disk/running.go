package disk

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/diskfs/go-diskfs/partition/gpt"

	"slipway/configs/disklayout"
	"slipway/configs/wipe"
)

// Adopt makes the disk that the machine runs from its owner's: one that was
// written from a raw image is nobody's until a cluster claims the machine. state
// is where its state partition is mounted. It may be repeated, and writes only
// what is not so yet.
func Adopt(d Disk, owner Owner, state string) error {
	if err := errors.Join(adoptTable(d, owner), adoptState(owner, state)); err != nil {
		return fmt.Errorf("make %s the disk of %s: %w", d.Path, owner.Machine, err)
	}
	return nil
}

func adoptTable(d Disk, owner Owner) error {
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	return errors.Join(nameTable(f, d, owner), f.Close())
}

func nameTable(s storage, d Disk, owner Owner) error {
	t, err := readTable(s, d)
	if err != nil {
		return err
	}
	if !t.hasSlipway() {
		return errors.New("it has no installation")
	}
	if t.GUID == owner.guid() {
		return nil
	}
	t.GUID = owner.guid()
	return t.write(s, d)
}

func adoptState(owner Owner, state string) error {
	name := filepath.Join(state, ownerFile)
	if have, err := os.ReadFile(name); err == nil && string(have) == owner.text() {
		return nil
	}
	return os.WriteFile(name, []byte(owner.text()), 0o644)
}

// Listed are the partitions of the disk's table, with labels that the kernel has
// not been told: of partitions that Complete has made, it knows them from the
// next boot on.
func Listed(d Disk) ([]Partition, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return nil, fmt.Errorf("read the partitions: %w", err)
	}
	defer f.Close()
	t, err := readTable(f, d)
	if err != nil {
		return nil, fmt.Errorf("read the partitions of %s: %w", d.Path, err)
	}
	return (&Held{disk: d}).named(t), nil
}

// BootGUID is the GUID, in lower case, of a disk's boot partition: by it a loader
// says which disk it came from. Without such a partition it is an error.
func BootGUID(d Disk) (string, error) {
	f, err := os.Open(d.Path)
	if err != nil {
		return "", fmt.Errorf("read the boot partition's GUID: %w", err)
	}
	defer f.Close()
	t, err := readTable(f, d)
	if err != nil {
		return "", fmt.Errorf("read the boot partition's GUID of %s: %w", d.Path, err)
	}
	if t != nil {
		if p, ok := t.find(disklayout.BootLabel); ok {
			return strings.ToLower(p.GUID), nil
		}
	}
	return "", fmt.Errorf("%s has no boot partition", d.Path)
}

// wiped are the partitions that Slipway makes, in the order in which a reset
// wipes them: what says whose the disk is goes last.
var wiped = []string{
	disklayout.DataLabel, disklayout.SlotALabel, disklayout.SlotBLabel,
	disklayout.BootLabel, disklayout.BIOSLabel, disklayout.StateLabel,
}

// Wipe is the end of an installation on the disk that the machine runs from,
// which cannot be taken any more. Partitions that Slipway did not make stay, in
// the table and in what they hold; without any, the table goes too. Of a
// partition that is in use, such as the slot that runs, goes what it is known
// by, whatever is asked for. The disk must not boot any more: slot.Unboot. What
// cannot be wiped does not keep the rest. The kernel is not told of the new
// table, since the machine restarts.
func (t Tools) Wipe(ctx context.Context, d Disk, how wipe.How) error {
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("wipe: %w", err)
	}
	h := &Held{tools: t, disk: d, device: f, s: f, block: true}
	if err := errors.Join(h.wipeInstallation(ctx, how, takePartition), f.Close()); err != nil {
		return fmt.Errorf("wipe %s: %w", d.Path, err)
	}
	return nil
}

// taker takes a partition for its own.
type taker func(Partition) (*Held, error)

func (h *Held) wipeInstallation(ctx context.Context, how wipe.How, take taker) error {
	have, err := readTable(h.s, h.disk)
	if err != nil || !have.hasSlipway() {
		return err
	}
	return errors.Join(h.wipePartitions(ctx, how, take), h.dropTable(ctx, have))
}

func (h *Held) wipePartitions(ctx context.Context, how wipe.How, take taker) error {
	var errs []error
	for _, label := range wiped {
		p, ok := h.disk.Partition(label)
		if !ok {
			continue
		}
		err := erasePartition(ctx, p, how, take)
		if err != nil {
			edges := h.wipe(ctx, span{p.Start, p.Size}, wipe.Metadata)
			if err = errors.Join(err, edges); errors.Is(err, ErrInUse) && isSlot(label) {
				err = edges
			}
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("partition %s: %w", label, err))
		}
	}
	return errors.Join(errs...)
}

func isSlot(label string) bool {
	return label == disklayout.SlotALabel || label == disklayout.SlotBLabel
}

// dropTable writes the table without Slipway's entries, or wipes it.
func (h *Held) dropTable(ctx context.Context, have *table) error {
	keep := have.foreign()
	if len(keep.Partitions) > 0 {
		return keep.write(h.s, h.disk)
	}
	return h.wipe(ctx, span{0, h.disk.Size}, wipe.Metadata)
}

// foreign is the table without what Slipway made, and nobody's.
func (t *table) foreign() *table {
	rest := *t.Table
	rest.GUID = newGUID()
	rest.Partitions = slices.DeleteFunc(slices.Clone(rest.Partitions), func(p *gpt.Partition) bool {
		return slices.Contains(wiped, p.Name)
	})
	return &table{&rest}
}
