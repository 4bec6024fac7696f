package machine_test

import (
	"testing"

	"slipway/configs/machine"
)

func TestSize(t *testing.T) {
	for _, tt := range []struct {
		in   string
		want machine.Size
		out  string // "" means as it went in
	}{
		{"20GiB", 20 << 30, ""},
		{"500GB", 500e9, ""},
		{"1024MiB", 1 << 30, "1GiB"},
		{"6 GiB", 6 << 30, "6GiB"},
		{"4096", 4096, "4KiB"},
		{"0", 0, ""},
		{"1.5GiB", 0, "error"},
		{"-1GiB", 0, "error"},
		{"GiB", 0, "error"},
		{"20G", 0, "error"},
		{"99999999TiB", 0, "error"},
	} {
		var got machine.Size
		err := got.UnmarshalText([]byte(tt.in))
		if (err != nil) != (tt.out == "error") || got != tt.want {
			t.Errorf("%q is %d, %v; want %d", tt.in, got, err, tt.want)
		}
		if out := map[bool]string{true: tt.in, false: tt.out}[tt.out == ""]; err == nil && got.String() != out {
			t.Errorf("%q is written %q, want %q", tt.in, got, out)
		}
	}
}

func TestDiskInWords(t *testing.T) {
	for want, disk := range map[string]machine.Disk{
		"none":                          {Word: "none"},
		"the smallest that is suitable": {Word: "any"},
		"the smallest with type nvme":   {Rule: &machine.DiskRule{Type: "nvme"}},
		"the smallest with serial S1 at least 100GB at most 2TB": {Rule: &machine.DiskRule{Serial: "S1", MinSize: 100e9, MaxSize: 2e12}},
	} {
		if got := disk.String(); got != want {
			t.Errorf("%+v is %q, want %q", disk, got, want)
		}
	}
}
