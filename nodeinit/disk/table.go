package disk

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"slices"

	"github.com/diskfs/go-diskfs/backend/file"
	"github.com/diskfs/go-diskfs/filesystem/ext4"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"slipway/configs/disklayout"
)

// storage is a disk as this package reads and writes it: a device, the file of
// a disk image, or what a test puts in their place.
type storage interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// handle gives storage the methods that the library wants of a file.
type handle struct {
	storage
	*io.SectionReader
}

func (h handle) ReadAt(b []byte, at int64) (int, error) { return h.storage.ReadAt(b, at) }
func (h handle) Stat() (fs.FileInfo, error)             { return nil, errors.ErrUnsupported }
func (h handle) Close() error                           { return nil }

func open(s storage, d Disk) handle { return handle{s, io.NewSectionReader(s, 0, d.Size)} }

// table is a GUID partition table.
type table struct{ *gpt.Table }

// readTable reads the disk's table, from its second copy where the first is
// broken; nil: there is none.
func readTable(s storage, d Disk) (*table, error) {
	for _, at := range []int64{d.SectorSize, d.Size - d.SectorSize} {
		if sane, err := saneHeader(s, d, at); err != nil || !sane {
			return nil, err
		}
	}
	t, err := gpt.Read(open(s, d), int(d.SectorSize), int(d.SectorSize))
	var failed *fs.PathError // reading went wrong, rather than there being no table
	switch {
	case errors.As(err, &failed):
		return nil, err
	case err != nil:
		return nil, nil
	}
	return &table{t}, nil
}

// saneHeader refuses a header whose array of entries is of a size that nobody
// uses; the library believes every header with a right checksum.
func saneHeader(s storage, d Disk, at int64) (bool, error) {
	header := make([]byte, 92)
	if _, err := s.ReadAt(header, at); err != nil {
		return false, err
	}
	count, entry := binary.LittleEndian.Uint32(header[80:]), binary.LittleEndian.Uint32(header[84:])
	return string(header[:8]) != "EFI PART" || count <= 1024 && entry == gpt.PartitionEntrySize, nil
}

// newTable is a table with the partitions of a plan, and the owner's GUID.
func newTable(owner Owner, d Disk, plan []disklayout.Partition) *table {
	t := &table{&gpt.Table{GUID: owner.guid(), LogicalSectorSize: int(d.SectorSize), PhysicalSectorSize: int(d.SectorSize)}}
	for _, p := range plan {
		t.Partitions = append(t.Partitions, entry(p, d))
	}
	return t
}

func entry(p disklayout.Partition, d Disk) *gpt.Partition {
	return &gpt.Partition{
		Index: p.Number, Name: p.Label, Type: gpt.Type(p.Type),
		Start: uint64(p.Start / d.SectorSize), Size: uint64(p.Size),
	}
}

// merge is a table of ours with the partitions of a plan in the place of those
// of the same labels. Others are the user's volumes: they stay, and a plan that
// wants their place is an error.
func (t *table) merge(owner Owner, d Disk, plan []disklayout.Partition) (*table, error) {
	merged := newTable(owner, d, plan)
	for _, have := range t.Partitions {
		i := slices.IndexFunc(plan, func(p disklayout.Partition) bool { return p.Label == have.Name })
		if i >= 0 {
			if same(have, plan[i], d) {
				merged.Partitions[i] = have // with its GUID
			}
			continue
		}
		if p, ok := overlap(have, plan, d); ok {
			return nil, fmt.Errorf("partition %d %q, which is not Slipway's, is where %s goes", have.Index, have.Name, p.Label)
		}
		merged.Partitions = append(merged.Partitions, have)
	}
	return merged, nil
}

func same(have *gpt.Partition, p disklayout.Partition, d Disk) bool {
	return have.Index == p.Number && have.Name == p.Label && string(have.Type) == p.Type &&
		int64(have.Start)*d.SectorSize == p.Start && int64(have.Size) == p.Size
}

// overlap finds the partition of a plan that lies, in whole or in part, where
// another is, or that has its number.
func overlap(have *gpt.Partition, plan []disklayout.Partition, d Disk) (disklayout.Partition, bool) {
	start, end := int64(have.Start)*d.SectorSize, int64(have.End+1)*d.SectorSize
	i := slices.IndexFunc(plan, func(p disklayout.Partition) bool {
		return p.Number == have.Index || start < p.End() && p.Start < end
	})
	if i < 0 {
		return disklayout.Partition{}, false
	}
	return plan[i], true
}

// has tells whether the table is whole and has all of a plan, as planned.
func (t *table) has(plan []disklayout.Partition, d Disk) bool {
	if t == nil || t.RecoveredFromBackup {
		return false
	}
	return !slices.ContainsFunc(plan, func(p disklayout.Partition) bool {
		have, ok := t.find(p.Label)
		return !ok || !same(have, p, d)
	})
}

func (t *table) find(label string) (*gpt.Partition, bool) {
	i := slices.IndexFunc(t.Partitions, func(p *gpt.Partition) bool { return p.Name == label })
	if i < 0 {
		return nil, false
	}
	return t.Partitions[i], true
}

// nameOf is the name of a partition. It is read here and not asked of the
// kernel, which only knows the names that its own parser has read.
func (t *table) nameOf(number int) string {
	if t == nil {
		return ""
	}
	for _, p := range t.Partitions {
		if p.Index == number {
			return p.Name
		}
	}
	return ""
}

// write puts the table on the disk, its second copy first: whenever the power
// fails, one of them is whole.
func (t *table) write(s storage, d Disk) error {
	t.ProtectiveMBR = true
	if err := t.Table.Write(open(s, d), d.Size); err != nil {
		return err
	}
	sectors := uint64(d.Size/d.SectorSize) - 1
	if sectors <= 0xffffffff {
		return nil
	}
	// A disk whose size does not fit has all ones (UEFI specification 5.2.3);
	// the library writes the lower half of the number.
	if _, err := s.WriteAt([]byte{0xff, 0xff, 0xff, 0xff}, mbrEntry+12); err != nil {
		return err
	}
	return s.Sync()
}

// mbrEntry is where the first entry of an MBR begins.
const mbrEntry = 446

// readOwner reads from the state partition whose the disk is; what cannot be
// known stays empty. It does not mount what it does not trust.
// The library is not trusted with a stranger's file system either: a panic of
// its is not this machine's.
func (t *table) readOwner(s storage, d Disk) (owner Owner) {
	defer func() {
		if recover() != nil {
			owner = Owner{}
		}
	}()
	state, ok := t.find(disklayout.StateLabel)
	if !ok || state.Size > 1<<30 {
		return Owner{}
	}
	fsys, err := ext4.Read(file.New(open(s, d), true), int64(state.Size), int64(state.Start)*d.SectorSize, 0)
	if err != nil {
		return Owner{}
	}
	f, err := fsys.Open(ownerFile)
	if err != nil {
		return Owner{}
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, 1024))
	if err != nil {
		return Owner{}
	}
	return parseOwner(string(text))
}
