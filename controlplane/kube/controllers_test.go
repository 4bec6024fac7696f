package kube

import (
	"strings"
	"testing"
	"time"
)

// TestElectionArgs: a lease outlives the tries to renew it, and there is time for two of them at
// least, so that one lost answer does not end an election.
func TestElectionArgs(t *testing.T) {
	for _, emulated := range []bool{false, true} {
		times := map[string]time.Duration{}
		for _, arg := range electionArgs(emulated) {
			name, text, ok := strings.Cut(arg, "=")
			if !ok {
				continue
			}
			d, err := time.ParseDuration(text)
			if err != nil {
				t.Fatal(err)
			}
			times[strings.TrimPrefix(name, "--leader-elect-")] = d
		}
		if lease, renew, retry := times["lease-duration"], times["renew-deadline"], times["retry-period"]; lease <= renew || float64(renew) <= 1.2*float64(2*retry) {
			t.Errorf("emulated %t: lease %v, renew %v, retry %v", emulated, lease, renew, retry)
		}
	}
}
