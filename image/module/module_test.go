package module

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/ulikunitz/xz"
)

// makeModule returns an object file whose .modinfo section holds the fields.
func makeModule(t testing.TB, fields ...string) []byte {
	t.Helper()
	names := "\x00.shstrtab\x00.modinfo\x00"
	info := strings.Join(fields, "\x00") + "\x00"
	const header = 64
	sections := []elf.Section64{
		{},
		{Name: 1, Type: uint32(elf.SHT_STRTAB), Off: header, Size: uint64(len(names))},
		{Name: 11, Type: uint32(elf.SHT_PROGBITS), Off: header + uint64(len(names)), Size: uint64(len(info))},
	}
	h := elf.Header64{Type: uint16(elf.ET_REL), Machine: uint16(elf.EM_X86_64), Version: 1, Ehsize: header,
		Shoff: uint64(header + len(names) + len(info)), Shentsize: 64, Shnum: uint16(len(sections)), Shstrndx: 1}
	copy(h.Ident[:], elf.ELFMAG)
	h.Ident[elf.EI_CLASS], h.Ident[elf.EI_DATA], h.Ident[elf.EI_VERSION] = byte(elf.ELFCLASS64), byte(elf.ELFDATA2LSB), 1
	var b bytes.Buffer
	for _, part := range []any{h, []byte(names), []byte(info), sections} {
		if err := binary.Write(&b, binary.LittleEndian, part); err != nil {
			t.Fatal(err)
		}
	}
	return b.Bytes()
}

func pack(t testing.TB, data []byte) []byte {
	t.Helper()
	var b bytes.Buffer
	w, err := xz.NewWriter(&b)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := w.Write(data); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return b.Bytes()
}

func TestParseInfo(t *testing.T) {
	ko := makeModule(t, "license=GPL", "alias=pci:v0000*", "alias=fs-x", "depends=nf-tables,libcrc32c", "softdep=pre: crc32c a-b post: late")
	got, err := ParseInfo("kernel/net/x-y.ko", ko)
	if err != nil {
		t.Fatal(err)
	}
	want := Info{Path: "kernel/net/x-y.ko", Name: "x_y", Depends: []string{"nf_tables", "libcrc32c"},
		Soft: []string{"crc32c", "a_b"}, Aliases: []string{"pci:v0000*", "fs-x"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("info (-want +got):\n%s", diff)
	}
}

// kernel is a small module tree: nf_tables needs libcrc32c, which needs any
// implementation of the algorithm crc32c; nic's phy is optional.
func kernel(t *testing.T) Packed {
	p := Packed{}
	for path, fields := range map[string][]string{
		"kernel/net/nf_tables.ko.xz":         {"depends=nfnetlink,libcrc32c"},
		"kernel/net/nfnetlink.ko.xz":         {"depends="},
		"kernel/lib/libcrc32c.ko.xz":         {"depends=", "softdep=pre: crc32c"},
		"kernel/crypto/crc32c_generic.ko.xz": {"depends=", "alias=crc32c", "alias=crypto-crc32c"},
		"kernel/crypto/crc32c-intel.ko.xz":   {"depends=", "alias=crc32c"},
		"kernel/drivers/nic.ko.xz":           {"depends=builtin_bus", "softdep=pre: phy missing", "alias=pci:v1"},
		"kernel/drivers/phy.ko.xz":           {"depends="},
		"kernel/drivers/bad.ko.xz":           {"depends=absent"},
	} {
		p.Add(path, pack(t, makeModule(t, fields...)))
	}
	p.Add("modules.order", []byte("not a module"))
	return p
}

func TestUnpackAndTables(t *testing.T) {
	builtin := func(name string) bool { return name == "builtin_bus" }
	modules, err := kernel(t).Unpack([]string{"nf-tables", "nic", "crc32c_generic"}, builtin)
	if err != nil {
		t.Fatal(err)
	}
	set := Set{}
	for name, m := range modules {
		set[name] = m.Info
	}
	set = set.Resolve()
	wantDep := `kernel/crypto/crc32c_generic.ko:
kernel/lib/libcrc32c.ko: kernel/crypto/crc32c_generic.ko
kernel/net/nf_tables.ko: kernel/lib/libcrc32c.ko kernel/crypto/crc32c_generic.ko kernel/net/nfnetlink.ko
kernel/net/nfnetlink.ko:
kernel/drivers/nic.ko:
kernel/drivers/phy.ko:
`
	if diff := cmp.Diff(wantDep, string(set.Dep())); diff != "" {
		t.Errorf("modules.dep (-want +got):\n%s", diff)
	}
	wantAlias := "# Aliases extracted from modules themselves.\nalias crc32c crc32c_generic\nalias crypto-crc32c crc32c_generic\nalias pci:v1 nic\n"
	if diff := cmp.Diff(wantAlias, string(set.Alias())); diff != "" {
		t.Errorf("modules.alias (-want +got):\n%s", diff)
	}
	if !strings.Contains(string(set.SoftDep()), "softdep nic pre: phy\n") {
		t.Errorf("modules.softdep is\n%s", set.SoftDep())
	}
	order := set.LoadOrder([]string{"nf_tables"})
	if diff := cmp.Diff([]string{"nfnetlink", "crc32c_generic", "libcrc32c", "nf_tables"}, order); diff != "" {
		t.Errorf("load order (-want +got):\n%s", diff)
	}
}

func TestUnpackNamesWhatIsMissing(t *testing.T) {
	none := func(string) bool { return false }
	_, err := kernel(t).Unpack([]string{"bad"}, none)
	if err == nil || !strings.Contains(err.Error(), "module absent, needed by bad, is not in the kernel package") {
		t.Errorf("error is %v", err)
	}
	_, err = kernel(t).Unpack([]string{"nope"}, none)
	if err == nil || !strings.Contains(err.Error(), "module nope, needed by the recipe") {
		t.Errorf("error is %v", err)
	}
}

func FuzzParseInfo(f *testing.F) {
	f.Add(makeModule(f, "depends=a,b", "softdep=pre: c", "alias=x"))
	f.Add([]byte("\x7fELF"))
	f.Fuzz(func(t *testing.T, data []byte) {
		info, err := ParseInfo("x.ko", data)
		if err == nil && slices.Contains(info.Depends, "") {
			t.Error("a dependency without a name")
		}
	})
}
