// Package netconf brings a node's network up and keeps it up: the loopback,
// the physical interfaces, one DHCPv4 lease, its address, routes and DNS
// servers. The node agent is its caller. It makes no choice that cannot be
// read from choose.go and lease.go, which are pure.
//
// One interface carries the node's address: the one the machine booted from
// when it is known, else the first that gets a lease. The address stays for
// as long as the node runs, lease or no lease, because certificates, etcd and
// Kubernetes know the node by it.
package netconf

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Config is what a Network needs to know.
type Config struct {
	// Boot is the hardware address the machine booted from; nil if unknown.
	Boot net.HardwareAddr
	// Root is the directory whose etc/resolv.conf is written: "/".
	Root string
	// Last is the lease of the boot before; nil: none is known. It is used when
	// no server answers: an installed node comes up without its boot service.
	Last *Lease
	// Sys is where sysfs is mounted: "/sys".
	Sys string
	Log *slog.Logger
	// Waiting is told what the network waits for and what it does next, each
	// time it looks; nothing when it waits no more.
	Waiting func(what, next string)
	// Changed is told each lease that was put in force, before ready is called.
	Changed func(Lease)
}

// Network is the node's network as a service: Run is ready once an address is
// in force, and then keeps the lease. Run may be called again.
type Network struct{ Config }

// bootPatience is how long the interface the machine booted from may be
// missing, or without carrier or answer, before the others are asked too: a
// driver may come late, a switch port takes up to 30 s to forward.
const bootPatience = 45 * time.Second

// Run implements supervise.Service.
func (n *Network) Run(ctx context.Context, ready func()) error {
	if err := loopbackUp(); err != nil {
		return err
	}
	held, err := n.acquire(ctx)
	if err != nil {
		return err
	}
	n.Waiting("", "")
	ready()
	return n.keep(ctx, held)
}

// enforce makes the system use a lease.
func (n *Network) enforce(l Lease) error {
	if err := configure(l); err != nil {
		return fmt.Errorf("configure %s: %w", l.Link, err)
	}
	if err := writeResolvConf(n.Root, l); err != nil {
		return err
	}
	n.Log.Info("network is up", "link", l.Link, "address", l.Address.String(), "router", l.Router.String(),
		"server", l.Server.String(), "lease", l.Duration.String())
	n.Changed(l)
	return nil
}

// acquire asks on the chosen interfaces until one of them has a lease, and
// puts it in force. After a restart the address is there already: the node goes
// on with it if no server answers.
func (n *Network) acquire(ctx context.Context) (Lease, error) {
	start := time.Now()
	changes, stop, err := watchLinks()
	if err != nil {
		return Lease{}, err
	}
	defer stop()
	for {
		found, err := links(n.Sys)
		if err != nil {
			return Lease{}, err
		}
		pick := choose(found, n.Boot, time.Since(start) > bootPatience)
		n.Waiting(pick.waiting, pick.next)
		if err := linksUp(pick.up); err != nil {
			return Lease{}, err
		}
		if lease, ok := firstLease(ctx, pick.ask, n.Log); ok {
			return lease, n.enforce(lease)
		}
		if lease, ok := heldAlready(pick.ask); ok && ctx.Err() == nil {
			lease.DNS = nameservers(n.Root)
			n.Log.Warn("no DHCP server answers; the address is kept", "link", lease.Link, "address", lease.Address.String())
			n.Changed(lease)
			return lease, nil
		}
		if lease, ok := n.lastAgain(pick.ask, time.Since(start)); ok && ctx.Err() == nil {
			n.Log.Warn("no DHCP server answers; the address of the boot before is used", "link", lease.Link, "address", lease.Address.String())
			return lease, n.enforce(lease)
		}
		if err := pause(ctx, changes, time.Second); err != nil {
			return Lease{}, fmt.Errorf("wait for %s: %w", pick.waiting, err)
		}
	}
}

// lastPatience is how long servers are asked before the lease of the boot
// before is used. A rack that was without power boots all at once.
const lastPatience = 30 * time.Second

// lastAgain is the lease of the boot before, if it is one of a link that was
// asked on in vain. It counts as run out: a server is asked every minute.
func (n *Network) lastAgain(asked []link, waited time.Duration) (Lease, bool) {
	if n.Last == nil || waited < lastPatience {
		return Lease{}, false
	}
	for _, l := range asked {
		if l.name == n.Last.Link {
			return ended(*n.Last), true
		}
	}
	return Lease{}, false
}

// pause waits for a change of the interfaces, at most d.
func pause(ctx context.Context, changes <-chan struct{}, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-changes:
	case <-timer.C:
	}
	return nil
}

// Lease is what a DHCP server gave.
type Lease struct {
	Link     string
	Address  netip.Prefix
	Router   netip.Addr // invalid: none
	Server   netip.Addr
	DNS      []netip.Addr
	Domain   string
	Hostname string
	MTU      int // 0: the interface's own
	Routes   []Route

	Since    time.Time
	Duration time.Duration
	Renewal  time.Duration // T1, counted from Since
	Rebind   time.Duration // T2
}

// Route is a classless static route (RFC 3442).
type Route struct {
	To  netip.Prefix
	Via netip.Addr // unspecified: on the link
}
