package main

import (
	"testing"

	"slipway/bootsvc/api/bootv1"
	"slipway/configs/machine"
)

func TestDiskOfAPlan(t *testing.T) {
	const id = "52-54-00-00-00-01"
	facts := &bootv1.Facts{Disks: []*bootv1.Disk{
		{Name: "sda", Size: 4e12, Type: "hdd"}, {Name: "nvme0n1", Size: 960e9, Type: "nvme", Model: "Example", Serial: "S1"}, {Name: "sdb", Size: 32e9, Type: "ssd", Removable: true},
	}}
	any, hdd := machine.Disk{Word: "any"}, machine.Disk{Rule: &machine.DiskRule{Type: machine.HDD, MinSize: 5e12}}
	for name, c := range map[string]struct {
		wanted machine.Disk
		m      *bootv1.Machine
		want   string
	}{
		"in RAM":        {machine.Disk{Word: "none"}, &bootv1.Machine{Id: id, Facts: facts}, "none, it runs from RAM"},
		"never seen":    {any, nil, "the smallest that is suitable"},
		"told of none":  {any, &bootv1.Machine{Id: id, Facts: &bootv1.Facts{}}, "the smallest that is suitable; it has told of none yet"},
		"the smallest":  {any, &bootv1.Machine{Id: id, Facts: facts}, "/dev/nvme0n1 (960.0 GB, nvme, Example, serial S1)"},
		"not empty":     {any, &bootv1.Machine{Id: id, Facts: facts, Installation: &bootv1.Installation{Wipe: &bootv1.WipeManifest{}}}, "/dev/nvme0n1 (960.0 GB, nvme, Example, serial S1); it is not empty, see slipway machines wipe " + id},
		"installed":     {any, &bootv1.Machine{Id: id, Facts: facts, Installation: &bootv1.Installation{Disk: &bootv1.SystemDisk{Path: "/dev/sda"}}}, "/dev/sda, installed already"},
		"none suitable": {hdd, &bootv1.Machine{Id: id, Facts: &bootv1.Facts{Disks: facts.Disks[:1]}}, "no disk to install to (type: hdd, minSize: 5.0 TB): /dev/sda (4.0 TB, hdd) is smaller than 5.0 TB"},
	} {
		if got := diskOf(c.wanted, []*bootv1.Machine{c.m}, id); got != c.want {
			t.Errorf("%s: %q, want %q", name, got, c.want)
		}
	}
}
