package lifecycle

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
)

// itsRoot names, in the copy of the test that has its own mounts, the folder
// that becomes its root.
const itsRoot = "SLIPWAY_LIFECYCLE_ROOT"

// TestUnmountAll unmounts a machine's mounts, in a mount namespace that has
// nothing else: also those in which something still has a file open.
func TestUnmountAll(t *testing.T) {
	if root := os.Getenv(itsRoot); root != "" {
		enter(t, root)
		unmountBusy(t)
		return
	}
	args := []string{"--mount", "--propagation", "private"}
	if os.Getuid() != 0 {
		args = append(args, "--user", "--map-root-user")
	}
	if out, err := exec.Command("unshare", append(args, "true")...).CombinedOutput(); err != nil {
		t.Skipf("needs mount namespaces: %v: %s", err, out)
	}
	cmd := exec.Command("unshare", append(args, os.Args[0], "-test.run=^TestUnmountAll$", "-test.v")...)
	cmd.Env = append(os.Environ(), itsRoot+"="+t.TempDir())
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("with mounts of its own: %v\n%s", err, out)
	}
}

// enter makes a folder the root of all that is seen from here, with /proc and
// none of the computer's other mounts.
func enter(t *testing.T, root string) {
	t.Helper()
	proc, old := filepath.Join(root, "proc"), filepath.Join(root, "old")
	mount(t, root)
	for _, dir := range []string{proc, old} {
		must(t, os.Mkdir(dir, 0o755))
	}
	must(t, unix.Mount("/proc", proc, "", unix.MS_BIND|unix.MS_REC, ""))
	must(t, unix.PivotRoot(root, old))
	must(t, os.Chdir("/"))
	must(t, unix.Unmount("/old", unix.MNT_DETACH))
}

func mount(t *testing.T, target string) {
	t.Helper()
	must(t, os.MkdirAll(target, 0o755))
	must(t, unix.Mount("tmpfs", target, "tmpfs", 0, ""))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// mounted are the targets of all mounts, but those below /proc.
func mounted(t *testing.T) (targets []string) {
	t.Helper()
	text, err := os.ReadFile("/proc/self/mountinfo")
	must(t, err)
	for line := range strings.Lines(string(text)) {
		if target := unescape.Replace(strings.Fields(line)[4]); !strings.HasPrefix(target, "/proc/") {
			targets = append(targets, target)
		}
	}
	return targets
}

func unmountBusy(t *testing.T) {
	all := []string{"/usr", "/var", "/var/lib/kubelet/pods/a b", "/run", "/run"}
	for _, target := range all {
		mount(t, target)
	}
	var open []*os.File
	for _, name := range []string{"/var/lib/database", "/var/lib/kubelet/pods/a b/file"} {
		f, err := os.Create(name)
		must(t, err)
		defer f.Close()
		open = append(open, f)
	}
	if err := unix.Unmount("/var/lib/kubelet/pods/a b", 0); !errors.Is(err, unix.EBUSY) {
		t.Errorf("the mount is not busy: %v", err)
	}
	late, cancel := context.WithCancel(t.Context())
	cancel()
	if err := unmountAll(late); !errors.Is(err, context.Canceled) {
		t.Errorf("after its deadline: %v", err)
	}
	if diff := cmp.Diff(append([]string{"/", "/proc"}, all...), mounted(t)); diff != "" {
		t.Fatalf("before (-want +got):\n%s", diff)
	}
	for _, step := range (Node{}).steps(End{}) {
		if step.Name == "unmount" {
			must(t, step.run()) // one that is late is an error
		}
	}
	if diff := cmp.Diff([]string{"/", "/proc", "/usr"}, mounted(t)); diff != "" {
		t.Errorf("after (-want +got):\n%s", diff)
	}
	for _, f := range open { // whoever was busy is not disturbed
		if _, err := f.WriteString("still here"); err != nil {
			t.Error(err)
		}
	}
}
