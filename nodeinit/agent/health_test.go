package agent

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"slipway/configs/enroll"
)

// TestDiskIsGone: a machine whose disk fails once it is well goes on, and the boot
// service hears of it, also when it is there again.
func TestDiskIsGone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		server, disk := &reports{}, newFakeDisk()
		r, stop := startReporter(t, server, store{dir: t.TempDir()})
		defer stop()
		r.state(enroll.Ready, "")
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		h := &health{booted: "a", disk: disk, root: &rootWatch{}, reports: r, console: quiet(&screen{})}
		go h.run(ctx)
		time.Sleep(lookAtDisk)
		told := func(why error, want string) {
			t.Helper()
			disk.goes(why)
			time.Sleep(lookAtDisk + lookAtHealth)
			synctest.Wait()
			if last := server.got[len(server.got)-1]; last.WaitingFor != want || last.Phase != "ready" {
				t.Errorf("it is %s and waits for %q, want %q", last.Phase, last.WaitingFor, want)
			}
		}
		told(errors.New("the disk vda that this machine booted from is gone"), "its system disk: the disk vda that this machine booted from is gone")
		told(nil, "")
	})
}
