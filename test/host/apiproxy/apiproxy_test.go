package apiproxy

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"slipway/nodeinit/apiproxy"
	"slipway/test/netns"
)

const (
	first  = "10.97.0.11:6443"
	second = "10.97.0.12:6443"

	// noticed is how soon a machine without power is, at the latest; hung how
	// soon a process that does not answer.
	noticed = 12 * time.Second
	hung    = 25 * time.Second
)

// site is a worker with its balancer, which is the test's process, and two API
// servers across a bridge.
type site struct {
	t    *testing.T
	net  *netns.Net
	dir  string
	addr string // of the balancer

	servers map[string]*os.Process
}

func newSite(t *testing.T) *site {
	t.Helper()
	netns.Require(t)
	s := &site{t: t, dir: t.TempDir(), servers: map[string]*os.Process{}, net: netns.New(t, netip.MustParsePrefix("10.97.0.1/24"))}
	makeCertificate(t, s.dir, net.IPv4(127, 0, 0, 1), net.IPv4(10, 97, 0, 11), net.IPv4(10, 97, 0, 12))
	s.serve("52:54:00:97:00:01", first)
	s.serve("52:54:00:97:00:02", second)

	file, err := apiproxy.File{Others: []string{first, second}}.Encode()
	if err != nil {
		t.Fatal(err)
	}
	listener, err := net.ListenTCP("tcp4", &net.TCPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	s.addr = listener.Addr().String()
	read := func() ([]byte, error) { return file.Data, nil }
	prober := apiproxy.NewProber(filepath.Join(s.dir, "ca.crt"), "/readyz", 5*time.Second)
	log, says := io.Pipe()
	proxy := apiproxy.New(slog.New(slog.NewTextHandler(io.MultiWriter(t.Output(), says), nil)), read, prober, 1)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- proxy.Run(ctx, listener) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("the balancer ended with %v", err)
		}
	})
	for lines, healthy := bufio.NewScanner(log), 0; healthy < 2 && lines.Scan(); {
		if strings.Contains(lines.Text(), "upstream is healthy") {
			healthy++
		}
	}
	go func() { _, _ = io.Copy(io.Discard, log) }()
	t.Cleanup(func() { _ = log.Close() })
	return s
}

// serve starts an API server on a host of its own and waits until it answers.
func (s *site) serve(mac, addr string) {
	s.t.Helper()
	host := s.net.Host(mac)
	ip, _, _ := net.SplitHostPort(addr)
	host.Run("ip", "addr", "add", ip+"/24", "dev", "eth0")
	cmd := host.Command(s.t.Context(), os.Args[0])
	cmd.Dir, cmd.Env = s.dir, append(os.Environ(), serving+"="+addr)
	cmd.Stderr = s.t.Output()
	if err := cmd.Start(); err != nil {
		s.t.Fatal(err)
	}
	s.servers[addr] = cmd.Process // ip netns exec becomes the program
	s.t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	for begin := time.Now(); s.ask(s.client(), addr) != addr; {
		if time.Since(begin) > 20*time.Second {
			s.t.Fatalf("%s does not serve", addr)
		}
	}
}

// client is one of a component: it keeps its connection for as long as it can.
func (s *site) client() *http.Client {
	s.t.Helper()
	ca, err := os.ReadFile(filepath.Join(s.dir, "ca.crt"))
	if err != nil {
		s.t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}
	s.t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// ask returns which API server answers at addr; empty if none does.
func (s *site) ask(client *http.Client, addr string) string {
	answer, err := client.Get("https://" + addr + "/")
	if err != nil {
		return ""
	}
	defer answer.Body.Close()
	text, _ := io.ReadAll(answer.Body)
	return string(text)
}

// unplug takes a host off the bridge: its link stays up, and nothing passes.
func (s *site) unplug(addr string) {
	s.t.Helper()
	port := map[string]string{first: "h1", second: "h2"}[addr]
	if out, err := exec.Command("ip", "link", "set", s.net.Device+port, "nomaster").CombinedOutput(); err != nil {
		s.t.Fatalf("unplug %s: %v: %s", addr, err, out)
	}
}

// TestMachineLosesItsPower: no reset, no answer, no refusal. A component whose
// request is under way then learns of it soon, and goes on with the other
// machine; one that connects anew waits for less.
func TestMachineLosesItsPower(t *testing.T) {
	s := newSite(t)
	client := s.client()
	client.Timeout = 2 * noticed
	used := s.ask(client, s.addr)
	other := map[string]string{first: second, second: first}[used]
	if other == "" {
		t.Fatalf("answered by %q", used)
	}

	begin := time.Now()
	s.unplug(used)
	if got := s.ask(s.client(), s.addr); got != other {
		t.Errorf("a new connection: answered by %q, want %s", got, other)
	}
	t.Logf("a new connection is answered after %.1f s", time.Since(begin).Seconds())
	if got := s.ask(client, s.addr); got != "" && got != other {
		t.Errorf("answered by %q, which has no power", got)
	}
	if got := s.ask(client, s.addr); got != other {
		t.Errorf("answered by %q, want %s", got, other)
	}
	if took := time.Since(begin); took > noticed {
		t.Errorf("it took %v", took)
	}
	t.Logf("the component goes on after %.1f s", time.Since(begin).Seconds())
}

// TestProcessIsStopped: SIGSTOP. Its kernel still takes connections and
// acknowledges every byte.
func TestProcessIsStopped(t *testing.T) {
	s := newSite(t)
	client := s.client()
	client.Timeout = 2 * hung
	used := s.ask(client, s.addr)
	begin := time.Now()
	stop(t, s.servers[used])
	if got := s.ask(client, s.addr); got == used {
		t.Errorf("answered by %q, which is stopped", got)
	}
	if got := s.ask(client, s.addr); got == used || got == "" {
		t.Errorf("answered by %q, want the other", got)
	}
	if took := time.Since(begin); took > hung {
		t.Errorf("it took %v", took)
	}
	t.Logf("the component goes on after %.1f s", time.Since(begin).Seconds())
}

// stop returns when every thread of the process has stopped (proc_pid_stat(5)).
func stop(t *testing.T, process *os.Process) {
	t.Helper()
	if err := process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	for running := true; running && t.Context().Err() == nil; {
		threads, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", process.Pid))
		if err != nil || len(threads) == 0 {
			t.Fatalf("process %d has ended", process.Pid)
		}
		running = slices.ContainsFunc(threads, func(path string) bool {
			stat, _ := os.ReadFile(path)
			return !strings.Contains(string(stat), ") T ")
		})
	}
}
