// Package host holds the host tier: our servers in the test's own process, and
// across a bridge, in namespaces of their own, clients that we did not write.
package host

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"slipway/bootsvc/dhcp"
	"slipway/bootsvc/httpd"
	"slipway/bootsvc/ipxe"
	"slipway/bootsvc/lease"
	"slipway/bootsvc/refusal"
	"slipway/bootsvc/source"
	"slipway/bootsvc/tftp"
	"slipway/bootsvc/timeline"
	"slipway/test/netns"
)

func TestMain(m *testing.M) {
	ran, err := role()
	switch {
	case err != nil:
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	case !ran:
		os.Exit(netns.Main(m))
	}
}

// The addresses of every test's network; tests have a bridge each.
var (
	subnet = netip.MustParsePrefix("10.99.0.0/16")
	server = netip.MustParseAddr("10.99.0.1")
	first  = netip.MustParseAddr("10.99.0.100")
	last   = netip.MustParseAddr("10.99.0.109")

	bridgeAddress = netip.PrefixFrom(server, subnet.Bits())
)

// service is a boot service under test, with what it told.
type service struct {
	*netns.Net
	registry *prometheus.Registry
	table    *lease.Table
	store    *memory
	// scripts are served before the real one, each once.
	scripts []string
	mu      sync.Mutex
	events  []timeline.Event
	log     bytes.Buffer
}

// start runs DHCP, TFTP and HTTP on a new bridge until the test ends. With
// SLIPWAY_CAPTURE=/tmp/folder/ the DHCP packets of each test are kept there. A
// store that is nil is the service's own, in memory.
func start(t testing.TB, configure func(*dhcp.Config, *lease.Pool), loaders, files map[string][]byte, store lease.Store) *service {
	t.Helper()
	s := &service{
		Net:      netns.New(t, bridgeAddress),
		registry: prometheus.NewRegistry(),
		store:    &memory{leases: map[string]lease.Lease{}},
	}
	s.Capture("SLIPWAY_CAPTURE")
	config := dhcp.Config{Interface: s.Device, Address: server, Subnet: subnet, HTTP: "http://" + server.String()}
	pool := lease.Pool{First: first, Last: last}
	if configure != nil {
		configure(&config, &pool)
	}
	if store == nil {
		store = s.store
	}
	s.table = lease.NewTable(pool, nil)
	log := slog.New(slog.NewTextHandler(&locked{w: &s.log, mu: &s.mu}, nil))
	refusals := refusal.New(log, s.registry, time.Now)
	d, err := dhcp.New(config, dhcp.Seams{
		Table: s.table, Store: store, Observe: s.observe, Refusals: refusals, Metrics: s.registry, Log: log, Now: time.Now,
		Source: func(context.Context, net.HardwareAddr) source.Source { return source.Installer },
	})
	if err != nil {
		t.Fatal(err)
	}
	f := tftp.New(netip.AddrPortFrom(server, 69), loaders, tftp.Seams{
		MAC: d.MAC, Observe: s.observe, Refusals: refusals, Metrics: s.registry, Log: log, Now: time.Now,
	})
	h, err := httpd.New(netip.AddrPortFrom(server, 80), onDisk(t, files), httpd.Seams{
		Script: s.script, MAC: d.MAC, Observe: s.observe, Refusals: refusals, Metrics: s.registry, Log: log, Now: time.Now,
	})
	if err != nil {
		t.Fatal(err)
	}
	s.run(t, d.Run, f.Run, h.Run)
	return s
}

// run starts the servers, waits until all are ready, and stops them with the test.
func (s *service) run(t testing.TB, runs ...func(context.Context, func()) error) {
	ctx, cancel := context.WithCancel(context.Background())
	group, ctx := errgroup.WithContext(ctx)
	var ready sync.WaitGroup
	for _, run := range runs {
		ready.Add(1)
		group.Go(func() error { return run(ctx, ready.Done) })
	}
	up := make(chan struct{})
	go func() { ready.Wait(); close(up) }()
	select {
	case <-up:
	case <-ctx.Done():
		t.Fatal(group.Wait())
	}
	t.Cleanup(func() {
		cancel()
		if err := group.Wait(); err != nil {
			t.Errorf("servers ended with %v", err)
		}
		if t.Failed() {
			t.Log("log of the servers:\n" + s.log.String())
		}
	})
}

func (s *service) script(_ context.Context, mac net.HardwareAddr) ([]byte, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.scripts) > 0 {
		first := s.scripts[0]
		s.scripts = s.scripts[1:]
		return []byte(first), nil
	}
	script := ipxe.Script{HTTP: "http://" + server.String(), API: "https://" + server.String() + ":8443", CA: "00ff"}
	if mac != nil {
		script.Machine = mac.String()
	}
	return script.Render()
}

func (s *service) observe(_ context.Context, e timeline.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.events = append(s.events, e)
}

// timeline returns what was observed of a machine: name and detail.
func (s *service) timeline(mac string) []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var lines []string
	for _, e := range s.events {
		if e.MAC.String() == mac {
			lines = append(lines, e.Name+": "+e.Detail)
		}
	}
	return lines
}

// counter sums a counter over the label values given, "name", "value" and so on.
func (s *service) counter(t *testing.T, name string, labels ...string) float64 {
	t.Helper()
	families, err := s.registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var sum float64
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			has := map[string]string{}
			for _, l := range m.GetLabel() {
				has[l.GetName()] = l.GetValue()
			}
			matches := true
			for i := 0; i < len(labels); i += 2 {
				matches = matches && has[labels[i]] == labels[i+1]
			}
			if matches {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// onDisk writes files by URL path and returns the table that serves them.
func onDisk(t testing.TB, files map[string][]byte) map[string]httpd.File {
	t.Helper()
	table := map[string]httpd.File{}
	for path, data := range files {
		f := httpd.File{Path: filepath.Join(t.TempDir(), filepath.Base(path)), SHA256: digest(data)}
		if err := os.WriteFile(f.Path, data, 0o644); err != nil {
			t.Fatal(err)
		}
		table[path] = f
	}
	return table
}

// memory is a lease.Store that forgets when the test ends.
type memory struct {
	mu     sync.Mutex
	leases map[string]lease.Lease
	fail   error // returned by Save when set
}

func (m *memory) Load(context.Context) ([]lease.Lease, error) { return nil, nil }

func (m *memory) Save(_ context.Context, l lease.Lease) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.fail == nil {
		m.leases[l.MAC] = l
	}
	return m.fail
}

func (m *memory) Delete(_ context.Context, mac string) error {
	m.mu.Lock()
	defer m.mu.Unlock()
	delete(m.leases, mac)
	return nil
}

func (m *memory) get(mac string) (lease.Lease, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	l, ok := m.leases[mac]
	return l, ok
}

// locked is a buffer that several loggers and the test share.
type locked struct {
	mu *sync.Mutex
	w  *bytes.Buffer
}

func (l *locked) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.w.Write(b)
}
