package early

import (
	"fmt"
	"strings"
	"time"

	"github.com/klauspost/cpuid/v2"
	"golang.org/x/sys/unix"
)

// slackArgument is the kernel argument that says by how much the timers of all
// programs may be late, a Go duration: those that are due within it are one
// wake-up (PR_SET_TIMERSLACK(2const)).
const slackArgument = "slipway.timer-slack="

// emulatedSlack is the slack of a machine whose processor is emulated, unless
// the argument says another. Programs in Go set hundreds of timers a second, and
// to wake such a processor costs ten times what it costs a real one.
const emulatedSlack = 50 * time.Millisecond

// maxSlack keeps timers good for what programs do with them.
const maxSlack = 100 * time.Millisecond

// setSlack sets it of this thread. It passes on to what the thread runs and to
// whatever that starts.
func setSlack(cmdline string) error {
	slack, err := slackOf(cmdline, Emulated())
	if err != nil || slack == 0 {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0); err != nil {
		return fmt.Errorf("set the timers' slack: %w", err)
	}
	return nil
}

// Emulated says whether this processor is QEMU's software, which says so (CPUID).
func Emulated() bool { return cpuid.CPU.HypervisorVendorID == cpuid.QEMU }

// slackOf is how late timers may be; 0: as the kernel has them.
func slackOf(cmdline string, emulated bool) (time.Duration, error) {
	for word := range strings.FieldsSeq(cmdline) {
		text, ok := strings.CutPrefix(word, slackArgument)
		if !ok {
			continue
		}
		slack, err := time.ParseDuration(text)
		if err != nil || slack < 0 || slack > maxSlack {
			return 0, fmt.Errorf("kernel argument %s is not a duration of at most %s", word, maxSlack)
		}
		return slack, nil
	}
	if emulated {
		return emulatedSlack, nil
	}
	return 0, nil
}
