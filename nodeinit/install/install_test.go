package install

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"slipway/configs/disklayout"
	"slipway/nodeinit/slot"
	"slipway/nodeinit/slot/fat"
)

func TestInstall(t *testing.T) {
	x, bu := newBox(), newBuild(t, "v1.0.0")
	if err := x.install(t, bu).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := []string{"partitions", "file systems", "old loader", "boot partition", "root image", "read back", "boot files", "state", "first slot", "loader"}
	if diff := cmp.Diff(want, x.said); diff != "" {
		t.Error(diff)
	}
	if got := (slot.Slots{A: slot.Good, B: slot.Empty, Next: a}); x.loader.slots != got {
		t.Errorf("slots are %+v", x.loader.slots)
	}
	if err := VerifyRoot(x.devices[a], bu.image.Root.DataSize, bu.image.Root.Hash); err != nil {
		t.Error(err)
	}
	if x.loader.files[a] != string(bu.files["uki.efi"]) || x.loader.installed != string(bu.files[sdboot]) {
		t.Error("the boot files are not the image's")
	}
	if rec := x.journal.rec; rec.Outcome != Succeeded || rec.Version != "v1.0.0" || rec.Slot != a || len(rec.Done) != len(want) {
		t.Errorf("the journal says %+v", rec)
	}
}

// TestInstallGoesOn: what was done before the cut is not done again, once there
// is a journal; what makes the journal's place always is.
func TestInstallGoesOn(t *testing.T) {
	x, bu := newBox(), newBuild(t, "v1.0.0")
	if err := cancelAt(x.install(t, bu), "boot files"); err == nil {
		t.Fatal("the cut did not happen")
	}
	if x.loader.slots.Next != "" || x.loader.installed != "" {
		t.Errorf("the disk boots half an installation: %+v", x.loader.slots)
	}
	x.said, x.journal.place = nil, false // a boot from RAM, with nothing mounted
	if err := x.install(t, bu).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"partitions", "file systems", "boot files", "state", "first slot", "loader"}, x.said); diff != "" {
		t.Error(diff)
	}
	other := newBuild(t, "v2.0.0")
	x.said = nil
	if err := x.install(t, other).Run(t.Context()); err != nil || len(x.said) != 10 {
		t.Errorf("another installation did %d steps, %v", len(x.said), err)
	}
}

// installed is a machine that runs from slot A.
func installed(t *testing.T) *box {
	t.Helper()
	x := newBox()
	if err := x.install(t, newBuild(t, "v1.0.0")).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.said = nil
	return x
}

func TestUpgradeAndBack(t *testing.T) {
	x, bu := installed(t), newBuild(t, "v1.1.0")
	if err := cancelAt(x.upgrade(t, bu), "read back"); err == nil {
		t.Fatal("the cut did not happen")
	}
	if v := Assess(x.journal.rec, a, x.loader.slots); v != Interrupted {
		t.Errorf("after the cut the upgrade is %s", v)
	}
	x.said = nil
	if err := x.upgrade(t, bu).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"read back", "boot files", "arm"}, x.said); diff != "" {
		t.Error(diff)
	}
	if v := Assess(x.journal.rec, a, x.loader.slots); v != Waiting {
		t.Errorf("before the restart the upgrade is %s", v)
	}
	restart := func() (running disklayout.Slot) { x.loader.slots, running = x.loader.slots.Booted(); return running }

	if n := restart(); n != b || Assess(x.journal.rec, n, x.loader.slots) != OnTrial {
		t.Errorf("slot %s boots, which is %s", n, Assess(x.journal.rec, n, x.loader.slots))
	}
	if x.loader.installed == string(bu.files[sdboot]) {
		t.Error("the loader is that of a system which has not shown that it works")
	}
	if err := Keep(&x.journal, &x.loader, b, noon); err != nil || x.journal.rec.Outcome != Succeeded {
		t.Errorf("keep: %+v, %v", x.journal.rec, err)
	}
	if x.loader.installed != string(bu.files[sdboot]) {
		t.Error("the loader is not that of the new system")
	}
	if got := (slot.Slots{A: slot.Good, B: slot.Good, Next: b}); x.loader.slots != got {
		t.Errorf("slots are %+v", x.loader.slots)
	}

	back := Rollback{Running: b, Loader: func() (slot.Loader, error) { return &x.loader, nil }, Journal: &x.journal, Now: now}
	if err := back.Operation().Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if n := restart(); n != a || Assess(x.journal.rec, n, x.loader.slots) != OnTrial {
		t.Errorf("rollback: slot %s boots", n)
	}
	if err := GiveUp(&x.journal, "the kubelet was not ready within 5m", noon); err != nil {
		t.Fatal(err)
	}
	if n := restart(); n != b || Assess(x.journal.rec, n, x.loader.slots) != CameBack {
		t.Errorf("after giving up slot %s boots", n)
	}
	if err := Fallen(&x.journal, false, noon); err != nil || x.journal.rec.Outcome != FellBack || !strings.Contains(x.journal.rec.Reason, "kubelet") {
		t.Errorf("the journal says %+v, %v", x.journal.rec, err)
	}
}

// TestPreparedUpgrade: what was written beforehand cannot boot, and is neither
// fetched nor written again; another image is, and this one after that.
func TestPreparedUpgrade(t *testing.T) {
	all := []string{"clear", "root image", "read back", "boot files"}
	x, bu := installed(t), newBuild(t, "v1.1.0")
	run := func(bu *build, prepare bool, want ...string) {
		t.Helper()
		x.said = nil
		if err := x.upgradeTo(t, bu, prepare).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(want, x.said); diff != "" {
			t.Error(diff)
		}
	}
	prepared := slot.Slots{A: slot.Good, B: slot.Failed, Next: a}
	run(bu, true, all...)
	if x.loader.slots != prepared || Assess(x.journal.rec, a, x.loader.slots) != Interrupted {
		t.Errorf("prepared, slots are %+v, the upgrade is %s", x.loader.slots, Assess(x.journal.rec, a, x.loader.slots))
	}
	run(bu, true) // nothing

	other := newBuild(t, "v1.2.0")
	run(other, true, all...)
	run(bu, true, all...)
	if err := VerifyRoot(x.devices[b], bu.image.Root.DataSize, bu.image.Root.Hash); err != nil || x.loader.slots != prepared {
		t.Errorf("%v, slots are %+v", err, x.loader.slots)
	}
	bu.files = nil // of which nothing can be fetched
	x.devices[b].fails = func(int64) error { t.Error("the slot is written"); return nil }
	run(bu, false, armStep)
	if got := (slot.Slots{A: slot.Good, B: slot.Trying, Next: b}); x.loader.slots != got || Assess(x.journal.rec, a, got) != Waiting {
		t.Errorf("slots are %+v", x.loader.slots)
	}
}

// TestArmedAgain: the try of a slot may be used up though the machine did not
// restart. The same upgrade gives it another, and the image has not failed.
func TestArmedAgain(t *testing.T) {
	x, bu := installed(t), newBuild(t, "v1.1.0")
	if err := x.upgrade(t, bu).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.loader.slots, _ = x.loader.slots.Booted() // as before a restart by kexec
	x.said = nil
	if err := x.upgrade(t, bu).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{armStep}, x.said); diff != "" {
		t.Error(diff)
	}
	if got := (slot.Slots{A: slot.Good, B: slot.Trying, Next: b}); x.loader.slots != got || Assess(x.journal.rec, a, got) != Waiting {
		t.Errorf("slots are %+v, the upgrade is %s", x.loader.slots, Assess(x.journal.rec, a, x.loader.slots))
	}
}

// TestPreparedInVain: what was tried, and what was not the last thing that was
// done, is written anew.
func TestPreparedInVain(t *testing.T) {
	for name, between := range map[string]func(*box) error{
		"it was tried": func(x *box) error { return Fallen(&x.journal, false, noon) },
		"a rollback, refused": func(x *box) error {
			back := Rollback{Running: a, Loader: func() (slot.Loader, error) { return &x.loader, nil }, Journal: &x.journal, Now: now}
			if err := back.Operation().Run(t.Context()); err == nil {
				return errors.New("it rolls back to what never ran")
			}
			return nil
		},
	} {
		x, bu := installed(t), newBuild(t, "v1.1.0")
		if err := x.upgradeTo(t, bu, true).Run(t.Context()); err != nil {
			t.Fatal(err)
		}
		if err := between(x); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		x.said = nil
		if err := x.upgrade(t, bu).Run(t.Context()); err != nil || len(x.said) != 5 {
			t.Errorf("%s: it did %q, %v", name, x.said, err)
		}
	}
}

// TestLoaderStays: a slot is good also when its loader cannot be put in place;
// the journal says so, and it is not tried for ever. A rollback keeps the newer one.
func TestLoaderStays(t *testing.T) {
	x := installed(t)
	if err := x.upgrade(t, newBuild(t, "v1.1.0")).Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	before := x.loader.installed
	x.loader.slots, _ = x.loader.slots.Booted()
	x.loader.fails = errFake
	if err := Keep(&x.journal, &x.loader, b, noon); !errors.Is(err, errFake) {
		t.Errorf("keep: %v", err)
	}
	if rec := x.journal.rec; rec.Outcome != Succeeded || !strings.Contains(rec.Error, "slot b is good, but its loader is not in place") {
		t.Errorf("the journal says %+v", rec)
	}
	if err := Keep(&x.journal, &x.loader, b, noon); err != nil || x.loader.slots.State(b) != slot.Good || x.loader.installed != before {
		t.Errorf("once more: %v, %+v", err, x.loader.slots)
	}
	back := Rollback{Running: b, Loader: func() (slot.Loader, error) { return &x.loader, nil }, Journal: &x.journal, Now: now}
	if err := back.Operation().Run(t.Context()); err != nil {
		t.Fatal(err)
	}
	x.loader.slots, _ = x.loader.slots.Booted()
	if err := Keep(&x.journal, &x.loader, a, noon); err != nil { // Install would fail
		t.Errorf("keep the older system: %v", err)
	}
}

func TestVerdicts(t *testing.T) {
	upgrade := func(done ...string) Record { return Record{Operation: "upgrade", Slot: b, Done: done} }
	for _, tt := range []struct {
		name    string
		rec     Record
		running disklayout.Slot
		slots   slot.Slots
		want    Verdict
	}{
		{"nothing ever", Record{}, a, slot.Slots{A: slot.Good, B: slot.Empty, Next: a}, Settled},
		{"judged", Record{Operation: "upgrade", Slot: b, Outcome: FellBack}, a, slot.Slots{A: slot.Good, B: slot.Failed, Next: a}, Settled},
		{"the good slot was lost", Record{Operation: "upgrade", Slot: a, Outcome: Succeeded}, b, slot.Slots{A: slot.Failed, B: slot.Good, Next: b}, TookOver},
		{"lost, and the one before failed once", Record{Operation: "upgrade", Slot: b, Outcome: FellBack}, b, slot.Slots{A: slot.Failed, B: slot.Good, Next: b}, TookOver},
		{"half written", upgrade("clear"), a, slot.Slots{A: slot.Good, B: slot.Empty, Next: a}, Interrupted},
		{"filled", upgrade("clear", "root image", "read back", "boot files"), a, slot.Slots{A: slot.Good, B: slot.Failed, Next: a}, Interrupted},
		{"armed, not noted, booted", upgrade("clear"), b, slot.Slots{A: slot.Good, B: slot.Failed, Next: a}, OnTrial},
		{"armed", upgrade("clear", armStep), a, slot.Slots{A: slot.Good, B: slot.Trying, Next: b}, Waiting},
		{"tried", upgrade("clear", armStep), a, slot.Slots{A: slot.Good, B: slot.Failed, Next: a}, CameBack},
		{"marked, not noted", upgrade("clear", armStep), b, slot.Slots{A: slot.Good, B: slot.Good, Next: b}, Works},
		{"rollback not begun", Record{Operation: "rollback", Slot: b}, a, slot.Slots{A: slot.Good, B: slot.Good, Next: a}, Interrupted},
		{"rollback tried, not noted", Record{Operation: "rollback", Slot: b}, a, slot.Slots{A: slot.Good, B: slot.Failed, Next: a}, CameBack},
		{"reset", Record{Operation: "reset"}, a, slot.Slots{A: slot.Good, B: slot.Good, Next: a}, Interrupted},
	} {
		if got := Assess(tt.rec, tt.running, tt.slots); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.name, got, tt.want)
		}
	}
}

// TestWhyItFell: what the new system said counts most if it knew that it failed,
// least if it was still waiting; what the watchdog says comes between.
func TestWhyItFell(t *testing.T) {
	const notReady, gaveUp = Unwell + "last seen waiting for unit etcd", "it was not healthy 10m0s after its start: unit etcd"
	for _, tt := range []struct {
		said string
		bit  bool
		want string
	}{
		{"", false, noReason},
		{"", true, "the hardware watchdog restarted the machine: the new system hung before it wrote anything to its state partition"},
		{notReady, false, notReady},
		{notReady, true, "the hardware watchdog restarted the machine: the new system hung; last seen waiting for unit etcd"},
		{gaveUp, false, gaveUp},
		{gaveUp, true, gaveUp},
	} {
		k := kept{place: true, rec: Record{Operation: upgradeName, Slot: b, Done: []string{armStep}, Reason: tt.said}}
		if err := Fallen(&k, tt.bit, noon); err != nil || k.rec.Outcome != FellBack || k.rec.Reason != tt.want {
			t.Errorf("it said %q, bit %t: %+v, %v; want %q", tt.said, tt.bit, k.rec, err, tt.want)
		}
	}
}

// TestStarted: a system on trial that has its state partition says so, unless it
// has said more; no other writes.
func TestStarted(t *testing.T) {
	trial := Record{Operation: upgradeName, Slot: b, Done: []string{armStep}}
	more, over := trial, trial
	more.Reason, over.Outcome = Unwell+"last seen waiting for unit etcd", Succeeded
	for name, tt := range map[string]struct {
		rec     Record
		running disklayout.Slot
		want    string
	}{
		"on trial":              {trial, b, "it had mounted its state partition"},
		"its agent said more":   {more, b, "last seen waiting for unit etcd"},
		"back on the other":     {trial, a, ""},
		"over":                  {over, b, ""},
		"an installation":       {Record{Operation: installName, Slot: b}, b, ""},
		"no operation whatever": {Record{}, b, ""},
	} {
		k := kept{place: true, rec: tt.rec}
		got, err := Started(&k, tt.running, noon)
		if err != nil || !strings.Contains(k.rec.Reason, tt.want) || tt.want == "" && k.rec.Reason != "" || got.Reason != k.rec.Reason {
			t.Errorf("%s: %+v, %v", name, k.rec, err)
		}
	}
}

// TestRefused: each is an error that says what is wrong, and the slot that was
// written cannot boot. After an upgrade the machine runs what it ran; after an
// installation its disk has no loader, and it comes back by network.
func TestRefused(t *testing.T) {
	swap := func(name string, data []byte) func(*testing.T, *box, *build) {
		return func(_ *testing.T, _ *box, bu *build) { bu.files[name] = data }
	}
	for _, tt := range []struct {
		name    string
		arrange func(*testing.T, *box, *build)
		want    error
		text    string // SLOT is the one that is written
	}{
		{"truncated download", func(_ *testing.T, _ *box, bu *build) {
			bu.broken = func(name string, w http.ResponseWriter, data []byte) bool {
				w.Header().Set("Content-Length", "716800")
				w.Write(data[:min(len(data), 300_000)])
				return true
			}
		}, ErrTruncated, "root.img"},
		{"short file", func(_ *testing.T, _ *box, bu *build) { bu.files["root.img"] = bu.files["root.img"][:4096] }, ErrTruncated, "4096"},
		{"long file", func(_ *testing.T, _ *box, bu *build) { bu.files["root.img"] = append(bu.files["root.img"], 1) }, ErrHash, "longer"},
		{"wrong root image", func(_ *testing.T, _ *box, bu *build) { bu.files["root.img"][5000] ^= 1 }, ErrHash, "root.img"},
		{"wrong kernel image", swap("uki.efi", pe(0x8664, "kernel and initramfs v9.9.9")), ErrHash, "uki.efi"},
		{"missing file", func(_ *testing.T, _ *box, bu *build) { delete(bu.files, "uki.efi") }, nil, "404"},
		{"kernel of another architecture", func(t *testing.T, _ *box, bu *build) {
			bu.files["uki.efi"] = pe(0xaa64, "kernel")
			bu.seal(t)
		}, ErrArchitecture, "arm64"},
		{"no program", func(t *testing.T, _ *box, bu *build) {
			bu.files["uki.efi"] = []byte("<html>not found</html>")
			bu.seal(t)
		}, ErrArchitecture, ""},
		{"root hash of another image", func(t *testing.T, _ *box, bu *build) {
			bu.image.Root.Hash = strings.Repeat("ab", 32)
			bu.seal(t)
		}, ErrDamaged, "root hash"},
		{"slot too small", func(_ *testing.T, x *box, _ *build) { x.devices[x.writes] = &device{data: make([]byte, 4096)} }, ErrTooSmall, "slot SLOT"},
		{"disk that disappears", func(_ *testing.T, x *box, _ *build) { delete(x.devices, x.writes) }, errFake,
			"root image: slot SLOT: the disk is gone"},
		{"disk that disappears while it is written", func(_ *testing.T, x *box, _ *build) {
			x.devices[x.writes].fails = func(int64) error { return errFake }
		}, errFake, "root image: slot SLOT: fetch root.img: the disk is gone"},
		{"disk that does not keep it", func(_ *testing.T, x *box, _ *build) { x.devices[x.writes].unsynced = unix.EIO }, unix.EIO,
			"root image: slot SLOT: input/output error"},
		{"disk that cannot be read back", func(_ *testing.T, x *box, _ *build) { x.devices[x.writes].unread = unix.EIO }, unix.EIO,
			"read back: slot SLOT: read the hash area: input/output error"},
		{"full boot partition", func(_ *testing.T, x *box, _ *build) { x.loader.full = fat.ErrFull }, fat.ErrFull,
			"boot files: fetch loaders/systemd-bootx64.efi: the boot partition is full"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			x, bu := installed(t), newBuild(t, "v1.1.0")
			x.writes = b
			tt.arrange(t, x, bu)
			refused(t, x, x.upgrade(t, bu), tt.want, tt.text)
			if s := x.loader.slots; s.A != slot.Good || s.Next != a {
				t.Errorf("slots are %+v", s)
			}
			x, bu = newBox(), newBuild(t, "v1.1.0")
			x.writes = a
			tt.arrange(t, x, bu)
			refused(t, x, x.install(t, bu), tt.want, tt.text)
		})
	}
}

// refused runs an operation that must fail with the error, and change nothing
// but the slot that it writes, which is left unbootable.
func refused(t *testing.T, x *box, o Operation, want error, text string) {
	t.Helper()
	before := x.others()
	err := o.Run(t.Context())
	text = strings.ReplaceAll(text, "SLOT", string(x.writes))
	if err == nil || want != nil && !errors.Is(err, want) || !strings.HasPrefix(err.Error(), o.Name+": ") || !strings.Contains(err.Error(), text) {
		t.Errorf("%s: error is %v, want %v with %q", o.Name, err, want, text)
	}
	if s := x.loader.slots.State(x.writes); s == slot.Good || s == slot.Trying {
		t.Errorf("%s: slot %s is %s", o.Name, x.writes, s)
	}
	if diff := cmp.Diff(before, x.others()); diff != "" {
		t.Errorf("%s: the loader or the other slot is not as it was:\n%s", o.Name, diff)
	}
	if x.journal.rec.Error == "" {
		t.Errorf("%s: the journal does not have the error", o.Name)
	}
}

// TestFullState: an operation that cannot be noted is not begun.
func TestFullState(t *testing.T) {
	x, bu := installed(t), newBuild(t, "v1.1.0")
	x.journal.full = unix.ENOSPC
	before := x.loader.slots
	x.devices[b].fails = func(int64) error { t.Error("the slot is written"); return nil }
	err := x.upgrade(t, bu).Run(t.Context())
	if want := "upgrade: clear: journal: no space left on device"; err == nil || err.Error() != want {
		t.Errorf("error is %v, want %s", err, want)
	}
	if x.loader.slots != before {
		t.Errorf("slots are %+v", x.loader.slots)
	}
}

// TestDamageIsFound: a bit that changes between writing and reading back.
func TestDamageIsFound(t *testing.T) {
	// In data, filling, superblock, top of the tree, below it, and its filling.
	for _, at := range []int64{0, 350_000, 700_100, 700_416, 704_512, 708_608, 716_799} {
		x, bu := installed(t), newBuild(t, "v1.1.0")
		if len(bu.files["root.img"]) != 716_800 {
			t.Fatalf("root.img has %d bytes", len(bu.files["root.img"]))
		}
		x.devices[b] = &device{data: make([]byte, 1<<20)}
		o := x.upgrade(t, bu)
		steps := map[string]*Step{}
		for i := range o.Steps {
			steps[o.Steps[i].Name] = &o.Steps[i]
		}
		if err := errors.Join(steps["clear"].Do(t.Context()), steps["root image"].Do(t.Context())); err != nil {
			t.Fatal(err)
		}
		if err := steps["read back"].Do(t.Context()); err != nil {
			t.Fatal(err)
		}
		x.devices[b].data[at] ^= 0x10
		if err := steps["read back"].Do(t.Context()); !errors.Is(err, ErrDamaged) {
			t.Errorf("a bit at %d is wrong: %v", at, err)
		}
	}
}

func TestStalledDownload(t *testing.T) {
	bu := newBuild(t, "v1.0.0")
	source := bu.serve(t)
	source.Stall = 20 * time.Millisecond
	release := make(chan struct{})
	t.Cleanup(func() { close(release) })
	bu.broken = func(_ string, w http.ResponseWriter, data []byte) bool {
		w.Write(data[:10])
		w.(http.Flusher).Flush()
		<-release
		return true
	}
	root, err := bu.image.Find("root.img")
	if err != nil {
		t.Fatal(err)
	}
	err = source.fetch(t.Context(), root, func(r io.Reader) error { _, err := io.Copy(io.Discard, r); return err })
	if !errors.Is(err, errStalled) {
		t.Errorf("error is %v", err)
	}
}

// TestRan: a system that runs from its disk is installed, though the power was
// cut before that was noted; what else was cut short stays so.
func TestRan(t *testing.T) {
	for operation, installed := range map[string]bool{installName: true, ResetName: false} {
		cut := Record{Operation: operation, Done: []string{"state"}}
		k := kept{place: true, rec: cut}
		if cut.Installed() {
			t.Errorf("%s: installed before its end", operation)
		}
		if err := Ran(&k, cut, noon); err != nil || k.rec.Installed() != installed {
			t.Errorf("%s: %+v, %v", operation, k.rec, err)
		}
	}
}
