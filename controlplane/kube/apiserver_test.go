package kube

import (
	"slices"
	"strings"
	"testing"
)

// TestCostArgs: only an emulated processor is spared the counting. What is switched off there
// must be both of what counts: each does it alone when the other is off.
func TestCostArgs(t *testing.T) {
	const poll, estimate = "--etcd-count-metric-poll-period=0", "SizeBasedListCostEstimate=false"
	for _, emulated := range []bool{false, true} {
		args := costArgs(emulated)
		if got := slices.Contains(args, poll); got != emulated {
			t.Errorf("emulated %t: %s is given: %t", emulated, poll, got)
		}
		if got := strings.Contains(strings.Join(args, " "), estimate); got != emulated {
			t.Errorf("emulated %t: %s is given: %t", emulated, estimate, got)
		}
	}
}
