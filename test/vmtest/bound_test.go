package vmtest

import (
	"testing"
	"time"

	"slipway/qemu"
)

func TestBound(t *testing.T) {
	for _, test := range []struct {
		accel qemu.Accel
		slow  float64
		want  time.Duration
	}{
		{qemu.KVM, 0.5, 15 * time.Second},
		{qemu.KVM, 2, 30 * time.Second},
		{qemu.TCG, 0.8, time.Minute},
		{qemu.TCG, 1, time.Minute},
		{qemu.TCG, 1.5, 90 * time.Second},
	} {
		if got := bound(15*time.Second, test.accel, test.slow); got != test.want {
			t.Errorf("15 s under %s, %v times as slow: %v, want %v", test.accel, test.slow, got, test.want)
		}
	}
}
