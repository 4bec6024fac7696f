package main

import (
	"github.com/spf13/cobra"

	"slipway/configs/wipe"
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
