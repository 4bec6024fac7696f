package dhcp

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/prometheus/client_golang/prometheus"

	"slipway/bootsvc/lease"
	"slipway/bootsvc/refusal"
	"slipway/bootsvc/source"
	"slipway/bootsvc/timeline"
)

// diary is a lease.Store that writes down what it is told.
type diary struct {
	lines []string
	fail  error
}

func (d *diary) Load(context.Context) ([]lease.Lease, error) { return nil, nil }
func (d *diary) Save(_ context.Context, l lease.Lease) error {
	d.lines = append(d.lines, "save "+l.MAC+" "+l.Address.String())
	return d.fail
}
func (d *diary) Delete(_ context.Context, mac string) error {
	d.lines = append(d.lines, "delete "+mac)
	return d.fail
}

func testServer(t *testing.T, table *lease.Table) (*Server, *diary) {
	t.Helper()
	store, registry := &diary{}, prometheus.NewRegistry()
	log := slog.New(slog.NewTextHandler(io.Discard, nil))
	now := func() time.Time { return noon }
	s, err := New(testConfig, Seams{
		Table: table, Store: store, Observe: timeline.Discard, Source: fromInstaller, Refusals: refusal.New(log, registry, now), Metrics: registry, Log: log, Now: now,
	})
	if err != nil {
		t.Fatal(err)
	}
	return s, store
}

func fromInstaller(context.Context, net.HardwareAddr) source.Source { return source.Installer }

// TestPersist: what the store is told of each decision, and when.
func TestPersist(t *testing.T) {
	own := machine.String()
	cases := []struct {
		name   string
		packet packet
		want   []string
	}{
		{"an offer is not stored", packet{kind: discoverKind}, nil},
		{"a lease is", packet{kind: requestKind, ciaddr: host(100)}, []string{"save " + own + " 10.99.0.100"}},
		{"a NAK changes nothing", packet{kind: requestKind, ciaddr: host(101)}, nil},
		{"a release deletes", packet{kind: dhcpv4.MessageTypeRelease, server: us, ciaddr: host(100)}, []string{"delete " + own}},
		{"a release of another's does not", packet{kind: dhcpv4.MessageTypeRelease, server: us, ciaddr: host(101)}, nil},
		{"a decline deletes", packet{kind: dhcpv4.MessageTypeDecline, server: us, requested: host(100)}, []string{"delete " + own}},
		{"a decline of another's does not", packet{kind: dhcpv4.MessageTypeDecline, server: us, requested: host(101)}, nil},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s, store := testServer(t, testTable(bound(own, host(100), time.Hour), bound(stranger, host(101), time.Hour)))
			r, err := parse(c.packet.bytes(t))
			if err != nil {
				t.Fatal(err)
			}
			if err := s.persist(t.Context(), s.record(r)); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(store.lines, c.want) {
				t.Errorf("the store was told %q, want %q", store.lines, c.want)
			}
		})
	}
}

// TestForget: a machine whose ended lease made way is deleted from the store,
// by its own lane, and not when it is back by then.
func TestForget(t *testing.T) {
	s, store := testServer(t, testTable(bound(stranger, host(100), -time.Minute)))
	r, err := parse(packet{kind: requestKind, requested: host(100)}.bytes(t))
	if err != nil {
		t.Fatal(err)
	}
	s.record(r)
	var queued []string
	for _, lane := range s.lanes {
		for len(lane) > 0 {
			queued = append(queued, (<-lane).forget)
		}
	}
	if !slices.Equal(queued, []string{stranger}) {
		t.Fatalf("to be forgotten: %q", queued)
	}
	s.forget(t.Context(), stranger)
	s.Table.Grant(bound(stranger, host(101), time.Hour))
	s.forget(t.Context(), stranger)
	if !slices.Equal(store.lines, []string{"delete " + stranger}) {
		t.Errorf("the store was told %q", store.lines)
	}
}

// TestOverload: a full lane drops packets and does not block the reader.
func TestOverload(t *testing.T) {
	s, _ := testServer(t, testTable())
	took := 0
	for range 2 * laneLength {
		if s.enqueue(machine.String(), job{}) {
			took++
		}
	}
	if took != laneLength {
		t.Errorf("%d taken, want %d", took, laneLength)
	}
}

func TestMAC(t *testing.T) {
	s, _ := testServer(t, testTable(bound(machine.String(), host(100), time.Hour), bound(stranger, host(101), -time.Hour)))
	if got := s.MAC(host(100)); !slices.Equal(got, machine) {
		t.Errorf("it is %s's", got)
	}
	for _, n := range []byte{101, 102} {
		if got := s.MAC(host(n)); got != nil {
			t.Errorf("%s is %s's", host(n), got)
		}
	}
}

func TestConfig(t *testing.T) {
	good := testConfig
	good.LeaseTime, good.OfferTime = 0, 0
	complete, err := good.complete()
	if err != nil || complete.LeaseTime != 24*time.Hour || complete.OfferTime != time.Minute {
		t.Errorf("defaults: %+v, %v", complete, err)
	}
	bad := map[string]func(*Config){
		"no interface":         func(c *Config) { c.Interface = "" },
		"foreign address":      func(c *Config) { c.Address = netip.MustParseAddr("10.98.0.1") },
		"foreign router":       func(c *Config) { c.Router = netip.MustParseAddr("10.98.0.1") },
		"lease time too short": func(c *Config) { c.LeaseTime = time.Second },
	}
	for name, change := range bad {
		c := testConfig
		change(&c)
		if _, err := c.complete(); err == nil {
			t.Errorf("%s is accepted", name)
		}
	}
}

// TestDatagram: the headers we write ourselves are what the kernel would write.
func TestDatagram(t *testing.T) {
	d := datagram([]byte("payload"), us, host(100))
	if sum := checksum(d[:20]); sum != 0 {
		t.Errorf("the header's checksum is wrong by %#x", sum)
	}
	if src, dst := net.IP(d[12:16]), net.IP(d[16:20]); src.String() != "10.99.0.1" || dst.String() != "10.99.0.100" {
		t.Errorf("from %s to %s", src, dst)
	}
	if string(d[28:]) != "payload" || d[3] != 35 || d[25] != 15 || d[21] != 67 || d[23] != 68 {
		t.Errorf("headers % x", d[:28])
	}
}

// TestNoReplyWithoutStore: serve gives up before it would promise the lease;
// with no socket, replying would crash.
func TestNoReplyWithoutStore(t *testing.T) {
	s, store := testServer(t, testTable())
	store.fail = errors.New("disk full")
	s.serve(t.Context(), nil, packet{kind: requestKind, requested: host(100)}.bytes(t))
	if len(store.lines) != 1 {
		t.Errorf("the store was told %q", store.lines)
	}
}
