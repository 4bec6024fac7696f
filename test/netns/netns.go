// Package netns gives tests a small network of their own: a bridge, the test's
// own process at one side of it, and hosts in namespaces of their own at the
// other. The whole test process runs in fresh network and mount namespaces, and
// in a user namespace when it is not root, so that nothing reaches the
// computer's network and nothing is left when the process ends. It drives the
// unshare and ip programs.
package netns

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/exec"
	"strings"
	"sync/atomic"
	"testing"

	"slipway/test/need"
)

// inside is set in the process that runs in the namespaces; its value, when
// not "yes", is why they could not be made.
const inside = "SLIPWAY_TEST_NETNS"

// Main runs a package's tests in namespaces of their own. Its use:
//
//	func TestMain(m *testing.M) { os.Exit(netns.Main(m)) }
//
// Where namespaces are not permitted the tests run without, and Require skips.
func Main(m *testing.M) int {
	switch os.Getenv(inside) {
	case "yes":
		if err := prepare(); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return m.Run()
	case "":
		return again(m)
	}
	return m.Run()
}

// again runs the test binary a second time, in the namespaces.
func again(m *testing.M) int {
	args := []string{"--net", "--mount", "--pid", "--fork", "--kill-child"}
	if os.Getuid() != 0 {
		args = append(args, "--user", "--map-root-user")
	}
	if out, err := exec.Command("unshare", append(args, "ip", "link", "show", "lo")...).CombinedOutput(); err != nil {
		os.Setenv(inside, fmt.Sprintf("unshare: %v: %s", err, strings.TrimSpace(string(out))))
		return m.Run()
	}
	cmd := exec.Command("unshare", append(args, os.Args...)...)
	cmd.Env = append(os.Environ(), inside+"=yes")
	cmd.Stdin, cmd.Stdout, cmd.Stderr = os.Stdin, os.Stdout, os.Stderr
	err := cmd.Run()
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit) && exit.ExitCode() > 0:
		return exit.ExitCode()
	}
	fmt.Fprintln(os.Stderr, "run tests in namespaces:", err)
	return 1
}

// prepare gives the fresh namespaces what programs expect: a loopback, a /run
// that holds named namespaces and may be written to, a /proc of their own.
func prepare() error {
	for _, line := range []string{
		"mount -t tmpfs tmpfs /run",
		"mount -t proc proc /proc",
		"ip link set lo up",
	} {
		if err := run(line); err != nil {
			return err
		}
	}
	return nil
}

func run(line string) error {
	words := strings.Fields(line)
	if out, err := exec.Command(words[0], words[1:]...).CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", line, err, strings.TrimSpace(string(out)))
	}
	return nil
}

// Require skips the test, with the reason, where namespaces could not be made
// or, as package need says, a program is not installed.
func Require(t testing.TB, programs ...string) {
	t.Helper()
	if reason := os.Getenv(inside); reason != "yes" {
		t.Skip("needs network namespaces: " + reason)
	}
	need.Programs(t, programs...)
}

// Net is a bridge in the test's own namespace. The test's process is a host on
// it, with the address that New was given.
type Net struct {
	// Device is the bridge's name.
	Device string
	t      testing.TB
	hosts  int
}

// made counts bridges, whose names must differ within a process.
var made atomic.Int32

// New makes a bridge whose own address is given. It is gone with the test.
func New(t testing.TB, address netip.Prefix) *Net {
	t.Helper()
	n := &Net{Device: fmt.Sprintf("br%d", made.Add(1)), t: t}
	n.do("ip link add %s type bridge forward_delay 0", n.Device)
	t.Cleanup(func() { n.do("ip link del %s", n.Device) })
	n.do("ip addr add %s brd + dev %s", address, n.Device)
	n.do("ip link set %s up", n.Device)
	return n
}

func (n *Net) do(format string, args ...any) {
	n.t.Helper()
	if err := run(fmt.Sprintf(format, args...)); err != nil {
		n.t.Fatal(err)
	}
}

// Host is a namespace with one network card, eth0, on the bridge.
type Host struct {
	name string
	t    testing.TB
}

// Host adds a host with a hardware address and no IP address.
func (n *Net) Host(mac string) *Host {
	n.t.Helper()
	n.hosts++
	name := fmt.Sprintf("%sh%d", n.Device, n.hosts)
	n.do("ip netns add %s", name)
	n.t.Cleanup(func() { n.do("ip netns del %s", name) })
	n.do("ip link add %s type veth peer name eth0 address %s netns %s", name, mac, name)
	n.do("ip link set %s master %s up", name, n.Device)
	n.do("ip -n %s link set lo up", name)
	n.do("ip -n %s link set eth0 up", name)
	return &Host{name: name, t: n.t}
}

// Address gives the host an IP address, and its network a route.
func (h *Host) Address(address netip.Prefix) {
	h.t.Helper()
	h.Run("ip", "addr", "add", address.String(), "dev", "eth0")
}

// Plug connects the host's cable to the bridge, or pulls it: the card sees no
// carrier then. A host starts connected.
func (h *Host) Plug(in bool) {
	h.t.Helper()
	if err := run(fmt.Sprintf("ip link set %s %s", h.name, map[bool]string{true: "up", false: "down"}[in])); err != nil {
		h.t.Fatal(err)
	}
}

// Mute has the host send nothing to the given addresses any more, though it
// hears them, until it is undone.
func (h *Host) Mute(to []netip.Addr, muted bool) {
	h.t.Helper()
	for _, a := range to {
		h.Run("ip", "route", map[bool]string{true: "add", false: "del"}[muted], "blackhole", a.String())
	}
}

// Command is a program that will run on the host. It ends with the context.
func (h *Host) Command(ctx context.Context, program string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", h.name, program}, args...)...)
}

// Run runs a program on the host and returns all it printed. Its failure is the test's.
func (h *Host) Run(program string, args ...string) string {
	h.t.Helper()
	out, err := h.Try(program, args...)
	if err != nil {
		h.t.Fatalf("%s %s: %v\n%s", program, strings.Join(args, " "), err, out)
	}
	return out
}

// Try is Run for a program that may fail.
func (h *Host) Try(program string, args ...string) (string, error) {
	out, err := h.Command(h.t.Context(), program, args...).CombinedOutput()
	return string(out), err
}

// Tap adds a tap device for a virtual machine and returns its name.
func (n *Net) Tap() string {
	n.t.Helper()
	n.hosts++
	name := fmt.Sprintf("%st%d", n.Device, n.hosts)
	n.do("ip tuntap add %s mode tap", name)
	n.t.Cleanup(func() { n.do("ip link del %s", name) })
	n.do("ip link set %s master %s up", name, n.Device)
	return name
}

// Capture records the bridge's traffic with tcpdump into the file that an
// environment variable names, with the test's name appended; unset, it does nothing.
func (n *Net) Capture(variable string) {
	n.t.Helper()
	prefix := os.Getenv(variable)
	if prefix == "" {
		return
	}
	file := prefix + strings.ReplaceAll(n.t.Name(), "/", "-") + ".pcap"
	cmd := exec.Command("tcpdump", "-i", n.Device, "-U", "--immediate-mode", "-Z", "root", "-w", file, "udp port 67 or udp port 68")
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		n.t.Fatalf("capture: %v", err)
	}
	n.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		_ = cmd.Wait()
	})
	if !Await(said, "listening on") {
		n.t.Fatal("capture: tcpdump ended")
	}
}

// Await reads what a program says until a line has the words that it is
// ready, and goes on reading, so that the program need not wait, until its
// end. It reports whether the words came.
func Await(said io.Reader, words string) bool {
	for lines := bufio.NewScanner(said); lines.Scan(); {
		if strings.Contains(lines.Text(), words) {
			go func() { _, _ = io.Copy(io.Discard, said) }()
			return true
		}
	}
	return false
}
