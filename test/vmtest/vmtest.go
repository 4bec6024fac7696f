// Package vmtest is the language of stories told by real machines: it starts a lab with the
// built slipway program and image, waits for things that have a name, and when a story fails
// prints what every machine said last and how far it came. All logs of failed stories are kept
// in .build/consoles.
//
//	lab := vmtest.New(t, vmtest.Machines(vmtest.BIOS("m1")))
//	lab.AwaitConsole(t, "m1", "slipway init", 30*time.Second)
//	lab.Await(t, "m1 is Ready", time.Minute, func() error { ... lab.TryKubectl(...) ... })
//
// All durations are those of the reference computer (see qemu.Factor) and are scaled to this
// one. A test skips, with the reason, where labs cannot run or nothing was built; with
// SLIPWAY_REQUIRE_VM=1 it fails instead. SLIPWAY_BIN and SLIPWAY_IMAGE name another program
// and image than .build/bin/slipway and .build/image.
package vmtest

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/qemu"
)

// Lab is a running lab in the hands of a test. It ends with the test.
type Lab struct {
	*qemu.Lab
	bin    string
	accel  qemu.Accel
	slow   float64       // how many times as long guests took as on the reference computer, when that was measured
	factor float64       // of patience
	state  string        // $XDG_STATE_HOME of the lab
	kept   string        // where the logs of failed stories go
	image  string        // directory of the image that was built
	up     *exec.Cmd     // slipway lab up --foreground
	said   *bytes.Buffer // by it; complete when ended is closed
	ended  chan struct{}
	vain   string // what was waited for in vain
}

// Option changes the lab that New makes.
type Option func(*options)

type options struct {
	machines []qemu.Machine
	flags    []string
	service  bool
	beside   bool
}

// Machines says which machines the lab has, instead of one BIOS machine m1.
func Machines(machines ...qemu.Machine) Option {
	return func(o *options) { o.machines = machines }
}

// Off leaves the machines off at first.
func Off() Option { return Flags("--off") }

// Flags adds flags of `slipway lab up`.
func Flags(flags ...string) Option {
	return func(o *options) { o.flags = append(o.flags, flags...) }
}

// Beside has the story told at the same time as another one of this kind: both together take
// less time than one after the other, since a machine that starts keeps one processor busy.
func Beside() Option { return func(o *options) { o.beside = true } }

// NoService makes a lab without boot service; it needs no image.
func NoService() Option {
	return func(o *options) { o.service = false; o.flags = append(o.flags, "--service=false") }
}

// BIOS is a machine whose network card speaks iPXE; PlainBIOS one whose card has to be given
// a loader; UEFI one that boots by UEFI's own PXE. Fields may be changed before use.
func BIOS(name string) qemu.Machine { return qemu.Machine{Name: name, Firmware: qemu.BIOS} }

// PlainBIOS: see BIOS.
func PlainBIOS(name string) qemu.Machine {
	return qemu.Machine{Name: name, Firmware: qemu.BIOS, PXE: qemu.PlainPXE}
}

// UEFI: see BIOS.
func UEFI(name string) qemu.Machine { return qemu.Machine{Name: name, Firmware: qemu.UEFI} }

// New starts a lab and returns when its machines are powered on.
func New(t *testing.T, opts ...Option) *Lab {
	t.Helper()
	o := options{machines: []qemu.Machine{BIOS("m1")}, service: true}
	for _, opt := range opts {
		opt(&o)
	}
	if o.beside {
		t.Parallel()
	}
	for i, m := range o.machines {
		if o.beside && runtime.NumCPU() < 4 {
			m.CPUs = 1 // see qemu: processors that take turns on a core hold each other's locks
		}
		o.machines[i] = m.WithDefaults(i)
	}
	lab, image := prepare(t, o)
	link := filepath.Join(lab.state, imageLink)
	image, err := filepath.Abs(image)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(image, link); err != nil {
		t.Fatal(err)
	}
	args := []string{"lab", "up", "--foreground", "--image", link}
	for _, m := range o.machines {
		args = append(args, "--machine", m.String())
	}
	lab.start(t, append(args, o.flags...))
	lab.awaitUp(t)
	return lab
}

// prepare finds what a lab needs, measures the computer and makes the lab's place.
func prepare(t *testing.T, o options) (lab *Lab, image string) {
	t.Helper()
	bin, image, err := built(o.service)
	if err == nil {
		err = qemu.Usable(t.Context(), o.machines)
	}
	if err != nil {
		unavailable(t, err)
	}
	host, err := qemu.FindHost(t.Context(), o.machines)
	if err != nil {
		unavailable(t, err)
	}
	factor, err := qemu.Factor(t.Context(), host.QEMU, host.Accel)
	if err != nil {
		t.Fatalf("measure this computer: %v", err)
	}
	t.Logf("guests run under %s, %.2f times as long as on the reference computer at the moment", host.Accel, factor)
	root, err := repository()
	if err != nil {
		t.Fatal(err)
	}
	return &Lab{
		bin: bin, accel: host.Accel, slow: factor, factor: max(factor, varies), state: t.TempDir(), kept: filepath.Join(root, ".build", "consoles"),
		said: new(bytes.Buffer), ended: make(chan struct{}), image: image,
	}, image
}

func unavailable(t *testing.T, err error) {
	t.Helper()
	if os.Getenv("SLIPWAY_REQUIRE_VM") == "1" {
		t.Fatalf("this test needs a lab: %v", err)
	}
	t.Skipf("this test needs a lab: %v", err)
}

// built finds the program and the image.
func built(needImage bool) (bin, image string, err error) {
	bin, image = os.Getenv("SLIPWAY_BIN"), os.Getenv("SLIPWAY_IMAGE")
	root, err := repository()
	if err != nil {
		return "", "", err
	}
	if bin == "" {
		bin = filepath.Join(root, ".build", "bin", "slipway")
	}
	if image == "" {
		image = filepath.Join(root, ".build", "image")
	}
	if _, err := os.Stat(bin); err != nil {
		return "", "", fmt.Errorf("find the slipway program: %w; run: make build image", err)
	}
	if _, err := os.Stat(filepath.Join(image, "manifest.json")); err != nil && needImage {
		return "", "", fmt.Errorf("find the image: %w; run: make build image", err)
	}
	return bin, image, nil
}

// repository is the folder with go.mod, at or above the working directory.
func repository() (string, error) {
	dir, err := os.Getwd()
	for err == nil {
		if _, statErr := os.Stat(filepath.Join(dir, "go.mod")); statErr == nil {
			return dir, nil
		}
		if dir == filepath.Dir(dir) {
			return "", errors.New("find go.mod: none at or above the working directory")
		}
		dir = filepath.Dir(dir)
	}
	return "", err
}

// start runs `slipway lab up`. It is killed when this process dies, and the lab with it.
func (l *Lab) start(t *testing.T, args []string) {
	t.Helper()
	l.up = exec.Command(l.bin, args...)
	l.up.Env = append(os.Environ(), "XDG_STATE_HOME="+l.state, "SLIPWAY_LAB=default")
	l.up.Stdout, l.up.Stderr = l.said, l.said
	l.up.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
	if err := l.up.Start(); err != nil {
		t.Fatalf("start the lab: %v", err)
	}
	go func() { // ends with the lab; closes ended
		_ = l.up.Wait() // how it ended is in what it said
		close(l.ended)
	}()
	t.Cleanup(func() { l.finish(t) })
}

// awaitUp waits until the machines are powered on.
func (l *Lab) awaitUp(t *testing.T) {
	t.Helper()
	l.Await(t, "the lab is up", 90*time.Second, func() error {
		lab, err := qemu.Open(filepath.Join(l.state, "slipway", "lab"), "default")
		if err != nil {
			return err
		}
		l.Lab = lab
		status, err := lab.Status(t.Context())
		if err == nil && status.State != qemu.StateUp {
			err = fmt.Errorf("it is %s", status.State)
		}
		return err
	})
}

// finish tells why a story failed and ends the lab.
func (l *Lab) finish(t *testing.T) {
	if t.Failed() && l.Lab != nil {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		l.explain(ctx, t)
	}
	_ = l.up.Process.Signal(os.Interrupt) // fails only if it has ended
	select {
	case <-l.ended:
	case <-time.After(20 * time.Second):
		_ = l.up.Process.Kill() // which cuts the leash
		<-l.ended
	}
	if t.Failed() {
		t.Logf("slipway lab up said:\n%s", l.said)
	}
	if l.vain != "" { // once more: where only the end of a log is kept, this is what has to be in it
		t.Log(l.vain)
	}
}

// Bound scales what something may take at most on processors of its own, under KVM, to this
// lab's: where guests are emulated, and where this computer was slower than the reference when
// that was measured. Unlike Timeout it has no reserve for what a computer's neighbours take.
func (l *Lab) Bound(base time.Duration) time.Duration { return bound(base, l.accel, l.slow) }

func bound(base time.Duration, accel qemu.Accel, slow float64) time.Duration {
	if accel != qemu.KVM {
		base *= emulation
	}
	return time.Duration(float64(base) * max(slow, 1))
}

// emulation is how many times as long a bound is where guests are emulated. Their processors
// are five to ten times slower; but much of what stories bound is timers that run out, and
// those are as quick as ever.
const emulation = 4

// Timeout scales a duration of the reference computer to this one: how long success is waited
// for before a story fails, several times what it takes.
func (l *Lab) Timeout(base time.Duration) time.Duration {
	return time.Duration(float64(base) * l.factor)
}

// Await asks check again and again until it returns nil, and fails the test when it does not
// within the scaled time, or the lab ends. what completes "waiting for: ".
func (l *Lab) Await(t *testing.T, what string, within time.Duration, check func() error) {
	t.Helper()
	begin, limit := time.Now(), l.Timeout(within)
	if end, ok := t.Deadline(); ok {
		left := time.Until(end)
		limit = min(limit, left-min(reserve, left/4)) // leave time to say why
	}
	deadline := time.After(limit)
	for {
		err := check()
		if err == nil {
			t.Logf("%s: after %.1fs", what, time.Since(begin).Seconds())
			return
		}
		select {
		case <-time.After(between):
		case <-l.ended:
			l.vain = fmt.Sprintf("waiting for: %s: the lab has ended; it said:\n%s", what, l.said)
			t.Fatal(l.vain)
		case <-deadline:
			l.vain = fmt.Sprintf("waiting for: %s: not within %v (%v, scaled by %.2f): %v", what, limit.Round(time.Second), within, l.factor, err)
			t.Fatal(l.vain)
		}
	}
}

// varies is how much slower a computer may become than it was when it was measured: guests
// of an idle one with neighbours took between 1.02 and 2.44 times as long within ten seconds.
const varies = 2.5

// between is from one check's end to the next one: a kubectl that starts again and again takes
// from emulated machines what they need to become what is waited for.
const between = time.Second

// reserve is how long explain and the end of a lab may take before the test's deadline.
const reserve = 45 * time.Second

// AwaitConsole waits until machine has printed text, which has no line breaks.
func (l *Lab) AwaitConsole(t *testing.T, machine, text string, within time.Duration) {
	t.Helper()
	l.Await(t, machine+" prints "+text, within, func() error {
		if !strings.Contains(l.Console(t, machine), text) {
			return errors.New("it has not")
		}
		return nil
	})
}

// Console is everything machine has printed so far, without terminal commands.
func (l *Lab) Console(t *testing.T, machine string) string {
	t.Helper()
	var out bytes.Buffer
	if err := l.Follow(t.Context(), machine, &out, false); err != nil {
		t.Fatal(err)
	}
	return qemu.PlainText(out.String())
}
