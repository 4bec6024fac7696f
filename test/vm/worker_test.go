package vm

import (
	"fmt"
	"strings"
	"testing"

	"slipway/test/vmtest"
)

// TestWorkerJoins makes a cluster of two blank machines. The worker holds no CA key: its
// kubelet gets its certificate by TLS bootstrap, and renders what the control plane schedules.
func TestWorkerJoins(t *testing.T) {
	if testing.Short() {
		t.Skip("boots machines")
	}
	lab := vmtest.New(t, vmtest.Machines(vmtest.BIOS("m1"), vmtest.BIOS("m2")))
	createCluster(t, lab, "--workers", "1")
	if out := lab.Kubectl(t, "get", "csr", "-o", "jsonpath={.items[*].spec.signerName} {.items[*].status.conditions[*].type}"); out != "kubernetes.io/kube-apiserver-client-kubelet Approved" {
		t.Errorf("certificate requests: %q; want the worker's, approved", out)
	}
	lab.Apply(t, sleeper("there"))
	awaitPods(t, lab, "default", 1, podPatience)
	if out := lab.Kubectl(t, "get", "pod", "there", "-o", "jsonpath={.spec.nodeName}"); !strings.Contains(out, "worker") {
		t.Errorf("the pod runs on %q; want the worker, since there is one", out)
	}
	lab.Await(t, "exec reaches the worker's pod", podPatience, func() error {
		out, err := lab.TryKubectl("exec", "there", "--", "busybox", "hostname")
		if err == nil && strings.TrimSpace(out) != "there" {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	})
}
