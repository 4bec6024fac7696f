package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
)

func caCommand() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use:   "ca",
		Short: "Show and replace the boot service's own CA",
		Long: `Show and replace the boot service's own CA, which signs the certificates of
machines, of people and of the boot service. A cluster's CAs are its own: see
slipway cluster rotate-ca.`,
	}
	r.register(cmd)
	cmd.AddCommand(caStatusCommand(r), caRotateCommand(r), caRetireCommand(r), caIssueCommand(r))
	return cmd
}

func caStatusCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show the CA, its rotation, and who is waited for",
		Args:  cobra.NoArgs,
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			ca, err := getAuthority(cmd.Context(), c)
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), r.output, ca, func(w io.Writer) { authorityTable(w, ca, time.Now()) })
		}),
	}
}

func getAuthority(ctx context.Context, c *client.Client) (*bootv1.Authority, error) {
	answer, err := c.Authority.GetAuthority(ctx, connect.NewRequest(&bootv1.GetAuthorityRequest{}))
	if err != nil {
		return nil, err
	}
	return answer.Msg.GetAuthority(), nil
}

func authorityTable(w io.Writer, ca *bootv1.Authority, now time.Time) {
	row(w, "CA", "UNTIL", "ROTATION", "SINCE")
	since := ""
	if ca.GetPhase() != "" {
		since = ago(ca.GetSince().AsTime(), now)
	}
	row(w, fmt.Sprintf("%.16s", ca.GetHash()), ca.GetUntil().AsTime().Format(time.DateOnly), ca.GetPhase(), since)
	if len(ca.GetWaiting()) == 0 {
		return
	}
	fmt.Fprintln(w)
	row(w, "WHO", "WAITED FOR", "OTHERWISE")
	for _, h := range ca.GetWaiting() {
		row(w, h.GetName(), h.GetWaitingFor(), h.GetAfter())
	}
	if ca.GetPhase() == "use" {
		fmt.Fprint(w, "\nslipway ca retire goes on without them.\n")
	}
}

func caRotateCommand(r *remote) *cobra.Command {
	var f waitFlags
	cmd := &cobra.Command{
		Use:   "rotate",
		Short: "Replace the boot service's CA while everything runs",
		Long: `Replace the boot service's CA while everything runs.
A rotation goes on by itself, phase by phase, whether or not this command waits
for it; see slipway ca status. The same command again begins nothing new.`,
		Example: "  slipway ca rotate --wait",
		Args:    cobra.NoArgs,
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			now, err := getAuthority(cmd.Context(), c)
			if err != nil {
				return err
			}
			if now.GetPhase() == "" {
				explainCARotation(cmd.ErrOrStderr())
				if err := agree(cmd, f.yes, "Begin?"); err != nil {
					return err
				}
				if _, err := c.Authority.RotateAuthority(cmd.Context(), connect.NewRequest(&bootv1.RotateAuthorityRequest{})); err != nil {
					return err
				}
			}
			return f.awaitCA(cmd, c)
		}),
	}
	f.register(cmd, "wait until the old one has retired, and show the phases as they pass", time.Hour)
	return cmd
}

// explainCARotation says what a person agrees to.
func explainCARotation(out io.Writer) {
	fmt.Fprint(out, `The boot service gets another CA, in three phases:
  trust   both are trusted, the old one signs
  use     the new one signs; machines, and people's contexts whenever they are used, get new certificates
  retire  the old one is trusted no more
Each begins when nobody is waited for in the one before. Nothing is down meanwhile, and no machine restarts.
Who is off or does not use a context holds up the last phase, until slipway ca retire goes on without:
  a machine then comes back by its machine key
  a context is refused then: slipway ca issue makes another; admin.yaml in the boot service's data folder is always good
Copies of ca.pem, in a monitoring system or a CI, are to be replaced in phase use.
`)
}

func caRetireCommand(r *remote) *cobra.Command {
	var f waitFlags
	cmd := &cobra.Command{
		Use:   "retire",
		Short: "Have the old CA retire though not everybody has renewed",
		Long: `Have the old CA retire though not everybody has renewed: a machine that is off, a
person who has not used a context.`,
		Args: cobra.NoArgs,
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, _ []string) error {
			now, err := getAuthority(cmd.Context(), c)
			if err != nil {
				return err
			}
			for _, h := range now.GetWaiting() {
				fmt.Fprintf(cmd.ErrOrStderr(), "%s has not renewed: %s\n", h.GetName(), h.GetAfter())
			}
			if err := agree(cmd, f.yes, "Go on without?"); err != nil {
				return err
			}
			if _, err := c.Authority.RetireAuthority(cmd.Context(), connect.NewRequest(&bootv1.RetireAuthorityRequest{})); err != nil {
				return err
			}
			return f.awaitCA(cmd, c)
		}),
	}
	f.register(cmd, "wait until it has retired", time.Hour)
	return cmd
}

// awaitCA waits if a person wants that, and otherwise says where to look.
func (f *waitFlags) awaitCA(cmd *cobra.Command, c *client.Client) error {
	if !f.wait {
		fmt.Fprintln(cmd.ErrOrStderr(), "See how it goes: slipway ca status")
		return nil
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), f.timeout)
	defer cancel()
	return newWaiting(cmd, c, f.timeout).forCA(ctx)
}

// forCA waits until the CA is not being rotated, and shows the phases.
func (w *waiting) forCA(ctx context.Context) error {
	latest := &bootv1.Authority{}
	err := w.until(ctx, func() (bool, error) {
		now, err := getAuthority(ctx, w.Client)
		if err != nil {
			return false, err
		}
		latest = now
		w.showCA(now)
		return now.GetPhase() == "", nil
	})
	if !errors.Is(err, errDeadline) {
		return err
	}
	return fmt.Errorf("%w: after %v, the CA is in phase %s and waits for %s; it goes on by itself, see slipway ca status",
		errDeadline, w.timeout, latest.GetPhase(), orNothing(strings.Join(holders(latest), "; ")))
}

func holders(ca *bootv1.Authority) (texts []string) {
	for _, h := range ca.GetWaiting() {
		texts = append(texts, h.GetName()+": "+h.GetWaitingFor())
	}
	return texts
}

// showCA prints the phase when it has changed, with whom it waits for.
func (w *waiting) showCA(ca *bootv1.Authority) {
	state := "done"
	if ca.GetPhase() != "" {
		state = ca.GetPhase()
	}
	if waits := holders(ca); len(waits) > 0 {
		state += ", waits for " + strings.Join(waits, "; ")
	}
	if w.last["ca"] == state {
		return
	}
	w.last["ca"] = state
	fmt.Fprintf(w.out, "%6.1fs  ca  %s\n", time.Since(w.start).Seconds(), state)
}
