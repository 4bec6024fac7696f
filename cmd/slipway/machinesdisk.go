package main

import (
	"bytes"
	"encoding/hex"
	"fmt"
	"io"
	"strings"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/source"
)

func machinesWipeCommand(r *remote) *cobra.Command {
	var agreed string
	cmd := &cobra.Command{
		Use:   "wipe MACHINE --agree HASH",
		Short: "Agree that a machine wipes what its wipe manifest lists",
		Long: `Agree that a machine wipes what its wipe manifest lists.

A machine that is to be installed and finds something on the disk that is not
its own writes nothing: it lists what it found, and waits. slipway machines show
prints that list, the wipe manifest, with its hash. To agree is to repeat the
hash, or its first twelve digits. If the disk changes after that, the agreement
is void. Without --agree, the manifest is printed and nothing is changed.`,
		Example: "  slipway machines wipe 52-54-00-12-34-56\n  slipway machines wipe 52-54-00-12-34-56 --agree 0c5a4f9b3d21",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			c, err := r.client()
			if err != nil {
				return err
			}
			m, err := getMachine(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			manifest := m.GetInstallation().GetWipe()
			if manifest == nil {
				return fmt.Errorf("machine %s has not asked to wipe anything: it is %s and waits for %s", m.GetId(), m.GetPhase(), waitsFor(m))
			}
			if agreed == "" {
				return show(cmd.OutOrStdout(), r.output, manifest, func(w io.Writer) { printManifest(w, m) })
			}
			hash, err := agreedHash(agreed, manifest.GetHash())
			if err != nil {
				return err
			}
			answer, err := c.Inventory.AgreeWipe(cmd.Context(), connect.NewRequest(&bootv1.AgreeWipeRequest{Id: m.GetId(), Hash: hash}))
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), r.output, answer.Msg.GetMachine(), func(w io.Writer) {
				fmt.Fprintf(w, "Agreed. %s waits for %s.\n", m.GetId(), waitsFor(answer.Msg.GetMachine()))
			})
		},
	}
	cmd.Flags().StringVar(&agreed, "agree", "", "the manifest's hash, or at least its first twelve digits")
	return cmd
}

// shortHash is how many digits of a hash a person must repeat.
const shortHash = 12

// agreedHash is the whole hash that a person meant. It must be the manifest's:
// what a person has not seen, nobody agrees to for them.
func agreedHash(said string, hash []byte) ([]byte, error) {
	said = strings.ToLower(strings.TrimRight(said, "."))
	if len(said) < shortHash {
		return nil, fmt.Errorf("%w: %d digits of the hash are too few to be sure: give the first %d", errUsage, len(said), shortHash)
	}
	if !strings.HasPrefix(hex.EncodeToString(hash), said) {
		return nil, fmt.Errorf("the wipe manifest's hash is %x and not %s: what is on the disks has changed, or this is another machine; look at it again", hash, said)
	}
	return hash, nil
}

func printManifest(w io.Writer, m *bootv1.Machine) {
	i := m.GetInstallation()
	fmt.Fprintf(w, "%s\nHash: %x\n", strings.TrimRight(i.GetWipe().GetText(), "\n"), i.GetWipe().GetHash())
	if bytes.Equal(i.GetAgreed(), i.GetWipe().GetHash()) {
		fmt.Fprintf(w, "Agreed to by %s.\n", i.GetAgreedBy())
		return
	}
	fmt.Fprintf(w, "All of that will be lost. To agree: slipway machines wipe %s --agree %x\n", m.GetId(), i.GetWipe().GetHash()[:shortHash/2])
}

func machinesBootCommand(r *remote) *cobra.Command {
	var from string
	cmd := &cobra.Command{
		Use:   "boot MACHINE --from disk|installer",
		Short: "Say what an installed machine gets when it boots by the network next",
		Long: `Say what an installed machine gets when it boots by the network next.

An installed machine is told to boot from its disk. With --from installer it
gets the installer once: it enrols with a new key, and is installed anew. A
machine that is held because it came back by the network again and again goes on
with either.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if from != string(source.Disk) && from != string(source.Installer) {
				return fmt.Errorf("%w: --from is disk or installer, and not %q", errUsage, from)
			}
			c, err := r.client()
			if err != nil {
				return err
			}
			m, err := getMachine(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			answer, err := c.Inventory.BootFrom(cmd.Context(), connect.NewRequest(&bootv1.BootFromRequest{Id: m.GetId(), From: from}))
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), r.output, answer.Msg.GetMachine(), func(w io.Writer) {
				fmt.Fprintf(w, "When %s boots by the network next, it gets the %s.\n", m.GetId(), next(answer.Msg.GetMachine()))
			})
		},
	}
	cmd.Flags().StringVar(&from, "from", "", "disk or installer")
	oneOf(cmd, "from", string(source.Disk), string(source.Installer))
	return cmd
}

func next(m *bootv1.Machine) string {
	if from := m.GetInstallation().GetNext(); from != "" {
		return from
	}
	return string(source.Installer)
}

// installationTable is the part of a machine's table that is about its disk.
func installationTable(w io.Writer, m *bootv1.Machine) {
	i := m.GetInstallation()
	if disk := i.GetDisk(); disk != nil {
		row(w, "Installed on", strings.TrimSpace(disk.GetPath()+" "+disk.GetSerial()))
		for _, s := range disk.GetSlots() {
			row(w, "  Slot "+s.GetName(), slotState(s, disk))
		}
		if disk.GetFailure() != "" {
			row(w, "  Last upgrade", "went back: "+disk.GetFailure())
		}
		row(w, "Boots from", next(m))
	}
	if i.GetHeld() != "" {
		row(w, "Held", i.GetHeld())
	}
	if wipe := i.GetWipe(); wipe != nil && i.GetDisk() == nil {
		row(w, "Wipe manifest", fmt.Sprintf("%x", wipe.GetHash()))
		for _, line := range strings.Split(strings.TrimRight(wipe.GetText(), "\n"), "\n") {
			row(w, "", line)
		}
		row(w, "  Agreed to by", orNobody(i.GetAgreedBy()))
	}
}

func orNobody(name string) string {
	if name == "" {
		return "nobody yet"
	}
	return name
}

func slotState(s *bootv1.Slot, d *bootv1.SystemDisk) string {
	words := []string{imageOf(s)}
	for _, is := range []struct {
		slot, word string
	}{{d.GetBooted(), "runs"}, {d.GetGood(), "good"}, {d.GetTrying(), fmt.Sprintf("on trial, %d tries left", d.GetTries())}} {
		if is.slot == s.GetName() {
			words = append(words, is.word)
		}
	}
	return strings.Join(words, ", ")
}

// imageOf is what a slot holds, in words.
func imageOf(s interface {
	GetVersion() string
	GetKubernetes() string
}) string {
	switch {
	case s.GetVersion() == "":
		return "empty"
	case s.GetKubernetes() == "":
		return s.GetVersion() + ", Kubernetes not recorded"
	}
	return s.GetVersion() + ", Kubernetes " + s.GetKubernetes()
}
