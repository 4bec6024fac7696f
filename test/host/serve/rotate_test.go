package serve

import (
	"fmt"
	"strings"
	"testing"

	"slipway/test/netns"
)

// TestRotationsGoOnByThemselves: a person begins them; the machines get each
// phase one after the other, and the next phase only when all have taken it,
// though the boot service is killed between any two.
func TestRotationsGoOnByThemselves(t *testing.T) {
	r := newRack(t)
	service := r.serve("--approve", "any")
	hosts := make([]*netns.Host, 3)
	for i := range hosts {
		hosts[i] = r.Host(fmt.Sprintf("02:00:00:00:00:%02d", i+1))
	}
	m := r.power(hosts...)
	r.slipway(0, "cluster", "create", "prod", "--control-planes", "3", "--yes", "--wait=false")
	for i, one := range m {
		one.told("fetch", "config")
		if i == 0 {
			one.told("redeem", "may")
			one.told("done", "may")
		}
		one.told("ack", "stored")
		one.told("ready", "said")
	}
	r.slipway(2, "cluster", "rotate-ca", "prod", "--ca", "machine")
	r.slipway(0, "cluster", "rotate-ca", "prod", "--ca", "etcd", "--yes")
	waiting := r.slipway(3, "cluster", "rotate-encryption-key", "prod", "--yes", "--wait", "--timeout", "1s")
	if !strings.Contains(waiting, "encryption-key is in phase trust and waits for prod-cp-1 (02-00-00-00-00-01) to take its config") {
		t.Errorf("it says\n%s", waiting)
	}
	for _, has := range []string{ // in the phases trust, use and retire
		"trusts 2 etcd-ca, 1 kubernetes-ca, has 2 keys, rewrites false",
		"trusts 2 etcd-ca, 1 kubernetes-ca, has 2 keys, rewrites true",
		"trusts 1 etcd-ca, 1 kubernetes-ca, has 1 keys, rewrites false",
	} {
		for _, one := range m {
			one.told("fetch", "config")
			one.told("count", has)
			one.told("ready", "said")
		}
		_ = service.Process.Kill()
		_ = service.Wait()
		service = r.serve("--approve", "any")
	}
	shown := r.slipway(0, "cluster", "status", "prod")
	for range 100 { // the last report and the end of the rotations are two things
		if shown = r.slipway(0, "cluster", "status", "prod"); !strings.Contains(shown, "retire") {
			break
		}
	}
	if strings.Contains(shown, "ROTATION") {
		t.Errorf("they do not end:\n%s", shown)
	}
	if line := r.slipway(0, "machines", "timeline", "prod-cp-1", "--all"); !strings.Contains(line, "encryption-key: done") {
		t.Errorf("the timeline is\n%s", line)
	}
}
