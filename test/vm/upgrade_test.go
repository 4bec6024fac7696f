package vm

import (
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"slipway/configs/disklayout"
	"slipway/qemu"
	"slipway/test/vmtest"
)

// TestClusterUpgrade is the story of three control planes and a worker that live on their
// disks: an image that does not work costs one of them a restart and nobody else anything; one
// that works comes to all of them, one control plane after the other, and etcd keeps its quorum.
func TestClusterUpgrade(t *testing.T) {
	needLong(t)
	machines := []qemu.Machine{vmtest.BIOS("m1"), vmtest.BIOS("m2"), vmtest.BIOS("m3"), vmtest.BIOS("m4")}
	for i := range machines {
		machines[i].MemoryMiB, machines[i].DisksGiB = 2048, []int{8}
	}
	lab := vmtest.New(t, vmtest.Machines(machines...))
	q := &quorum{Lab: lab}
	chapter(t, "four machines install themselves", func(t *testing.T) { q.form(t, "--disk", "any") })
	chapter(t, "an image that does not start stops it", func(t *testing.T) {
		lab.Serve(t, lab.BuildImage(t, badInit("exits")))
		out, err := upgradeCluster(lab, 1)
		t.Logf("slipway cluster upgrade:\n%s", out)
		if err == nil || !strings.Contains(out, "it went back to the slot before") {
			t.Errorf("the upgrade ended with %v", err)
		}
		q.awaitVoters(t, 3, slotPatience)
		allRun(t, lab, machines, "a")
	})
	chapter(t, "an image that works comes to all", func(t *testing.T) {
		lab.Serve(t, lab.BuildImage(t, arguments("slipway.lab=2")))
		out, err := upgradeCluster(lab, len(machines))
		t.Logf("slipway cluster upgrade:\n%s", out)
		if err != nil {
			t.Fatal(err)
		}
		if worker := strings.Index(out, "prod-worker-1: root image"); worker < strings.LastIndex(out, "prod-cp-") {
			t.Error("the worker did not wait for the control planes")
		}
		q.awaitVoters(t, 3, recoverPatience)
		allRun(t, lab, machines, "b")
		q.mustHave(t, "before", "first")
	})
	chapter(t, "nodes reset", func(t *testing.T) {
		q.reset(t, "prod-worker-1", "discard")
		q.reset(t, "prod-cp-1", "zero")
		q.awaitVoters(t, 2, recoverPatience)
		q.mustHave(t, "before", "first")
	})
}

// cutsUpgrade: a machine whose power is cut while an upgrade writes is back where it was. The
// chapter after this one asks for the same upgrade.
func cutsUpgrade(t *testing.T, d *diskLab) {
	d.Serve(t, d.BuildImage(t, arguments("slipway.lab=2")))
	before := d.bootID(t)
	func() {
		upgrade := d.Start(t, d.Slipway("node", "upgrade", d.id(t), "--yes")...)
		defer upgrade.Stop(t) // who asks is not there to ask again
		d.AwaitConsole(t, d.machine, "upgrade: root image", slotPatience)
		d.Switch(t, d.machine, qemu.PowerCycle)
	}()
	d.awaitRestart(t, before)
	d.awaitSlot(t, "a", "")
	if err := runsFrom(d.Lab, d.id(t), "upgrade of slot b", "not finished"); err != nil {
		t.Error(err)
	}
	d.Kubectl(t, "get", "configmap", "kept")
}

// reset takes a node out of the cluster; nothing is left on its disk but, without what it is known
// by, the image of the slot that ran: the kernel had it until the machine restarted.
func (q *quorum) reset(t *testing.T, hostname, wipe string) {
	name := q.machineOf(t, hostname)
	id, disk := q.MachineID(t, name), filepath.Join(q.Dir(), name+".disk0")
	ran, err := slotsOf(q.Lab, id)
	if err != nil {
		t.Fatal(err)
	}
	out, err := q.TryWithin(q.Timeout(slotPatience), q.Slipway("node", "reset", id, "--yes", "--wipe", wipe)...)
	t.Logf("slipway node reset:\n%s", out)
	if err != nil {
		t.Fatal(err)
	}
	awaitFree(t, q.Lab, id, disk)
	isWiped(t, disk, disklayout.Slot(ran.Booted))
	var nodes string
	q.Await(t, "the Nodes are listed", apiPatience, func() (err error) { // the machine's start keeps a core busy
		nodes, err = q.TryKubectl("get", "nodes", "-o", "name")
		return err
	})
	if strings.Contains(nodes, hostname) {
		t.Errorf("its Node is still there: %s", nodes)
	}
}

// isWiped: a disk has zeros everywhere, but for the slot that ran when it was wiped.
func isWiped(t *testing.T, path string, ran disklayout.Slot) {
	t.Helper()
	disk, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	info, err := disk.Stat()
	if err != nil {
		t.Fatal(err)
	}
	partitions := disklayout.System()
	slot := partitions[slices.IndexFunc(partitions, func(p disklayout.Partition) bool { return p.Label == ran.Label() })]
	for _, part := range []struct{ from, to int64 }{{0, slot.Start}, {slot.End(), info.Size()}} {
		if at, err := firstByte(io.NewSectionReader(disk, part.from, part.to-part.from)); err != nil || at >= 0 {
			t.Errorf("%s still has something at byte %d: %v", path, part.from+at, err)
		}
	}
}

// upgradeCluster has the lab's cluster run what the boot service serves; so many machines take
// their turns.
func upgradeCluster(lab *vmtest.Lab, turns int) (string, error) {
	limit := lab.Timeout(2 * slotPatience) // three other machines are busy with what one of them leaves
	return lab.TryWithin(time.Duration(turns)*limit+lab.Timeout(2*time.Minute),
		lab.Slipway("cluster", "upgrade", "prod", "--yes", "--timeout", limit.String())...)
}

// allRun checks that all machines run from a slot that is known to be good.
func allRun(t *testing.T, lab *vmtest.Lab, machines []qemu.Machine, slot string) {
	t.Helper()
	for _, m := range machines {
		lab.Await(t, m.Name+" runs from slot "+slot, recoverPatience, func() error {
			s, err := slotsOf(lab, lab.MachineID(t, m.Name))
			if err == nil && (s.Booted != slot || s.Good != slot || s.Problem != "") {
				err = fmt.Errorf("it says %+v", s)
			}
			return err
		})
	}
}
