package disklayout

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const gib = 1 << 10 * MiB

func TestPlan(t *testing.T) {
	for _, tt := range []struct {
		name       string
		disk, data int64
		want       int64 // size of the data partition
		err        error
	}{
		{"the rest", 20 * gib, 0, 20*gib - 1603*MiB, nil},
		{"smallest disk", SmallestDisk, 0, SmallestDisk - 1603*MiB, nil},
		{"what was asked for", 100 * gib, 20 * gib, 20 * gib, nil},
		{"not a multiple of a MiB", 100*gib + 513, 20*gib + 4097, 20 * gib, nil},
		{"just fits", 20 * gib, 20*gib - 1603*MiB, 20*gib - 1603*MiB, nil},
		{"a MiB too much", 20 * gib, 20*gib - 1602*MiB, 0, ErrDataSize},
		{"too little", 20 * gib, gib, 0, ErrDataSize},
		{"negative", 20 * gib, -gib, 0, ErrDataSize},
		{"small disk", SmallestDisk - 1, 0, 0, ErrDiskTooSmall},
		{"no disk", 0, 0, 0, ErrDiskTooSmall},
	} {
		t.Run(tt.name, func(t *testing.T) {
			got, err := Plan(tt.disk, tt.data)
			if !errors.Is(err, tt.err) {
				t.Fatalf("error is %v, want %v", err, tt.err)
			}
			if err != nil {
				return
			}
			check(t, got, tt.disk)
			if data := got[len(got)-1]; data.Label != DataLabel || data.Size != tt.want {
				t.Errorf("data partition is %+v, want %d bytes", data, tt.want)
			}
			if diff := cmp.Diff(System(), got[:len(got)-1]); diff != "" {
				t.Errorf("the disk does not begin as every other:\n%s", diff)
			}
		})
	}
}

// check holds for every plan: numbered, aligned, in order, inside the disk.
func check(t *testing.T, list []Partition, disk int64) {
	t.Helper()
	behind := MiB
	for i, p := range list {
		if p.Number != i+1 || p.Start != behind || p.Start%MiB != 0 || p.Size%MiB != 0 || p.Size <= 0 {
			t.Errorf("partition %d is %+v; the one before ends at %d", i+1, p, behind)
		}
		behind = p.End()
	}
	if behind+MiB > disk {
		t.Errorf("the last partition ends at %d of %d, where the second table goes", behind, disk)
	}
}

// TestGRUBsPlace: GRUB's images are told at build time where they will lie.
func TestGRUBsPlace(t *testing.T) {
	first := System()[0]
	if first.Label != BIOSLabel || first.Start != MiB {
		t.Errorf("GRUB's partition is %+v; image/grub wants it at 1 MiB", first)
	}
}

func TestSlots(t *testing.T) {
	for slot, want := range map[Slot]string{
		SlotA: "b slipway-a /EFI/Linux/slipway-a.efi /slipway/a/kernel /slipway/a/initramfs /slipway/a/arguments",
		SlotB: "a slipway-b /EFI/Linux/slipway-b.efi /slipway/b/kernel /slipway/b/initramfs /slipway/b/arguments",
	} {
		got := strings.Join([]string{string(slot.Other()), slot.Label(), slot.UKI(), slot.Kernel(), slot.Initramfs(), slot.Arguments()}, " ")
		if got != want {
			t.Errorf("slot %s: %s\nwant %s", slot, got, want)
		}
	}
}
