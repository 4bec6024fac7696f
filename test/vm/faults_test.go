package vm

import (
	"fmt"
	"strconv"
	"strings"
	"testing"

	"slipway/test/vmtest"
)

// processes are the units of a control-plane machine that are programs, in the order in which
// the story kills them: those that others lean on come last.
var processes = []string{
	"kube-proxy", "coredns", "kube-scheduler", "kube-controller-manager", "kubelet",
	"agent", "containerd", "kube-apiserver", "etcd",
}

func killedComponentsReturn(t *testing.T, lab *vmtest.Lab) {
	node := lab.MachineID(t, "m1")
	before := restarts(t, lab, node)
	for _, name := range processes {
		if before[name].PID == 0 {
			t.Errorf("unit %s is not a running process: %+v", name, before[name])
			continue
		}
		lab.Await(t, name+" is killed and back", recoverPatience, func() error {
			now, err := units(lab, node)
			if err != nil {
				return err
			}
			u := now[name]
			if u.PID == before[name].PID {
				return kill(lab, u.PID)
			}
			if u.State != "ready" || u.Restarts <= before[name].Restarts {
				return fmt.Errorf("%s is %s, process %d, %d restarts, last error %q", name, u.State, u.PID, u.Restarts, u.LastError)
			}
			return nil
		})
		awaitNodeReady(t, lab, recoverPatience)
	}
	serviceAnswers(t, lab)
}

func restarts(t *testing.T, lab *vmtest.Lab, node string) map[string]unit {
	t.Helper()
	now, err := units(lab, node)
	if err != nil {
		t.Fatal(err)
	}
	return now
}

// kill sends SIGKILL to a process of the node, through a pod that may. It always returns an
// error: even a kill that worked may break the connection it came by, and the kubelet may not
// know its pods yet, so the outcome is judged by what comes after.
func kill(lab *vmtest.Lab, pid int) error {
	_, err := lab.TryKubectl("-n", "everything", "exec", "hand", "--", "busybox", "kill", "-9", strconv.Itoa(pid))
	return fmt.Errorf("process %d runs yet; killing it: %v", pid, err)
}

// rebootComesBack reboots the machine by its API. It runs from RAM, so that it comes back as a
// new node of the same cluster, with the same credentials for people.
func rebootComesBack(t *testing.T, lab *vmtest.Lab) {
	first := strings.TrimSpace(lab.Kubectl(t, "get", "nodes", "-o", "jsonpath={.items[0].status.nodeInfo.bootID}"))
	lab.CLI(t, "node", "reboot", lab.MachineID(t, "m1"), "--yes")
	lab.Await(t, "the node is Ready again, booted anew", bootPatience, func() error {
		if err := nodeReady(lab); err != nil {
			return err
		}
		now, err := lab.TryKubectl("get", "nodes", "-o", "jsonpath={.items[0].status.nodeInfo.bootID}")
		if err == nil && strings.TrimSpace(now) == first {
			err = fmt.Errorf("it has not rebooted yet: boot ID %s", now)
		}
		return err
	})
	serviceAnswers(t, lab)
}
