package powercut

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/diskfs/go-diskfs/filesystem/fat32"
	"github.com/diskfs/go-diskfs/partition/gpt"

	"slipway/configs/disklayout"
	"slipway/nodeinit/install"
	"slipway/nodeinit/slot"
	"slipway/nodeinit/slot/fat"
)

// machine is a computer with one disk, and the node agent that runs on it.
type machine struct {
	uefi         bool
	disk         *disk
	builds       []*build // all that there are
	loads        *build   // whose loader the last boot was with
	stateMounted bool
	restarts     int
}

func (m *machine) part(label string) part {
	for _, p := range plan() {
		if p.Label == label {
			return part{m.disk, p.Start, p.Size}
		}
	}
	panic("the layout has no " + label)
}

func plan() []disklayout.Partition {
	list, err := disklayout.Plan(disklayout.SmallestDisk, 0)
	if err != nil {
		panic(err)
	}
	return list
}

func now() time.Time { return time.Date(2026, 1, 2, 12, 0, 0, 0, time.UTC) }

// powerOn boots the machine. running is empty if it runs from RAM, where no
// state is mounted before the installer does it.
func (m *machine) powerOn() (running disklayout.Slot, system *build, err error) {
	if m.restarts++; m.restarts > 20 {
		return "", nil, fmt.Errorf("%w: it restarts again and again", errStuck)
	}
	running, system, err = m.bootDisk()
	m.stateMounted = false
	if err != nil || running == "" {
		return running, system, err
	}
	if m.stateMounted = m.hasState(); !m.stateMounted {
		err = fmt.Errorf("%w: slot %s runs and finds no state", errStuck, running)
	}
	return running, system, err
}

// stateMark stands for the state partition's ext4.
var stateMark = bytes.Repeat([]byte("state of this machine "), 24)[:sector]

func (m *machine) hasState() bool {
	block := make([]byte, sector)
	_, err := m.part(disklayout.StateLabel).ReadAt(block, 0)
	return err == nil && bytes.Equal(block, stateMark)
}

func (m *machine) loader() (slot.Loader, error) {
	volume, err := fat.Open(m.part(disklayout.BootLabel))
	if err != nil {
		return nil, err
	}
	if m.uefi {
		return slot.SystemdBoot{Boot: volume}, nil
	}
	return slot.GRUB{Boot: volume, Disk: m.whole()}, nil
}

func (m *machine) whole() part { return part{m.disk, 0, m.disk.size} }

// cameUp tells the loader that the system in a slot has come up, and returns what it says.
func (m *machine) cameUp(running disklayout.Slot) (slot.Slots, error) {
	l, err := m.loader()
	if err != nil {
		return slot.Slots{}, err
	}
	if err := l.CameUp(running); err != nil {
		return slot.Slots{}, err
	}
	return l.Read()
}

func (m *machine) system(b *build) install.System {
	return install.System{
		Source: b.source(), Image: b.image, Architecture: "amd64", Loader: m.loader,
		Open: func(n disklayout.Slot) (install.Device, error) { return m.part(n.Label()), nil },
	}
}

func (m *machine) install(b *build) error {
	return install.Install{
		System: m.system(b), Disk: m, State: func(context.Context) error { return nil },
		Journal: journal{m}, Now: now,
	}.Operation().Run(context.Background())
}

func (m *machine) upgrade(b *build, running disklayout.Slot) error {
	return install.Upgrade{System: m.system(b), Running: running, Journal: journal{m}, Now: now}.Operation().Run(context.Background())
}

func (m *machine) rollback(running disklayout.Slot) error {
	return install.Rollback{Running: running, Loader: m.loader, Journal: journal{m}, Now: now}.Operation().Run(context.Background())
}

// Partition implements install.Disk. The first sector gets its program before
// the table gives it the signature by which a BIOS starts it.
func (m *machine) Partition(context.Context) error {
	if m.partitioned() {
		return nil
	}
	if err := slot.Unboot(m.whole(), nil); err != nil {
		return err
	}
	table := &gpt.Table{LogicalSectorSize: sector, PhysicalSectorSize: sector, ProtectiveMBR: true}
	for _, p := range plan() {
		table.Partitions = append(table.Partitions, &gpt.Partition{
			Index: p.Number, Name: p.Label, Type: gpt.Type(p.Type), Start: uint64(p.Start / sector), Size: uint64(p.Size),
		})
	}
	return table.Write(m.whole().storage(), m.disk.size)
}

func (m *machine) partitioned() bool {
	table, err := gpt.Read(m.whole().storage(), sector, sector)
	return err == nil && !table.RecoveredFromBackup && len(table.Partitions) >= len(plan())
}

// Filesystems implements install.Disk.
func (m *machine) Filesystems(context.Context) error {
	state := m.part(disklayout.StateLabel)
	if !m.hasState() {
		m.stateMounted = true
		if err := (journal{m}).Save(install.Record{}); err != nil {
			return err
		}
		if _, err := state.WriteAt(stateMark, 0); err != nil {
			return err
		}
	}
	m.stateMounted = true
	return state.Sync()
}

// Unboot implements install.Disk.
func (m *machine) Unboot(context.Context) error {
	volume, err := fat.Open(m.part(disklayout.BootLabel))
	if err != nil {
		return slot.Unboot(m.whole(), nil)
	}
	return slot.Unboot(m.whole(), volume)
}

// Boot implements install.Disk.
func (m *machine) Boot(context.Context) error {
	boot := m.part(disklayout.BootLabel)
	_, err := fat32.Create(boot.storage(), boot.length, 0, sector, disklayout.BootVolume, true)
	return errors.Join(err, boot.Sync())
}

// reset is noted, and then wipes as disk.Wipe does by default: the beginning and
// the end of each partition, and of the disk. The state partition is unmounted
// before.
func (m *machine) reset() error {
	if err := (journal{m}).Save(install.Record{Operation: install.ResetName, Key: "metadata"}); err != nil {
		return err
	}
	m.stateMounted = false
	return errors.Join(m.Unboot(context.Background()), m.wipe())
}

func (m *machine) wipe() error {
	for _, label := range []string{disklayout.DataLabel, disklayout.SlotALabel, disklayout.SlotBLabel, disklayout.BootLabel, disklayout.BIOSLabel, disklayout.StateLabel} {
		if err := wipe(m.part(label)); err != nil {
			return err
		}
	}
	return wipe(m.whole())
}

func wipe(p part) error {
	edge := min(disklayout.MiB, p.length/2)
	for _, at := range []int64{0, p.length - edge} {
		if _, err := p.WriteAt(make([]byte, edge), at); err != nil {
			return err
		}
	}
	return p.Sync()
}
