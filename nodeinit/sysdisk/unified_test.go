package sysdisk

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"strings"
	"testing"

	"slipway/configs/disklayout"
	"slipway/image/uki"
	"slipway/nodeinit/lifecycle"
)

// stub is a PE32+ program with one section and room for more, as systemd's.
func stub(t *testing.T) []byte {
	t.Helper()
	optional := pe.OptionalHeader64{Magic: 0x20b, SectionAlignment: 0x200, FileAlignment: 0x200, SizeOfImage: 0x1200, SizeOfHeaders: 0x400, NumberOfRvaAndSizes: 16}
	out := make([]byte, 0x600)
	copy(out, "MZ")
	binary.LittleEndian.PutUint32(out[0x3c:], 0x80)
	at := 0x80 + copy(out[0x80:], "PE\x00\x00")
	for _, header := range []any{
		pe.FileHeader{Machine: pe.IMAGE_FILE_MACHINE_AMD64, NumberOfSections: 1, SizeOfOptionalHeader: uint16(binary.Size(optional))}, optional,
		pe.SectionHeader32{Name: [8]uint8{'.', 't', 'e', 'x', 't'}, VirtualSize: 0x200, VirtualAddress: 0x1000, SizeOfRawData: 0x200, PointerToRawData: 0x400},
	} {
		n, err := binary.Encode(out[at:], binary.LittleEndian, header)
		if err != nil {
			t.Fatal(err)
		}
		at += n
	}
	return out
}

// TestUnifiedKernel: a restart without the firmware gets from a unified kernel
// image what was joined to it: no byte of what fills its sections up, and of the
// sections no other.
func TestUnifiedKernel(t *testing.T) {
	want := lifecycle.Kernel{
		Image: bytes.Repeat([]byte("kernel"), 1001), Initramfs: bytes.Repeat([]byte("initramfs\x00"), 999),
		Arguments: "console=ttyS0 slipway.root=00",
	}
	join := func(sections ...uki.Section) []byte {
		image, err := uki.Join(stub(t), sections...)
		if err != nil {
			t.Fatal(err)
		}
		return image
	}
	osrel, line := uki.Section{Name: ".osrel", Data: []byte("NAME=Slipway\n")}, uki.Section{Name: ".cmdline", Data: []byte(want.Arguments + "\n")}
	initrd, linux := uki.Section{Name: ".initrd", Data: want.Initramfs}, uki.Section{Name: ".linux", Data: want.Image}
	whole := join(osrel, line, initrd, linux)
	for _, name := range []string{"/EFI/Linux/slipway-b.efi", "/EFI/Linux/slipway-b+1.efi", "/EFI/Linux/SLIPWAY-B+2-1.EFI"} {
		got, err := unified(bootFiles{name: whole, "/EFI/Linux/slipway-a.efi": join(linux)}, disklayout.SlotB)
		if err != nil || !bytes.Equal(got.Image, want.Image) || !bytes.Equal(got.Initramfs, want.Initramfs) || got.Arguments != want.Arguments {
			t.Errorf("%s: %v, a kernel of %d bytes, an initramfs of %d, arguments %q", name, err, len(got.Image), len(got.Initramfs), got.Arguments)
		}
	}
	for name, c := range map[string]struct {
		boot bootFiles
		want string
	}{
		"no image":     {bootFiles{"/EFI/Linux/slipway-a.efi": whole}, "no image of slot b"},
		"no initramfs": {bootFiles{"/EFI/Linux/slipway-b.efi": join(line, linux)}, "slipway-b.efi has no section .initrd"},
		"no program":   {bootFiles{"/EFI/Linux/slipway-b.efi": []byte("kernel")}, "slipway-b.efi: "},
		"cut short":    {bootFiles{"/EFI/Linux/slipway-b.efi": whole[:len(whole)/2]}, "slipway-b.efi: section "},
	} {
		if _, err := unified(c.boot, disklayout.SlotB); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want %q", name, err, c.want)
		}
	}
}
