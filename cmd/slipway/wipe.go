package main

import (
	"context"
	"errors"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/configs/wipe"
	"slipway/nodeinit/api/nodev1"
)

// wipeFlag is --wipe: how the disks of installed machines are wiped when they leave their cluster.
type wipeFlag struct{ how wipe.How }

func (f *wipeFlag) register(cmd *cobra.Command) {
	f.how = wipe.Metadata
	cmd.Flags().Var(f, "wipe", "how the disk of an installed machine is wiped that leaves: metadata, discard or zero")
	oneOf(cmd, "wipe", wipe.All()...)
}

// Set, String and Type are those of pflag.Value.
func (f *wipeFlag) Set(text string) (err error) {
	f.how, err = wipe.Parse(text)
	return err
}

func (f *wipeFlag) String() string { return string(f.how) }
func (f *wipeFlag) Type() string   { return "string" }

// checkWipe asks machines that are to leave whether they can wipe their disks so,
// while nothing has begun. The first that cannot is the error.
func (r *remote) checkWipe(ctx context.Context, how wipe.How, machines ...*bootv1.Machine) error {
	if how == wipe.Metadata { // which every disk knows
		return nil
	}
	for _, m := range machines {
		if err := r.canWipe(ctx, how, m.GetAddress()); err != nil {
			return err
		}
	}
	return nil
}

// canWipe asks one machine. One that never had an address, does not answer, or is
// too old to know the question, cannot say no.
func (r *remote) canWipe(ctx context.Context, how wipe.How, address string) error {
	if address == "" {
		return nil
	}
	node, err := r.node(ctx, address)
	if err != nil {
		return err
	}
	_, err = node.CheckReset(ctx, connect.NewRequest(&nodev1.CheckResetRequest{Wipe: string(how)}))
	if connect.CodeOf(err) == connect.CodePermissionDenied { // as nodes do to what they do not know
		return nil
	}
	if err = nodeError(address, err); errors.Is(err, errUnreachable) {
		return nil
	}
	return err
}
