package agent

import (
	"context"
	"encoding/hex"
	"fmt"
	"net"
	"net/http"
	"os"
	"strings"
	"time"

	"slipway/bootsvc/api/bootv1"
	"slipway/configs/disklayout"
	"slipway/configs/machine"
	"slipway/configs/version"
	"slipway/configs/wipe"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/disk"
	"slipway/nodeinit/early"
	"slipway/nodeinit/install"
	"slipway/nodeinit/lifecycle"
	"slipway/nodeinit/sysdisk"
)

// systemDisk is what the agent needs of a sysdisk.Disk, which says more of each.
type systemDisk interface {
	Adopt(cluster string, data machine.Size) error
	Find(ctx context.Context) (*sysdisk.Found, error)
	Wipe(ctx context.Context, found *sysdisk.Found) error
	CanWipe(how wipe.How) error
	NoteReset(how wipe.How) error
	Resetting() (how wipe.How, err error)
	State() (sysdisk.State, error)
	Install(ctx context.Context, config *machine.Config, files map[string][]byte, tell sysdisk.Tell) (sysdisk.State, error)
	Upgrade(ctx context.Context, order sysdisk.Order, tell sysdisk.Tell) (sysdisk.Image, error)
	Rollback(ctx context.Context, within time.Duration) (sysdisk.Image, error)
	UseTry() error
	Kernel(slot disklayout.Slot) (lifecycle.Kernel, error)
	CameUp() error
	Recall() (onTrial bool, failure string, err error)
	Note(why string) error
	Keep(onTrial bool) error
	Spoil(why string) error
}

// stall is how long a download may stand still.
const stall = 30 * time.Second

// bootedDisk is the disk of this machine, without what it is only asked for by
// the boot service.
func bootedDisk(booted disklayout.Slot, cmdline string) *sysdisk.Disk {
	name, _ := os.ReadFile(early.DiskFile)
	_, err := os.Stat(early.HungFile)
	return &sysdisk.Disk{
		Booted: booted, Hung: err == nil, Name: strings.TrimSpace(string(name)),
		Version: version.Version, Committed: version.CommitTime(), Kubernetes: version.Kubernetes, RootHash: early.RootHash(cmdline),
	}
}

// imageSource is where images come from. The boot service's files are open to
// all; the manifest's hash is in the config.
func imageSource(args Args) install.Source {
	return install.Source{Base: "http://" + net.JoinHostPort(args.Server.Hostname(), "80") + "/image", Client: &http.Client{}, Stall: stall}
}

// diskReport is a disk's state for the boot service. A machine without a
// booted slot is about to boot from it.
func diskReport(d sysdisk.State, booted disklayout.Slot, failure string) *bootv1.SystemDisk {
	m := &bootv1.SystemDisk{
		Path: d.Path, Serial: d.Serial, Booted: string(booted), Good: string(d.Good),
		Trying: string(d.Trying), Tries: int32(d.Tries), Failure: failure,
	}
	for _, s := range d.Slots {
		m.Slots = append(m.Slots, &bootv1.Slot{Name: string(s.Slot), Version: s.Version, RootHash: s.RootHash, Kubernetes: s.Kubernetes})
	}
	return m
}

// diskStatus is a disk's state for people.
func diskStatus(d sysdisk.State, booted disklayout.Slot, failure, waiting string) *nodev1.SystemDisk {
	m := &nodev1.SystemDisk{
		Path: d.Path, Booted: string(booted), Good: string(d.Good),
		Trying: string(d.Trying), Tries: int32(d.Tries), Failure: failure, WaitingFor: waiting,
		Operation: d.Operation,
	}
	for _, s := range d.Slots {
		m.Slots = append(m.Slots, &nodev1.Slot{Name: string(s.Slot), Version: s.Version, RootHash: s.RootHash, Kubernetes: s.Kubernetes})
	}
	return m
}

// wipeMessage is a wipe manifest as the boot service keeps it.
func wipeMessage(m disk.Manifest) *bootv1.WipeManifest {
	hash, _ := hex.DecodeString(m.Hash())
	message := &bootv1.WipeManifest{Hash: hash, Text: m.Text()}
	for _, d := range m.Disks {
		one := &bootv1.WipeDisk{Path: d.Path, Size: uint64(d.Size), Model: d.Model, Serial: d.Serial, Wwn: d.WWN}
		for _, s := range d.Found {
			one.Signatures = append(one.Signatures, &bootv1.Signature{Device: partitionOf(d.Path, s.Partition), Type: s.Kind, Label: s.Label, Uuid: s.UUID})
		}
		message.Disks = append(message.Disks, one)
	}
	return message
}

// partitionOf names a partition for people; 0 is the disk.
func partitionOf(path string, number int) string {
	if number == 0 {
		return path
	}
	return fmt.Sprintf("%s, partition %d", path, number)
}
