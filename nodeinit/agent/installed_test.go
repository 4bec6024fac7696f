package agent

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"slipway/configs/disklayout"
	"slipway/configs/machine"
	"slipway/configs/wipe"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/disk"
	"slipway/nodeinit/slot"
	"slipway/nodeinit/sysdisk"
)

// onDisk is a config of a machine that is to live on a disk.
func onDisk(t *testing.T, wipe string) []byte {
	t.Helper()
	text := strings.Replace(string(exampleConfig(t)), "disk: none", "disk: any"+wipe, 1)
	if !strings.Contains(text, "disk: any") {
		t.Fatal("the example has no disk: none")
	}
	return []byte(text)
}

// TestInstall: a machine that is to live on a disk asks before it destroys
// anything, installs itself once a person has agreed, and restarts; it applies
// no config meanwhile.
func TestInstall(t *testing.T) {
	const agreed = "4444444444444444444444444444444444444444444444444444444444444444"
	b := newBootService(t)
	b.approved, b.config = true, onDisk(t, "")
	n := newNode(t, b)
	var kept map[string][]byte
	fake := newFakeDisk()
	fake.install = func(config *machine.Config, files map[string][]byte) error {
		if config.Install.Wipe != agreed {
			return &sysdisk.WipeError{Manifest: disk.Manifest{Disks: []disk.Target{{Path: "/dev/vda", Found: []disk.Signature{{Kind: "ext4"}}}}}}
		}
		kept = files
		return nil
	}
	n.disk = fake
	if err := n.store.save(argsFile, []byte("slipway.machine=52-54-00-12-34-56\n")); err != nil {
		t.Fatal(err)
	}
	n.start(t)
	b.await("the wipe manifest", func() bool { return b.wipe != nil && b.phase == "installing" })
	awaitScreen(t, n, "foreign data is on /dev/vda, ext4 on /dev/vda")
	if len(n.pid1.reboots) != 0 {
		t.Fatal("it restarted with nobody's agreement")
	}
	b.update(func() { b.config = onDisk(t, "\n  wipe: "+agreed) })
	<-n.pid1.reboots
	b.await("the installation", func() bool {
		return slices.Contains(b.events, "installed") && b.disk.GetPath() == "/dev/vda" && b.disk.GetSlots()[0].GetKubernetes() == "v1.37.1"
	})
	for _, name := range []string{keyFile, certFile, caFile, configFile, argsFile} {
		if len(kept[name]) == 0 {
			t.Errorf("%s was not kept", name)
		}
	}
	if len(n.pid1.applied) != 0 {
		t.Error("a config was applied")
	}
}

// install makes n a machine that ran before and now boots from slot a, with a boot service that is away.
func installed(t *testing.T, b *bootService) (*node, *fakeDisk) {
	t.Helper()
	b.approved, b.config = true, exampleConfig(t)
	n, disk := newNode(t, b), newFakeDisk()
	stop := n.start(t)
	n.pid1.take(t)
	b.await("the receipt", func() bool { return b.acks == 1 })
	stop()
	n.booted, n.disk = "a", disk
	n.corrupted = func() (bool, error) { return false, nil }
	return n, disk
}

// TestFromDisk: an installed machine is what it was, also without its boot
// service, and its slot is good once its units are ready.
func TestFromDisk(t *testing.T) {
	b := newBootService(t)
	n, disk := installed(t, b)
	disk.onTrial = true
	b.stop()
	n.start(t)
	if got := n.pid1.take(t); string(got.Config) != string(exampleConfig(t)) {
		t.Errorf("applied %q", got.Config)
	}
	n.pid1.units <- &nodev1.Unit{Name: "etcd", State: "starting"}
	if !eventually(func() bool { return disk.lastNote() != "" }) {
		t.Error("nobody keeps what the slot waits for")
	}
	for _, unit := range []string{"node", "kube-apiserver", "kube-scheduler", "kube-controller-manager", "etcd"} {
		if len(disk.kept) != 0 {
			t.Errorf("the slot is good without %s", unit)
		}
		n.pid1.units <- &nodev1.Unit{Name: unit, State: "ready"}
	}
	if onTrial := <-disk.kept; !onTrial {
		t.Error("the trial goes on")
	}
	if len(b.enrolments) != 1 {
		t.Errorf("%d enrolments", len(b.enrolments))
	}
}

// TestWhySlotWasGivenUp: a machine that came back says why.
func TestWhySlotWasGivenUp(t *testing.T) {
	b := newBootService(t)
	n, disk := installed(t, b)
	disk.failure = "slot b (2.0): no kubelet"
	n.start(t)
	n.pid1.take(t)
	b.await("the reason", func() bool { return b.disk.GetFailure() == disk.failure && b.disk.GetBooted() == "a" })
	awaitScreen(t, n, "the last new slot was given up: slot b (2.0): no kubelet")
}

// TestCorrupted: a machine whose root is not what it was goes to the other slot,
// if there is one.
func TestCorrupted(t *testing.T) {
	for name, refusal := range map[string]error{"other slot": nil, "no other slot": slot.ErrNoFallback} {
		t.Run(name, func(t *testing.T) {
			b := newBootService(t)
			n, disk := installed(t, b)
			disk.spoil = refusal
			n.corrupted = func() (bool, error) { return true, nil }
			n.start(t)
			n.pid1.take(t)
			b.await("the report", func() bool { return strings.Contains(b.disk.GetFailure(), "not what its root hash says") })
			if refusal != nil {
				awaitScreen(t, n, "no other slot to go to")
				return
			}
			<-n.pid1.reboots
		})
	}
}

func newUpgrader(t *testing.T, disk systemDisk) *upgrader {
	t.Helper()
	return &upgrader{
		booted: "a", disk: disk, console: quiet(&screen{}), pid1: rebooter{},
		config:  func() (*machine.Config, error) { return &machine.Config{}, nil },
		reports: newReporter(&reports{}, store{dir: t.TempDir()}, quiet(&screen{}), clock{sinceBoot: sinceBoot}),
	}
}

// ends collects the steps that ended.
func ends(list *[]string) func(*nodev1.UpgradeStep) {
	return func(s *nodev1.UpgradeStep) {
		if s.Ended {
			*list = append(*list, strings.TrimSpace(s.Name+" "+s.Problem))
		}
	}
}

func TestUpgrade(t *testing.T) {
	disk := newFakeDisk()
	var steps []string
	if err := newUpgrader(t, disk).upgrade(t.Context(), &nodev1.UpgradeRequest{Sha256: "cc", Kexec: true}, ends(&steps)); err != nil {
		t.Fatal(err)
	}
	want := []string{
		"look at the image", "root image", "load the kernel of slot b no kernel in a test", "tell the boot service", "stop all units and restart",
	}
	if diff := cmp.Diff(want, steps); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
	if disk.usedTry {
		t.Error("without a kernel to start, the loader has to find its try")
	}
}

// TestPrepareUpgrade: the machine goes on as it is, and who wants it to restart
// meanwhile is not taken for one who only wants this.
func TestPrepareUpgrade(t *testing.T) {
	disk := newFakeDisk()
	disk.hold = make(chan struct{})
	u := newUpgrader(t, disk)
	var prepared, steps []string
	done := make(chan error, 1)
	go func() {
		done <- u.upgrade(t.Context(), &nodev1.UpgradeRequest{Sha256: "cc", Kexec: true, Prepare: true}, ends(&prepared))
	}()
	<-disk.hold
	if err := u.upgrade(t.Context(), &nodev1.UpgradeRequest{Sha256: "cc"}, ends(&steps)); err != nil {
		t.Error(err)
	}
	disk.hold <- struct{}{}
	if err := <-done; err != nil {
		t.Error(err)
	}
	for _, c := range []struct{ want, got []string }{
		{[]string{"look at the image", "root image"}, prepared},
		{[]string{"look at the image", "root image", "tell the boot service", "stop all units and restart"}, steps},
	} {
		if diff := cmp.Diff(c.want, c.got); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

func TestUpgradeRefused(t *testing.T) {
	for _, tt := range []struct {
		name    string
		request *nodev1.UpgradeRequest
		booted  disklayout.Slot
		want    string
		steps   []string
	}{
		{"from RAM", &nodev1.UpgradeRequest{Sha256: "cc"}, "", errFromRAM.Error(), nil},
		{"no image", &nodev1.UpgradeRequest{}, "a", errUnnamed.Error(), nil},
		{"unknown image", &nodev1.UpgradeRequest{Sha256: "none"}, "a", "no such image", []string{"look at the image there is no such image"}},
		{"the same image", &nodev1.UpgradeRequest{Sha256: "running"}, "a", "", []string{"look at the image"}},
	} {
		u := newUpgrader(t, newFakeDisk())
		u.booted = tt.booted
		var steps []string
		err := u.upgrade(t.Context(), tt.request, ends(&steps))
		if tt.want == "" && err != nil || tt.want != "" && (err == nil || !strings.Contains(err.Error(), tt.want)) {
			t.Errorf("%s: %v, want %q", tt.name, err, tt.want)
		}
		if diff := cmp.Diff(tt.steps, steps); diff != "" {
			t.Errorf("%s (-want +got):\n%s", tt.name, diff)
		}
	}
}

func TestRollback(t *testing.T) {
	var steps []string
	if err := newUpgrader(t, newFakeDisk()).rollback(t.Context(), &nodev1.RollbackRequest{}, ends(&steps)); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"tell the boot service", "stop all units and restart"}, steps); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestResetWipes: what an installed machine keeps is wiped, by PID 1, and the
// boot service knows.
func TestResetWipes(t *testing.T) {
	server := &reports{}
	asked := make(chan *nodev1.RebootRequest, 1)
	r := &resetter{
		installed: true, config: func() (*machine.Config, error) { return nil, nil }, console: quiet(&screen{}),
		disk: newFakeDisk(), pid1: wiper{asked: asked}, reports: newReporter(server, store{dir: t.TempDir()}, quiet(&screen{}), clock{sinceBoot: sinceBoot}),
	}
	if err := r.run(t.Context(), resetOrder{}, func(*nodev1.ResetStep) {}); err != nil {
		t.Fatal(err)
	}
	if got := <-asked; got.Wipe != string(wipe.Metadata) {
		t.Errorf("PID 1 was asked for %v", got)
	}
	if how, _ := r.disk.Resetting(); how != wipe.Metadata {
		t.Error("after a power cut now, the disk is not wiped")
	}
	err := r.run(t.Context(), resetOrder{wipe: "discard"}, func(s *nodev1.ResetStep) { t.Errorf("step %s was done", s.Name) })
	if err == nil || !strings.Contains(err.Error(), "the disk has no discard") {
		t.Errorf("a way that the disk does not know: %v", err)
	}
}

// wiper keeps what it is asked.
type wiper struct {
	rebooter
	asked chan *nodev1.RebootRequest
}

func (w wiper) Reboot(_ context.Context, r *connect.Request[nodev1.RebootRequest]) (*connect.Response[nodev1.RebootResponse], error) {
	w.asked <- r.Msg
	return connect.NewResponse(&nodev1.RebootResponse{}), nil
}

func TestArguments(t *testing.T) {
	const ours = "slipway.server=https://10.0.0.1:8443 slipway.ca=0000000000000000000000000000000000000000000000000000000000000000 slipway.machine=52-54-00-12-34-56"
	s := store{dir: filepath.Join(t.TempDir(), "state")}
	if _, err := arguments("console=ttyS0 slipway.root=00", s); err == nil {
		t.Error("a machine without arguments enrols")
	}
	first, err := arguments("console=ttyS0 "+ours, s)
	if err != nil {
		t.Fatal(err)
	}
	later, err := arguments("console=ttyS0 slipway.root=00 slipway.slot=a", s)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(first, later); diff != "" {
		t.Errorf("from a disk (-network +disk):\n%s", diff)
	}
	if text, _ := os.ReadFile(filepath.Join(s.dir, argsFile)); string(text) != ours+"\n" {
		t.Errorf("kept %q", text)
	}
}
