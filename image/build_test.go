package image

import (
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"slipway/image/debian"
	"slipway/image/recipe"
	"slipway/test/need"
)

// buildVariable makes the test binary build an image instead of running tests,
// so that builds run as another user in another place. Its value is a JSON
// buildRequest.
const buildVariable = "SLIPWAY_TEST_BUILD"

type buildRequest struct{ Source, Out, Cache, Recipe string }

func TestMain(m *testing.M) {
	text := os.Getenv(buildVariable)
	if text == "" {
		os.Exit(m.Run())
	}
	var req buildRequest
	if err := json.Unmarshal([]byte(text), &req); err != nil {
		panic(err)
	}
	if _, err := req.builder().Build(context.Background()); err != nil {
		os.Stderr.WriteString(err.Error() + "\n")
		os.Exit(1)
	}
}

func (r buildRequest) builder() *Builder {
	return &Builder{Source: r.Source, Recipe: r.Recipe, Out: r.Out, Cache: r.Cache, AptDir: "/etc/apt", Keyring: debian.DefaultKeyring,
		Profile: Dev, Version: "dev", Committed: time.Unix(1_790_000_000, 0), Client: http.DefaultClient, Log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
}

// sourceTree returns the root of this source tree and its cache directory.
func sourceTree(t testing.TB) (root, cache string) {
	t.Helper()
	_, file, _, _ := runtime.Caller(0)
	root = filepath.Dir(filepath.Dir(file))
	if !filepath.IsAbs(root) { // compiled with -trimpath
		wd, err := os.Getwd()
		if err != nil {
			t.Fatal(err)
		}
		root = filepath.Dir(wd)
	}
	if cache = os.Getenv("SLIPWAY_CACHE"); cache == "" {
		cache = filepath.Join(root, ".cache")
	}
	return root, cache
}

// needs skips tests that take long, or lack a program of the host.
func needs(t *testing.T, programs ...string) {
	t.Helper()
	if testing.Short() {
		t.Skip("builds a whole image")
	}
	need.Programs(t, programs...)
}

// testRecipe writes the example recipe with the test's init in place of the
// real one.
func testRecipe(t *testing.T, root string) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, "configs/examples/image.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "image.yaml")
	changed := strings.Replace(string(text), "import: slipway/cmd/init", "import: slipway/image/testdata/init", 1)
	if err := os.WriteFile(path, []byte(changed), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestBuildIsReproducible builds the same source in two directories, as two
// users in two time zones, each compiling and packing everything by itself, and
// compares the manifests. Only downloads and Go's cache are shared.
func TestBuildIsReproducible(t *testing.T) {
	needs(t, "mksquashfs", "gcc", "git", "grub-mkimage")
	root, cache := sourceTree(t)
	places := []struct {
		zone, user string
		uid        int
	}{{"Pacific/Auckland", "alice", 1000}, {"America/Lima", "bob", 2000}}
	base := t.TempDir()
	for _, p := range places {
		copySource(t, root, filepath.Join(base, p.user, "src"))
	}
	var manifests [2]*Manifest
	for i, p := range places {
		dir := filepath.Join(base, p.user)
		req := buildRequest{Source: filepath.Join(dir, "src"), Out: filepath.Join(dir, "out"), Cache: filepath.Join(dir, "cache"),
			Recipe: filepath.Join(dir, "src/configs/examples/image.yaml")}
		if err := errors.Join(os.MkdirAll(req.Cache, 0o755), os.Symlink(filepath.Join(cache, "debian"), filepath.Join(req.Cache, "debian"))); err != nil {
			t.Fatal(err)
		}
		runBuild(t, req, p.uid, "TZ="+p.zone, "USER="+p.user, "LOGNAME="+p.user, "LANG=C.UTF-8")
		m, err := Verify(req.Out)
		if err != nil {
			t.Fatal(err)
		}
		manifests[i] = m
	}
	if diff := cmp.Diff(manifests[0], manifests[1]); diff != "" {
		t.Errorf("the two builds differ:\n%s", diff)
	}
}

// copySource copies what git knows of a tree, as it is now.
func copySource(t *testing.T, from, to string) {
	t.Helper()
	list := exec.Command("git", "ls-files", "-z", "--cached", "--others", "--exclude-standard")
	list.Dir = from
	out, err := list.Output()
	if err != nil {
		need.Lacking(t, "list the source tree: %v", err)
	}
	for name := range strings.SplitSeq(strings.TrimRight(string(out), "\x00"), "\x00") {
		data, err := os.ReadFile(filepath.Join(from, name))
		if errors.Is(err, os.ErrNotExist) { // deleted but not yet committed
			continue
		}
		path := filepath.Join(to, name)
		if err := errors.Join(err, os.MkdirAll(filepath.Dir(path), 0o755), os.WriteFile(path, data, 0o644)); err != nil {
			t.Fatal(err)
		}
	}
}

// runBuild builds in a new process that sees itself as the given user: a user
// namespace gives it another number without taking its files away.
func runBuild(t *testing.T, req buildRequest, uid int, env ...string) {
	t.Helper()
	text, err := json.Marshal(req)
	if err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	for _, attr := range []*syscall.SysProcAttr{otherUser(uid), nil} {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(append(os.Environ(), env...), buildVariable+"="+string(text))
		cmd.SysProcAttr = attr
		var out []byte
		if out, err = cmd.CombinedOutput(); err == nil {
			t.Logf("built in %s", time.Since(start).Round(time.Second))
			return
		}
		if !errors.Is(err, os.ErrPermission) {
			t.Fatalf("build as user %d: %v\n%s", uid, err, out)
		}
		t.Log("user namespaces are not permitted: only the user's name changes")
	}
	t.Fatal(err)
}

func otherUser(uid int) *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Cloneflags: syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Getuid(), Size: 1}},
		GidMappings: []syscall.SysProcIDMap{{ContainerID: uid, HostID: os.Getgid(), Size: 1}}}
}

// TestImageBoots boots the image in QEMU with a small init, which loads the boot
// modules, mounts the root image and runs programs of it.
func TestImageBoots(t *testing.T) {
	needs(t, "mksquashfs", "gcc", "qemu-system-x86_64", "grub-mkimage")
	root, cache := sourceTree(t)
	req := buildRequest{Source: root, Out: t.TempDir(), Cache: cache, Recipe: testRecipe(t, root)}
	if _, err := req.builder().Build(t.Context()); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
	defer cancel()
	out, err := exec.CommandContext(ctx, "qemu-system-x86_64", "-accel", "tcg,thread=multi", "-cpu", "max", "-smp", "2", "-m", "1024",
		"-display", "none", "-serial", "stdio", "-net", "none", "-no-reboot", "-kernel", filepath.Join(req.Out, "kernel"),
		"-initrd", filepath.Join(req.Out, "initramfs"), "-append", "console=ttyS0 panic=-1 quiet").CombinedOutput()
	for _, want := range []string{"image-test: ok", "Kubernetes v1.37.1", "nftables v1.0.6", "iptables v1.8.9", "mount from util-linux", "runc version 1.5.2",
		"wipefs from util-linux", "mke2fs 1.47", "e2fsck 1.47"} {
		if !strings.Contains(string(out), want) {
			t.Errorf("the console does not say %q", want)
		}
	}
	if t.Failed() {
		t.Logf("QEMU ended with %v; console:\n%s", err, out)
	}
}

// TestProgramsSayTheirVersion runs the payload on this computer.
func TestProgramsSayTheirVersion(t *testing.T) {
	needs(t, "gcc")
	root, cache := sourceTree(t)
	r, err := recipe.Read(filepath.Join(root, "configs/examples/image.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	built, err := (buildRequest{Source: root, Cache: cache}).builder().compile(t.Context(), r, dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range r.Payload.Programs {
		for _, name := range append(p.Links, p.Path) {
			if err := os.Symlink(built[p.Import], filepath.Join(dir, filepath.Base(name))); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct{ command, want string }{
		{"kubelet --version", "Kubernetes v1.37.1\n"},
		{"kube-apiserver --version", "Kubernetes v1.37.1\n"},
		{"kube-controller-manager --version", "Kubernetes v1.37.1\n"},
		{"kube-scheduler --version", "Kubernetes v1.37.1\n"},
		{"kube-proxy --version", "Kubernetes v1.37.1\n"},
		{"kubectl version --client", "Client Version: v1.37.1\n"},
		{"kubectl version --client -o json", `"buildDate": "2026-09-23T17:06:22Z"`},
		{"etcd --version", "etcd Version: 3.7.3\n"},
		{"etcdutl version", "etcdutl version: 3.7.3\n"},
		{"coredns -version", "CoreDNS-1.15.0\n"},
		{"containerd --version", "containerd github.com/containerd/containerd/v2 v2.4.2\n"},
		{"ctr --version", "v2.4.2"},
		{"runc --version", "runc version 1.5.2\n"},
		{"runc --version", "libseccomp: 2."},
		{"containerd-shim-runc-v2 -v", "v2.4.2"},
		{"bridge --version", "CNI bridge plugin v1.9.1\n"},
		{"host-local --version", "CNI host-local plugin v1.9.1\n"},
		{"loopback --version", "CNI loopback plugin v1.9.1\n"},
		{"portmap --version", "CNI portmap plugin v1.9.1\n"},
	} {
		words := strings.Fields(tt.command)
		out, err := exec.CommandContext(t.Context(), filepath.Join(dir, words[0]), words[1:]...).CombinedOutput()
		if err != nil || !strings.Contains(string(out), tt.want) {
			t.Errorf("%s: %v\n%swant: %s", tt.command, err, out, tt.want)
		}
	}
}
