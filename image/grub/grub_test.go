package grub

import (
	"bytes"
	"debug/pe"
	"encoding/binary"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"slipway/configs/disklayout"
	"slipway/test/need"
)

func needs(t *testing.T) {
	t.Helper()
	need.Programs(t, "grub-mkimage")
	need.File(t, Modules, "grub-pc-bin")
}

func TestDisk(t *testing.T) {
	needs(t)
	boot, core, err := Disk(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	word := binary.LittleEndian.Uint64
	if word(boot[coreSector:]) != 2048 || word(core[blockList:]) != 2049 {
		t.Errorf("boot.img looks for core.img at %d, core.img for its rest at %d", word(boot[coreSector:]), word(core[blockList:]))
	}
	if sectors := int(binary.LittleEndian.Uint16(core[blockList+8:])); sectors*sector < len(core)-sector || sectors*sector >= len(core) {
		t.Errorf("core.img has %d bytes and loads %d sectors", len(core), sectors)
	}
	_, again, err := Disk(t.Context())
	if err != nil || !bytes.Equal(core, again) {
		t.Errorf("a second core.img differs: %v", err)
	}
}

func TestCD(t *testing.T) {
	needs(t)
	image, hybrid, err := CD(t.Context())
	if err != nil || len(image) < 32<<10 || len(hybrid) != sector {
		t.Errorf("got %d and %d bytes, %v", len(image), len(hybrid), err)
	}
}

func TestToDisk(t *testing.T) {
	needs(t)
	need.File(t, ModulesUEFI, "grub-efi-amd64-bin")
	program, err := ToDisk(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	file, err := pe.NewFile(bytes.NewReader(program))
	if err != nil || file.Machine != pe.IMAGE_FILE_MACHINE_AMD64 || !bytes.Contains(program, []byte(toDisk)) {
		t.Errorf("%d bytes are not a UEFI program with %q: %v", len(program), toDisk, err)
	}
	if again, err := ToDisk(t.Context()); err != nil || !bytes.Equal(program, again) {
		t.Errorf("made again it differs: %v", err)
	}
}

// TestToDiskBIOS: what a network card starts must fit into the memory below 640 KB.
func TestToDiskBIOS(t *testing.T) {
	needs(t)
	program, err := ToDiskBIOS(t.Context())
	if err != nil || len(program) < 16<<10 || len(program) > 256<<10 {
		t.Errorf("got %d bytes, %v", len(program), err)
	}
	if again, err := ToDiskBIOS(t.Context()); err != nil || !bytes.Equal(program, again) {
		t.Errorf("made again it differs: %v", err)
	}
}

func TestPlaceRefuses(t *testing.T) {
	for name, sizes := range map[string][2]int{"boot": {511, 40000}, "no core": {512, 512}, "large core": {512, maxCore + 1}} {
		if place(make([]byte, sizes[0]), make([]byte, sizes[1]), 0) == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

// TestConfigIsScript lets GRUB's own parser read the configuration.
func TestConfigIsScript(t *testing.T) {
	need.Programs(t, "grub-script-check")
	file := filepath.Join(t.TempDir(), "grub.cfg")
	if err := os.WriteFile(file, []byte(disklayout.GRUBConfigText), 0o644); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "grub-script-check", file).CombinedOutput(); err != nil {
		t.Errorf("%v\n%s", err, out)
	}
}
