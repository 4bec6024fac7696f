package agent

import (
	"crypto/x509"
	"fmt"
	"time"

	"golang.org/x/sys/unix"
)

// clock is the machine's time, as far as the agent touches it.
type clock struct {
	sinceBoot func() time.Duration // since the kernel started, whatever the calendar says
	now       func() time.Time     // what the calendar says
	set       func(time.Time) error
}

// systemClock is the kernel's.
func systemClock() clock {
	return clock{sinceBoot: sinceBoot, now: time.Now, set: setTime}
}

func sinceBoot() time.Duration {
	var ts unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts); err != nil {
		return 0 // does not happen on Linux
	}
	return time.Duration(ts.Nano())
}

func setTime(t time.Time) error {
	tv := unix.NsecToTimeval(t.UnixNano())
	if err := unix.Settimeofday(&tv); err != nil {
		return fmt.Errorf("set the clock to %s: %w", t.UTC().Format(time.RFC3339), err)
	}
	return nil
}

// maxSkew is how far the clock may be off before it is set: certificates and
// Kubernetes' leases do not mind a second, and a clock that jumps does harm.
const maxSkew = time.Second

// skewed reports whether the machine's time is to be set to the server's.
func skewed(machine, server time.Time) bool {
	return server.Sub(machine).Abs() > maxSkew
}

// inLife reports whether a certificate is valid by a clock. If the machine's own
// is not, either it was off for long, or its clock is off: a machine whose
// battery is dead wakes up in 1970 each time. It cannot know which. Enrolling
// again helps with both, for that is where the clock is set.
func inLife(cert *x509.Certificate, now time.Time) bool {
	return !now.Before(cert.NotBefore) && !now.After(cert.NotAfter)
}
