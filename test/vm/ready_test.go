// Package vm tells Slipway's stories on real machines: QEMU guests that boot over the
// network from the real boot service. See vmtest for the language.
package vm

import (
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"slipway/test/vmtest"
)

// TestBlankMachineToCluster is the main story. One machine boots once; the chapters build on
// each other, and each says what it proves.
func TestBlankMachineToCluster(t *testing.T) {
	if testing.Short() {
		t.Skip("boots a machine")
	}
	machine := vmtest.BIOS("m1")
	machine.MemoryMiB = 2048 // control plane, kubelet and pods have to fit
	lab := vmtest.New(t, vmtest.Machines(machine), vmtest.Beside())
	createCluster(t, lab)
	awaitNodeReady(t, lab, recoverPatience)

	tell := func(name string, story func(*testing.T, *vmtest.Lab)) {
		chapter(t, name, func(t *testing.T) { story(t, lab) })
	}
	tell("timeline", timelineIsComplete)
	tell("versions", versionsAreRight)
	tell("service answers by address and name", serviceAnswers)
	tell("pods", podsGetWhatTheyAskFor)
	tell("exec, logs, port-forward", podsCanBeReached)
	tell("security", securityIsOn)
	tell("nothing pulled", nothingWasPulled)
	tell("node API", nodeAPIChecksRoles)
	tell("killed components return", killedComponentsReturn)
	tell("reboot", rebootComesBack)
}

func timelineIsComplete(t *testing.T, lab *vmtest.Lab) {
	out := lab.CLI(t, "machines", "timeline", lab.MachineID(t, "m1"))
	t.Logf("timeline:\n%s", out)
	for _, phase := range []string{"DHCP", "TFTP", "HTTP", "kernel", "init", "enrolled", "configured", "containerd", "etcd", "apiserver", "registered", "Ready"} {
		// A card that speaks iPXE itself skips the loader, and TFTP with it.
		if phase != "TFTP" && !strings.Contains(out, phase) {
			t.Errorf("the timeline lacks %s", phase)
		}
	}
}

func versionsAreRight(t *testing.T, lab *vmtest.Lab) {
	if out := lab.Kubectl(t, "version"); strings.Count(out, "v1.37.1") != 2 {
		t.Errorf("kubectl version does not show v1.37.1 for client and server:\n%s", out)
	}
	out := lab.Kubectl(t, "get", "nodes", "-o", "jsonpath={.items[0].status.nodeInfo.kubeletVersion} {.items[0].status.nodeInfo.containerRuntimeVersion}")
	if out != "v1.37.1 containerd://2.4.2" {
		t.Errorf("the node says %q", out)
	}
}

func serviceAnswers(t *testing.T, lab *vmtest.Lab) {
	manifest, err := os.ReadFile("../demo/hello.yaml")
	if err != nil {
		t.Fatal(err)
	}
	lab.Apply(t, string(manifest))
	awaitPods(t, lab, "default", 3, podPatience)
	address := lab.Kubectl(t, "get", "service", "hello", "-o", "jsonpath={.spec.clusterIP}")
	for _, url := range []string{"http://" + address + "/", "http://hello.default.svc.cluster.local/", "http://hello/"} {
		lab.Await(t, url+" answers", podPatience, func() error {
			out, err := lab.TryKubectl("exec", "client", "--", "busybox", "timeout", "10", "busybox", "wget", "-q", "-O", "-", url)
			if err == nil && !strings.Contains(out, "hello from the slipway") {
				err = fmt.Errorf("it answers %q", out)
			}
			return err
		})
	}
}

// awaitPods waits until n pods of a namespace are Ready and none is not.
func awaitPods(t *testing.T, lab *vmtest.Lab, namespace string, n int, within time.Duration) {
	t.Helper()
	lab.Await(t, fmt.Sprintf("%d pods are Ready in %s", n, namespace), within, func() error {
		out, err := lab.TryKubectl("-n", namespace, "get", "pods", "-o", `jsonpath={range .items[*]}{.metadata.name}={.status.conditions[?(@.type=="Ready")].status} {end}`)
		if err != nil {
			return err
		}
		if strings.Count(out, "=True") != n || len(strings.Fields(out)) != n {
			return fmt.Errorf("pods: %q", out)
		}
		return nil
	})
}

func nothingWasPulled(t *testing.T, lab *vmtest.Lab) {
	if out := lab.Kubectl(t, "get", "events", "-A", "--field-selector", "reason=Pulling", "-o", "name"); strings.TrimSpace(out) != "" {
		t.Errorf("images were pulled:\n%s", out)
	}
	if out, err := lab.Try("ip", "route", "show", "default"); err != nil || strings.TrimSpace(out) != "" {
		t.Errorf("the lab has a route out: %q, %v", out, err)
	}
}
