package disk

import (
	"context"
	"errors"
	"fmt"
	"os"

	"slipway/configs/disklayout"
)

// Complete gives a disk that a raw image was written to what no image can have:
// partitions for state and data with their file systems, and the second copy of
// the partition table at the disk's end. dataBytes is the size of data, as Plan has
// it. It returns the new ones; nothing on a disk that has them already, whatever
// their size.
//
// The machine may run from the disk meanwhile, so that it is not taken. The file
// systems are made before the table has their partitions: one that it has is
// whole, whenever the power is cut.
func (t Tools) Complete(ctx context.Context, d Disk, dataBytes int64) ([]Partition, error) {
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("complete: %w", err)
	}
	h := &Held{tools: t, disk: d, device: f, s: f, block: true}
	made, err := h.complete(ctx, dataBytes, h.addVolumes)
	if err := errors.Join(err, f.Close()); err != nil {
		return nil, fmt.Errorf("complete %s: %w", d.Path, err)
	}
	return made, nil
}

// adder makes the partitions of some labels, of a table that is not written yet,
// with their file systems.
type adder func(ctx context.Context, next *table, labels []string) ([]Partition, error)

func (h *Held) complete(ctx context.Context, dataBytes int64, add adder) ([]Partition, error) {
	have, err := readTable(h.s, h.disk)
	if err != nil {
		return nil, err
	}
	if !have.hasSlipway() {
		return nil, errors.New("it has no installation")
	}
	next, missing, err := have.completed(h.disk, dataBytes)
	if err != nil || len(missing) == 0 {
		return nil, err
	}
	made, err := add(ctx, next, missing)
	if err != nil {
		return nil, err
	}
	if err := next.write(h.s, h.disk); err != nil {
		return nil, fmt.Errorf("write the partition table: %w", err)
	}
	return made, nil
}

// completed is the table with what is missing, and the labels of that. Of a
// table that misses nothing, nothing else is asked: an older Slipway may have
// made it otherwise.
func (t *table) completed(d Disk, dataBytes int64) (next *table, missing []string, err error) {
	for _, label := range []string{disklayout.StateLabel, disklayout.DataLabel} {
		if _, ok := t.find(label); !ok {
			missing = append(missing, label)
		}
	}
	if len(missing) == 0 {
		return nil, nil, nil
	}
	plan, err := disklayout.Plan(d.Size, dataBytes)
	if err != nil {
		return nil, nil, err
	}
	for _, p := range plan {
		if have, ok := t.find(p.Label); ok && !same(have, p, d) {
			return nil, nil, fmt.Errorf("partition %s is not where Slipway makes it", p.Label)
		}
	}
	next, err = t.merge(Owner{}, d, plan)
	if err != nil {
		return nil, nil, err
	}
	next.GUID = newGUID() // the image's are those of every machine
	for _, p := range next.Partitions[:len(plan)] {
		p.GUID = newGUID()
	}
	return next, missing, nil
}

// addVolumes is an adder that makes partitions in the kernel alone.
func (h *Held) addVolumes(ctx context.Context, next *table, labels []string) ([]Partition, error) {
	all := h.named(next)
	if err := h.tellKernel(all); err != nil {
		return nil, err
	}
	var made []Partition
	for _, label := range labels {
		p, _ := Disk{Partitions: all}.Partition(label)
		if err := awaitNodes(ctx, []Partition{p}); err != nil {
			return nil, err
		}
		if err := h.tools.MakeExt4(ctx, p, Owner{}); err != nil {
			return nil, err
		}
		made = append(made, p)
	}
	return made, nil
}
