package powercut

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"

	"github.com/diskfs/go-diskfs/filesystem/fat12"
	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"slipway/configs/disklayout"
	"slipway/nodeinit/install"
	"slipway/nodeinit/slot/fat"
)

// What firmware, systemd-boot, GRUB and init do at a boot, written after their
// documentation and source, and reading the disk by another driver than ours.
// They know nothing of package slot.

// errStuck is of a machine that neither boots from its disk nor goes on to the
// network: a person must come.
var errStuck = errors.New("the machine is stuck")

// bootDisk is what a boot ended with: the slot whose system runs and which it
// is. An empty slot: the disk offers nothing, and firmware boots from the network.
func (m *machine) bootDisk() (disklayout.Slot, *build, error) {
	if m.uefi {
		return m.bootUEFI()
	}
	return m.bootBIOS()
}

// esp is the boot partition as firmware finds it; nil: not at all.
func (m *machine) esp() *fat32.FileSystem {
	table, err := gpt.Read(part{m.disk, 0, m.disk.size}.storage(), sector, sector)
	if err != nil {
		return nil
	}
	for _, p := range table.Partitions {
		if p.Name == disklayout.BootLabel {
			boot := m.part(disklayout.BootLabel)
			volume, err := fat32.Read(firstTable{boot.storage()}, boot.length, 0, sector)
			if err != nil {
				return nil
			}
			return volume
		}
	}
	return nil
}

// firstTable shows the first copy of FAT's table in place of the second too:
// go-diskfs takes no volume whose copies differ, firmware and GRUB read the
// first and do not compare.
type firstTable struct{ storage }

func (f firstTable) ReadAt(b []byte, at int64) (int, error) {
	head := make([]byte, sector)
	if _, err := f.storage.ReadAt(head, 0); err != nil {
		return 0, err
	}
	begin := int64(binary.LittleEndian.Uint16(head[14:])) * sector
	length := int64(binary.LittleEndian.Uint32(head[36:])) * sector
	if at >= begin+length && at < begin+2*length {
		at -= length
	}
	return f.storage.ReadAt(b, at)
}

// read returns a file's content; nil: there is none.
func read(volume *fat32.FileSystem, name string) []byte {
	f, err := volume.OpenFile(strings.TrimPrefix(name, "/"), os.O_RDONLY)
	if err != nil {
		return nil
	}
	defer f.Close()
	data := make([]byte, 1<<20)
	n, err := f.Read(data)
	if err != nil && err != io.EOF {
		return nil
	}
	return data[:n]
}

func (m *machine) bootUEFI() (disklayout.Slot, *build, error) {
	volume := m.esp()
	if volume == nil {
		return "", nil, nil
	}
	loader := read(volume, disklayout.RemovableLoader)
	if loader == nil {
		return "", nil, nil
	}
	if m.loads = m.whose(loader, "loaders/systemd-bootx64.efi"); m.loads == nil {
		return "", nil, fmt.Errorf("%w: the loader is not whole", errStuck)
	}
	name, err := m.systemdBoot(volume)
	if err != nil {
		return "", nil, err
	}
	system := m.whose(read(volume, "/EFI/Linux/"+name), "uki.efi")
	if system == nil {
		return "", nil, fmt.Errorf("%w: %s is not whole", errStuck, name)
	}
	n := disklayout.Slot(strings.TrimPrefix(name, "slipway-")[:1])
	return n, system, m.init(n, system)
}

// sdEntry is a kernel image as systemd-boot lists it.
type sdEntry struct {
	name        string
	tries, done int // tries -1: not counted
	version     string
}

// systemdBoot chooses as systemd-boot 252 does, and uses up a try.
func (m *machine) systemdBoot(volume *fat32.FileSystem) (string, error) {
	infos, err := volume.ReadDir("EFI/Linux")
	if err != nil {
		return "", fmt.Errorf("%w: systemd-boot lists nothing: %w", errStuck, err)
	}
	var entries []sdEntry
	for _, info := range infos {
		name := strings.ToLower(info.Name())
		if !strings.HasSuffix(name, ".efi") {
			continue
		}
		e := sdEntry{name: name, tries: -1}
		if _, counters, ok := strings.Cut(strings.TrimSuffix(name, ".efi"), "+"); ok {
			left, done, _ := strings.Cut(counters, "-")
			if e.tries, err = strconv.Atoi(left); err != nil {
				return "", err
			}
			e.done, _ = strconv.Atoi(done) // none: 0
		}
		if system := m.whose(read(volume, "/EFI/Linux/"+name), "uki.efi"); system != nil {
			e.version = system.version
		}
		entries = append(entries, e)
	}
	slices.SortFunc(entries, func(x, y sdEntry) int {
		if (x.tries == 0) != (y.tries == 0) {
			return map[bool]int{true: 1, false: -1}[x.tries == 0]
		}
		return strings.Compare(y.version+y.name, x.version+x.name)
	})
	if len(entries) == 0 {
		return "", fmt.Errorf("%w: systemd-boot has nothing to start", errStuck)
	}
	chosen := entries[0]
	for line := range strings.Lines(string(read(volume, disklayout.LoaderConf))) {
		if fields := strings.Fields(line); len(fields) == 2 && fields[0] == "default" {
			match := func(e sdEntry) bool { ok, _ := path.Match(fields[1], e.name); return ok }
			if at := slices.IndexFunc(entries, match); at >= 0 {
				chosen = entries[at]
			}
		}
	}
	return m.useTry(chosen)
}

// useTry renames the file, as systemd-boot asks the firmware to do. Firmware's
// FAT driver is not ours; that it keeps the file's clusters is all we take from it.
func (m *machine) useTry(e sdEntry) (string, error) {
	if e.tries <= 0 {
		return e.name, nil
	}
	volume, err := fat.Open(m.part(disklayout.BootLabel))
	if err != nil {
		return "", err
	}
	base, _, _ := strings.Cut(e.name, "+")
	next := fmt.Sprintf("%s+%d-%d.efi", base, e.tries-1, e.done+1)
	if old, err := volume.ReadFile("/EFI/Linux/" + next); err == nil && old != nil {
		return next, volume.Remove("/EFI/Linux/" + e.name)
	}
	return next, volume.Rename("/EFI/Linux/"+e.name, next)
}

func (m *machine) bootBIOS() (disklayout.Slot, *build, error) {
	first := make([]byte, sector)
	if _, err := m.disk.ReadAt(first, 0); err != nil {
		return "", nil, err
	}
	if first[510] != 0x55 || first[511] != 0xaa || first[0] == 0xcd && first[1] == 0x18 {
		return "", nil, nil
	}
	system := m.biosLoader(first)
	if system == nil {
		return "", nil, fmt.Errorf("%w: the first sector has the signature, and what it starts is not whole", errStuck)
	}
	m.loads = system
	volume := m.esp()
	if volume == nil || string(read(volume, disklayout.GRUBConfig)) != disklayout.GRUBConfigText {
		return "", nil, fmt.Errorf("%w: GRUB does not find its parts", errStuck)
	}
	return m.grub(volume)
}

// Where boot.img has the sector of core.img, and core.img that of its rest.
const coreHint, restHint = 0x5c, 0x1f4

// biosLoader is the build that the first sector and the core.img which it
// starts are of; nil: of none, or of two.
func (m *machine) biosLoader(first []byte) *build {
	at := int64(binary.LittleEndian.Uint64(first[coreHint:])) * sector
	core := make([]byte, smallBytes)
	place := m.part(disklayout.BIOSLabel)
	if _, err := place.ReadAt(core, at-place.start); at < place.start || err != nil {
		return nil
	}
	if binary.LittleEndian.Uint64(core[restHint:]) != uint64(at/sector+1) {
		return nil
	}
	binary.LittleEndian.PutUint64(core[restHint:], uint64(place.start/sector+1))
	boot := bytes.Clone(first[:440])
	binary.LittleEndian.PutUint64(boot[coreHint:], uint64(place.start/sector))
	system := m.whose(core, "loaders/grub/core.img")
	if system == nil || !bytes.Equal(boot, system.files["loaders/grub/boot.img"][:440]) {
		return nil
	}
	return system
}

// grub does what grub.cfg says.
func (m *machine) grub(volume *fat32.FileSystem) (disklayout.Slot, *build, error) {
	env := map[string]string{}
	if block := read(volume, disklayout.GRUBEnvironment); block != nil {
		var err error
		if env, err = disklayout.ReadEnvironmentBlock(block); err != nil {
			return "", nil, fmt.Errorf("%w: grubenv: %w", errStuck, err)
		}
	}
	var order []string
	if env["tries"] == "1" {
		env["tries"] = "0"
		order = []string{env["try"]}
	} else {
		countStart(env)
	}
	if env["good"] != "" || env["try"] != "" {
		if err := m.saveEnvironment(volume, env); err != nil {
			return "", nil, err
		}
	}
	order = append(order, env["good"], env["spare"], "a", "b")
	for _, name := range order {
		n := disklayout.Slot(name)
		if n == "" {
			continue
		}
		system, err := m.grubSystem(volume, n)
		if err != nil {
			return "", nil, err
		}
		if system != nil {
			return n, system, m.init(n, system)
		}
	}
	return "", nil, fmt.Errorf("%w: GRUB starts nothing", errStuck)
}

// grubSystem is the system whose files a slot has; nil: GRUB does not find all
// of them, and goes on. A file that is there and not whole it would start.
func (m *machine) grubSystem(volume *fat32.FileSystem, n disklayout.Slot) (*build, error) {
	kernel, initramfs, arguments := read(volume, n.Kernel()), read(volume, n.Initramfs()), read(volume, n.Arguments())
	if kernel == nil || initramfs == nil || arguments == nil {
		return nil, nil
	}
	system := m.whose(kernel, "kernel")
	if system == nil || m.whose(initramfs, "initramfs.disk") != system ||
		!bytes.Equal(arguments, disklayout.GRUBArguments(string(system.files["arguments.disk"]))) {
		return nil, fmt.Errorf("%w: the files of slot %s are not whole", errStuck, n)
	}
	return system, nil
}

// countStart counts a start of the good slot, or has the other take its turn if
// it is good too.
func countStart(env map[string]string) {
	if spare := env["spare"]; env["left"] == "0" && spare != "" {
		env["good"], env["spare"], env["try"], env["left"] = spare, "", env["good"], "3"
	}
	env["left"] = map[string]string{"3": "2", "2": "1"}[env["left"]]
	if env["left"] == "" {
		env["left"] = "0"
	}
}

// saveEnvironment writes the settings into the file's first sector, in place, as
// GRUB's save_env does.
func (m *machine) saveEnvironment(volume *fat32.FileSystem, env map[string]string) error {
	f, err := volume.OpenFile(strings.TrimPrefix(disklayout.GRUBEnvironment, "/"), os.O_RDONLY)
	if err != nil {
		return err
	}
	defer f.Close()
	ranges, err := f.(*fat12.File).GetDiskRanges()
	if err != nil {
		return err
	}
	var settings []disklayout.Setting
	for _, name := range slices.Sorted(maps.Keys(env)) {
		settings = append(settings, disklayout.Setting{Name: name, Value: env[name]})
	}
	boot := m.part(disklayout.BootLabel)
	_, err = boot.WriteAt(disklayout.EnvironmentBlock(settings...), int64(ranges[0].Offset))
	return errors.Join(err, boot.Sync())
}

// init finds the root image by its hash, and every block of it is right.
func (m *machine) init(n disklayout.Slot, system *build) error {
	root := system.image.Root
	if err := install.VerifyRoot(m.part(n.Label()), root.DataSize, root.Hash); err != nil {
		return fmt.Errorf("slot %s was started and does not work: %w", n, err)
	}
	return nil
}

// whose is the build that a file is of, byte for byte.
func (m *machine) whose(data []byte, artifact string) *build {
	i := slices.IndexFunc(m.builds, func(b *build) bool { return bytes.Equal(b.files[path.Clean(artifact)], data) })
	if i < 0 {
		return nil
	}
	return m.builds[i]
}
