// Package serve holds the host tier of the whole boot service: the slipway
// program in one namespace, a machine in another, and a person at the command
// line, from the first packet to a Ready cluster.
package serve

import (
	"bufio"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"slipway/test/netns"
)

func TestMain(m *testing.M) {
	ran, err := play()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case !ran:
		os.Exit(netns.Main(m))
	}
}

const (
	mac       = "02:00:00:00:00:01"
	machineID = "02-00-00-00-00-01"
)

// memoryBudget is the boot service's, in KiB. How fast it starts depends on the
// computer, and is the benchmark's to judge: serve.start.
const memoryBudget = 150 << 10

// rack is a network with a boot service's computer on it.
type rack struct {
	*netns.Net
	t       *testing.T
	program string
	data    string
	image   string
}

// build builds the program once. Its folder is in memory and gone with the
// test's namespaces.
var build = sync.OnceValues(func() (string, error) {
	const program = "/run/slipway"
	if out, err := exec.Command("go", "build", "-o", program, "slipway/cmd/slipway").CombinedOutput(); err != nil {
		return "", fmt.Errorf("build slipway: %w\n%s", err, out)
	}
	return program, nil
})

func newRack(t *testing.T) *rack {
	t.Helper()
	netns.Require(t, "udhcpc", "curl")
	program, err := build()
	if err != nil {
		t.Fatal(err)
	}
	r := &rack{t: t, program: program, data: t.TempDir(), image: t.TempDir()}
	r.writeImage()
	r.Net = netns.New(t, netip.MustParsePrefix("10.99.0.1/24"))
	return r
}

// writeImage makes an image folder of small files.
func (r *rack) writeImage() {
	r.t.Helper()
	type artifact struct {
		Name   string `json:"name"`
		Size   int    `json:"size"`
		SHA256 string `json:"sha256"`
	}
	var artifacts []artifact
	for _, name := range []string{"kernel", "initramfs", "loaders/undionly.kpxe", "loaders/snponly.efi"} {
		text := []byte("this stands for " + name)
		sum := sha256.Sum256(text)
		artifacts = append(artifacts, artifact{name, len(text), hex.EncodeToString(sum[:])})
		r.write(name, text)
	}
	manifest, err := json.Marshal(map[string]any{
		"version": "test", "kernelRelease": "6.12", "kernelArguments": []string{"console=ttyS0"}, "artifacts": artifacts,
	})
	if err != nil {
		r.t.Fatal(err)
	}
	r.write("manifest.json", manifest)
}

func (r *rack) write(name string, data []byte) {
	r.t.Helper()
	path := filepath.Join(r.image, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		r.t.Fatal(err)
	}
	if err := os.WriteFile(path, data, 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// serve starts the boot service and returns when it says that it serves.
func (r *rack) serve(flags ...string) *exec.Cmd {
	r.t.Helper()
	args := append([]string{"serve", "--data-dir", r.data, "--image", r.image, "--interface", r.Device}, flags...)
	cmd := exec.Command(r.program, args...)
	cmd.Stderr = r.t.Output()
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	began := time.Now()
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		r.t.Fatalf("slipway serve said %q: %v", line, err)
	}
	r.t.Logf("serve.start %.2f s: %s", time.Since(began).Seconds(), strings.TrimSpace(line))
	return cmd
}

// slipway runs the command line as the administrator, and wants an exit code.
func (r *rack) slipway(code int, args ...string) string {
	r.t.Helper()
	cmd := exec.CommandContext(r.t.Context(), r.program, args...)
	cmd.Env = append(os.Environ(), "SLIPWAY_CONTEXT="+filepath.Join(r.data, "admin.yaml"))
	out, err := cmd.CombinedOutput()
	if got := cmd.ProcessState.ExitCode(); got != code {
		r.t.Fatalf("slipway %s: exit code %d, %v, want %d\n%s", strings.Join(args, " "), got, err, code, out)
	}
	return string(out)
}

// actor is a machine that is played on a host of its own, that has an address.
type actor struct {
	*bufio.Scanner
	io.WriteCloser
	t *testing.T
}

// boot lets a host get an address and a boot script, and plays a machine there
// with what the script says.
func (r *rack) boot(h *netns.Host) *actor { return r.play(h, false) }

func (r *rack) play(h *netns.Host, driven bool) *actor {
	r.t.Helper()
	hook := filepath.Join(r.t.TempDir(), "hook")
	const script = "#!/bin/sh\n[ $1 = bound ] || exit 0\nip address replace $ip/24 dev eth0\n"
	if err := os.WriteFile(hook, []byte(script), 0o755); err != nil {
		r.t.Fatal(err)
	}
	h.Run("udhcpc", "-i", "eth0", "-s", hook, "-q", "-n", "-t", "3", "-T", "2")
	address := regexp.MustCompile(`inet ([0-9.]+)`).FindStringSubmatch(h.Run("ip", "address", "show", "dev", "eth0"))
	ipxe := h.Run("curl", "-sS", "http://10.99.0.1/boot.ipxe")
	line := regexp.MustCompile(`slipway.server=(\S+) slipway.ca=(\S+) slipway.machine=(\S+)`).FindStringSubmatch(ipxe)
	if address == nil || line == nil {
		r.t.Fatalf("address %v, boot script\n%s", address, ipxe)
	}
	text, err := json.Marshal(part{Server: line[1], CA: line[2], ID: line[3], Address: address[1], Driven: driven})
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	cmd := h.Command(ctx, os.Args[0])
	cmd.Env = append(os.Environ(), playing+"="+string(text))
	cmd.Stderr = r.t.Output()
	in, err := cmd.StdinPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		r.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		r.t.Fatal(err)
	}
	r.t.Cleanup(func() { cancel(); _ = cmd.Wait() })
	return &actor{bufio.NewScanner(out), in, r.t}
}

// says wants the machine's next line to begin with a text, and returns the rest.
func (m *actor) says(text string) string {
	m.t.Helper()
	if !m.Scan() || !strings.HasPrefix(m.Text(), text) {
		m.t.Fatalf("the machine says %q, want %q", m.Text(), text)
	}
	return strings.TrimSpace(strings.TrimPrefix(m.Text(), text))
}

func (m *actor) goOn() {
	m.t.Helper()
	if _, err := io.WriteString(m, "\n"); err != nil {
		m.t.Fatal(err)
	}
}

func TestFromTheFirstPacketToAReadyCluster(t *testing.T) {
	r := newRack(t)
	service := r.serve("--range", "10.99.0.100-10.99.0.109")
	host := r.Host(mac)
	before := r.boot(host)

	words := before.says("pending")
	r.slipway(2, "cluster", "create", "demo", "--control-planes", "2", "--yes", "--timeout", "1s") // no machine would mend that
	if out := r.slipway(3, "cluster", "create", "demo", "--yes", "--timeout", "1s"); strings.Count(out, "too few machines: 1 needed, 0 approved and free") != 2 {
		t.Errorf("cluster create, with no machine approved, printed\n%s", out)
	}
	r.slipway(1, "machines", "approve", machineID, "--words", "some-words-of-another")
	r.slipway(0, "machines", "approve", machineID, "--words", words)
	before.goOn()
	before.says("approved")
	plan := r.slipway(0, "cluster", "create", "demo", "--yes", "--timeout", "1m")
	if !strings.Contains(plan, "demo-cp-1") || !strings.Contains(plan, "is Ready") {
		t.Errorf("cluster create printed\n%s", plan)
	}
	before.says("ready")
	r.checkTimeline()
	if config := r.slipway(0, "cluster", "kubeconfig"); !strings.Contains(config, ":6443") {
		t.Errorf("the kubeconfig is\n%s", config)
	}
	r.checkMemory(service)
	r.restart(service)

	// The machine loses power: from RAM, it comes back with a new key.
	after := r.boot(host)
	words = after.says("pending")
	r.slipway(0, "machines", "approve", "demo-cp-1", "--words", words)
	after.goOn()
	after.says("approved")
	after.says("ready")

	// Whoever has the old key gets nothing with it any more.
	before.goOn()
	if got := before.says("report"); got != "permission_denied" {
		t.Errorf("a report with the old certificate: %s", got)
	}
	if got := before.says("replay"); got != "permission_denied" {
		t.Errorf("the old enrolment again: %s", got)
	}
}

func (r *rack) checkTimeline() {
	r.t.Helper()
	table := r.slipway(0, "machines", "timeline", "demo-cp-1")
	at := 0
	for _, phase := range []string{"DHCP", "HTTP", "enrolled", "assigned", "containerd", "etcd", "apiserver", "registered", "Ready", "total"} {
		next := strings.Index(table[at:], "\n"+phase)
		if next < 0 {
			r.t.Errorf("%s is not in its place in the timeline\n%s", phase, table)
			return
		}
		at += next
	}
	r.t.Logf("timeline\n%s", table)
}

func (r *rack) checkMemory(service *exec.Cmd) {
	r.t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", service.Process.Pid))
	if err != nil {
		r.t.Fatal(err)
	}
	var kib int
	line := regexp.MustCompile(`VmRSS:\s+\d+`).FindString(string(status))
	if _, err := fmt.Sscanf(line, "VmRSS: %d", &kib); err != nil {
		r.t.Fatalf("read memory from %q: %v", line, err)
	}
	r.t.Logf("serve.memory %d MB", kib>>10)
	if kib > memoryBudget {
		r.t.Errorf("slipway serve has %d KiB resident; the budget is %d", kib, memoryBudget)
	}
}

// restart stops the service as an init system does, and starts it again: all
// that it knew it knows.
func (r *rack) restart(service *exec.Cmd) {
	r.t.Helper()
	ca, err := os.ReadFile(filepath.Join(r.data, "ca.pem"))
	if err != nil {
		r.t.Fatal(err)
	}
	if err := service.Process.Signal(syscall.SIGTERM); err != nil {
		r.t.Fatal(err)
	}
	if err := service.Wait(); err != nil {
		r.t.Errorf("after SIGTERM: %v", err)
	}
	r.slipway(5, "machines", "list")
	r.serve("--range", "10.99.0.100-10.99.0.109")
	if again, err := os.ReadFile(filepath.Join(r.data, "ca.pem")); err != nil || string(again) != string(ca) {
		r.t.Errorf("the CA changed: %v", err)
	}
	if status := r.slipway(0, "cluster", "status"); !strings.Contains(status, "1/1") {
		r.t.Errorf("after the restart the cluster is\n%s", status)
	}
}

func TestWhatStopsTheStart(t *testing.T) {
	r := newRack(t)
	r.serve()
	for name, test := range map[string]struct {
		flags []string
		want  string
	}{
		"data folder in use":  {nil, "another slipway serve uses it"},
		"port taken":          {[]string{"--data-dir", t.TempDir()}, "slipway (pid "},
		"no such interface":   {[]string{"--interface", "nosuch0"}, "there are"},
		"range elsewhere":     {[]string{"--range", "10.1.0.1-10.1.0.9"}, "not inside 10.99.0.0/24"},
		"range backwards":     {[]string{"--range", "10.99.0.9-10.99.0.1"}, "comes before"},
		"no image":            {[]string{"--image", t.TempDir()}, "slipway image build"},
		"no rules file":       {[]string{"--approve", "nosuch.yaml"}, "any, none, or a file"},
		"no such log level":   {[]string{"--log-level", "loud"}, "debug, info, warn, error"},
		"an unknown argument": {[]string{"now"}, "--help"},
	} {
		args := append([]string{"serve", "--data-dir", r.data, "--image", r.image, "--interface", r.Device}, test.flags...)
		out, err := exec.CommandContext(t.Context(), r.program, args...).CombinedOutput()
		if err == nil || !strings.Contains(string(out), test.want) {
			t.Errorf("%s: %v, want %q in\n%s", name, err, test.want, out)
		}
	}
}
