package vm

import (
	"strings"
	"testing"

	"slipway/test/vmtest"
)

func nodeAPIChecksRoles(t *testing.T, lab *vmtest.Lab) {
	node := lab.MachineID(t, "m1")
	if out := lab.CLI(t, "node", "services", node); !strings.Contains(out, "kube-apiserver") {
		t.Errorf("services: %q", out)
	}
	if out := lab.CLI(t, "node", "logs", node, "etcd", "--tail", "5"); strings.TrimSpace(out) == "" {
		t.Error("etcd's log is empty")
	}
	if out := lab.CLI(t, "node", "dmesg", node); !strings.Contains(out, "Linux version") {
		t.Errorf("dmesg lacks the kernel's first line: %.200q", out)
	}
	url := "https://" + nodeAddress(t, lab) + ":8444/slipway.node.v1.NodeService/Status"
	out, err := lab.Try("curl", "-sk", "-m", "10", "-H", "content-type: application/json", "-d", "{}", url)
	if err == nil && !strings.Contains(out, "unauthenticated") {
		t.Errorf("without a certificate the node API answers %q", out)
	}
}
