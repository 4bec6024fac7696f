package disk

import (
	"testing"

	"slipway/configs/disklayout"
)

func TestSparePercent(t *testing.T) {
	for size, want := range map[int64]string{
		64 * disklayout.MiB:        "5.0000",
		5 << 10 * disklayout.MiB:   "5.0000",
		100 << 10 * disklayout.MiB: "0.2500",
		16 << 20 * disklayout.MiB:  "0.0015",
	} {
		if got := sparePercent(size); got != want {
			t.Errorf("of %d MiB: %s, want %s", size/disklayout.MiB, got, want)
		}
	}
}
