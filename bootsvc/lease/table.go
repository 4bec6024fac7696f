package lease

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"
)

// Table is every lease and offer there is, in memory. It decides nothing by
// the clock but what its callers' now says. It is safe for concurrent use.
type Table struct {
	pool     Pool
	reserved map[netip.Addr]string // by reserved address its MAC, by excluded address ""

	mu         sync.Mutex
	byMAC      map[string]Lease
	byAddress  map[netip.Addr]string // MAC
	quarantine map[netip.Addr]time.Time
	withheld   []netip.Addr
}

// NewTable returns a table of the pool with the leases that a Store had. A
// lease that the pool no longer allows is left out; of two for one address, the
// one that ends later counts.
func NewTable(pool Pool, leases []Lease) *Table {
	t := &Table{
		pool:       pool,
		reserved:   map[netip.Addr]string{},
		byMAC:      map[string]Lease{},
		byAddress:  map[netip.Addr]string{},
		quarantine: map[netip.Addr]time.Time{},
	}
	for _, a := range pool.Exclude {
		t.reserved[a] = ""
	}
	for mac, a := range pool.Reservations {
		t.reserved[a] = mac
	}
	leases = slices.SortedFunc(slices.Values(leases), func(a, b Lease) int { return a.Expires.Compare(b.Expires) })
	for _, l := range leases {
		if t.allowed(l.MAC, l.Address) == nil {
			t.Grant(l)
		}
	}
	return t
}

// Withhold has these addresses leased to nobody from now on, in place of those of
// the call before. Whoever holds one is refused when it renews.
func (t *Table) Withhold(addresses []netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.withheld = addresses
}

// Client is who asks.
type Client struct {
	MAC      string
	ClientID string
	// Wants is the address the client names; the zero value when it names none.
	Wants netip.Addr
}

// View is all that the table knows that matters to one client at one moment.
// Decisions are made from it and recorded with Grant, Release or Decline.
type View struct {
	// Mine is the client's lease or offer, expired ones too; the zero
	// Lease when there is none.
	Mine Lease
	// Refused is why the client cannot have the address it wants: one of
	// the package's errors, or nil when it can.
	Refused error
	// Free is the address the client would get; the zero value when all are held.
	Free netip.Addr
}

// View looks, and changes nothing.
func (t *Table) View(c Client, now time.Time) View {
	t.mu.Lock()
	defer t.mu.Unlock()
	v := View{Mine: t.byMAC[c.MAC], Free: t.choose(c, now)}
	if c.Wants.IsValid() {
		v.Refused = t.available(c.MAC, c.Wants, now)
	}
	return v
}

// choose picks an address in the order of RFC 2131, 4.3.1: reserved for the
// client, its own, the one it asks for, one that was its own under another
// network card, a fresh one, the one unused for longest.
func (t *Table) choose(c Client, now time.Time) netip.Addr {
	if a, ok := t.pool.Reservations[c.MAC]; ok {
		if t.available(c.MAC, a, now) != nil {
			return netip.Addr{}
		}
		return a
	}
	free := func(a netip.Addr) bool { return a.IsValid() && t.available(c.MAC, a, now) == nil }
	if own := t.byMAC[c.MAC].Address; free(own) {
		return own
	}
	if free(c.Wants) {
		return c.Wants
	}
	if former := t.formerly(c.ClientID, now); free(former) {
		return former
	}
	return t.search(c.MAC, now)
}

// formerly returns the address of a lease that ended and whose holder showed
// the same client identifier.
func (t *Table) formerly(clientID string, now time.Time) netip.Addr {
	if clientID == "" {
		return netip.Addr{}
	}
	var found Lease
	for _, l := range t.byMAC {
		if l.ClientID == clientID && !l.Active(now) && l.Expires.After(found.Expires) {
			found = l
		}
	}
	return found.Address
}

func (t *Table) search(mac string, now time.Time) netip.Addr {
	var oldest Lease
	start := t.pool.start(mac)
	for i := range t.pool.size() {
		a := t.pool.at(start + i)
		if t.available(mac, a, now) != nil {
			continue
		}
		holder, used := t.byAddress[a]
		if !used {
			return a
		}
		if l := t.byMAC[holder]; !oldest.Address.IsValid() || l.Expires.Before(oldest.Expires) {
			oldest = l
		}
	}
	return oldest.Address
}

// available says why the client cannot have the address now, or nil.
func (t *Table) available(mac string, a netip.Addr, now time.Time) error {
	if err := t.allowed(mac, a); err != nil {
		return err
	}
	if slices.Contains(t.withheld, a) {
		return ErrReserved
	}
	if until, ok := t.quarantine[a]; ok && now.Before(until) {
		return ErrQuarantined
	}
	if holder, ok := t.byAddress[a]; ok && holder != mac && t.byMAC[holder].Active(now) {
		return ErrTaken
	}
	return nil
}

// allowed is available by the pool alone.
func (t *Table) allowed(mac string, a netip.Addr) error {
	own, has := t.pool.Reservations[mac]
	switch owner, reserved := t.reserved[a]; {
	case reserved && owner == mac:
		return nil
	case reserved, has && own != a:
		return ErrReserved
	case !t.pool.contains(a):
		return ErrOutside
	}
	return nil
}

// Grant records a lease or an offer. It returns the MAC whose ended lease had
// to make way, for the caller to delete from its Store; empty for none.
func (t *Table) Grant(l Lease) (ended string) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if holder, ok := t.byAddress[l.Address]; ok && holder != l.MAC {
		delete(t.byMAC, holder)
		ended = holder
	}
	t.drop(l.MAC)
	t.byMAC[l.MAC] = l
	t.byAddress[l.Address] = l.MAC
	return ended
}

// Release ends the machine's hold on the address; it is remembered, so that
// the machine gets it again if nobody else needs it. It reports whether the
// machine held it.
func (t *Table) Release(mac string, a netip.Addr, now time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	l, ok := t.byMAC[mac]
	if !ok || l.Address != a {
		return false
	}
	l.Bound, l.Expires = false, now
	t.byMAC[mac] = l
	return true
}

// Decline takes the address from the machine that found it in use, and from
// everyone until a time. It reports whether the machine held it: only a holder
// may send an address into quarantine.
func (t *Table) Decline(mac string, a netip.Addr, until time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	if l, ok := t.byMAC[mac]; !ok || l.Address != a {
		return false
	}
	t.drop(mac)
	t.quarantine[a] = until
	return true
}

func (t *Table) drop(mac string) {
	if l, ok := t.byMAC[mac]; ok {
		delete(t.byMAC, mac)
		delete(t.byAddress, l.Address)
	}
}

// Known says whether the machine has a lease or an offer, ended ones too.
func (t *Table) Known(mac string) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	_, ok := t.byMAC[mac]
	return ok
}

// Holder returns the lease or offer whose address it is, if it is active.
func (t *Table) Holder(a netip.Addr, now time.Time) (Lease, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	l := t.byMAC[t.byAddress[a.Unmap()]]
	return l, l.Active(now)
}

// Active returns the leases and offers that hold an address now, by MAC.
func (t *Table) Active(now time.Time) []Lease {
	t.mu.Lock()
	defer t.mu.Unlock()
	var active []Lease
	for _, l := range t.byMAC {
		if l.Active(now) {
			active = append(active, l)
		}
	}
	slices.SortFunc(active, func(a, b Lease) int { return strings.Compare(a.MAC, b.MAC) })
	return active
}
