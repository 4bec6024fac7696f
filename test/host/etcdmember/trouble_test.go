package etcdmember

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"slipway/nodeinit/api/nodev1"
)

// TestBeginning: a cluster is begun once, whatever happens on the way.
func TestBeginning(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, b := s.add("a", "192.0.2.41"), s.add("b", "192.0.2.42")
	t.Run("it waits for the boot service", func(t *testing.T) {
		s.boot.silence(true)
		a.start(1, leave("one", ""), a, b)
		a.says("the boot service to let this machine begin the cluster", "out for lunch")
	})
	t.Run("it goes on after a restart", func(t *testing.T) {
		a.stop()
		s.boot.silence(false)
		a.run()
		a.voter()
	})
	t.Run("of two that are told at once, one begins", func(t *testing.T) {
		a.stop() // so that b sees nobody
		b.start(1, leave("one", ""), a, b)
		b.says("the boot service does not let this machine begin the cluster", "nothing was changed")
		if _, err := os.Stat(b.paths.Data + "/1"); err == nil {
			t.Error("b has data")
		}
		a.run()
		a.voter()
		b.voter()
	})
	t.Run("who lost all of its data after beginning does not begin again", func(t *testing.T) {
		a.stop()
		b.stop()
		must(t, os.RemoveAll(a.paths.Data+"/1"))
		a.run()
		a.says("a cluster is not begun twice", "slipway cluster restore")
	})
}

// TestLearner: a learner that never comes holds up the others, who say so.
func TestLearner(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a, b := s.add("a", "192.0.2.51"), s.add("b", "192.0.2.52")
	a.start(1, leave("one", ""), a, b)
	a.voter()
	client := a.client()
	defer client.Close()
	added, err := client.MemberAddAsLearner(t.Context(), []string{"https://192.0.2.99:2380"})
	must(t, err)
	b.start(1, nil, a, b)
	b.says("the learner", "192.0.2.99:2380", "slipway etcd remove")
	_, err = a.api().Remove(t.Context(), connect.NewRequest(&nodev1.EtcdRemoveRequest{Member: hexID(added.Member.ID)}))
	must(t, err)
	b.voter()
}

// TestFullDisk: a member whose disk is full says so and loses nothing; it goes
// on when there is room.
func TestFullDisk(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.add("a", "192.0.2.61")
	must(t, os.MkdirAll(a.paths.Data, 0o700))
	must(t, syscall.Mount("disk", a.paths.Data, "tmpfs", 0, "size=220m"))
	t.Cleanup(func() { syscall.Unmount(a.paths.Data, syscall.MNT_DETACH) })
	a.start(1, leave("one", ""), a)
	a.voter()
	a.put("kept", "yes")
	a.stop()
	filler := filepath.Join(a.paths.Data, "filler")
	must(t, fill(filler))
	a.run()
	a.says("MiB left", "nothing is lost", "once there is room", "slipway cluster restore")
	must(t, os.Remove(filler))
	a.voter()
	if got := a.get("kept"); got != "yes" {
		t.Errorf("kept is %q", got)
	}
}

// fill writes until there is no room.
func fill(path string) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	block := []byte(strings.Repeat("x", 1<<20))
	for {
		if _, err := f.Write(block); err != nil {
			return nil
		}
	}
}

// TestLoneMemberInTrouble: a clock that is years off, and a log that cannot be
// read, keep the only member from starting; what it holds stays.
func TestLoneMemberInTrouble(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	a := s.add("a", "192.0.2.62")
	clock := &movedClock{}
	a.now = clock.now
	a.start(1, leave("one", ""), a)
	a.voter()
	a.put("kept", "yes")
	for _, years := range []time.Duration{-20, 20} {
		a.stop()
		clock.move(years * 365 * 24 * time.Hour)
		a.run()
		a.says("the clock is wrong", "nothing was changed, and the data is kept", "set the clock")
		clock.move(0)
		a.voter()
	}
	if got := a.get("kept"); got != "yes" {
		t.Errorf("kept is %q", got)
	}
	a.stop()
	a.spoil()
	a.run()
	a.says("etcd's data cannot be read", "and is kept", "slipway cluster restore")
	if kept, err := filepath.Glob(a.paths.Data + "/1/member/wal/*.wal"); err != nil || len(kept) == 0 {
		t.Errorf("the damaged log is gone: %v, %v", kept, err)
	}
}
