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
)

// rotateFlags are what a person may say to the commands that rotate.
type rotateFlags struct {
	waitFlags
}

func (f *rotateFlags) register(cmd *cobra.Command, timeout time.Duration) {
	f.waitFlags.register(cmd, "wait until the old one is retired, and show the phases as they pass", timeout)
}

// rotatable are the values of --ca, and what the API calls them.
var rotatable = map[string][]string{
	"kubernetes":  {"kubernetes-ca"},
	"etcd":        {"etcd-ca"},
	"front-proxy": {"front-proxy-ca"},
	"all":         {"kubernetes-ca", "etcd-ca", "front-proxy-ca"},
}

func clusterRotateCACommand(r *remote) *cobra.Command {
	var f rotateFlags
	var ca string
	cmd := &cobra.Command{
		Use:   "rotate-ca NAME --ca kubernetes|etcd|front-proxy|all",
		Short: "Replace a cluster's CAs while it runs",
		Long: `Replace a cluster's CAs while it runs.

A rotation goes on by itself, phase by phase, whether or not this command waits
for it; see slipway cluster status. The same command again begins nothing new.`,
		Example: "  slipway cluster rotate-ca prod --ca kubernetes --wait",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			what, known := rotatable[ca]
			if !known {
				return fmt.Errorf("%w: --ca %q; valid: kubernetes, etcd, front-proxy, all", errUsage, ca)
			}
			return f.run(cmd, r, args[0], what)
		},
	}
	f.register(cmd, time.Hour)
	cmd.Flags().StringVar(&ca, "ca", "", "which one: kubernetes, etcd, front-proxy, all")
	return cmd
}

func clusterRotateKeyCommand(r *remote) *cobra.Command {
	var f rotateFlags
	cmd := &cobra.Command{
		Use:   "rotate-encryption-key NAME",
		Short: "Replace the key that encrypts a cluster's Secrets in etcd",
		Long: `Replace the key that encrypts a cluster's Secrets in etcd, and write all of
them anew.

A rotation goes on by itself, phase by phase, whether or not this command waits
for it; see slipway cluster status. The same command again begins nothing new.`,
		Example: "  slipway cluster rotate-encryption-key prod --wait",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd, r, args[0], []string{"encryption-key"})
		},
	}
	f.register(cmd, time.Hour)
	return cmd
}

func clusterRotateAccountKeyCommand(r *remote) *cobra.Command {
	var f rotateFlags
	cmd := &cobra.Command{
		Use:   "rotate-service-account-key NAME",
		Short: "Replace the key that signs the tokens of a cluster's pods",
		Long: `Replace the key that signs the tokens of a cluster's service accounts, with which
pods speak to the API.

It takes a little more than a day: an hour until all who check tokens know the
new key, and 24 until the last pod has got another token. It goes on by itself,
phase by phase, whether or not this command waits for it; see slipway cluster
status. The same command again begins nothing new.`,
		Example: "  slipway cluster rotate-service-account-key prod",
		Args:    cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return f.run(cmd, r, args[0], []string{"service-account-key"})
		},
	}
	f.register(cmd, 26*time.Hour)
	return cmd
}

// run says what will happen, asks, begins the rotations, and waits if told to.
func (f *rotateFlags) run(cmd *cobra.Command, r *remote, name string, what []string) error {
	c, err := r.client()
	if err != nil {
		return err
	}
	now, err := getCluster(cmd.Context(), c, name)
	if err != nil {
		return err
	}
	if beginning := notUnderWay(now, what); len(beginning) > 0 {
		if err := f.begin(cmd, c, name, beginning); err != nil {
			return err
		}
	}
	return f.await(cmd, c, name, func(ctx context.Context, w *waiting) error { return w.forRotations(ctx, name, what) })
}

func (f *rotateFlags) begin(cmd *cobra.Command, c *client.Client, name string, what []string) error {
	explainRotation(cmd.ErrOrStderr(), name, what)
	if err := agree(cmd, f.yes, "Begin?"); err != nil {
		return err
	}
	for _, one := range what {
		_, err := c.Clusters.Rotate(cmd.Context(), connect.NewRequest(&bootv1.RotateRequest{Cluster: name, What: one}))
		if err != nil {
			return err
		}
	}
	return nil
}

// explainRotation says what a person agrees to.
func explainRotation(out io.Writer, name string, what []string) {
	kind := [3]string{
		"both are accepted, the old one signs",
		"the new one signs; every machine makes its certificates anew",
		"the old one is accepted no more",
	}
	switch what[0] {
	case "encryption-key":
		kind = [3]string{
			"every API server can read with both, and writes with the old one",
			"they write with the new one, and all Secrets are written anew",
			"the machines forget the old one; the boot service keeps it, for snapshots taken before",
		}
	case "service-account-key":
		kind = [3]string{
			"every API server accepts tokens of both, and signs with the old one; for an hour",
			"they sign with the new one; kubelets give all pods other tokens, within 24 hours",
			"tokens of the old one are accepted no more",
		}
	}
	fmt.Fprintf(out, "Cluster %s gets another %s, in three phases:\n", name, strings.Join(what, ", "))
	for i, phase := range []string{"trust", "use", "retire"} {
		fmt.Fprintf(out, "  %-7s %s\n", phase, kind[i])
	}
	fmt.Fprintln(out, "Each begins when every machine has taken the one before, one control plane at a time. Nothing is down meanwhile.")
	if slices.Contains(what, "kubernetes-ca") {
		fmt.Fprintf(out, `From phase use on,
  a kubeconfig issued before the rotation is good no more: issue another, slipway cluster kubeconfig %s
  pods that read the cluster's CA only when they start (client-go before 1.36) lose the API: restart them in phase trust
`, name)
	}
	if slices.Contains(what, "service-account-key") {
		fmt.Fprint(out, `From phase retire on,
  tokens in Secrets of type kubernetes.io/service-account-token are good no more: delete such a token in phase use, another is made
  tokens that were made by hand (kubectl create token) are good no more: make others in phase use
  pods that read their token only when they start lose the API: restart them in phase use
`)
	}
}

// notUnderWay are those of what that the cluster is not rotating already.
func notUnderWay(c *bootv1.Cluster, what []string) []string {
	return slices.DeleteFunc(slices.Clone(what), func(one string) bool { return rotationOf(c, one) != nil })
}

// rotationOf is the cluster's rotation of one kind, nil if none is under way.
func rotationOf(c *bootv1.Cluster, what string) *bootv1.Rotation {
	for _, r := range c.GetRotations() {
		if r.GetWhat() == what {
			return r
		}
	}
	return nil
}

// forRotations waits until none of what is under way, and shows the phases.
func (w *waiting) forRotations(ctx context.Context, name string, what []string) error {
	latest := &bootv1.Cluster{}
	err := w.until(ctx, func() (bool, error) {
		now, err := getCluster(ctx, w.Client, name)
		if err != nil {
			return false, err
		}
		latest = now
		for _, one := range what {
			w.showRotation(one, rotationOf(latest, one))
		}
		return len(notUnderWay(latest, what)) == len(what), nil
	})
	if !errors.Is(err, errDeadline) {
		return err
	}
	var reasons []string
	for _, r := range latest.GetRotations() {
		reasons = append(reasons, fmt.Sprintf("%s is in phase %s and waits for %s", r.GetWhat(), r.GetPhase(), orNothing(r.GetWaitingFor())))
	}
	if len(reasons) == 0 {
		reasons = []string{"the boot service did not answer"}
	}
	return fmt.Errorf("%w: after %v, %s; it goes on by itself, see slipway cluster status %s", errDeadline, w.timeout, strings.Join(reasons, "; "), name)
}

// showRotation prints a rotation when it has changed; one that is nil is done.
func (w *waiting) showRotation(what string, r *bootv1.Rotation) {
	state := "done"
	if r != nil {
		state = r.GetPhase()
		if r.GetWaitingFor() != "" {
			state += ", waits for " + r.GetWaitingFor()
		}
	}
	if w.last[what] == state {
		return
	}
	w.last[what] = state
	fmt.Fprintf(w.out, "%6.1fs  %s  %s\n", time.Since(w.start).Seconds(), what, state)
}

// rotationTable shows the rotations under way; nothing when there are none.
func rotationTable(w io.Writer, c *bootv1.Cluster, now time.Time) {
	if len(c.GetRotations()) == 0 {
		return
	}
	fmt.Fprintln(w)
	row(w, "ROTATION", "PHASE", "SINCE", "WAITING FOR")
	for _, r := range c.GetRotations() {
		row(w, r.GetWhat(), r.GetPhase(), ago(r.GetSince().AsTime(), now), r.GetWaitingFor())
	}
}
