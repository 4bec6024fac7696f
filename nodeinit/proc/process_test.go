package proc

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"slipway/nodeinit/supervise"
)

// shell is a Process that runs a script, in the host's cgroup v2 if it lets us.
func shell(t *testing.T, script string) *Process {
	t.Helper()
	return &Process{Name: "test", Path: "/bin/sh", Args: []string{"-c", script}, StopTimeout: 10 * time.Second}
}

func TestRunSaysHowItEnded(t *testing.T) {
	for _, test := range []struct{ name, script, want string }{
		{"well", "echo fine", ""},
		{"status and last line", "echo one; echo two >&2; exit 3", "ended: exit status 3: two"},
		{"blank lines do not count", "echo why; echo; exit 1", "ended: exit status 1: why"},
		{"no newline at the end", "printf why; exit 1", "ended: exit status 1: why"},
		{"signal", "kill -9 $$", "ended: signal: killed"},
	} {
		t.Run(test.name, func(t *testing.T) {
			err := shell(t, test.script).Run(t.Context(), func() {})
			if got := text(err); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

func TestRunWithoutProgram(t *testing.T) {
	p := &Process{Name: "gone", Path: "/nonexistent"}
	if err := p.Run(t.Context(), func() { t.Error("ready") }); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

func TestRunLogsEachLineAtOnce(t *testing.T) {
	var log writes
	p := shell(t, `echo "$A $PWD"; printf 'two\nthree'; head -c 20000 /dev/zero | tr '\0' x`)
	p.Log, p.Env, p.Dir = &log, []string{"A=value"}, "/usr"
	if err := p.Run(t.Context(), func() {}); err != nil {
		t.Fatal(err)
	}
	long := "three" + strings.Repeat("x", 20000)
	want := []string{"value /usr\n", "two\n", long[:maxLine] + "\n", long[maxLine:] + "\n"}
	if got := strings.Join(log.all, "|"); got != strings.Join(want, "|") {
		t.Errorf("got %.100q", got)
	}
}

func TestReadyWaitsForTheProbe(t *testing.T) {
	file := filepath.Join(t.TempDir(), "up")
	p := shell(t, "while [ ! -e "+file+".go ]; do sleep 0.02; done; : >"+file+"; exec sleep 100")
	p.Ready = FileProbe{Path: file}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ready, ended := make(chan bool), make(chan error)
	go func() { ended <- p.Run(ctx, func() { close(ready) }) }()

	for p.WaitingFor() != "file "+file+": file does not exist" {
		select {
		case <-ready:
			t.Fatal("ready too early")
		case err := <-ended:
			t.Fatal(err)
		default:
		}
	}
	if err := os.WriteFile(file+".go", nil, 0o644); err != nil {
		t.Fatal(err)
	}
	<-ready
	if p.PID() == 0 || p.WaitingFor() != "" {
		t.Errorf("pid %d, waiting for %q", p.PID(), p.WaitingFor())
	}
	stop()
	if err := <-ended; err != nil {
		t.Errorf("stopped as asked: %v", err)
	}
	if p.PID() != 0 {
		t.Errorf("pid %d after the end", p.PID())
	}
}

func TestNeverReady(t *testing.T) {
	p := shell(t, "echo no luck; exec sleep 100")
	p.Ready, p.ReadyTimeout = FileProbe{Path: "/nonexistent"}, 300*time.Millisecond
	err := p.Run(t.Context(), func() { t.Error("ready") })
	want := "not ready after 300ms: probe file /nonexistent: file does not exist: no luck"
	if text(err) != want {
		t.Errorf("got %q", text(err))
	}
}

func TestStopKillsWhatDoesNotListen(t *testing.T) {
	p := shell(t, `trap "" TERM; (trap "" TERM; echo child; sleep 100) & echo up; while :; do sleep 1; done`)
	p.StopTimeout = 200 * time.Millisecond
	var log writes
	p.Log = &log
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.Run(ctx, func() {}) }()
	log.await("child\n")
	log.await("up\n")
	stop()
	if err := <-ended; !strings.Contains(text(err), "did not stop within 200ms of terminated: killed") {
		t.Errorf("got %v", err)
	}
}

func TestCgroupHoldsAllThatAProcessStarts(t *testing.T) {
	root := hostCgroup(t)
	var log writes
	p := shell(t, "setsid sleep 100 & echo up; wait")
	Runner{CgroupRoot: root, Log: func(string) io.Writer { return &log }}.Adopt([]supervise.Unit{{Name: "test", Service: p}})
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- p.Run(ctx, func() {}) }()
	log.await("up\n")
	if got := members(t, root); got == 0 {
		t.Error("nothing in the cgroup")
	}
	stop()
	if err := <-ended; err != nil {
		t.Error(err)
	}
	for deadline := time.Now().Add(5 * time.Second); members(t, root) > 0; {
		if time.Now().After(deadline) {
			t.Fatal("the process that left its session survived")
		}
	}
}

// hostCgroup makes a cgroup v2 folder for the test.
func hostCgroup(t *testing.T) string {
	mounts, _ := os.ReadFile("/proc/self/mounts")
	for line := range strings.Lines(string(mounts)) {
		fields := strings.Fields(line)
		if len(fields) < 3 || fields[2] != "cgroup2" {
			continue
		}
		dir, err := os.MkdirTemp(fields[1], "slipway-test-")
		if err != nil {
			t.Skipf("no writable cgroup v2: %v", err)
		}
		t.Cleanup(func() { os.Remove(dir + "/test"); os.Remove(dir) })
		return dir
	}
	t.Skip("no cgroup v2 on this machine")
	return ""
}

func members(t *testing.T, root string) int {
	pids, err := os.ReadFile(root + "/test/cgroup.procs")
	if err != nil {
		t.Fatal(err)
	}
	return bytes.Count(pids, []byte("\n"))
}

func TestEqual(t *testing.T) {
	make := func() *Process {
		return &Process{Name: "a", Path: "/a", Args: []string{"x"}, Ready: HTTPSProbe{URL: "u", CAFile: "c"}}
	}
	same, args, probe := make(), make(), make()
	args.Args = []string{"y"}
	probe.Ready = HTTPSProbe{URL: "u", CAFile: "d"}
	if !make().Equal(same) || make().Equal(args) || make().Equal(probe) || make().Equal(supervise.Func(nil)) {
		t.Error("Equal is wrong")
	}
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

// writes records each Write.
type writes struct {
	mu   sync.Mutex
	cond sync.Cond
	all  []string
}

func (w *writes) Write(b []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.all = append(w.all, string(b))
	if w.cond.L != nil {
		w.cond.Broadcast()
	}
	return len(b), nil
}

// await blocks until line was written.
func (w *writes) await(line string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.cond.L = &w.mu
	for !strings.Contains("|"+strings.Join(w.all, "|"), "|"+line) {
		w.cond.Wait()
	}
}

// TestRest: quick answers come at the interval, slow ones less often, and none is waited for
// longer than 5 s.
func TestRest(t *testing.T) {
	for _, test := range []struct{ interval, took, want time.Duration }{
		{time.Second, 0, time.Second},
		{time.Second, 50 * time.Millisecond, 950 * time.Millisecond},
		{time.Second, 200 * time.Millisecond, 3800 * time.Millisecond},
		{100 * time.Millisecond, 20 * time.Millisecond, 380 * time.Millisecond},
		{time.Second, 2 * time.Second, 5 * time.Second},
		{time.Second, time.Minute, 5 * time.Second},
	} {
		if got := Rest(test.interval, test.took); got != test.want {
			t.Errorf("Rest(%s, %s) = %s, want %s", test.interval, test.took, got, test.want)
		}
	}
}
