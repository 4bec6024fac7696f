package assign

import (
	"errors"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/bootsvc/inventory"
	"slipway/configs/enroll"
)

// TestReportedFacts: facts are kept as they were told last, by the machine's own
// key, and the timeline is told of disks that came or went.
func TestReportedFacts(t *testing.T) {
	o := newOffice(t)
	approve(t, o, 1, "key")
	vda, vdb := enroll.Disk{Name: "vda", Size: 8e9}, enroll.Disk{Name: "vdb", Size: 20e9, Serial: "S1"}
	var want []inventory.Entry
	for _, step := range []struct {
		told  *enroll.Facts
		disks string // what the timeline says then, if it says more
	}{
		{&enroll.Facts{CPUs: 2}, ""},
		{&enroll.Facts{CPUs: 2, Disks: []enroll.Disk{vda}}, "new: vda 8.0 GB"},
		{&enroll.Facts{CPUs: 2, Disks: []enroll.Disk{vda}}, ""},
		{&enroll.Facts{CPUs: 2, Disks: []enroll.Disk{vda}, NICs: []enroll.NIC{{Name: "eth0", Up: true}}}, ""},
		{&enroll.Facts{CPUs: 4, Disks: []enroll.Disk{vdb}}, "new: vdb 20.0 GB; gone: vda 8.0 GB"},
	} {
		m, err := o.Report(t.Context(), id(1), "key", Report{Facts: step.told})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(*step.told, m.Facts); diff != "" {
			t.Errorf("the machine's facts (-told +kept):\n%s", diff)
		}
		if step.disks != "" {
			want = append(want, inventory.Entry{Name: "disks", Detail: step.disks, At: noon, Count: 1})
		}
		if m, err = o.Report(t.Context(), id(1), "key", Report{Phase: enroll.Joining}); err != nil || m.Facts.CPUs != step.told.CPUs {
			t.Errorf("a report without facts: %+v, %v", m.Facts, err)
		}
		line, err := o.inventory.Timeline(t.Context(), id(1))
		if diff := cmp.Diff(want, line.Latest()); diff != "" || err != nil {
			t.Errorf("the timeline (-want +got):\n%s%v", diff, err)
		}
	}
	if _, err := o.Report(t.Context(), id(1), "another", Report{Facts: &enroll.Facts{}}); !errors.Is(err, ErrReplaced) {
		t.Errorf("facts of another key: %v", err)
	}
}
