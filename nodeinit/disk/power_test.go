package disk

import (
	"bytes"
	"context"
	"errors"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"slipway/configs/disklayout"
	"slipway/configs/wipe"
	"slipway/test/need"
)

var errPower = errors.New("the power was cut")

// cutter is a disk whose power is cut at the write of a number. Of the writes
// since the last Sync, that one included, each sector is there or is not, in no
// order: disks promise no more.
type cutter struct {
	*os.File
	random  *rand.Rand
	left    int // writes; below 0: for ever
	pending []undo
}

// undo is what was in a place before a write that was not synced yet.
type undo struct {
	at  int64
	old []byte
}

func (c *cutter) WriteAt(b []byte, at int64) (int, error) {
	if c.left == 0 {
		return 0, errPower
	}
	old := make([]byte, len(b))
	if _, err := c.File.ReadAt(old, at); err != nil {
		return 0, err
	}
	c.pending = append(c.pending, undo{at, old})
	if _, err := c.File.WriteAt(b, at); err != nil {
		return 0, err
	}
	if c.left--; c.left == 0 {
		return 0, c.cut()
	}
	return len(b), nil
}

func (c *cutter) Sync() error {
	if c.left == 0 {
		return errPower
	}
	c.pending = nil
	return nil
}

func (c *cutter) cut() error {
	for i := len(c.pending) - 1; i >= 0; i-- {
		u := c.pending[i]
		unit := 512
		if len(u.old) > 64<<10 {
			unit = 64 << 10 // zeros, in which more pieces show nothing more
		}
		for at := 0; at < len(u.old); at += unit {
			part := u.old[at:min(at+unit, len(u.old))]
			if c.random.IntN(2) == 0 {
				continue
			}
			if _, err := c.File.WriteAt(part, u.at+int64(at)); err != nil {
				return err
			}
		}
	}
	return errPower
}

// forEachCut runs an operation on a fresh disk with a cut at its first write, at
// its second, and so on until it gets through, and looks at what the cut left.
func forEachCut(t *testing.T, disk func(*testing.T) Disk, operation func(*Held) error, after func(*testing.T, Disk)) {
	need.Programs(t, "wipefs")
	seeds, step := uint64(3), 1
	if testing.Short() {
		seeds, step = 1, 4
	}
	for seed := range seeds {
		for n, done := 1, false; !done; n += step {
			if n > 1000 {
				t.Fatal("no end of writes")
			}
			d := disk(t)
			done = cutAt(t, d, n, rand.New(rand.NewPCG(seed, uint64(n))), operation)
			after(t, d)
			if t.Failed() {
				t.Fatalf("seed %d, cut at write %d", seed, n)
			}
			if err := os.Remove(d.Path); err != nil {
				t.Fatal(err)
			}
		}
	}
}

func cutAt(t *testing.T, d Disk, n int, random *rand.Rand, operation func(*Held) error) (done bool) {
	t.Helper()
	f, err := os.OpenFile(d.Path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	c := &cutter{File: f, random: random, left: n}
	err = operation(&Held{disk: d, owner: us, device: f, s: c})
	if err != nil && c.left > 0 {
		t.Fatal(err)
	}
	return err == nil
}

// strangers is a disk with an installation of another cluster, and on it, over
// the whole disk, the first lines of Ceph's.
func strangers(t *testing.T) Disk {
	t.Helper()
	d, f := blank(t, disklayout.SmallestDisk, 512)
	mustWrite(t, newTable(others, d, planOf(t, d, 0)), f, d)
	if _, err := f.WriteAt([]byte("bluestore block device\n00000000-1111-2222-3333-444444444444\n"), 0); err != nil {
		t.Fatal(err)
	}
	return d
}

// TestPowerCutPartition: whenever the power is cut, the disk is as it was when a
// person agreed, or it is ours; and partitioning again ends well.
func TestPowerCutPartition(t *testing.T) {
	agreed := survey(t, us, strangers(t)).Hash()
	partition := func(h *Held) error {
		_, err := h.Partition(t.Context(), planOf(t, h.disk, 0))
		return err
	}
	forEachCut(t, strangers, partition, func(t *testing.T, d Disk) {
		m := survey(t, us, d)
		if err := Agreed(m, agreed); err != nil {
			t.Errorf("a person is asked again: %v", err)
		}
		wantNoHalfLoader(t, d)
		h := takeBack(t, d, agreed)
		defer h.Close()
		if err := partition(h); err != nil {
			t.Error(err)
		}
		if m := survey(t, us, d); !m.Disks[0].Own {
			t.Errorf("in the end the disk is not ours:\n%s", m.Text())
		}
		if claim, err := readClaim(h.s, d); claim != "" || err != nil {
			t.Errorf("in the end there is the claim %q, %v", claim, err)
		}
	})
}

// wantNoHalfLoader: what a BIOS would start from a stranger's disk is the
// stranger's, with nothing wiped yet, or goes on to the next boot device.
func wantNoHalfLoader(t *testing.T, d Disk) {
	t.Helper()
	f, err := os.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	begin := make([]byte, 1024)
	if _, err := f.ReadAt(begin, 0); err != nil {
		t.Fatal(err)
	}
	program, signature, rest := begin[:disklayout.BootCode], string(begin[510:512]), string(begin[512:520])
	if signature == "\x55\xaa" && !bytes.Equal(program, disklayout.NoBoot[:]) && (!bytes.HasPrefix(program, []byte("bluestore")) || rest != "EFI PART") {
		t.Errorf("a BIOS starts %.20q, behind it is %q", program, rest)
	}
}

// TestPowerCutDropTable: whenever the power is cut, the rest of what is ours is
// still known to be ours, until the disk is blank.
func TestPowerCutDropTable(t *testing.T) {
	ours := func(t *testing.T) Disk {
		d, f := blank(t, disklayout.SmallestDisk, 512)
		mustWrite(t, newTable(us, d, planOf(t, d, 0)), f, d)
		return d
	}
	drop := func(h *Held) error {
		have, err := readTable(h.s, h.disk)
		if err != nil || have == nil {
			return err
		}
		return h.dropTable(t.Context(), have)
	}
	forEachCut(t, ours, drop, func(t *testing.T, d Disk) {
		h := takeBack(t, d, "")
		defer h.Close()
		if err := drop(h); err != nil {
			t.Error(err)
		}
		if m := survey(t, others, d); len(m.Foreign()) > 0 {
			t.Errorf("in the end the disk is not blank:\n%s", m.Text())
		}
	})
}

// partOf is a partition as a device of its own.
type partOf struct {
	storage
	Partition
}

func (p partOf) ReadAt(b []byte, at int64) (int, error)  { return p.storage.ReadAt(b, p.Start+at) }
func (p partOf) WriteAt(b []byte, at int64) (int, error) { return p.storage.WriteAt(b, p.Start+at) }

// wipeRunning is Wipe of a disk whose slot A runs.
func wipeRunning(t *testing.T, h *Held) error {
	return h.wipeInstallation(t.Context(), wipe.Metadata, func(p Partition) (*Held, error) {
		if p.Label == disklayout.SlotALabel {
			return nil, ErrInUse
		}
		f, err := os.Open(h.disk.Path) // to be closed
		return &Held{disk: Disk{Size: p.Size}, device: f, s: partOf{h.s, p}}, err
	})
}

// filled is a disk of ours that does not boot any more, with a mark at both ends
// of each partition. The last one is a user's volume, if there is to be one.
func filled(t *testing.T, volume bool) Disk {
	t.Helper()
	d, f := blank(t, disklayout.SmallestDisk, 512)
	plan := planOf(t, d, disklayout.SmallestData)
	if volume {
		end := plan[len(plan)-1].End()
		plan = append(plan, disklayout.Partition{Number: 7, Label: "volume", Type: disklayout.TypeLinuxData, Start: end, Size: 8 * disklayout.MiB})
	}
	mustWrite(t, newTable(us, d, plan), &cutter{File: f, left: -1}, d) // it need not reach the computer's own disk
	writes := map[int64][]byte{0: disklayout.NoBoot[:]}
	for _, p := range plan {
		writes[p.Start], writes[p.End()-int64(len(ofUse))] = ofUse, ofUse
		d.Partitions = append(d.Partitions, Partition{Label: p.Label, Number: p.Number, Start: p.Start, Size: p.Size})
	}
	for at, data := range writes {
		if _, err := f.WriteAt(data, at); err != nil {
			t.Fatal(err)
		}
	}
	return d
}

// ofUse is what a partition is known by.
var ofUse = bytes.Repeat([]byte("of use"), 1024)

// inUse are the labels of the partitions that still have a part of that. Of a
// partition that is not Slipway's it must be all.
func inUse(t *testing.T, d Disk) (labels []string) {
	t.Helper()
	f, err := os.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, p := range d.Partitions {
		both := make([]byte, 2*len(ofUse))
		begin, end := both[:len(ofUse)], both[len(ofUse):]
		_, errBegin := f.ReadAt(begin, p.Start)
		_, errEnd := f.ReadAt(end, p.Start+p.Size-int64(len(end)))
		if err := errors.Join(errBegin, errEnd); err != nil {
			t.Fatal(err)
		}
		if bytes.ContainsAny(both, "of use") {
			labels = append(labels, p.Label)
		}
		if !slices.Contains(wiped, p.Label) && !bytes.Equal(both, bytes.Repeat(ofUse, 2)) {
			t.Errorf("%s, which is not Slipway's, was written to", p.Label)
		}
	}
	return labels
}

// TestPowerCutWipe: whenever the power is cut, the partition that says whose the
// disk is, and that it is being wiped, goes after all others; nobody is asked
// before the rest is wiped; and the wipe that goes on leaves nothing.
func TestPowerCutWipe(t *testing.T) {
	ours := func(t *testing.T) Disk { return filled(t, false) }
	wipe := func(h *Held) error { return wipeRunning(t, h) }
	forEachCut(t, ours, wipe, func(t *testing.T, d Disk) {
		left := inUse(t, d)
		if len(left) > 0 && !slices.Contains(left, disklayout.StateLabel) {
			t.Errorf("the state is gone before %v", left)
		}
		wantNoHalfLoader(t, d)
		parts := d.Partitions
		d.Partitions = nil
		h := takeBack(t, d, "")
		defer h.Close()
		h.disk.Partitions = parts
		if err := wipe(h); err != nil {
			t.Error(err)
		}
		if m := survey(t, others, d); len(m.Foreign()) > 0 {
			t.Errorf("in the end the disk is not blank:\n%s", m.Text())
		}
		d.Partitions = parts
		if left := inUse(t, d); len(left) > 0 {
			t.Errorf("in the end there is something in %v", left)
		}
	})
}

// TestPowerCutWipeBesideVolume: whenever the power is cut, a partition that
// Slipway did not make is in the table and has what it holds.
func TestPowerCutWipeBesideVolume(t *testing.T) {
	ours := func(t *testing.T) Disk { return filled(t, true) }
	wipe := func(h *Held) error { return wipeRunning(t, h) }
	want := func(t *testing.T, d Disk, when string) {
		t.Helper()
		list, err := Listed(d)
		if err != nil || !slices.ContainsFunc(list, func(p Partition) bool { return p.Label == "volume" && p.Number == 7 }) {
			t.Errorf("%s the table has %v, %v", when, list, err)
		}
	}
	forEachCut(t, ours, wipe, func(t *testing.T, d Disk) {
		want(t, d, "after the cut")
		inUse(t, d)
		if !cutAt(t, d, -1, nil, wipe) {
			t.Error("the wipe does not go on")
		}
		want(t, d, "in the end")
		list, _ := Listed(d) // was looked at by now
		if left := inUse(t, d); len(list) != 1 || len(left) != 1 {
			t.Errorf("in the end the table has %v, and there is something in %v", list, left)
		}
	})
}

// written is a disk with the table of a disk of so many bytes, as when an image
// of that size was written to it: the second copy is where the image ended. It is
// nobody's, and has a program in its first sector, and a mark at both ends of each
// partition.
func written(t *testing.T, size int64, plan []disklayout.Partition) Disk {
	t.Helper()
	d, f := blank(t, disklayout.SmallestDisk, 512)
	image := d
	image.Size = size
	s := &cutter{File: f, left: -1} // it need not reach the computer's own disk
	tab := newTable(Owner{}, image, plan)
	mustWrite(t, tab, s, image)
	if _, err := s.WriteAt(ofUse[:disklayout.BootCode], 0); err != nil {
		t.Fatal(err)
	}
	if err := markAll(s, (&Held{disk: d}).named(tab)); err != nil {
		t.Fatal(err)
	}
	return d
}

// markAll writes a mark to both ends of each partition.
func markAll(s storage, list []Partition) error {
	for _, p := range list {
		for _, at := range []int64{p.Start, p.Start + p.Size - int64(len(ofUse))} {
			if _, err := s.WriteAt(ofUse, at); err != nil {
				return err
			}
		}
	}
	return s.Sync()
}

// wantParts: a disk has the partitions of a plan, each that it has is whole, and
// so is the program in its first sector.
func wantParts(t *testing.T, d Disk, plan []disklayout.Partition, when string) {
	t.Helper()
	f, err := os.Open(d.Path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	tab := mustRead(t, f, d)
	if tab == nil {
		t.Fatalf("%s the disk has no partition table", when)
	}
	for _, p := range plan {
		if have, ok := tab.find(p.Label); !ok || !same(have, p, d) {
			t.Errorf("%s %s is not where it is to be: %+v", when, p.Label, have)
		}
	}
	whole := func(what string, at int64, size int) {
		got := make([]byte, size)
		if _, err := f.ReadAt(got, at); err != nil || !bytes.Equal(got, ofUse[:size]) {
			t.Errorf("%s %s is not whole: %v", when, what, err)
		}
	}
	whole("the program in the first sector", 0, disklayout.BootCode)
	for _, p := range (&Held{disk: d}).named(tab) {
		whole(p.Label, p.Start, len(ofUse))
		whole(p.Label, p.Start+p.Size-int64(len(ofUse)), len(ofUse))
	}
}

// TestPowerCutComplete: whenever the power is cut, the system is where it was, a
// partition that the table has is whole, and the rest is made the next time.
func TestPowerCutComplete(t *testing.T) {
	system := disklayout.System()[:4]
	raw := func(t *testing.T) Disk { return written(t, system[3].End()+disklayout.MiB, system) }
	complete := func(h *Held) error {
		_, err := h.complete(t.Context(), 0, func(_ context.Context, next *table, labels []string) ([]Partition, error) {
			missing := slices.DeleteFunc(h.named(next), func(p Partition) bool { return !slices.Contains(labels, p.Label) })
			return missing, markAll(h.s, missing)
		})
		return err
	}
	forEachCut(t, raw, complete, func(t *testing.T, d Disk) {
		wantParts(t, d, system, "after the cut")
		if !cutAt(t, d, -1, nil, complete) {
			t.Error("it is not completed the next time")
		}
		wantParts(t, d, planOf(t, d, 0), "in the end")
	})
}

// TestPowerCutAdopt: whenever the power is cut, all partitions are where they
// were, and the disk is its owner's the next time.
func TestPowerCutAdopt(t *testing.T) {
	nobodys := func(t *testing.T) Disk {
		return written(t, disklayout.SmallestDisk, planOf(t, Disk{Size: disklayout.SmallestDisk}, 0))
	}
	adopt := func(h *Held) error { return nameTable(h.s, h.disk, us) }
	forEachCut(t, nobodys, adopt, func(t *testing.T, d Disk) {
		plan := planOf(t, d, 0)
		wantParts(t, d, plan, "after the cut")
		if !cutAt(t, d, -1, nil, adopt) {
			t.Error("it is not adopted the next time")
		}
		wantParts(t, d, plan, "in the end")
		f, err := os.Open(d.Path)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		if tab := mustRead(t, f, d); tab.GUID != us.guid() {
			t.Errorf("in the end it is somebody else's: %s", tab.GUID)
		}
	})
}

// takeBack takes the disk after a cut; what is written then need not reach the
// computer's own disk.
func takeBack(t *testing.T, d Disk, agreed string) *Held {
	t.Helper()
	h, err := Tools{}.Take(t.Context(), d, us, agreed)
	if err != nil {
		t.Fatal(err)
	}
	h.s = &cutter{File: h.device, left: -1}
	return h
}

// survey is of a disk with the machine's own programs.
func survey(t *testing.T, owner Owner, d Disk) Manifest {
	t.Helper()
	m, err := Tools{}.Survey(t.Context(), owner, d)
	if err != nil {
		t.Fatal(err)
	}
	return m
}
