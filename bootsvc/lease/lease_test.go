package lease

import (
	"fmt"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
)

const (
	one   = "02:00:00:00:00:01"
	two   = "02:00:00:00:00:02"
	three = "02:00:00:00:00:03"
)

var (
	noon = time.Date(2026, 1, 1, 12, 0, 0, 0, time.UTC)
	pool = Pool{First: ip(10), Last: ip(12)}
)

func ip(n byte) netip.Addr { return netip.AddrFrom4([4]byte{10, 0, 0, n}) }

func held(mac string, a netip.Addr, minutes int) Lease {
	return Lease{MAC: mac, Address: a, Bound: true, Expires: noon.Add(time.Duration(minutes) * time.Minute)}
}

func TestChoice(t *testing.T) {
	cases := []struct {
		name   string
		pool   Pool
		leases []Lease
		client Client
		want   netip.Addr
	}{
		{"its own", pool, []Lease{held(one, ip(11), 5)}, Client{MAC: one}, ip(11)},
		{"its own, though ended", pool, []Lease{held(one, ip(11), -5)}, Client{MAC: one}, ip(11)},
		{"its own before the one it wants", pool, []Lease{held(one, ip(11), 5)}, Client{MAC: one, Wants: ip(10)}, ip(11)},
		{"the one it wants", pool, nil, Client{MAC: one, Wants: ip(12)}, ip(12)},
		{"not one it wants outside the range", Pool{First: ip(10), Last: ip(10)}, nil, Client{MAC: one, Wants: ip(99)}, ip(10)},
		{"not one it wants that is held", Pool{First: ip(10), Last: ip(11)}, []Lease{held(two, ip(11), 5)}, Client{MAC: one, Wants: ip(11)}, ip(10)},
		{"its former network card's", pool, []Lease{{MAC: two, ClientID: "ff01", Address: ip(11), Expires: noon}}, Client{MAC: one, ClientID: "ff01"}, ip(11)},
		{"not its other network card's", Pool{First: ip(10), Last: ip(11)}, []Lease{{MAC: two, ClientID: "ff01", Address: ip(11), Expires: noon.Add(1)}}, Client{MAC: one, ClientID: "ff01"}, ip(10)},
		{"fresh before used", pool, []Lease{held(two, ip(10), -5), held(three, ip(11), -9)}, Client{MAC: one}, ip(12)},
		{"unused for longest", pool, []Lease{held(two, ip(10), -5), held(three, ip(11), -9), held("x", ip(12), -7)}, Client{MAC: one}, ip(11)},
		{"none", pool, []Lease{held(two, ip(10), 5), held(three, ip(11), 5), held("x", ip(12), 5)}, Client{MAC: one}, netip.Addr{}},
		{"its reservation, outside the range", Pool{First: ip(10), Last: ip(12), Reservations: map[string]netip.Addr{one: ip(99)}}, []Lease{held(one, ip(10), 5)}, Client{MAC: one}, ip(99)},
		{"not another's reservation", Pool{First: ip(10), Last: ip(11), Reservations: map[string]netip.Addr{two: ip(10)}}, nil, Client{MAC: one, Wants: ip(10)}, ip(11)},
		{"not an excluded one", Pool{First: ip(10), Last: ip(11), Exclude: []netip.Addr{ip(10)}}, nil, Client{MAC: one, Wants: ip(10)}, ip(11)},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := NewTable(c.pool, c.leases).View(c.client, noon).Free; got != c.want {
				t.Errorf("got %s, want %s", got, c.want)
			}
		})
	}
}

func TestRefused(t *testing.T) {
	p := Pool{First: ip(10), Last: ip(20), Exclude: []netip.Addr{ip(15)}, Reservations: map[string]netip.Addr{two: ip(16), three: ip(99)}}
	table := NewTable(p, []Lease{held(two, ip(11), 5), held("x", ip(12), -5), held("y", ip(13), 5)})
	table.Decline("y", ip(13), noon.Add(time.Minute))
	cases := []struct {
		name, mac string
		wants     netip.Addr
		now       time.Time
		want      error
	}{
		{"free", one, ip(10), noon, nil},
		{"held", one, ip(12), noon.Add(-time.Hour), ErrTaken},
		{"held until now", one, ip(12), noon, nil},
		{"quarantine", one, ip(13), noon, ErrQuarantined},
		{"quarantine over", one, ip(13), noon.Add(time.Minute), nil},
		{"excluded", one, ip(15), noon, ErrReserved},
		{"reserved for another", one, ip(16), noon, ErrReserved},
		{"reserved", two, ip(16), noon, nil},
		{"reserved, out of range", three, ip(99), noon, nil},
		{"another than its reservation", three, ip(10), noon, ErrReserved},
		{"outside", one, ip(98), noon, ErrOutside},
		{"not IPv4", one, netip.IPv6Loopback(), noon, ErrOutside},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			if got := table.View(Client{MAC: c.mac, Wants: c.wants}, c.now).Refused; got != c.want {
				t.Errorf("got %v, want %v", got, c.want)
			}
		})
	}
}

// TestNoAddressTwice has many machines come and go in a small range.
func TestNoAddressTwice(t *testing.T) {
	table := NewTable(Pool{First: ip(10), Last: ip(29)}, nil)
	now := noon
	for step := range 5000 {
		now = now.Add(time.Duration(step%7) * time.Second)
		mac := fmt.Sprintf("02:00:00:00:00:%02x", step*37%50)
		if free := table.View(Client{MAC: mac}, now).Free; free.IsValid() {
			table.Grant(Lease{MAC: mac, Address: free, Expires: now.Add(time.Minute)})
		}
		if step%11 == 0 {
			table.Release(mac, table.View(Client{MAC: mac}, now).Mine.Address, now)
		}
		seen := map[netip.Addr]string{}
		for _, l := range table.Active(now) {
			if other, twice := seen[l.Address]; twice {
				t.Fatalf("step %d: %s and %s both have %s", step, other, l.MAC, l.Address)
			}
			seen[l.Address] = l.MAC
		}
	}
}

// TestWithheld: an address that a cluster takes for itself is leased to nobody,
// not even to who has it.
func TestWithheld(t *testing.T) {
	table := NewTable(Pool{First: ip(10), Last: ip(11)}, []Lease{held(one, ip(10), 5)})
	table.Withhold([]netip.Addr{ip(10)})
	for _, mac := range []string{one, two} {
		if v := table.View(Client{MAC: mac, Wants: ip(10)}, noon); v.Free != ip(11) || v.Refused != ErrReserved {
			t.Errorf("%s may have %s, and is refused: %v", mac, v.Free, v.Refused)
		}
	}
	table.Withhold(nil)
	if v := table.View(Client{MAC: one, Wants: ip(10)}, noon); v.Free != ip(10) || v.Refused != nil {
		t.Errorf("afterwards it may have %s, and is refused: %v", v.Free, v.Refused)
	}
}

func TestGrantMovesAndEvicts(t *testing.T) {
	table := NewTable(pool, []Lease{held(one, ip(10), 5), held(two, ip(11), -5)})
	if ended := table.Grant(held(one, ip(11), 5)); ended != two {
		t.Errorf("%q had to make way, want %q", ended, two)
	}
	if table.Known(two) {
		t.Error("the machine that made way is still known")
	}
	if _, ok := table.Holder(ip(10), noon); ok {
		t.Error("the address that was left is still held")
	}
	if l, ok := table.Holder(ip(11), noon); !ok || l.MAC != one {
		t.Errorf("the new address is held by %+v", l)
	}
}

func TestGivingBackNeedsHolding(t *testing.T) {
	table := NewTable(pool, []Lease{held(one, ip(10), 5)})
	if table.Release(two, ip(10), noon) || table.Decline(two, ip(10), noon) || table.Release(one, ip(11), noon) {
		t.Error("a machine gave back what it did not hold")
	}
	if !table.Release(one, ip(10), noon) {
		t.Error("the holder could not give its address back")
	}
	if len(table.Active(noon)) != 0 {
		t.Error("the lease is still active")
	}
}

func TestLoading(t *testing.T) {
	leases := []Lease{held(one, ip(10), 9), held(two, ip(10), 5), held(three, ip(99), 5)}
	got := NewTable(pool, leases).Active(noon)
	// The later of two for one address, and nothing that the pool no longer has.
	if diff := cmp.Diff([]Lease{held(one, ip(10), 9)}, got, cmpopts.EquateComparable(netip.Addr{})); diff != "" {
		t.Errorf("loaded (-want +got):\n%s", diff)
	}
}

func TestValidate(t *testing.T) {
	cases := []struct {
		pool Pool
		want string
	}{
		{pool, ""},
		{Pool{First: ip(2), Last: ip(1)}, "comes before"},
		{Pool{First: netip.IPv6Loopback(), Last: ip(1)}, "must be IPv4"},
		{Pool{}, "must be IPv4"},
		{Pool{First: netip.MustParseAddr("10.0.0.0"), Last: netip.MustParseAddr("10.1.0.0")}, "at most 65536"},
		{Pool{First: netip.MustParseAddr("0.0.0.0"), Last: netip.MustParseAddr("255.255.255.255")}, "at most 65536"},
		{Pool{First: ip(1), Last: ip(2), Reservations: map[string]netip.Addr{one: ip(1), two: ip(1)}}, "both have it"},
	}
	for _, c := range cases {
		err := c.pool.Validate()
		if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
			t.Errorf("%+v: %v, want %q", c.pool, err, c.want)
		}
	}
}

// TestStart: without a store, most machines still come back to their address.
func TestStart(t *testing.T) {
	big := Pool{First: netip.MustParseAddr("10.0.0.0"), Last: netip.MustParseAddr("10.0.3.255")}
	before, after := NewTable(big, nil), NewTable(big, nil)
	same := 0
	for i := range 100 {
		mac := fmt.Sprintf("02:00:00:00:%02x:%02x", i*7, i)
		a := before.View(Client{MAC: mac}, noon).Free
		before.Grant(Lease{MAC: mac, Address: a, Expires: noon.Add(time.Hour)})
		if after.View(Client{MAC: mac}, noon).Free == a {
			same++
		}
	}
	if same < 90 {
		t.Errorf("%d of 100 machines would keep their address, want 90", same)
	}
}
