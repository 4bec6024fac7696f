package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
	"slipway/configs/cluster"
	"slipway/configs/enroll"
)

// pollInterval is how often --wait looks.
const pollInterval = time.Second

// waitFlags are what a person may say to commands that ask before they begin
// and may wait for the end.
type waitFlags struct {
	yes, wait bool
	timeout   time.Duration
}

// register adds the flags; until is what --wait waits for, in words. What the
// fields hold is their default.
func (f *waitFlags) register(cmd *cobra.Command, until string, timeout time.Duration) {
	flags := cmd.Flags()
	flags.BoolVarP(&f.yes, "yes", "y", false, "do not ask")
	flags.BoolVar(&f.wait, "wait", f.wait, until)
	flags.DurationVar(&f.timeout, "timeout", timeout, "how long --wait waits")
}

// await waits if a person wants that, and otherwise says where to look.
func (f *waitFlags) await(cmd *cobra.Command, c *client.Client, cluster string, wait func(context.Context, *waiting) error) error {
	if !f.wait {
		return pointToStatus(cmd, cluster)
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	return wait(ctx, newWaiting(cmd, c, f.timeout))
}

func pointToStatus(cmd *cobra.Command, cluster string) error {
	fmt.Fprintf(cmd.ErrOrStderr(), "See how it goes: slipway cluster status %s\n", cluster)
	return nil
}

// waiting follows machines until something is true of them. It prints a line
// for each change on the way.
type waiting struct {
	*client.Client
	command context.Context // ends when a person interrupts, and not at the deadline
	timeout time.Duration
	out     io.Writer
	start   time.Time
	last    map[string]string // what was printed last, by machine; of none, what is missing
	only    string            // the machine that is waited for, by its ID; empty: all
}

func newWaiting(cmd *cobra.Command, c *client.Client, timeout time.Duration) *waiting {
	return &waiting{Client: c, command: cmd.Context(), timeout: timeout, out: cmd.OutOrStdout(), start: time.Now(), last: map[string]string{}}
}

// forMachines waits until plan finds enough machines.
func (w *waiting) forMachines(ctx context.Context, plan func([]*bootv1.Machine) (*cluster.Cluster, error)) (doc *cluster.Cluster, err error) {
	var short error
	err = w.until(ctx, func() (bool, error) {
		answer, err := w.Inventory.ListMachines(ctx, connect.NewRequest(&bootv1.ListMachinesRequest{}))
		if err != nil {
			return false, err
		}
		w.show(answer.Msg.GetMachines())
		if doc, short = plan(answer.Msg.GetMachines()); errors.Is(short, errTooFew) {
			w.showShort(short.Error())
			return false, nil
		}
		return short == nil, short
	})
	if errors.Is(err, errDeadline) && short != nil {
		return nil, fmt.Errorf("%w: after %v, %w", errDeadline, w.timeout, short)
	}
	return doc, err
}

// forReady waits until every machine of a cluster is Ready.
func (w *waiting) forReady(ctx context.Context, name string) error {
	var latest *bootv1.Cluster
	err := w.until(ctx, func() (bool, error) {
		now, err := getCluster(ctx, w.Client, name)
		if err != nil {
			return false, err
		}
		latest = w.narrow(now)
		w.show(latest.GetMachines())
		return len(latest.GetMachines()) > 0 && len(notReady(latest)) == 0, nil
	})
	switch {
	case errors.Is(err, errDeadline):
		return missed(latest, w.timeout)
	case err != nil:
		return err
	}
	if w.only != "" {
		_, err = fmt.Fprintf(w.out, "%s of cluster %s is Ready.\n", latest.GetMachines()[0].GetHostname(), name)
		return err
	}
	_, err = fmt.Fprintf(w.out, "Cluster %s is Ready. Use it: slipway cluster kubeconfig %s --file kubeconfig\n", name, name)
	return err
}

// narrow leaves of a cluster what is waited for.
func (w *waiting) narrow(c *bootv1.Cluster) *bootv1.Cluster {
	if w.only != "" {
		c.Machines = slices.DeleteFunc(c.GetMachines(), func(m *bootv1.Machine) bool { return m.GetId() != w.only })
	}
	return c
}

// until looks, once a second, until look is done or fails, or ctx ends. A boot
// service that does not answer for a while is waited for too.
func (w *waiting) until(ctx context.Context, look func() (bool, error)) error {
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	for {
		done, err := look()
		if done || err != nil && !passing(err) {
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			if w.command.Err() != nil {
				return errors.New("interrupted; what was begun goes on without this command")
			}
			if err != nil {
				return fmt.Errorf("%w: after %v, %w", errDeadline, w.timeout, err)
			}
			return fmt.Errorf("%w: after %v", errDeadline, w.timeout)
		}
	}
}

// passing says that an error may be gone at the next try: the boot service is
// being restarted.
func passing(err error) bool {
	switch connect.CodeOf(err) {
	case connect.CodeUnavailable, connect.CodeDeadlineExceeded, connect.CodeCanceled:
		return true
	}
	return false
}

// missed names who is not Ready.
func missed(c *bootv1.Cluster, timeout time.Duration) error {
	var reasons []string
	for _, m := range notReady(c) {
		reasons = append(reasons, fmt.Sprintf("%s (%s) is %s and waits for %s", m.GetHostname(), m.GetId(), orUnseen(m.GetPhase()), orNothing(m.GetWaitingFor())))
	}
	if len(reasons) == 0 {
		reasons = []string{"the boot service did not answer"}
	}
	return fmt.Errorf("%w: after %v, %s; see slipway machines timeline MACHINE", errDeadline, timeout, strings.Join(reasons, "; "))
}

// notReady are the machines that are not, or that cannot be known to be any more.
func notReady(c *bootv1.Cluster) (missing []*bootv1.Machine) {
	for _, m := range c.GetMachines() {
		if m.GetPhase() != string(enroll.Ready) || m.GetLate() {
			missing = append(missing, m)
		}
	}
	return missing
}

func orUnseen(phase string) string {
	if phase == "" {
		return "not seen yet"
	}
	return phase
}

func orNothing(waitingFor string) string {
	if waitingFor == "" {
		return "nothing that it named"
	}
	return waitingFor
}

// showShort prints what is missing when it differs from the last time: machines
// that were never seen have no line of their own.
func (w *waiting) showShort(missing string) {
	if w.last[""] == missing {
		return
	}
	w.last[""] = missing
	fmt.Fprintf(w.out, "%6.1fs  %s\n", time.Since(w.start).Seconds(), missing)
}

// show prints a machine's state when it differs from the last one.
func (w *waiting) show(machines []*bootv1.Machine) {
	for _, m := range machines {
		state := orUnseen(m.GetPhase())
		if m.GetWaitingFor() != "" {
			state += ", waits for " + m.GetWaitingFor()
		}
		if w.last[m.GetId()] == state {
			continue
		}
		w.last[m.GetId()] = state
		name := m.GetHostname()
		if name == "" {
			name = m.GetId()
		}
		fmt.Fprintf(w.out, "%6.1fs  %s  %s\n", time.Since(w.start).Seconds(), name, state)
	}
}
