package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
	"slipway/configs/enroll"
)

func machinesCommand() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{Use: "machines", Aliases: []string{"machine"}, Short: "Show, approve and install the machines that have booted"}
	r.register(cmd)
	cmd.AddCommand(machinesListCommand(r), machinesShowCommand(r), machinesApproveCommand(r), machinesTimelineCommand(r), machinesWipeCommand(r), machinesBootCommand(r), machinesForgetCommand(r))
	return cmd
}

func machinesListCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "list",
		Short: "List all machines in the order of their discovery",
		Args:  cobra.NoArgs,
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			answer, err := c.Inventory.ListMachines(cmd.Context(), connect.NewRequest(&bootv1.ListMachinesRequest{}))
			if err != nil {
				return err
			}
			machines := answer.Msg.GetMachines()
			if len(machines) == 0 && r.output == "table" {
				fmt.Fprintln(cmd.ErrOrStderr(), "No machine yet. Power one on, with network boot first, on the boot service's network.")
				return nil
			}
			return show(cmd.OutOrStdout(), r.output, answer.Msg, func(w io.Writer) {
				row(w, "ID", "PHASE", "ADDRESS", "HOSTNAME", "ROLE", "CLUSTER", "WORDS", "WAITING FOR")
				for _, m := range machines {
					row(w, m.GetId(), m.GetPhase(), m.GetAddress(), m.GetHostname(), m.GetRole(), m.GetCluster(), m.GetWords(), m.GetWaitingFor())
				}
			})
		}),
	}
}

func machinesShowCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "show [MACHINE]",
		Short: "Show what is known of a machine, by its ID or host name",
		Args:  cobra.MaximumNArgs(1),
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			m, err := getMachine(cmd.Context(), c, optional(args))
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), r.output, m, func(w io.Writer) { machineTable(w, m) })
		}),
	}
}

func machineTable(w io.Writer, m *bootv1.Machine) {
	f := m.GetFacts()
	row(w, "ID", m.GetId())
	row(w, "Phase", m.GetPhase())
	row(w, "Waiting for", m.GetWaitingFor())
	row(w, "Address", m.GetAddress())
	row(w, "Words", m.GetWords())
	row(w, "Cluster", m.GetCluster())
	row(w, "Hostname", m.GetHostname())
	row(w, "Role", m.GetRole())
	row(w, "Last seen", lastSeen(m))
	row(w, "Hardware", strings.TrimSpace(f.GetVendor()+" "+f.GetProduct()))
	row(w, "Serial", f.GetSerial())
	row(w, "UUID", f.GetUuid())
	row(w, "Firmware", strings.TrimSpace(f.GetFirmware()+" "+f.GetArch()))
	row(w, "CPUs", f.GetCpus())
	row(w, "Memory", size(f.GetMemory()))
	for _, n := range f.GetNics() {
		row(w, "Network card", strings.Join([]string{n.GetName(), n.GetMac(), n.GetDriver()}, " "))
	}
	for _, d := range f.GetDisks() {
		row(w, "Disk", strings.TrimSpace(strings.Join([]string{d.GetName(), enroll.DiskSize(d.GetSize()), d.GetModel()}, " ")))
	}
	installationTable(w, m)
}

func lastSeen(m *bootv1.Machine) string { return ago(m.GetLastSeen().AsTime(), time.Now()) }

func machinesApproveCommand(r *remote) *cobra.Command {
	var words string
	var yes bool
	cmd := &cobra.Command{
		Use:   "approve MACHINE",
		Short: "Approve a machine's key after comparing four words with its console",
		Long: `Approve a machine's key.

The machine's console shows four words; they are made of its key and of the CA
that it trusts. If they are the same here, nobody stands in between. The command
shows the words and asks; --words gives what the console shows, and --yes
approves without comparing.`,
		Args: cobra.ExactArgs(1),
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			m, err := getMachine(cmd.Context(), c, args[0])
			if err != nil {
				return err
			}
			if words == "" {
				if words, err = compareWords(cmd, m, yes); err != nil {
					return err
				}
			}
			return approve(cmd, r, c, m.GetId(), words)
		}),
	}
	cmd.Flags().StringVar(&words, "words", "", "the four words on the machine's console")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "approve without comparing the words")
	return cmd
}

// compareWords asks whether the console shows the words that are known here.
func compareWords(cmd *cobra.Command, m *bootv1.Machine, yes bool) (string, error) {
	if m.GetWords() == "" {
		return "", fmt.Errorf("machine %s has not enrolled yet: it is %s and waits for %s", m.GetId(), m.GetPhase(), m.GetWaitingFor())
	}
	if yes {
		return m.GetWords(), nil
	}
	agreed, err := confirm(cmd, fmt.Sprintf("Machine %s: %s\nDoes its console show the same words?", m.GetId(), m.GetWords()))
	if err != nil {
		return "", err
	}
	if !agreed {
		return "", fmt.Errorf("not approved: if the words differ, somebody stands between %s and this boot service", m.GetId())
	}
	return m.GetWords(), nil
}

func approve(cmd *cobra.Command, r *remote, c *client.Client, id, words string) error {
	answer, err := c.Inventory.Approve(cmd.Context(), connect.NewRequest(&bootv1.ApproveRequest{Id: id, Words: words}))
	if err != nil {
		return err
	}
	m := answer.Msg.GetMachine()
	return show(cmd.OutOrStdout(), r.output, m, func(w io.Writer) {
		fmt.Fprintf(w, "Approved %s. It is %s and waits for %s.\n", m.GetId(), m.GetPhase(), m.GetWaitingFor())
	})
}

// confirm asks a question that yes answers. Without an answer it is an error.
func confirm(cmd *cobra.Command, question string) (bool, error) {
	fmt.Fprintf(cmd.ErrOrStderr(), "%s [yes/no] ", question)
	line, err := bufio.NewReader(cmd.InOrStdin()).ReadString('\n')
	if err != nil && line == "" {
		fmt.Fprintln(cmd.ErrOrStderr())
		return false, fmt.Errorf("%w: nobody answered; add --yes to go on without asking", errUsage)
	}
	switch strings.ToLower(strings.TrimSpace(line)) {
	case "y", "yes":
		return true, nil
	}
	return false, nil
}

// agree asks unless that was agreed to already. A no is an error.
func agree(cmd *cobra.Command, already bool, question string) error {
	if already {
		return nil
	}
	agreed, err := confirm(cmd, question)
	if err != nil {
		return err
	}
	if !agreed {
		return errors.New("nothing was changed")
	}
	return nil
}
