package vip

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"slipway/nodeinit/vip"
	"slipway/test/netns"
)

var (
	observer  = netip.MustParsePrefix("10.98.0.1/24")
	virtualIP = netip.MustParseAddr("10.98.0.50")
)

// soon is long enough for any move: the address is away for some 3 s at most.
const soon = 15 * time.Second

// rack is three control planes and the network between them.
type rack struct {
	*testing.T
	net      *netns.Net
	machines []*machine
	heard    *capture
}

// machine is a control plane.
type machine struct {
	t      *testing.T
	host   *netns.Host
	port   string // its end on the bridge
	mac    string
	file   vip.File
	health string
	cmd    *exec.Cmd
	said   *bytes.Buffer
}

func newRack(t *testing.T) *rack {
	t.Helper()
	netns.Require(t, "tcpdump", "busybox")
	r := &rack{T: t, net: netns.New(t, observer)}
	r.heard = newCapture(t, r.net.Device)
	addrs := []netip.Addr{netip.MustParseAddr("10.98.0.11"), netip.MustParseAddr("10.98.0.12"), netip.MustParseAddr("10.98.0.13")}
	for i, addr := range addrs {
		m := &machine{t: t, mac: fmt.Sprintf("52:54:00:98:00:%02x", i+1), port: fmt.Sprintf("%sh%d", r.net.Device, i+1)}
		m.host = r.net.Host(m.mac)
		m.host.Run("ip", "addr", "add", addr.String()+"/24", "dev", "eth0")
		m.file = vip.File{VirtualIP: virtualIP, Link: "eth0", Address: addr}
		for _, peer := range addrs {
			if peer != addr {
				m.file.Peers = append(m.file.Peers, peer)
			}
		}
		m.health = filepath.Join(t.TempDir(), "health")
		m.is(200)
		m.start()
		r.machines = append(r.machines, m)
	}
	return r
}

// is sets how well the machine's API server is.
func (m *machine) is(priority int) {
	m.t.Helper()
	next := m.health + ".next"
	if err := os.WriteFile(next, []byte(fmt.Sprint(priority)), 0o600); err != nil {
		m.t.Fatal(err)
	}
	if err := os.Rename(next, m.health); err != nil {
		m.t.Fatal(err)
	}
}

// start starts the machine's router, as PID 1 does.
func (m *machine) start() {
	m.t.Helper()
	text, err := json.Marshal(role{m.file, m.health})
	if err != nil {
		m.t.Fatal(err)
	}
	m.said = new(bytes.Buffer)
	m.cmd = m.host.Command(m.t.Context(), os.Args[0])
	m.cmd.Env = append(os.Environ(), routing+"="+string(text))
	m.cmd.Stdout, m.cmd.Stderr = m.said, m.said
	if err := m.cmd.Start(); err != nil {
		m.t.Fatal(err)
	}
	cmd, said := m.cmd, m.said
	m.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if m.t.Failed() {
			m.t.Logf("%s:\n%s", m.file.Address, said)
		}
	})
}

// end ends the machine's router by a signal and returns when it has ended.
func (m *machine) end(signal syscall.Signal) error {
	m.t.Helper()
	if err := m.cmd.Process.Signal(signal); err != nil {
		m.t.Fatal(err)
	}
	return m.cmd.Wait()
}

// holds asks the machine's kernel whether it has the address.
func (m *machine) holds() bool {
	return strings.Contains(m.host.Run("ip", "-4", "-o", "addr", "show", "dev", "eth0"), virtualIP.String()+"/32")
}

// holders are the machines that have the address.
func (r *rack) holders() (list []*machine) {
	for _, m := range r.machines {
		if m.holds() {
			list = append(list, m)
		}
	}
	return list
}

// awaitMaster waits until one machine that may have the address has it, and no
// other, and the network finds it there.
func (r *rack) awaitMaster(what string, may func(*machine) bool) *machine {
	r.Helper()
	var master *machine
	r.await(what, func() bool {
		held := r.holders()
		if len(held) != 1 || !may(held[0]) {
			return false
		}
		master = held[0]
		out, _ := exec.Command("busybox", "arping", "-c", "1", "-w", "2", "-I", r.net.Device, virtualIP.String()).CombinedOutput()
		return strings.Contains(string(out), "["+master.mac+"]")
	})
	return master
}

func (r *rack) await(what string, check func() bool) {
	r.Helper()
	begin := time.Now()
	for !check() {
		if time.Since(begin) > soon {
			r.Fatalf("waiting for: %s: not within %v", what, soon)
		}
	}
	r.Logf("%s: after %.1f s", what, time.Since(begin).Seconds())
}

func anyone(*machine) bool { return true }

func other(than *machine) func(*machine) bool {
	return func(m *machine) bool { return m != than }
}

// announced says whether a machine told the network that the address is there.
func (r *rack) announced(m *machine, since int) bool {
	return r.heard.has(since, m.mac+" > ff:ff:ff:ff:ff:ff", "Request who-has "+virtualIP.String()+" tell "+virtualIP.String())
}

func TestOneMaster(t *testing.T) {
	r := newRack(t)
	master := r.awaitMaster("one has the address", anyone)
	r.await("it announces itself", func() bool { return r.announced(master, 0) })
	r.await("it advertises as RFC 9568 has it", func() bool {
		return r.heard.has(0, master.file.Address.String()+" > 224.0.0.18: VRRPv3, Advertisement, vrid 50, prio 200, intvl 100cs, length 12, addrs: 10.98.0.50")
	})
	if r.heard.has(0, "bad vrrp cksum") {
		t.Errorf("tcpdump finds a wrong checksum:\n%s", r.heard.text(0))
	}
}

// TestKilledMaster: kill -9. The address stays behind on its link until PID 1
// starts it again; the network is told by then that it is elsewhere.
func TestKilledMaster(t *testing.T) {
	r := newRack(t)
	master := r.awaitMaster("one has the address", anyone)
	mark := r.heard.mark()
	_ = master.end(syscall.SIGKILL) // says that it was killed
	r.await("another has the address and says so", func() bool {
		return slices.ContainsFunc(r.holders(), func(m *machine) bool { return m != master && r.announced(m, mark) })
	})
	master.start()
	r.await("the address it left behind is gone", func() bool { return !master.holds() })
	r.awaitMaster("the other keeps it", other(master))
}

// TestStoppedMaster: it resigns, so the others need not wait.
func TestStoppedMaster(t *testing.T) {
	r := newRack(t)
	master := r.awaitMaster("one has the address", anyone)
	mark := r.heard.mark()
	if err := master.end(syscall.SIGTERM); err != nil {
		t.Errorf("it ended with %v", err)
	}
	if master.holds() {
		t.Error("it kept the address")
	}
	r.await("it says that it goes", func() bool { return r.heard.has(mark, "prio 0,") })
	r.awaitMaster("another has the address", other(master))
}

// TestHealthMovesIt: to whom etcd answers; where it answers nobody, it stays;
// nobody has it when no API server answers.
func TestHealthMovesIt(t *testing.T) {
	r := newRack(t)
	first := r.awaitMaster("one has the address", anyone)
	first.is(100)
	second := r.awaitMaster("a better one has it", other(first))
	for _, m := range r.machines {
		m.is(100)
	}
	r.await("its priority is 100", func() bool { return r.heard.has(0, second.file.Address.String()+" > ", "prio 100") })
	r.awaitMaster("without a quorum it stays", func(m *machine) bool { return m == second })
	for _, m := range r.machines {
		m.is(0)
	}
	r.await("nobody has it", func() bool { return len(r.holders()) == 0 })
	first.is(200)
	r.awaitMaster("the only one that is well has it", func(m *machine) bool { return m == first })
}

// TestTwoMasters: the network parts, and comes together again.
func TestTwoMasters(t *testing.T) {
	r := newRack(t)
	master := r.awaitMaster("one has the address", anyone)
	r.bridge(master.port, "nomaster")
	r.await("one on each side has it", func() bool { return len(r.holders()) == 2 })
	r.bridge(master.port, "master", r.net.Device)
	last := r.awaitMaster("one has the address", anyone)
	for _, m := range r.machines {
		if m.file.Address.Compare(last.file.Address) > 0 && m == master {
			t.Errorf("%s has it, want the higher address of the two", last.file.Address)
		}
	}
}

func (r *rack) bridge(port string, words ...string) {
	r.Helper()
	if out, err := exec.Command("ip", append([]string{"link", "set", port}, words...)...).CombinedOutput(); err != nil {
		r.Fatalf("%v: %v: %s", words, err, out)
	}
}

// capture is what tcpdump sees on the bridge.
type capture struct {
	mu    sync.Mutex
	lines bytes.Buffer
}

func newCapture(t *testing.T, device string) *capture {
	t.Helper()
	c := &capture{}
	cmd := exec.Command("tcpdump", "-i", device, "-l", "-n", "-e", "-v", "--immediate-mode", "-Z", "root", "arp or ip proto 112")
	cmd.Stdout = c
	said, err := cmd.StderrPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	if !netns.Await(said, "listening on") {
		t.Fatal("tcpdump ended")
	}
	return c
}

// Write takes what tcpdump prints.
func (c *capture) Write(b []byte) (int, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines.Write(b)
}

func (c *capture) mark() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lines.Len()
}

// text is what was printed since a mark, a line for each packet: further lines
// of a packet begin with spaces.
func (c *capture) text(since int) string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.ReplaceAll(c.lines.String()[since:], "\n    ", " ")
}

// has says whether a packet since the mark has all the words.
func (c *capture) has(since int, words ...string) bool {
	for line := range strings.Lines(c.text(since)) {
		all := true
		for _, w := range words {
			all = all && strings.Contains(line, w)
		}
		if all {
			return true
		}
	}
	return false
}
