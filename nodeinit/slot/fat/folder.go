package fat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"strings"
	"unicode/utf16"
)

const (
	entrySize = 32
	deleted   = 0xe5
	attrLabel = 0x08
	attrDir   = 0x10
	attrFile  = 0x20
	attrLong  = 0x0f
	perLong   = 13 // UTF-16 units of a name in one entry
)

// folder is a directory as it is on the device.
type folder struct {
	v     *Volume
	chain []uint32
	data  []byte // all entries; behind the first that was never used, zeroes
}

// entry is one name in a folder. It takes several places of 32 bytes: the long
// name, last part first, then the short name with everything else.
type entry struct {
	name     string
	at, last int // first and last place
	start    uint32
	size     uint32
	isDir    bool
}

func (v *Volume) folder(first uint32) (*folder, error) {
	chain, err := v.chain(first)
	if err != nil {
		return nil, fmt.Errorf("read directory: %w", err)
	}
	data, err := v.read(chain)
	if err != nil {
		return nil, fmt.Errorf("read directory: %w", err)
	}
	f := &folder{v, chain, data}
	clear(f.data[f.end()*entrySize:])
	return f, nil
}

func (f *folder) place(i int) []byte { return f.data[i*entrySize : (i+1)*entrySize] }
func (f *folder) places() int        { return len(f.data) / entrySize }
func (f *folder) perSector() int     { return int(f.v.sector) / entrySize }

// end is the first place that was never used.
func (f *folder) end() int {
	for i := range f.places() {
		if f.place(i)[0] == 0 {
			return i
		}
	}
	return f.places()
}

// entries lists the folder without "." and "..". Parts of a long name that
// belong to no short name are what a power cut leaves; they are passed over.
func (f *folder) entries() []entry {
	var list []entry
	long, from := []byte(nil), 0
	for i := range f.end() {
		p := f.place(i)
		switch {
		case p[0] == deleted:
			long = nil
		case p[11]&0x3f == attrLong:
			if p[0]&0x40 != 0 {
				long, from = nil, i
			}
			long = append(bytes.Clone(p), long...)
		case p[11]&attrLabel != 0 || p[0] == '.':
			long = nil
		default:
			list = append(list, parse(p, long, from, i))
			long = nil
		}
	}
	return list
}

func parse(p, long []byte, from, i int) entry {
	e := entry{
		name: shortName(p), at: i, last: i, isDir: p[11]&attrDir != 0,
		start: uint32(binary.LittleEndian.Uint16(p[20:]))<<16 | uint32(binary.LittleEndian.Uint16(p[26:])),
		size:  binary.LittleEndian.Uint32(p[28:]),
	}
	if len(long) > 0 && long[13] == checksum(p[:11]) && len(long) == (i-from)*entrySize {
		e.name, e.at = longName(long), from
	}
	return e
}

// shortName also honours the two bits by which Windows keeps a name in small
// letters without a long one.
func shortName(p []byte) string {
	base, ext := strings.TrimRight(string(p[:8]), " "), strings.TrimRight(string(p[8:11]), " ")
	if p[12]&0x08 != 0 {
		base = strings.ToLower(base)
	}
	if p[12]&0x10 != 0 {
		ext = strings.ToLower(ext)
	}
	if ext == "" {
		return base
	}
	return base + "." + ext
}

// longAt is where a place of a long name has its 13 units.
var longAt = [perLong]int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30}

func longName(long []byte) string {
	var units []uint16
	for i := 0; i < len(long); i += entrySize {
		for _, at := range longAt {
			u := binary.LittleEndian.Uint16(long[i+at:])
			if u == 0 || u == 0xffff {
				return string(utf16.Decode(units))
			}
			units = append(units, u)
		}
	}
	return string(utf16.Decode(units))
}

func checksum(short []byte) (sum byte) {
	for _, b := range short {
		sum = sum>>1 | sum<<7
		sum += b
	}
	return sum
}

func (f *folder) find(name string) (entry, bool) {
	for _, e := range f.entries() {
		if strings.EqualFold(e.name, name) {
			return e, true
		}
	}
	return entry{}, false
}

// encode returns the places of a new name. rest is a short entry from which
// all but the name is taken.
func (f *folder) encode(name string, rest []byte) []byte {
	short, long := f.alias(name)
	last := bytes.Clone(rest)
	copy(last, short)
	last[12] = 0
	if !long {
		return last
	}
	units := utf16.Encode([]rune(name))
	n := (len(units) + perLong - 1) / perLong
	var places []byte
	for part := n; part > 0; part-- {
		p := make([]byte, entrySize)
		p[0], p[11], p[13] = byte(part), attrLong, checksum(short)
		if part == n {
			p[0] |= 0x40
		}
		for i, at := range longAt {
			unit := uint16(0xffff)
			if k := (part-1)*perLong + i; k < len(units) {
				unit = units[k]
			} else if k == len(units) {
				unit = 0
			}
			binary.LittleEndian.PutUint16(p[at:], unit)
		}
		places = append(places, p...)
	}
	return append(places, last...)
}

// alias returns a short name that no other has, and whether the long name is
// needed besides it.
func (f *folder) alias(name string) (short []byte, long bool) {
	base, ext, _ := strings.Cut(strings.ToUpper(name), ".")
	if len(base) <= 8 && len(ext) <= 3 && plain(base)+plain(ext) == base+ext && strings.ToUpper(name) == name {
		return fmt.Appendf(nil, "%-8s%-3s", base, ext), false
	}
	taken := map[string]bool{}
	for i := range f.end() {
		if p := f.place(i); p[0] != deleted && p[11]&0x3f != attrLong {
			taken[string(p[:11])] = true
		}
	}
	base, ext = plain(base), plain(ext)
	for n := 1; ; n++ {
		tail := fmt.Sprintf("~%d", n)
		short = fmt.Appendf(nil, "%-8s%-3.3s", base[:min(len(base), 8-len(tail))]+tail, ext)
		if !taken[string(short)] {
			return short, true
		}
	}
}

// plain keeps the characters that we use in short names.
func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' {
			return r
		}
		return -1
	}, s)
}
