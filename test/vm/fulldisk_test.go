package vm

import (
	_ "embed"
	"fmt"
	"regexp"
	"testing"
)

// greedy.yaml has a pod that fills its node's disk.
//
//go:embed testdata/greedy.yaml
var greedy string

// evicted is what the kubelet says of a pod that it ends for want of room on the disk.
var evicted = regexp.MustCompile(`^Evicted: The node was low on resource: ephemeral-storage\. .* available: \w+\.`)

// fillsUp: a pod takes all the room of the data partition, where etcd writes too. The node ends
// the pod, which frees its room; what had to stop goes on by itself, and nothing is lost.
func fillsUp(t *testing.T, d *diskLab) {
	d.Apply(t, greedy)
	d.Await(t, "the pod that filled the disk is evicted", recoverPatience, func() error {
		out, err := d.TryKubectl("get", "pod", "greedy", "-o", "jsonpath={.status.reason}: {.status.message}")
		if err == nil && !evicted.MatchString(out) {
			err = fmt.Errorf("it says %q", out)
		}
		return err
	})
	t.Logf("%s", d.Kubectl(t, "get", "pod", "greedy", "-o", "jsonpath={.status.message}"))
	awaitNodeReady(t, d.Lab, recoverPatience)
	d.Kubectl(t, "delete", "pod", "greedy")
	d.Kubectl(t, "create", "configmap", "after", "--from-literal=by=room")
	d.Kubectl(t, "get", "configmap", "kept")
	d.awaitSlot(t, "a", "")
}
