package early

import (
	"fmt"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// slackArgument is the kernel argument by which the timers of all programs may
// be late, a Go duration. Programs in Go set hundreds of timers a second; where
// to wake one costs a lot, as under software emulation, those that are due at
// about the same time had better be one wake-up (PR_SET_TIMERSLACK(2const)).
const slackArgument = "slipway.timer-slack="

// maxSlack keeps timers good for what programs do with them.
const maxSlack = 100 * time.Millisecond

// setSlack sets it of this thread. It passes on to what the thread runs and to
// whatever that starts.
func setSlack(cmdline string) error {
	slack, err := slackOf(cmdline)
	if err != nil || slack == 0 {
		return err
	}
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(slack), 0, 0, 0); err != nil {
		return fmt.Errorf("set the timers' slack: %w", err)
	}
	return nil
}

// slackOf reads the kernel argument; without it the slack is the kernel's own: 0.
func slackOf(cmdline string) (time.Duration, error) {
	for word := range strings.FieldsSeq(cmdline) {
		text, ok := strings.CutPrefix(word, slackArgument)
		if !ok {
			continue
		}
		slack, err := time.ParseDuration(text)
		if err != nil || slack <= 0 || slack > maxSlack {
			return 0, fmt.Errorf("kernel argument %s is not a duration of at most %s", word, maxSlack)
		}
		return slack, nil
	}
	return 0, nil
}
