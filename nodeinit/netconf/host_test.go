package netconf

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"slipway/test/need"
)

// inNamespace marks the copy of the test that runs in its own network.
const inNamespace = "SLIPWAY_NETCONF_NAMESPACE"

// TestAgainstDnsmasq takes, renews and rebinds a lease of a DHCP server
// that is not ours, across a veth pair between two network namespaces.
func TestAgainstDnsmasq(t *testing.T) {
	if os.Getenv(inNamespace) != "" {
		againstDnsmasq(t)
		return
	}
	need.Programs(t, "dnsmasq", "unshare")
	if out, err := exec.Command("unshare", "-Urnm", "true").CombinedOutput(); err != nil {
		t.Skipf("no namespaces here: %v: %s", err, out)
	}
	// The server ends with the namespace of processes, however the test ends.
	cmd := exec.Command("unshare", "-Urnmpf", "--mount-proc", "--kill-child", os.Args[0], "-test.run=^TestAgainstDnsmasq$", "-test.v")
	cmd.Env = append(os.Environ(), inNamespace+"=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("in its own network: %v\n%s", err, out)
	}
}

func againstDnsmasq(t *testing.T) {
	boot := mac("52:54:00:00:77:01")
	kill := startDnsmasq(t, boot.String())
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()

	root, leases, done := t.TempDir(), make(chan Lease, 4), make(chan error, 1)
	var waits []string
	n := &Network{Config{
		Boot: boot, Root: root, Sys: "/sys", Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
		Waiting: func(what, _ string) { waits = append(waits, what) },
		Changed: func(l Lease) { leases <- l },
	}}
	running, stop := context.WithCancel(ctx)
	ready := make(chan struct{})
	go func() { done <- n.Run(running, func() { close(ready) }) }()
	select {
	case <-ready:
	case err := <-done:
		t.Fatalf("Run ended: %v (waited for %q)", err, waits)
	case <-ctx.Done():
		t.Fatal("no lease")
	}
	l := <-leases
	checkInForce(t, root, l)

	got, err := extend(ctx, l, false)
	if err != nil || got.Address != l.Address || !got.Since.After(l.Since) {
		t.Errorf("renew: %+v, %v", got, err)
	}
	got, err = extend(ctx, l, true)
	if err != nil || got.Address != l.Address {
		t.Errorf("rebind: %+v, %v", got, err)
	}
	stop()
	if err := <-done; err != nil {
		t.Errorf("Run stopped with %v", err)
	}
	if got := currentAddress("cli0"); got != l.Address {
		t.Errorf("after the stop the link has %s", got)
	}
	kill()
	checkRestart(ctx, t, n, l)
}

// checkRestart runs the network again when no server is there: the address
// stays.
func checkRestart(ctx context.Context, t *testing.T, n *Network, want Lease) {
	t.Helper()
	ctx, stop := context.WithCancel(ctx)
	defer stop()
	got := make(chan Lease, 1)
	n.Changed = func(l Lease) { got <- l; stop() }
	if err := n.Run(ctx, func() {}); err != nil {
		t.Errorf("Run stopped with %v", err)
	}
	if len(got) == 0 {
		t.Fatal("the network never came up")
	}
	if l := <-got; l.Link != want.Link || l.Address != want.Address || !slices.Equal(l.DNS, want.DNS) {
		t.Errorf("without a server the network is %+v", l)
	}
}

func checkInForce(t *testing.T, root string, l Lease) {
	t.Helper()
	if l.Link != "cli0" || l.Address.String() != "10.77.0.50/24" || l.Router.String() != "10.77.0.1" || l.Domain != "rack.test" {
		t.Errorf("lease %+v", l)
	}
	routes, err := netlink.RouteGet([]byte{192, 0, 2, 1})
	if err != nil || len(routes) != 1 || routes[0].Gw.String() != "10.77.0.1" {
		t.Errorf("route to the world: %v, %v", routes, err)
	}
	if got := currentAddress("cli0"); got != l.Address {
		t.Errorf("the link has %s, the lease %s", got, l.Address)
	}
	conf, err := os.ReadFile(filepath.Join(root, "etc/resolv.conf"))
	if err != nil || !strings.Contains(string(conf), "search rack.test\nnameserver 10.77.0.1\n") {
		t.Errorf("resolv.conf: %q, %v", conf, err)
	}
}

// startDnsmasq puts one end of a veth pair and a DHCP server into a namespace.
func startDnsmasq(t *testing.T, boot string) (kill func()) {
	t.Helper()
	pair := &netlink.Veth{LinkAttrs: netlink.LinkAttrs{Name: "cli0", HardwareAddr: mac(boot)}, PeerName: "srv0"}
	if err := netlink.LinkAdd(pair); err != nil {
		t.Fatalf("add veth pair: %v", err)
	}
	script := fmt.Sprintf(`read go && ip addr add 10.77.0.1/24 dev srv0 && ip link set srv0 up &&
exec dnsmasq --no-daemon --conf-file=/dev/null --port=0 --interface=srv0 --bind-interfaces \
  --pid-file= --dhcp-leasefile=%s --dhcp-authoritative --log-dhcp --log-facility=- \
  --dhcp-range=10.77.0.50,10.77.0.60,10m --dhcp-host=%s,10.77.0.50 \
  --dhcp-option=3,10.77.0.1 --dhcp-option=6,10.77.0.1 --domain=rack.test`, filepath.Join(t.TempDir(), "leases"), boot)
	server := exec.Command("sh", "-c", script)
	server.Stderr = os.Stderr
	server.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNET, Pdeathsig: unix.SIGKILL}
	stdin, err := server.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := server.Start(); err != nil {
		t.Fatal(err)
	}
	kill = sync.OnceFunc(func() { _ = server.Process.Kill(); _ = server.Wait() })
	t.Cleanup(kill)
	namespace, err := os.Open(fmt.Sprintf("/proc/%d/ns/net", server.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { namespace.Close() }) // until then the veth pair outlives the server
	peer, err := netlink.LinkByName("srv0")
	if err == nil {
		err = netlink.LinkSetNsPid(peer, server.Process.Pid)
	}
	if err != nil {
		t.Fatalf("move srv0: %v", err)
	}
	if _, err := stdin.Write([]byte("go\n")); err != nil {
		t.Fatal(err)
	}
	return kill
}
