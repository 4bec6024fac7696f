package disk

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"io"
	"testing"

	"slipway/configs/disklayout"
)

// memory is a small disk that cannot be written.
type memory struct{ *bytes.Reader }

func (memory) WriteAt([]byte, int64) (int, error) { return 0, io.ErrShortWrite }
func (memory) Sync() error                        { return nil }

// FuzzTable: no partition table that a stranger's disk has makes us fail, with
// checksums that are right either.
func FuzzTable(f *testing.F) {
	d := Disk{Name: "disk", Path: "/dev/disk", Size: 64 << 10, SectorSize: 512}
	seed := &growing{}
	big := Disk{Size: disklayout.SmallestDisk, SectorSize: 512}
	plan, err := disklayout.Plan(big.Size, 0)
	if err != nil {
		f.Fatal(err)
	}
	if err := newTable(us, big, plan).write(seed, big); err != nil {
		f.Fatal(err)
	}
	f.Add(seed.b[512:604], seed.b[1024:1024+128*6])
	f.Fuzz(func(t *testing.T, header, entries []byte) {
		disk := make([]byte, d.Size)
		copy(disk[1024:], entries)
		copy(disk[512:604], header)
		count := min(binary.LittleEndian.Uint32(disk[592:]), 256)
		binary.LittleEndian.PutUint32(disk[512+88:], crc32.ChecksumIEEE(disk[1024:1024+count*128]))
		binary.LittleEndian.PutUint32(disk[512+16:], 0)
		binary.LittleEndian.PutUint32(disk[512+16:], crc32.ChecksumIEEE(disk[512:604]))
		tab, err := readTable(memory{bytes.NewReader(disk)}, d)
		if err != nil || tab == nil {
			return
		}
		tab.hasSlipway()
		tab.readOwner(memory{bytes.NewReader(disk)}, d)
		_, _ = tab.merge(us, d, plan)
		_, _, _ = tab.completed(d, 0)
		(&Held{disk: d}).named(tab)
	})
}

// growing keeps the begin of what is written to it.
type growing struct{ b [64 << 10]byte }

func (g *growing) ReadAt(b []byte, at int64) (int, error) { return copy(b, g.b[at:]), nil }
func (g *growing) Sync() error                            { return nil }
func (g *growing) WriteAt(b []byte, at int64) (int, error) {
	if at < int64(len(g.b)) {
		copy(g.b[at:], b)
	}
	return len(b), nil
}
