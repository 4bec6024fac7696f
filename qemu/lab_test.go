package qemu

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"
)

// holdArg makes the test binary the holder of a lab.
const holdArg = "hold-a-lab"

func TestMain(m *testing.M) {
	if len(os.Args) == 2 && os.Args[1] == holdArg {
		if err := Hold(context.Background(), slog.New(slog.NewTextHandler(os.Stderr, nil))); err != nil {
			os.Stderr.WriteString(err.Error() + "\n")
			os.Exit(1)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// needLab skips the test where such a lab cannot run; with SLIPWAY_REQUIRE_VM=1
// it fails instead.
func needLab(t *testing.T, machines []Machine) {
	t.Helper()
	config := Config{Machines: machines}.WithDefaults()
	if err := Usable(t.Context(), config.Machines); err != nil {
		if os.Getenv("SLIPWAY_REQUIRE_VM") == "1" {
			t.Fatalf("this test needs a lab: %v", err)
		}
		t.Skipf("no lab here: %v", err)
	}
}

// startLab starts a lab that ends with the test, or skips where labs cannot be made.
func startLab(t *testing.T, root string, c Config) *Leash {
	t.Helper()
	needLab(t, c.Machines)
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	leash, err := Start(t.Context(), root, c, []string{self, holdArg}, func(s string) { t.Log(s) })
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(leash.Cut)
	return leash
}

// await polls check until it returns nil.
func await(t *testing.T, what string, within time.Duration, check func() error) {
	t.Helper()
	deadline, again := time.After(within), time.NewTicker(50*time.Millisecond)
	defer again.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("%s: not within %v: %v", what, within, err)
		}
	}
}

// leftovers lists the processes on this computer whose working directory is dir.
func leftovers(t *testing.T, dir string) []string {
	t.Helper()
	links, err := filepath.Glob("/proc/[0-9]*/cwd")
	if err != nil {
		t.Fatal(err)
	}
	var found []string
	for _, link := range links {
		if cwd, _ := os.Readlink(link); strings.TrimSuffix(cwd, " (deleted)") == dir {
			found = append(found, link)
		}
	}
	return found
}

func consoleSays(l *Lab, machine, text string) func() error {
	return func() error {
		var out bytes.Buffer
		if err := l.Follow(context.Background(), machine, &out, false); err != nil {
			return err
		}
		if plain := PlainText(out.String()); !strings.Contains(plain, text) {
			return errors.New("the console says only: " + plain)
		}
		return nil
	}
}

func TestLabLife(t *testing.T) {
	leash := startLab(t, t.TempDir(), Config{
		Machines: []Machine{{MemoryMiB: 128, CPUs: 1, DisksGiB: []int{1}}},
		Service:  &Service{Command: []string{"/bin/sh", "-c", "echo serving; (sleep 0.1 &) ; exec sleep 1000"}},
	})
	status := func() Status {
		t.Helper()
		s, err := leash.Status(t.Context())
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	if s := status(); s.State != StateUp || !s.Machines[0].Running || !s.Service.Running {
		t.Fatalf("after the start: %+v", s)
	}
	await(t, "firmware speaks on the console", time.Minute, consoleSays(leash.Lab, "m1", "SeaBIOS"))
	await(t, "orphans are reaped", time.Minute, func() error { return noZombies(leash.cmd.Process.Pid) })
	power(t, leash.Lab, PowerReset, LinkDown, PowerOff)
	if s := status(); s.Machines[0].Running {
		t.Fatalf("after power off: %+v", s)
	}
	if err := leash.Power(t.Context(), "m1", PowerReset); err == nil || !strings.Contains(err.Error(), "power it on first") {
		t.Fatalf("reset of a machine that is off: %v", err)
	}
	power(t, leash.Lab, PowerCycle)
	if err := leash.Service(t.Context(), PowerCycle); err != nil {
		t.Fatal(err)
	}
	if s := status(); !s.Machines[0].Running || !s.Service.Running {
		t.Fatalf("after power cycles: %+v", s)
	}
	endReleased(t, leash)
}

// noZombies looks for children of pid that have ended and were not waited for.
func noZombies(pid int) error {
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	for _, path := range stats {
		stat, _ := os.ReadFile(path) // it may be gone
		if strings.Contains(string(stat), fmt.Sprintf(") Z %d ", pid)) {
			err = errors.Join(err, fmt.Errorf("zombie: %s", stat))
		}
	}
	return err
}

func power(t *testing.T, lab *Lab, actions ...Action) {
	t.Helper()
	for _, action := range actions {
		if err := lab.Power(t.Context(), "m1", action); err != nil {
			t.Fatal(err)
		}
	}
}

// endReleased lets the lab go, finds it alive, and ends it as another process would.
func endReleased(t *testing.T, leash *Leash) {
	t.Helper()
	if err := leash.Release(); err != nil {
		t.Fatal(err)
	}
	if s, err := leash.Status(t.Context()); err != nil || s.State != StateUp {
		t.Fatalf("released: %+v, %v", s, err)
	}
	if err := leash.Down(t.Context(), false); err != nil {
		t.Fatal(err)
	}
	if left := leftovers(t, leash.Dir()); left != nil {
		t.Fatalf("left over: %v", left)
	}
}

func TestHolderKilled(t *testing.T) {
	root := t.TempDir()
	leash := startLab(t, root, Config{Machines: []Machine{{MemoryMiB: 128}}})
	if n := len(leftovers(t, leash.Dir())); n < 2 {
		t.Fatalf("%d processes in the lab, want the holder and QEMU", n)
	}
	if err := leash.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	<-leash.Ended()
	if left := leftovers(t, leash.Dir()); left != nil {
		t.Fatalf("left over: %v", left)
	}
	lab, err := Open(root, "default")
	if err != nil {
		t.Fatal(err)
	}
	if s, err := lab.Status(t.Context()); err != nil || s.State != StateDead {
		t.Fatalf("status of a dead lab: %+v, %v", s, err)
	}
	startLab(t, root, Config{Machines: []Machine{{MemoryMiB: 128}}}) // what is stale is in nobody's way
}

func TestLabsDoNotCollide(t *testing.T) {
	root := t.TempDir()
	one := startLab(t, root, Config{Name: "one", Machines: []Machine{{MemoryMiB: 128}}})
	two := startLab(t, root, Config{Name: "two", Machines: []Machine{{MemoryMiB: 128}}})
	for _, lab := range []*Leash{one, two} {
		await(t, "firmware of "+lab.Name(), time.Minute, consoleSays(lab.Lab, "m1", "SeaBIOS"))
	}
	self, _ := os.Executable()
	if _, err := Start(t.Context(), root, Config{Name: "one"}, []string{self, holdArg}, func(string) {}); err == nil || !strings.Contains(err.Error(), "already up") {
		t.Fatalf("second lab of one name: %v", err)
	}
	labs, err := List(root)
	if err != nil || len(labs) != 2 {
		t.Fatalf("List: %d labs, %v", len(labs), err)
	}
	one.Cut()
	if s, err := two.Status(t.Context()); err != nil || s.State != StateUp {
		t.Fatalf("the other lab: %+v, %v", s, err)
	}
}

func TestEnter(t *testing.T) {
	leash := startLab(t, t.TempDir(), Config{})
	run := func(command ...string) string {
		t.Helper()
		args, err := leash.Enter(command...)
		if err != nil {
			t.Fatal(err)
		}
		out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
		if err != nil {
			t.Fatalf("%v: %v: %s", command, err, out)
		}
		return string(out)
	}
	if out := run("ip", "-brief", "addr"); !strings.Contains(out, "10.77.0.1/24") {
		t.Errorf("addresses in the lab:\n%s", out)
	}
	if out := run("ip", "route", "show", "default"); out != "" {
		t.Errorf("a route out of the lab: %s", out)
	}

	args, err := leash.Enter("sleep", "1000")
	if err != nil {
		t.Fatal(err)
	}
	guest := exec.Command(args[0], args[1:]...)
	if err := guest.Start(); err != nil {
		t.Fatal(err)
	}
	await(t, "sleep is a member of the lab", time.Minute, func() error {
		if out, err := exec.Command("pgrep", "--parent", strconv.Itoa(guest.Process.Pid), "sleep").CombinedOutput(); err != nil {
			return fmt.Errorf("not yet: %w %s", err, out)
		}
		return nil
	})
	leash.Cut()
	if err := guest.Wait(); err == nil {
		t.Error("a command in the lab outlived it")
	}
}

func TestFailingServiceIsReported(t *testing.T) {
	needLab(t, nil)
	self, _ := os.Executable()
	_, err := Start(t.Context(), t.TempDir(), Config{Service: &Service{
		Command: []string{"/bin/sh", "-c", "echo no such image; exit 3"}, Ready: "127.0.0.1:1",
	}}, []string{self, holdArg}, func(string) {})
	if err == nil || !strings.Contains(err.Error(), "no such image") || !strings.Contains(err.Error(), "exit status 3") {
		t.Fatalf("want the service's end and its words, got: %v", err)
	}
}

func TestUnreleasedLabEndsWithItsOwner(t *testing.T) {
	leash := startLab(t, t.TempDir(), Config{Machines: []Machine{{MemoryMiB: 128}}})
	if err := leash.conn.Close(); err != nil { // what the kernel does when a process dies
		t.Fatal(err)
	}
	<-leash.Ended()
	if left := leftovers(t, leash.Dir()); left != nil {
		t.Fatalf("left over: %v", left)
	}
}
