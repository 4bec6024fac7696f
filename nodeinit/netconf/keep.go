package netconf

import (
	"context"
	"errors"
	"time"
)

// keep extends the lease when it is due, until ctx ends. The address in force
// stays whatever the servers say; what they say is logged.
func (n *Network) keep(ctx context.Context, held Lease) error {
	for {
		what, again := held.due(time.Now())
		if what != hold {
			held = n.extended(ctx, held, what)
			_, again = held.due(time.Now())
		}
		if err := pause(ctx, nil, again); err != nil {
			return nil // stopped
		}
	}
}

// extended returns the lease after an attempt to extend it.
func (n *Network) extended(ctx context.Context, held Lease, what action) Lease {
	got, err := n.attempt(ctx, held, what)
	switch {
	case ctx.Err() != nil:
		return held
	case errors.Is(err, errRefused):
		n.Log.Error("the address is kept though the DHCP server refuses it; reboot the node to move it",
			"link", held.Link, "address", held.Address.String())
		return ended(held)
	case err != nil:
		n.Log.Warn("the DHCP lease was not extended; the address is kept", "link", held.Link,
			"address", held.Address.String(), "until", held.Since.Add(held.Duration).Format(time.RFC3339), "error", err)
		return held
	case got.Address != held.Address:
		n.Log.Error("the address is kept though the DHCP server gives another; reboot the node to move it",
			"link", held.Link, "address", held.Address.String(), "offered", got.Address.String())
		return ended(held)
	}
	if err := n.enforce(got); err != nil {
		n.Log.Error("the extended lease is not in force", "error", err)
	}
	return got
}

func (n *Network) attempt(ctx context.Context, held Lease, what action) (Lease, error) {
	if what == discover {
		return obtain(ctx, held.Link, held.Address.Addr())
	}
	return extend(ctx, held, what == rebind)
}

// ended is a lease whose time is over: due asks for it again each minute.
func ended(l Lease) Lease {
	l.Duration, l.Renewal, l.Rebind = 0, 0, 0
	return l
}
