package uki

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"strings"
	"testing"
)

// stub returns a small PE32+ program with two sections, room for two more, and
// a symbol table at its end.
func stub(t *testing.T) []byte {
	t.Helper()
	out := make([]byte, 0x400)
	copy(out, "MZ")
	binary.LittleEndian.PutUint32(out[0x3c:], 0x80)
	copy(out[0x80:], "PE\x00\x00")
	put := func(offset int, values ...any) {
		for _, v := range values {
			n, err := binary.Encode(out[offset:], binary.LittleEndian, v)
			if err != nil {
				t.Fatal(err)
			}
			offset += n
		}
	}
	optional := pe.OptionalHeader64{Magic: 0x20b, SizeOfInitializedData: 0x200, SectionAlignment: 0x200, FileAlignment: 0x200,
		SizeOfImage: 0x1300, SizeOfHeaders: 0x200 - 8, CheckSum: 7, NumberOfRvaAndSizes: 16}
	size := binary.Size(optional)
	first := 0x98 + size
	optional.SizeOfHeaders = uint32(first + 4*sectionHeader)
	put(0x84, pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: 2, PointerToSymbolTable: 0x511, NumberOfSymbols: 1,
		SizeOfOptionalHeader: uint16(size)}, optional)
	put(first, pe.SectionHeader32{Name: [8]uint8{'.', 't', 'e', 'x', 't'}, VirtualSize: 0x10, VirtualAddress: 0x1000, SizeOfRawData: 0x10, PointerToRawData: 0x400},
		pe.SectionHeader32{Name: [8]uint8{'.', 's', 'b', 'a', 't'}, VirtualSize: 0x101, VirtualAddress: 0x1200, SizeOfRawData: 0x101, PointerToRawData: 0x410})
	out = append(out, bytes.Repeat([]byte("t"), 0x10)...)
	out = append(out, bytes.Repeat([]byte("s"), 0x101)...)
	out = append(out, bytes.Repeat([]byte("y"), pe.COFFSymbolSize-1)...)
	return append(out, 0, 4, 0, 0, 0) // no auxiliary symbols, an empty string table
}

func TestJoin(t *testing.T) {
	image, err := Join(stub(t), Section{".cmdline", []byte("quiet")}, Section{".linux", bytes.Repeat([]byte("k"), 5000)})
	if err != nil {
		t.Fatal(err)
	}
	file, err := pe.NewFile(bytes.NewReader(image))
	if err != nil {
		t.Fatal(err)
	}
	if file.NumberOfSymbols != 0 || bytes.Contains(image, []byte("yy")) {
		t.Error("the stub's symbols are still there")
	}
	if h := file.OptionalHeader.(*pe.OptionalHeader64); h.SizeOfImage != 0x5000 || h.CheckSum != 0 || h.SizeOfInitializedData != 0x200+0x200+0x1400 {
		t.Errorf("optional header is %+v", h)
	}
	want := map[string]struct {
		address uint32
		data    string
	}{
		".text": {0x1000, strings.Repeat("t", 0x10)}, ".sbat": {0x1200, strings.Repeat("s", 0x101)},
		".cmdline": {0x2000, "quiet"}, ".linux": {0x3000, strings.Repeat("k", 5000)},
	}
	if len(file.Sections) != len(want) {
		t.Errorf("it has %d sections", len(file.Sections))
	}
	for _, s := range file.Sections {
		data, err := s.Data()
		if err != nil {
			t.Fatal(err)
		}
		data = data[:min(int(s.VirtualSize), len(data))] // the rest fills the file up
		if w := want[s.Name]; s.VirtualAddress != w.address || string(data) != w.data {
			t.Errorf("section %s at %#x has %d bytes; want %#x, %d", s.Name, s.VirtualAddress, len(data), w.address, len(w.data))
		}
	}
}

// TestWithCommandLine: nothing but the command line differs, and a signature is gone.
func TestWithCommandLine(t *testing.T) {
	image := func(line string) []byte {
		out, err := Join(stub(t), Section{".cmdline", []byte(line)}, Section{".linux", bytes.Repeat([]byte("k"), 5000)})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	signed := image("quiet")
	at := binary.LittleEndian.Uint32(signed[0x3c:]) + coffEnd + certificates
	binary.LittleEndian.PutUint64(signed[at:], uint64(len(signed))|16<<32)
	signed = append(signed, "the signature..."...)
	got, err := WithCommandLine(signed, strings.Repeat("longer ", 100))
	if err != nil || !bytes.Equal(got, image(strings.Repeat("longer ", 100))) {
		t.Errorf("the image is another one than if it were made so: %v", err)
	}
	if _, err := WithCommandLine(stub(t), "quiet"); err == nil || !strings.Contains(err.Error(), "no sections of ours") {
		t.Errorf("a stub alone: %v", err)
	}
}

func TestJoinRefuses(t *testing.T) {
	ok := []byte("x")
	for name, tt := range map[string]struct {
		sections []Section
		want     string
	}{
		"long name": {[]Section{{".longername", ok}}, "at most 8 bytes"},
		"there":     {[]Section{{".sbat", ok}}, "the stub has it already"},
		"twice":     {[]Section{{".linux", ok}, {".linux", ok}}, "added twice"},
		"empty":     {[]Section{{".linux", nil}}, "it is empty"},
		"no room":   {[]Section{{".a", ok}, {".b", ok}, {".c", ok}}, "add section .c: the stub's headers have no room"},
	} {
		if _, err := Join(stub(t), tt.sections...); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: error is %v, want %q", name, err, tt.want)
		}
	}
	for name, damaged := range map[string][]byte{"text": []byte("not a program"), "cut": stub(t)[:0x420]} {
		if _, err := Join(damaged, Section{".linux", ok}); err == nil {
			t.Errorf("%s: it was taken for a stub", name)
		}
	}
}
