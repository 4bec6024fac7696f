package lifecycle

import (
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// unmountAll unmounts all but what PID 1 itself needs to the end. What is busy
// is detached: it then goes with its last user, and sync saves what is in it.
func unmountAll(ctx context.Context) error {
	mounts, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		return fmt.Errorf("list mounts: %w", err)
	}
	var errs []error
	for _, target := range unmountOrder(string(mounts)) {
		if ctx.Err() != nil {
			return errors.Join(append(errs, ctx.Err())...)
		}
		err := unix.Unmount(target, 0)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(target, unix.MNT_DETACH)
		}
		if err != nil {
			errs = append(errs, fmt.Errorf("unmount %s: %w", target, err))
		}
	}
	return errors.Join(errs...)
}

// kept are the mounts that stay, and all below them: what the kernel shows of
// itself, the root image, which is read-only, and this program's own file.
var kept = []string{"/proc", "/sys", "/dev", "/usr"}

// unmountOrder picks from /proc/self/mountinfo (proc(5)) the targets to
// unmount, later ones first: they may lie on earlier ones.
func unmountOrder(mountinfo string) (targets []string) {
	for line := range strings.Lines(mountinfo) {
		fields := strings.Fields(line)
		if len(fields) < 5 {
			continue
		}
		target := unescape.Replace(fields[4])
		stays := func(k string) bool { return target == k || strings.HasPrefix(target, k+"/") }
		if target != "/" && !slices.ContainsFunc(kept, stays) {
			targets = append(targets, target)
		}
	}
	slices.Reverse(targets)
	return targets
}

// unescape undoes what the kernel does to names that would break the columns.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
