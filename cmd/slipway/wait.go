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
	"slipway/configs/enroll"
)

// pollInterval is how often --wait looks.
const pollInterval = time.Second

// waitReady prints a line for each change until every machine is Ready, or the
// deadline: then its error names who is missing and what they wait for.
func waitReady(cmd *cobra.Command, c *client.Client, name string, timeout time.Duration) error {
	ctx, cancel := context.WithTimeout(cmd.Context(), timeout)
	defer cancel()
	progress := progress{w: cmd.OutOrStdout(), start: time.Now(), last: map[string]string{}}
	ticker := time.NewTicker(pollInterval)
	defer ticker.Stop()
	var latest *bootv1.Cluster
	for {
		answer, err := c.Clusters.GetCluster(ctx, connect.NewRequest(&bootv1.GetClusterRequest{Name: name}))
		switch {
		case err == nil:
			latest = answer.Msg.GetCluster()
			progress.show(latest)
			if len(notReady(latest)) == 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "Cluster %s is Ready. Use it: slipway cluster kubeconfig %s --file kubeconfig\n", name, name)
				return nil
			}
		case ctx.Err() == nil && !passing(err):
			return err
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return missed(cmd.Context(), latest, timeout)
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
func missed(ctx context.Context, c *bootv1.Cluster, timeout time.Duration) error {
	if ctx.Err() != nil {
		return errors.New("interrupted; the cluster goes on without this command")
	}
	var reasons []string
	for _, m := range notReady(c) {
		reasons = append(reasons, fmt.Sprintf("%s (%s) is %s and waits for %s", m.GetHostname(), m.GetId(), orUnseen(m.GetPhase()), orNothing(m.GetWaitingFor())))
	}
	if len(reasons) == 0 {
		reasons = []string{"the boot service did not answer"}
	}
	return fmt.Errorf("%w: after %v, %s; see slipway machines timeline MACHINE", errDeadline, timeout, strings.Join(reasons, "; "))
}

func notReady(c *bootv1.Cluster) (missing []*bootv1.Machine) {
	for _, m := range c.GetMachines() {
		if m.GetPhase() != string(enroll.Ready) {
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

// progress prints a machine's state when it differs from the last one.
type progress struct {
	w     io.Writer
	start time.Time
	last  map[string]string
}

func (p *progress) show(c *bootv1.Cluster) {
	for _, m := range c.GetMachines() {
		state := orUnseen(m.GetPhase())
		if m.GetWaitingFor() != "" {
			state += ", waits for " + m.GetWaitingFor()
		}
		if p.last[m.GetId()] == state {
			continue
		}
		p.last[m.GetId()] = state
		fmt.Fprintf(p.w, "%6.1fs  %s  %s\n", time.Since(p.start).Seconds(), m.GetHostname(), state)
	}
}
