package qemu

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Accel is how guests run: KVM, or TCG (software emulation).
type Accel string

// The accelerators the lab knows.
const (
	KVM Accel = "kvm"
	TCG Accel = "tcg"
)

func (a Accel) option() string {
	if a == KVM {
		return "kvm"
	}
	return "tcg,thread=multi"
}

func (a Accel) cpu() string {
	if a == KVM {
		return "host"
	}
	return "max," + slowStrings
}

// slowStrings has an emulated processor not say that its string instructions are fast. A
// kernel that believes that they are clears and copies memory by them byte for byte, and each
// byte is a turn of an emulated loop: 8 µs more for each page that is cleared or copied.
const slowStrings = "-erms,-fsrm"

// safeSMP is the first QEMU release, major and minor, whose software emulation may run a
// guest's processors side by side. Earlier ones translate each processor's code in a thread
// of its own and may keep the breakpoint that a Linux guest puts, for a moment, into a piece
// of its own code that it patches; the other processor runs into it long afterwards ("Oops:
// int3"). With 7.2 that hit one boot in twenty; with emulation in one thread, two processors
// were no faster than one.
var safeSMP = [2]int{8, 1}

// cpus is how many processors each of some machines has unless it says so itself, on a
// computer with as many cores: two, or one where emulation is not safe with two, or has fewer
// cores than that to run on. Emulated processors that take turns on a core hold each other's
// locks while they wait: on two cores, three of four machines had their etcd together 124 s
// after power-on with two each, and after 78 s with one each.
func (h Host) cpus(machines, cores int) int {
	switch {
	case h.Accel == KVM:
		return 2
	case slices.Compare(h.Version[:], safeSMP[:]) < 0:
		return 1
	}
	return min(max(cores/max(machines, 1), 1), 2)
}

var versionText = regexp.MustCompile(`version (\d+)\.(\d+)`)

// version asks a QEMU for its release; one that does not say is taken for an old one.
func version(ctx context.Context, qemu string) (v [2]int) {
	out, _ := exec.CommandContext(ctx, qemu, "--version").Output()
	return parseVersion(string(out))
}

func parseVersion(text string) (v [2]int) {
	if found := versionText.FindStringSubmatch(text); found != nil {
		v[0], _ = strconv.Atoi(found[1]) // digits; too many of them are none
		v[1], _ = strconv.Atoi(found[2])
	}
	return v
}

const (
	// probeRounds is the work of the probe guest; probeReference is how long it takes, QEMU's
	// start included, on the computer that all base timeouts were written on (2 cores, TCG).
	probeRounds    = 150_000_000
	probeReference = 700 * time.Millisecond
	// probePatience bounds one try of KVM: one that does not work, or is itself emulated, may
	// spin in the kernel instead of failing. It has to do the work as fast as TCG, or better.
	probePatience = 3 * time.Second
	probeExit     = 0x10<<1 | 1
)

// FindAccel returns KVM only when a guest has really run under it. The answer is kept
// in the user's cache directory until the computer boots again or QEMU changes.
func FindAccel(ctx context.Context, qemu string) Accel {
	if _, err := os.Stat("/dev/kvm"); err != nil {
		return TCG
	}
	cache, key := accelCache(qemu)
	if known, err := os.ReadFile(cache); err == nil {
		if a, ok := strings.CutSuffix(string(known), " "+key); ok {
			return Accel(a)
		}
	}
	accel := TCG
	tryCtx, cancel := context.WithTimeout(ctx, probePatience)
	defer cancel()
	if _, err := runProbe(tryCtx, qemu, KVM, probeRounds); err == nil {
		accel = KVM
	}
	if ctx.Err() == nil && cache != "" {
		// Without the cache the next lab only starts a little later.
		_ = os.MkdirAll(filepath.Dir(cache), 0o700)
		_ = os.WriteFile(cache, []byte(string(accel)+" "+key), 0o600)
	}
	return accel
}

// accelCache returns the file of FindAccel's answer and what that answer is bound to.
func accelCache(qemu string) (path, key string) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", ""
	}
	boot, _ := os.ReadFile("/proc/sys/kernel/random/boot_id")
	stamp := ""
	if info, err := os.Stat(qemu); err == nil {
		stamp = info.ModTime().UTC().Format(time.RFC3339)
	}
	return filepath.Join(dir, "slipway", "accel"), fmt.Sprintf("%s %s %s", strings.TrimSpace(string(boot)), qemu, stamp)
}

// Factor says how slow guests are on this computer, now, under accel: 1 where all base
// timeouts were written, 2 where the same guest takes twice as long. It is between 0.5 and
// 20, and takes about a second to measure.
func Factor(ctx context.Context, qemu string, accel Accel) (float64, error) {
	took, err := runProbe(ctx, qemu, accel, probeRounds)
	if err != nil {
		return 0, err
	}
	return factorOf(took), nil
}

func factorOf(took time.Duration) float64 {
	return min(max(float64(took)/float64(probeReference), 0.5), 20)
}

// runProbe runs a guest that counts in memory and then ends QEMU with probeExit.
func runProbe(ctx context.Context, qemu string, accel Accel, rounds uint32) (took time.Duration, err error) {
	rom, err := os.CreateTemp("", "slipway-probe-*.rom")
	if err != nil {
		return 0, fmt.Errorf("make the probe guest: %w", err)
	}
	defer func() { err = errors.Join(err, ignoreMissing(os.Remove(rom.Name()))) }()
	_, writeErr := rom.Write(probeROM(rounds))
	if err := errors.Join(writeErr, rom.Close()); err != nil {
		return 0, fmt.Errorf("write the probe guest: %w", err)
	}
	start := time.Now()
	out, err := exec.CommandContext(ctx, qemu, "-accel", accel.option(), "-cpu", accel.cpu(), "-smp", "2", "-machine", "q35", "-no-user-config", "-nodefaults",
		"-display", "none", "-m", "16", "-bios", rom.Name(), "-device", "isa-debug-exit,iobase=0xf4,iosize=4").CombinedOutput()
	var exit *exec.ExitError
	if errors.As(err, &exit) && exit.ExitCode() == probeExit {
		return time.Since(start), nil
	}
	return 0, fmt.Errorf("run the probe guest under %s: ended with %v, want exit code %d: %s", accel, err, probeExit, out)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}

// probeROM is a whole firmware of 64 KiB: the processor starts at the jump 16 bytes before
// its end, in 16-bit mode.
func probeROM(rounds uint32) []byte {
	const start, reset = 0xff00, 0xfff0
	rom := make([]byte, 0x10000)
	code := []byte{0x66, 0xb9} // mov ecx, rounds
	code = binary.LittleEndian.AppendUint32(code, rounds)
	code = append(code,
		0x66, 0xff, 0x06, 0x00, 0x05, // again: inc dword [0x500]
		0x67, 0xe2, 0xf8, // loop again (counts ecx)
		0xb0, 0x10, // mov al, 0x10
		0xba, 0xf4, 0x00, // mov dx, 0xf4
		0xee, // out dx, al: isa-debug-exit
		0xf4) // hlt
	copy(rom[start:], code)
	rom[reset] = 0xe9 // jmp start
	rel := start - (reset + 3)
	binary.LittleEndian.PutUint16(rom[reset+1:], uint16(rel&0xffff))
	return rom
}
