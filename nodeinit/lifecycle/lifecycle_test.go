package lifecycle

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestRunKeepsDeadlines(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		log := slog.New(slog.NewTextHandler(&out, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
			if a.Key == slog.TimeKey || a.Key == slog.LevelKey {
				return slog.Attr{}
			}
			return a
		}}))
		release := make(chan bool)
		run(log, []Step{
			{"quick", time.Second, func(context.Context) error { return nil }},
			{"broken", time.Second, func(context.Context) error { return errors.New("no such disk") }},
			{"late", time.Second, func(ctx context.Context) error { <-ctx.Done(); return errors.New("etcd still runs") }},
			{"deaf", 10 * time.Second, func(context.Context) error { <-release; return nil }},
			{"last", time.Second, func(context.Context) error { return nil }},
		})
		close(release)
		want := `msg=quick took=0s
msg=broken took=0s err="no such disk"
msg=late took=1s err="etcd still runs"
msg=deaf took=10.5s err="still not done after 10s: left behind"
msg=last took=0s
`
		if diff := cmp.Diff(want, out.String()); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	})
}

// TestDeadlines: even if every step is late, the shutdown's own deadline is
// not what ends it.
func TestDeadlines(t *testing.T) {
	for _, how := range []End{{}, {Wipe: &Step{Name: "wipe", Deadline: time.Hour}}} {
		var sum time.Duration
		for _, step := range (Node{}).steps(how) {
			sum += step.Deadline + patience
		}
		if sum > how.deadline() {
			t.Errorf("the steps may take %s, all of it %s", sum, how.deadline())
		}
	}
}

func TestUnmountOrder(t *testing.T) {
	const mountinfo = `22 1 7:0 / / ro,relatime shared:1 - squashfs /dev/loop0 ro
23 22 0:2 /init /usr/bin/slipway-init rw shared:2 - rootfs rootfs rw
24 22 0:6 / /dev rw,nosuid shared:3 - devtmpfs devtmpfs rw
25 22 0:21 / /proc rw shared:4 - proc proc rw
26 22 0:22 / /sys rw shared:5 - sysfs sysfs rw
27 26 0:28 / /sys/fs/cgroup rw shared:6 - cgroup2 cgroup2 rw
28 22 0:23 / /run rw shared:7 - tmpfs tmpfs rw
29 22 8:1 / /var rw shared:8 - ext4 /dev/sda1 rw
30 29 0:40 / /var/lib/kubelet/pods/a\040b/volumes rw shared:9 - tmpfs tmpfs rw
31 28 0:41 / /run/containerd/rootfs rw shared:10 - overlay overlay rw
32 22 0:42 / /devices rw - tmpfs tmpfs rw
`
	want := []string{"/devices", "/run/containerd/rootfs", "/var/lib/kubelet/pods/a b/volumes", "/var", "/run"}
	if diff := cmp.Diff(want, unmountOrder(mountinfo)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// cgroupWith makes folders that look like a cgroup with one process.
func cgroupWith(t *testing.T, pid int) string {
	root := filepath.Join(t.TempDir(), "kubepods")
	os.MkdirAll(root+"/burstable/pod1", 0o755)
	os.WriteFile(root+"/cgroup.procs", nil, 0o644)
	os.WriteFile(root+"/burstable/pod1/cgroup.procs", []byte(strconv.Itoa(pid)+"\n"), 0o644)
	return root
}

func TestEmptyCgroupAsksThenKills(t *testing.T) {
	sleep := exec.Command("sleep", "100")
	if err := sleep.Start(); err != nil {
		t.Fatal(err)
	}
	root := cgroupWith(t, sleep.Process.Pid)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	go func() {
		sleep.Wait()
		os.RemoveAll(filepath.Join(root, "burstable")) // as runc does
	}()
	if err := emptyCgroup(ctx, root); err != nil {
		t.Error(err)
	}
	if got := sleep.ProcessState; got == nil || !strings.Contains(got.String(), "terminated") {
		t.Errorf("sleep ended with %v", got)
	}

	deaf := cgroupWith(t, os.Getppid()+1<<22) // no such process
	late, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	err := emptyCgroup(late, deaf)
	if err == nil || err.Error() != "1 processes in "+deaf+" did not end: killed" {
		t.Errorf("got %v", err)
	}
	if text, _ := os.ReadFile(deaf + "/cgroup.kill"); string(text) != "1" {
		t.Error("not killed")
	}
	if err := emptyCgroup(ctx, root+"/nothing"); err != nil {
		t.Errorf("no pods: %v", err)
	}
}

func TestDeaf(t *testing.T) {
	for _, test := range []struct {
		name, status string
		want         bool
	}{
		{"sleep, a container's first", "Name:\tsleep\nNSpid:\t831\t1\nSigCgt:\t0000000000000000\n", true},
		{"with a handler", "NSpid:\t831\t1\nSigCgt:\t0000000000004000\n", false},
		{"with other handlers", "NSpid:\t831\t1\nSigCgt:\t00000000000020a1\n", true},
		{"not the first", "NSpid:\t832\t7\nSigCgt:\t0000000000000000\n", false},
		{"in the host's namespace", "NSpid:\t1\nSigCgt:\t0000000000000000\n", false},
		{"gone", "", false},
	} {
		if got := deaf(test.status); got != test.want {
			t.Errorf("%s: %t", test.name, got)
		}
	}
}

func TestPrograms(t *testing.T) {
	proc := t.TempDir()
	for pid, line := range map[string]string{"1": "/usr/bin/slipway-init\x00", "2": "", "71": "/usr/bin/etcd\x00--name\x00", "self": "x"} {
		os.Mkdir(filepath.Join(proc, pid), 0o755)
		os.WriteFile(filepath.Join(proc, pid, "cmdline"), []byte(line), 0o644)
	}
	if diff := cmp.Diff([]string{"etcd[71]"}, programs(proc)); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func TestEndProcessesIsForPID1Only(t *testing.T) {
	if err := endProcesses(t.Context(), "/proc"); err == nil {
		t.Error("it would have ended everything here")
	}
}

// deafLog takes nothing from a moment on, like a serial line that nobody reads.
type deafLog struct {
	slog.Handler // nil: none of its other methods is called
	left         *atomic.Int32
	release      chan struct{}
}

func (d deafLog) Enabled(context.Context, slog.Level) bool { return true }

func (d deafLog) Handle(context.Context, slog.Record) error {
	if d.left.Add(-1) < 0 {
		<-d.release
	}
	return nil
}

// TestShutdownEnds: steps that hang are left behind, and whatever hangs besides,
// the machine ends by the deadline.
func TestShutdownEnds(t *testing.T) {
	for _, logs := range []int32{0, 1, 2, 3, 100} {
		synctest.Test(t, func(t *testing.T) {
			began, ended := time.Now(), make(chan time.Duration, 2)
			log := deafLog{nil, &atomic.Int32{}, make(chan struct{})}
			log.left.Store(logs)
			hang := func(context.Context) error { <-log.release; return nil }
			steps := []Step{{"stop units", 25 * time.Second, hang}, {"sync", 10 * time.Second, hang}}
			go Node{Log: slog.New(log)}.shutdown(End{}, steps, func(End) { ended <- time.Since(began) })
			if took := <-ended; took > Deadline+patience {
				t.Errorf("a log that takes %d lines: it ends after %s", logs, took)
			}
			close(log.release)
			<-time.After(Deadline + time.Second)
		})
	}
}

// TestWatchdogFirst: nothing is stopped before the hardware stands by, and the
// disk is synced after all that may write to it.
func TestWatchdogFirst(t *testing.T) {
	var names []string
	for _, s := range (Node{}).steps(End{Wipe: &Step{Name: "wipe the disk"}}) {
		names = append(names, s.Name)
	}
	want := []string{"arm the watchdog", "stop kubelet", "stop pods", "stop units", "end other processes", "close logs", "unmount", "sync", "wipe the disk"}
	if !slices.Equal(names, want) {
		t.Errorf("the steps are %q, want %q", names, want)
	}
}
