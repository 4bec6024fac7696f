package host

import (
	"context"
	"errors"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/bootsvc/dhcp"
	"slipway/bootsvc/lease"
	"slipway/test/netns"
)

const machine = "02:00:00:00:00:01"

// hook is the script that a client calls with what it was given. It sets the
// address, as the systems' own do, and writes one line.
const hook = `#!/bin/sh
case "$1$reason" in
deconfig|PREINIT) ip addr flush dev eth0 ;;
bound) ip addr add $ip/$mask dev eth0; echo "bound $ip/$mask router=$router dns=$dns lease=$lease server=$serverid file=$boot_file" >>$LOG ;;
renew) echo "renew $ip" >>$LOG ;;
nak) echo "nak" >>$LOG ;;
BOUND|REBOOT) ip addr add $new_ip_address/16 dev eth0; echo "bound $new_ip_address $new_subnet_mask router=$new_routers dns=$new_domain_name_servers lease=$new_dhcp_lease_time server=$new_dhcp_server_identifier" >>$LOG ;;
RENEW|REBIND) echo "renew $new_ip_address" >>$LOG ;;
esac
exit 0
`

// hooked writes the hook and returns its path and its log's.
func hooked(t *testing.T) (script, log string) {
	t.Helper()
	dir := t.TempDir()
	script, log = filepath.Join(dir, "hook"), filepath.Join(dir, "log")
	if err := os.WriteFile(script, []byte(strings.ReplaceAll(hook, "$LOG", log)), 0o755); err != nil {
		t.Fatal(err)
	}
	return script, log
}

// full configures everything a client may be told.
func full(c *dhcp.Config, p *lease.Pool) {
	c.Router = server
	c.DNS = []netip.Addr{server, netip.MustParseAddr("10.99.0.2")}
	c.LeaseTime = time.Minute
}

// address finds the address that a hook's log tells of.
func address(t *testing.T, log string) netip.Addr {
	t.Helper()
	text, err := os.ReadFile(log)
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`bound ([0-9.]+)`).FindSubmatch(text)
	if found == nil {
		t.Fatalf("the hook was not told of an address:\n%s", text)
	}
	return netip.MustParseAddr(string(found[1]))
}

func inRange(a netip.Addr) bool { return !a.Less(first) && !last.Less(a) }

func TestUdhcpc(t *testing.T) {
	netns.Require(t, "udhcpc")
	s := start(t, full, nil, nil, nil)
	h := s.Host(machine)
	script, log := hooked(t)
	h.Run("udhcpc", "-i", "eth0", "-s", script, "-q", "-n", "-t", "3", "-T", "2", "-O", "router", "-O", "dns")
	got := address(t, log)
	stored, ok := s.store.get(machine)
	if !ok || stored.Address != got || !stored.Bound || !inRange(got) {
		t.Errorf("the client has %s, the store %+v", got, stored)
	}
	text, _ := os.ReadFile(log)
	want := "bound " + got.String() + "/16 router=10.99.0.1 dns=10.99.0.1 10.99.0.2 lease=60 server=10.99.0.1 file=\n"
	if string(text) != want {
		t.Errorf("the client was told %q, want %q", text, want)
	}
	if line := strings.Join(s.timeline(machine), "\n"); line != "dhcp: DISCOVER from operating system: OFFER "+got.String()+"\ndhcp: REQUEST from operating system: ACK "+got.String() {
		t.Errorf("the timeline is\n%s", line)
	}
	// The same machine, asking anew, keeps its address.
	h.Run("udhcpc", "-i", "eth0", "-s", script, "-q", "-n", "-t", "3", "-T", "2")
	if again := address(t, log); again != got {
		t.Errorf("the second time it got %s, the first time %s", again, got)
	}
}

// TestUdhcpcRenews has the client renew and release when signalled, so that the
// test need not wait for half a lease time.
func TestUdhcpcRenews(t *testing.T) {
	netns.Require(t, "udhcpc")
	s := start(t, full, nil, nil, nil)
	h := s.Host(machine)
	script, log := hooked(t)
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	client := h.Command(ctx, "udhcpc", "-i", "eth0", "-s", script, "-f", "-R", "-t", "3", "-T", "2")
	if err := client.Start(); err != nil {
		t.Fatal(err)
	}
	follow(ctx, t, log, "bound")
	before, _ := s.store.get(machine)
	signal(t, client, syscall.SIGUSR1)
	follow(ctx, t, log, "renew")
	after, _ := s.store.get(machine)
	if after.Address != before.Address || !after.Expires.After(before.Expires) {
		t.Errorf("renewing turned %+v into %+v", before, after)
	}
	if n := s.counter(t, "slipway_dhcp_leases", "state", "bound"); n != 1 {
		t.Errorf("%v leases counted, want 1", n)
	}
	signal(t, client, syscall.SIGTERM)
	_ = client.Wait() // a signal ended it
	eventually(ctx, t, "the release", func() bool { _, held := s.store.get(machine); return !held })
}

// TestUdhcpcDeclines: an address that somebody took without asking is found in
// use by the client, which then gets another.
func TestUdhcpcDeclines(t *testing.T) {
	netns.Require(t, "udhcpc")
	s := start(t, full, nil, nil, nil)
	taken := netip.MustParseAddr("10.99.0.105")
	s.client("02:00:00:00:00:66", taken.String())
	script, log := hooked(t)
	s.Host(machine).Run("udhcpc", "-i", "eth0", "-s", script, "-q", "-n", "-t", "5", "-T", "1", "-a", "-r", taken.String(), "-A", "1")
	if got := address(t, log); got == taken || !inRange(got) {
		t.Errorf("it has %s", got)
	}
	if n := s.counter(t, "slipway_dhcp_packets_total", "type", "DECLINE"); n != 1 {
		t.Errorf("%v DECLINEs, want 1", n)
	}
	view := s.table.View(lease.Client{MAC: "02:00:00:00:00:03", Wants: taken}, time.Now())
	if !errors.Is(view.Refused, lease.ErrQuarantined) {
		t.Errorf("another would get that address: %v", view.Refused)
	}
}

func TestDhclient(t *testing.T) {
	netns.Require(t, "dhclient")
	s := start(t, full, nil, nil, nil)
	h := s.Host(machine)
	script, log := hooked(t)
	dir := t.TempDir()
	files := []string{"-v", "-sf", script, "-lf", filepath.Join(dir, "leases"), "-pf", filepath.Join(dir, "pid"), "-cf", os.DevNull}
	h.Run("dhclient", append(files, "-1", "eth0")...)
	got := address(t, log)
	if stored, _ := s.store.get(machine); stored.Address != got || !inRange(got) {
		t.Errorf("the client has %s, the store %+v", got, stored)
	}
	h.Run("dhclient", append(files, "-x", "eth0")...) // stops, and keeps the lease file
	// It remembers its lease and asks for the address again: INIT-REBOOT.
	h.Run("dhclient", append(files, "-1", "eth0")...)
	if n := s.counter(t, "slipway_dhcp_packets_total", "direction", "in", "type", "DISCOVER"); n != 1 {
		t.Errorf("%v DISCOVERs, want the first one only", n)
	}
	if again := address(t, log); again != got {
		t.Errorf("after its restart it has %s, before %s", again, got)
	}
	h.Run("dhclient", append(files, "-r", "eth0")...)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	eventually(ctx, t, "the release", func() bool { _, held := s.store.get(machine); return !held })
}

// TestDhclientMoves brings a client with another network's lease: it must be
// told no at once, and then get an address of ours.
func TestDhclientMoves(t *testing.T) {
	netns.Require(t, "dhclient")
	s := start(t, full, nil, nil, nil)
	h := s.Host(machine)
	script, log := hooked(t)
	dir := t.TempDir()
	leases := filepath.Join(dir, "leases")
	old := `lease { interface "eth0"; fixed-address 192.168.7.7; option subnet-mask 255.255.255.0; option dhcp-lease-time 999999;
 option dhcp-message-type 5; option dhcp-server-identifier 192.168.7.1; renew 5 2037/01/02 00:00:00; rebind 5 2037/01/02 00:00:00; expire 5 2037/01/02 00:00:00; }
`
	if err := os.WriteFile(leases, []byte(old), 0o600); err != nil {
		t.Fatal(err)
	}
	h.Run("dhclient", "-v", "-sf", script, "-lf", leases, "-pf", filepath.Join(dir, "pid"), "-cf", os.DevNull, "-1", "eth0")
	if got := address(t, log); !inRange(got) {
		t.Errorf("it has %s", got)
	}
	if n := s.counter(t, "slipway_dhcp_packets_total", "direction", "out", "type", "NAK"); n != 1 {
		t.Errorf("%v NAKs sent, want 1", n)
	}
	h.Run("dhclient", "-sf", script, "-lf", leases, "-pf", filepath.Join(dir, "pid"), "-cf", os.DevNull, "-x", "eth0")
}

func TestReservationAndExhaustion(t *testing.T) {
	netns.Require(t, "udhcpc")
	reserved := netip.MustParseAddr("10.99.0.42")
	s := start(t, func(_ *dhcp.Config, p *lease.Pool) {
		p.Last = p.First // one address
		p.Reservations = map[string]netip.Addr{machine: reserved}
	}, nil, nil, nil)
	ask := func(mac string) (netip.Addr, error) {
		script, log := hooked(t)
		_, err := s.Host(mac).Try("udhcpc", "-i", "eth0", "-s", script, "-q", "-n", "-t", "2", "-T", "1")
		if err != nil {
			return netip.Addr{}, err
		}
		return address(t, log), nil
	}
	if got, err := ask(machine); got != reserved {
		t.Errorf("the machine with a reservation got %s, %v", got, err)
	}
	if got, err := ask("02:00:00:00:00:02"); got != first {
		t.Errorf("the first other machine got %s, %v", got, err)
	}
	if got, err := ask("02:00:00:00:00:03"); err == nil {
		t.Errorf("the second other machine got %s, and there was none left", got)
	}
	if n := s.counter(t, "slipway_refusals_total", "reason", "no address free"); n == 0 {
		t.Error("the exhaustion is not counted")
	}
}

// TestNoPromiseWithoutStore: what cannot be saved is not leased.
func TestNoPromiseWithoutStore(t *testing.T) {
	netns.Require(t, "udhcpc")
	s := start(t, full, nil, nil, &memory{fail: errors.New("disk full")})
	script, _ := hooked(t)
	if out, err := s.Host(machine).Try("udhcpc", "-i", "eth0", "-s", script, "-q", "-n", "-t", "1", "-T", "1"); err == nil {
		t.Errorf("a lease was given:\n%s", out)
	}
	if n := s.counter(t, "slipway_refusals_total", "reason", "lease not stored"); n == 0 {
		t.Error("it is not counted")
	}
}

// TestUdhcpcAsPXE shows firmware's options to the server through a client that
// lets us set them: what a BIOS is told to load must arrive.
func TestUdhcpcAsPXE(t *testing.T) {
	netns.Require(t, "udhcpc")
	s := start(t, nil, nil, nil, nil)
	h := s.Host(machine)
	script, log := hooked(t)
	h.Run("udhcpc", "-i", "eth0", "-s", script, "-q", "-n", "-t", "3", "-T", "2",
		"-V", "PXEClient:Arch:00000:UNDI:002001", "-x", "0x5d:0000", "-O", "bootfile", "-B")
	text, _ := os.ReadFile(log)
	if !strings.Contains(string(text), "file=undionly.kpxe") {
		t.Errorf("the client was told %q", text)
	}
}

// follow waits until the hook's log has a word.
func follow(ctx context.Context, t *testing.T, log, word string) {
	t.Helper()
	eventually(ctx, t, word+" in the hook's log", func() bool {
		text, _ := os.ReadFile(log)
		return strings.Contains(string(text), word)
	})
}

// eventually polls: what it waits for happens in another process.
func eventually(ctx context.Context, t *testing.T, what string, done func() bool) {
	t.Helper()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-ctx.Done():
			t.Fatalf("waited for %s: %v", what, ctx.Err())
		case <-tick.C:
		}
	}
}

// signal works because ip replaces itself with the program that it runs.
func signal(t *testing.T, c *exec.Cmd, sig syscall.Signal) {
	t.Helper()
	if err := c.Process.Signal(sig); err != nil {
		t.Fatal(err)
	}
}
