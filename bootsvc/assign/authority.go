package assign

import (
	"context"
	"fmt"
	"time"

	"slipway/bootsvc/authority"
	"slipway/bootsvc/inventory"
)

// Holders are all who have certificates of the boot service's CA, and how they
// stand to it as it is now.
func (o *Office) Holders(ctx context.Context) (authority.Record, []authority.Holder, error) {
	ca, err := o.CA.Table().Get(ctx, authority.ID)
	if err != nil || ca.Rotation == nil {
		return ca, nil, err
	}
	holders, err := o.People.Holders(ctx, o.now())
	if err != nil {
		return ca, nil, err
	}
	behind, err := o.behindCA(ctx, ca)
	if err != nil {
		return ca, nil, err
	}
	machines, err := o.inventory.List(ctx)
	for _, m := range machines {
		if m.Enrolment.Approved.Hash != "" {
			holders = append(holders, holderOf(m, behind[m.ID], o.now()))
		}
	}
	return ca, holders, err
}

// behindCA is, by ID, what machines of clusters have yet to do that their
// components run with the CAs as they are now.
func (o *Office) behindCA(ctx context.Context, ca authority.Record) (map[string]string, error) {
	all, err := o.clusters.List(ctx)
	if err != nil {
		return nil, err
	}
	behind := map[string]string{}
	for _, one := range all {
		c, err := o.Get(ctx, one.Name)
		if err != nil {
			return nil, err
		}
		keys, err := o.keys.Get(ctx, one.Name)
		if err != nil {
			return nil, err
		}
		c.machineCA = string(ca.Trusted()) // whatever it became meanwhile
		machines, err := c.standing(keys, o.now())
		if err != nil {
			return nil, err
		}
		for _, s := range machines {
			if s.Runs && !s.Current {
				behind[s.ID] = "its config to be applied"
			}
		}
	}
	return behind, nil
}

// holderOf is a machine as its boot service's CA sees it. One that was let go has
// no config to take.
func holderOf(m inventory.Machine, behind string, now time.Time) authority.Holder {
	h := authority.Holder{Name: m.ID, Trusts: m.Trusts, Behind: behind, After: "it comes back by its machine key"}
	if m.Applied == "" { // nothing runs there that could be behind
		h.Behind = ""
	}
	if m.Hostname != "" {
		h.Name = fmt.Sprintf("%s (%s)", m.Hostname, m.ID)
	}
	if m.Silent(now) {
		h.Missing = fmt.Sprintf("a sign of life: nothing was heard for %v", now.Sub(m.LastSeen).Round(time.Second))
	}
	return h
}

// ChangeAuthority changes the boot service's CA and moves its rotation on.
func (o *Office) ChangeAuthority(ctx context.Context, change func(authority.Record) (authority.Record, error)) error {
	if _, err := o.CA.Change(ctx, change); err != nil {
		return err
	}
	return o.TurnAuthority(ctx)
}

// TurnAuthority moves the rotation of the boot service's CA on if it can be. It
// looks at how things are, so it may be called at any time, by several boot
// services at once.
func (o *Office) TurnAuthority(ctx context.Context) error {
	for moved := true; moved; {
		ca, holders, err := o.Holders(ctx)
		if err != nil || ca.Rotation == nil {
			return err
		}
		if moved, err = o.CA.Turn(ctx, ca, holders, o.now()); err != nil {
			return fmt.Errorf("turn the boot service's CA: %w", err)
		}
	}
	return nil
}
