package fat

import (
	"bytes"
	"encoding/binary"
)

// A change of a folder is written sector by sector, each wholly.

// flush writes sectors of the folder in the order given.
func (f *folder) flush(sectors ...int) error {
	for _, s := range sectors {
		at := int64(s) * f.v.sector
		device := f.v.offset(f.chain[at/f.v.cluster]) + at%f.v.cluster
		if _, err := f.v.dev.WriteAt(f.data[at:at+f.v.sector], device); err != nil {
			return err
		}
	}
	return f.v.dev.Sync()
}

// room finds n free places in a row inside one sector, from the sector first to
// before the sector behind.
func (f *folder) room(n, first, behind int) (at int, ok bool) {
	per := f.perSector()
	for s := first; s < behind; s++ {
		free := 0
		for i := s * per; i < (s+1)*per; i++ {
			if p := f.place(i); p[0] != 0 && p[0] != deleted {
				free = 0
				continue
			}
			if free++; free == n {
				return i - n + 1, true
			}
		}
	}
	return 0, false
}

// put writes the places of a name at a free place, with one deciding sector.
// Places behind the folder's end count for readers only once all before them
// are used: so what lies behind is made sure to be empty first, and the sectors
// before it are marked last.
func (f *folder) put(at int, places []byte) error {
	per, end := f.perSector(), f.end()
	target := at / per
	copy(f.data[at*entrySize:], places)
	if target < end/per {
		return f.flush(target)
	}
	if behind := at + len(places)/entrySize; behind%per == 0 && behind < f.places() {
		if err := f.flush(target + 1); err != nil {
			return err
		}
	}
	for i := end; i < at; i++ {
		f.place(i)[0] = deleted
	}
	if err := f.flush(target); err != nil {
		return err
	}
	for s := target - 1; s >= end/per; s-- {
		if err := f.flush(s); err != nil {
			return err
		}
	}
	return nil
}

// add writes a new name. The folder grows when it is full.
func (f *folder) add(places []byte) error {
	n := len(places) / entrySize
	at, ok := f.room(n, 0, f.places()/f.perSector())
	if !ok {
		if err := f.grow(); err != nil {
			return err
		}
		at, ok = f.room(n, 0, f.places()/f.perSector())
	}
	if !ok {
		return ErrFull
	}
	return f.put(at, places)
}

// grow adds an empty cluster: first it is empty, then it ends a chain, then it
// belongs to the folder.
func (f *folder) grow() error {
	more, err := f.v.allocate(f.v.cluster)
	if err != nil {
		return err
	}
	if _, err := f.v.dev.WriteAt(make([]byte, f.v.cluster), f.v.offset(more[0])); err != nil {
		return err
	}
	if err := f.v.link(more); err != nil {
		return err
	}
	if err := f.v.link([]uint32{f.chain[len(f.chain)-1], more[0]}); err != nil {
		return err
	}
	f.chain, f.data = append(f.chain, more[0]), append(f.data, make([]byte, f.v.cluster)...)
	return nil
}

// drop takes a name away. The short entry, which is the last, decides; what is
// left of the long name stands for nothing without it.
func (f *folder) drop(e entry) error {
	for i := e.at; i <= e.last; i++ {
		f.place(i)[0] = deleted
	}
	for s := e.last / f.perSector(); s >= e.at/f.perSector(); s-- {
		if err := f.flush(s); err != nil {
			return err
		}
	}
	return nil
}

// rename gives an entry another name: with one sector if both fit into it.
func (f *folder) rename(e entry, name string) error {
	places := f.encode(name, f.place(e.last))
	sector := e.at / f.perSector()
	if sector == e.last/f.perSector() {
		old := bytes.Clone(f.data[e.at*entrySize : (e.last+1)*entrySize])
		for i := e.at; i <= e.last; i++ {
			f.place(i)[0] = deleted
		}
		if at, ok := f.room(len(places)/entrySize, sector, sector+1); ok {
			return f.put(at, places)
		}
		copy(f.data[e.at*entrySize:], old)
	}
	if err := f.add(places); err != nil {
		return err
	}
	return f.drop(e)
}

// point lets an entry stand for other clusters.
func (f *folder) point(e entry, start uint32, size int64) error {
	fill(f.place(e.last), start, size)
	return f.flush(e.last / f.perSector())
}

func fill(p []byte, start uint32, size int64) {
	binary.LittleEndian.PutUint16(p[20:], uint16(start>>16))
	binary.LittleEndian.PutUint16(p[26:], uint16(start))
	binary.LittleEndian.PutUint32(p[28:], uint32(size))
}

// blank is a short entry without a name. All times are FAT's first day: what a
// boot partition holds does not depend on a clock.
func blank(attr byte, start uint32, size int64) []byte {
	p := make([]byte, entrySize)
	p[11] = attr
	for _, at := range []int{16, 18, 24} {
		binary.LittleEndian.PutUint16(p[at:], 1<<5|1)
	}
	fill(p, start, size)
	return p
}
