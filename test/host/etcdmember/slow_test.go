package etcdmember

import (
	"path/filepath"
	"testing"
	"time"
)

// TestSlowDisk: a machine whose disk takes too long for a sync becomes no new
// member: it says the figures and what to do, and etcd is not started. It is one
// when that is allowed, or when the disk turns out to be better; and who is one
// already stays.
func TestSlowDisk(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, b := s.add("a", "192.0.2.63"), s.add("b", "192.0.2.64")
	a.disk, b.disk = newDisk(300*time.Millisecond), newDisk(300*time.Millisecond)
	t.Run("it does not begin a cluster", func(t *testing.T) {
		a.configure(1, leave("one", ""), a, b)
		a.allowSlowDisk(false)
		a.run()
		a.refusesDisk()
	})
	t.Run("it does when that is allowed", func(t *testing.T) {
		a.allowSlowDisk(true)
		a.voter()
	})
	t.Run("it does not join one", func(t *testing.T) {
		b.configure(1, nil, a, b)
		b.allowSlowDisk(false)
		b.run()
		b.refusesDisk()
		if got := a.members(); len(got) != 1 {
			t.Errorf("members %v", got)
		}
	})
	t.Run("it does when the disk is better than it looked", func(t *testing.T) {
		b.disk.fsync.Store(int64(5 * time.Millisecond))
		b.voter()
	})
	t.Run("a member whose disk has become slow starts again", func(t *testing.T) {
		b.stop()
		b.disk = newDisk(300 * time.Millisecond)
		b.run()
		b.voter()
		if took := b.status().FsyncP99Us; took != 300_000 {
			t.Errorf("its status says %d us", took)
		}
	})
}

// allowSlowDisk gives a machine a config that allows it, or does not.
func (n *node) allowSlowDisk(allow bool) {
	n.t.Helper()
	n.cfg.Etcd.AllowSlowDisk = allow
	n.writeFiles()
}

// refusesDisk: the machine says why it is no member, and etcd has not run.
func (n *node) refusesDisk() {
	n.t.Helper()
	n.says("the disk is too slow for etcd", "takes 300ms or longer, and 100ms is the bound", "another disk, or etcd.allowSlowDisk: true")
	n.holdsBack("the disk is too slow for etcd")
	if took := n.status().FsyncP99Us; took != 300_000 {
		n.t.Errorf("its status says %d us", took)
	}
	if made, err := filepath.Glob(n.paths.Data + "/1/*"); err != nil || len(made) > 0 || n.pid() != 0 {
		n.t.Errorf("etcd was started: %q, %v, process %d", made, err, n.pid())
	}
}
