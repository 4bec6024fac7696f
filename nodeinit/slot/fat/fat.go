// Package fat reads and writes a FAT32 file system on a block device so that
// the power may be cut after any sector. It is not a general file system: it
// has what a boot partition needs, and package slot is its caller.
//
// The kernel's driver is not used for writing, because it gives no order to
// the three places that one change touches (data, allocation table, directory):
// after a power cut a name can stand for clusters that the table calls free,
// and the next file is written into them; a rename can leave two names for the
// same clusters, and removing either frees both. FAT has no journal that would
// repair this. Here every change has one deciding write:
//
//   - Create writes the data into clusters that no name reaches, flushes,
//     writes their chain into the table, flushes, and only then writes the
//     directory's sector. Before that sector the old file, or none, is there;
//     after it the new one is, whole. A sector is written wholly or not at all.
//   - Rename writes both names with one sector when they fit into it, which they
//     do in a directory as small as ours; otherwise the new name first, so that
//     for a while two names stand for one file.
//   - Remove takes the name away, flushes, and then frees the clusters.
//
// What a cut leaves is clusters that the table has and no name reaches, or two
// names for one chain. Neither needs a repair: what is in use is found by
// walking the directories, not by the table, and a cluster is freed only when no
// name reaches it any more. The second copy of the table may be older than the
// first, as with any FAT driver; firmware, loaders and kernels read the first,
// and the next change makes them equal again.
//
// Two of these, or one and the kernel's driver, must not have the same device
// open for writing.
package fat

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
)

// Device is a block device or a file. Sync returns when all that was written
// before is on the medium; nothing written later may pass it.
type Device interface {
	io.ReaderAt
	io.WriterAt
	Sync() error
}

// Errors that callers tell apart.
var (
	ErrFull    = errors.New("the boot partition is full")
	ErrDamaged = errors.New("the file system is damaged, or was never whole")
)

// Cluster numbers with a meaning (Microsoft's FAT specification, 4.1).
const (
	firstCluster = 2
	badCluster   = 0x0ffffff7
	lastCluster  = 0x0ffffff8 // this and above end a chain
	endOfChain   = 0x0fffffff
	clusterBits  = 0x0fffffff // the upper four bits belong to somebody else
)

// Volume is an open file system. It is not safe for concurrent use.
type Volume struct {
	dev     Device
	sector  int64
	cluster int64
	tables  []int64  // where the copies of the table begin
	data    int64    // where the first cluster begins
	info    int64    // where a hint of what is free is kept
	root    uint32   // first cluster of the root directory
	table   []uint32 // the first copy, as it is on the device
	stale   []uint32 // clusters whose entries another copy does not have
}

// Open reads the file system's header and its allocation table.
func Open(dev Device) (*Volume, error) {
	head := make([]byte, 512)
	if _, err := dev.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("read FAT header: %w", err)
	}
	u16 := func(at int) int64 { return int64(binary.LittleEndian.Uint16(head[at:])) }
	u32 := func(at int) int64 { return int64(binary.LittleEndian.Uint32(head[at:])) }
	v := &Volume{dev: dev, sector: u16(11), root: uint32(u32(44)), info: u16(48) * u16(11)}
	v.cluster = v.sector * int64(head[13])
	if head[510] != 0x55 || head[511] != 0xaa || v.sector < 512 || v.sector&(v.sector-1) != 0 || v.cluster == 0 || u16(22) != 0 || u32(36) == 0 {
		return nil, errors.New("it is not a FAT32 file system")
	}
	reserved, each := u16(14)*v.sector, u32(36)*v.sector
	v.data = reserved
	for range head[16] {
		v.tables = append(v.tables, v.data)
		v.data += each
	}
	count := (u32(32)*v.sector-v.data)/v.cluster + firstCluster
	if len(v.tables) == 0 || count <= firstCluster || count*4 > each {
		return nil, errors.New("its FAT32 header contradicts itself")
	}
	v.table = make([]uint32, count)
	return v, v.readTables()
}

// readTables reads the first copy, and finds where another differs.
func (v *Volume) readTables() error {
	raw := make([]byte, len(v.table)*4)
	for copied, at := range v.tables {
		if _, err := v.dev.ReadAt(raw, at); err != nil {
			return fmt.Errorf("read FAT table: %w", err)
		}
		for i := range v.table {
			entry := binary.LittleEndian.Uint32(raw[i*4:])
			switch {
			case copied == 0:
				v.table[i] = entry
			case v.table[i] != entry:
				v.stale = append(v.stale, uint32(i))
			}
		}
	}
	return nil
}

// chain follows the table from a first cluster. With an error it returns what
// it could follow.
func (v *Volume) chain(first uint32) ([]uint32, error) {
	var list []uint32
	for at := first; at < lastCluster; at = v.table[at] & clusterBits {
		if at < firstCluster || int(at) >= len(v.table) || len(list) >= len(v.table) {
			return list, fmt.Errorf("%w: a chain of clusters is broken at %#x", ErrDamaged, at)
		}
		list = append(list, at)
	}
	return list, nil
}

func (v *Volume) offset(cluster uint32) int64 {
	return v.data + int64(cluster-firstCluster)*v.cluster
}

// runs calls do for each piece of a chain that lies together on the device, at
// most a MiB of it, with the piece's place in the file.
func (v *Volume) runs(chain []uint32, do func(at, length, device int64) error) error {
	most := max(1, int(1<<20/v.cluster))
	for i := 0; i < len(chain); {
		n := 1
		for i+n < len(chain) && n < most && chain[i+n] == chain[i]+uint32(n) {
			n++
		}
		if err := do(int64(i)*v.cluster, int64(n)*v.cluster, v.offset(chain[i])); err != nil {
			return err
		}
		i += n
	}
	return nil
}

func (v *Volume) read(chain []uint32) ([]byte, error) {
	data := make([]byte, int64(len(chain))*v.cluster)
	err := v.runs(chain, func(at, length, device int64) error {
		_, err := v.dev.ReadAt(data[at:at+length], device)
		return err
	})
	return data, err
}

// writeTable writes the sectors of the table that hold these clusters' entries,
// in every copy.
func (v *Volume) writeTable(clusters []uint32) error {
	per := uint32(v.sector / 4)
	sectors := map[uint32]bool{}
	for _, c := range clusters {
		sectors[c/per] = true
	}
	list := make([]uint32, 0, len(sectors))
	for s := range sectors {
		list = append(list, s)
	}
	slices.Sort(list)
	for _, table := range v.tables {
		for _, s := range list {
			block := make([]byte, v.sector)
			for i := uint32(0); i < per && int(s*per+i) < len(v.table); i++ {
				binary.LittleEndian.PutUint32(block[i*4:], v.table[s*per+i])
			}
			if _, err := v.dev.WriteAt(block, table+int64(s)*v.sector); err != nil {
				return err
			}
		}
	}
	return nil
}

// link makes a chain of clusters in the table, durably.
func (v *Volume) link(chain []uint32) error {
	for i, c := range chain {
		next := uint32(endOfChain)
		if i+1 < len(chain) {
			next = chain[i+1]
		}
		v.table[c] = v.table[c]&^clusterBits | next
	}
	if err := v.writeTable(chain); err != nil {
		return err
	}
	return v.dev.Sync()
}

// reached marks every cluster that a name stands for.
func (v *Volume) reached() ([]bool, error) {
	used := make([]bool, len(v.table))
	folders := []uint32{v.root}
	for len(folders) > 0 {
		first := folders[0]
		folders = folders[1:]
		if first < firstCluster || int(first) >= len(used) || used[first] {
			continue
		}
		f, err := v.folder(first)
		if err != nil {
			return nil, err
		}
		mark(used, f.chain)
		for _, e := range f.entries() {
			if e.isDir {
				folders = append(folders, e.start)
				continue
			}
			chain, _ := v.chain(e.start) // a broken one keeps what it has
			mark(used, chain)
		}
	}
	return used, nil
}

func mark(used []bool, chain []uint32) {
	for _, c := range chain {
		used[c] = true
	}
}

// forget sets the hint of how many clusters are free, and where, to "unknown":
// firmware that wants to know counts for itself. Keeping it right would be one
// more thing that a power cut can make wrong.
func (v *Volume) forget() error {
	block := make([]byte, v.sector)
	if _, err := v.dev.ReadAt(block, v.info); err != nil {
		return err
	}
	const unknown = "\xff\xff\xff\xff\xff\xff\xff\xff"
	if hint := block[488:496]; v.info > 0 && string(block[:4]) == "RRaA" && string(hint) != unknown {
		copy(hint, unknown)
		_, err := v.dev.WriteAt(block, v.info)
		return err
	}
	return nil
}

// reclaim frees every cluster that no name reaches: those of a file that was
// replaced or removed, and those that a power cut left behind.
func (v *Volume) reclaim() error {
	used, err := v.reached()
	if err != nil {
		return err
	}
	var freed []uint32
	for c := firstCluster; c < len(v.table); c++ {
		if entry := v.table[c] & clusterBits; entry != 0 && entry != badCluster && !used[c] {
			v.table[c] &^= clusterBits
			freed = append(freed, uint32(c))
		}
	}
	if freed = append(freed, v.stale...); len(freed) == 0 {
		return nil
	}
	if err := v.writeTable(freed); err != nil {
		return err
	}
	v.stale = nil
	return v.dev.Sync()
}

// allocate finds free clusters for a number of bytes: neither the table nor a
// name has them. The table is not changed.
func (v *Volume) allocate(size int64) ([]uint32, error) {
	used, err := v.reached()
	if err != nil {
		return nil, err
	}
	want := int((size + v.cluster - 1) / v.cluster)
	var list []uint32
	for c := firstCluster; c < len(v.table) && len(list) < want; c++ {
		if !used[c] && v.table[c]&clusterBits == 0 {
			list = append(list, uint32(c))
		}
	}
	if len(list) < want {
		return nil, fmt.Errorf("%w: %d bytes are wanted, %d are free", ErrFull, size, int64(len(list))*v.cluster)
	}
	return list, nil
}
