package proc_test

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"slipway/nodeinit/proc"
)

const subreaperEnv = "SLIPWAY_TEST_SUBREAPER"

// TestMain lets the test binary run itself as what PID 1 would be: a process
// that inherits orphans.
func TestMain(m *testing.M) {
	if os.Getenv(subreaperEnv) == "" {
		os.Exit(m.Run())
	}
	runtime.LockOSThread()
	if err := subreaper(); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
}

// subreaper starts many shells at once. Each leaves orphans behind and ends
// with a status of its own, which exec.Cmd must see; at the end no orphan may
// be left, dead or alive.
func subreaper() error {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	failed := make(chan error, 1)
	go func() {
		failed <- orphans(200, 20)
		cancel()
	}()
	if err := proc.Reap(ctx); err != nil {
		return err
	}
	return <-failed
}

func orphans(shells, each int) error {
	var g errgroup.Group
	g.SetLimit(8)
	script := fmt.Sprintf("i=0; while [ $i -lt %d ]; do (sleep 0.0$((i %% 3)) &) ; i=$((i+1)); done; exit $1", each)
	for i := range shells {
		g.Go(func() error {
			want := i % 7
			err := exec.Command("sh", "-c", script, "sh", fmt.Sprint(want)).Run()
			got := 0
			if exit, ok := err.(*exec.ExitError); ok {
				got, err = exit.ExitCode(), nil
			}
			if err != nil || got != want {
				return fmt.Errorf("shell %d: status %d, want %d, %v", i, got, want, err)
			}
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return untilChildless(time.Now().Add(20 * time.Second))
}

// untilChildless polls: a subreaper has no signal for "the last one is gone".
func untilChildless(deadline time.Time) error {
	for {
		left, err := exec.Command("ps", "--ppid", fmt.Sprint(os.Getpid()), "-o", "pid=,stat=,comm=").Output()
		if err != nil && len(left) == 0 {
			return nil
		}
		// ps itself is our child and in its own list.
		if lines := strings.Split(strings.TrimSpace(string(left)), "\n"); len(lines) == 1 && strings.HasSuffix(lines[0], "ps") {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("children left: %s", left)
		}
	}
}

func TestReapLeavesCommandsAlone(t *testing.T) {
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), subreaperEnv+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
}

func TestReapRefusesOtherThreads(t *testing.T) {
	errs := make(chan error)
	go func() {
		runtime.LockOSThread() // not unlocked: the thread, if it is not the main one, ends here
		if unix.Gettid() == os.Getpid() {
			errs <- fmt.Errorf("on the main thread by chance")
			return
		}
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		errs <- proc.Reap(ctx)
	}()
	if err := <-errs; err == nil {
		t.Fatal("Reap worked outside the main thread")
	}
}
