package main

import (
	"fmt"
	"slices"

	"slipway/bootsvc/api/bootv1"
	"slipway/configs/machine"
	"slipway/nodeinit/disk"
)

// diskOf says in a plan which disk of a machine will be written, as far as its
// facts tell: the machine itself chooses, by the same rule, when it installs.
func diskOf(wanted machine.Disk, known []*bootv1.Machine, id string) string {
	if !(machine.Install{Disk: wanted}).OnDisk() {
		return "none, it runs from RAM"
	}
	at := slices.IndexFunc(known, func(m *bootv1.Machine) bool { return m.GetId() == id })
	if at < 0 || known[at].GetFacts() == nil {
		return wanted.String()
	}
	m := known[at]
	if own := m.GetInstallation().GetDisk().GetPath(); own != "" {
		return own + ", installed already"
	}
	disks := disksOf(m.GetFacts())
	if len(disks) == 0 { // it has enrolled, and its disks' drivers are not loaded yet; or it has none
		return wanted.String() + "; it has told of none yet"
	}
	chosen, err := disk.Choose(diskRule(wanted), disks)
	if err != nil {
		return err.Error()
	}
	if wipe := m.GetInstallation().GetWipe(); wipe != nil && len(m.GetInstallation().GetAgreed()) == 0 {
		return fmt.Sprintf("%s; it is not empty, see slipway machines wipe %s", chosen, id)
	}
	return chosen.String()
}

func diskRule(wanted machine.Disk) disk.Rule {
	if wanted.Rule == nil {
		return disk.Rule{}
	}
	r := *wanted.Rule
	return disk.Rule{
		Path: r.Path, Serial: r.Serial, WWN: r.WWN, Model: r.Model, Type: disk.Type(r.Type),
		MinSize: int64(r.MinSize), MaxSize: int64(r.MaxSize),
	}
}

func disksOf(f *bootv1.Facts) (list []disk.Disk) {
	for _, d := range f.GetDisks() {
		list = append(list, disk.Disk{
			Name: d.GetName(), Path: "/dev/" + d.GetName(), Size: int64(d.GetSize()), Model: d.GetModel(), Serial: d.GetSerial(),
			WWN: d.GetWwn(), Type: disk.Type(d.GetType()), Removable: d.GetRemovable(),
		})
	}
	return list
}
