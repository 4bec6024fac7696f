package main

import (
	"fmt"
	"io"
	"slices"
	"time"

	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
)

func machinesTimelineCommand(r *remote) *cobra.Command {
	var all bool
	cmd := &cobra.Command{
		Use:   "timeline [MACHINE]",
		Short: "Show a machine's latest boot, phase by phase",
		Long: `Show a machine's latest boot, phase by phase: when it reached each one, and how
long that took since the one before. With --all, every event there is.`,
		Args: cobra.MaximumNArgs(1),
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			m, err := getMachine(cmd.Context(), c, optional(args))
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), r.output, m, func(w io.Writer) { timelineTable(w, m.GetTimeline(), all) })
		}),
	}
	cmd.Flags().BoolVar(&all, "all", false, "every event and not only each phase's first")
	return cmd
}

func timelineTable(w io.Writer, events []*bootv1.Event, all bool) {
	if !all {
		events = milestones(events)
	}
	row(w, "PHASE", "AT", "TOOK", "DETAIL")
	for i, e := range events {
		var took time.Duration
		if i > 0 {
			took = between(events[i-1], e)
		}
		row(w, phaseName(e.GetName()), seconds(between(events[0], e)), seconds(took), e.GetDetail())
	}
	if len(events) > 1 {
		row(w, "total", seconds(between(events[0], events[len(events)-1])), "", "")
	}
}

// milestones are the first event of each name. A boot ends when the machine is
// ready: what it does afterwards is its life.
func milestones(events []*bootv1.Event) (first []*bootv1.Event) {
	for _, e := range events {
		if !slices.ContainsFunc(first, func(known *bootv1.Event) bool { return known.GetName() == e.GetName() }) {
			first = append(first, e)
		}
		if e.GetName() == "ready" {
			break
		}
	}
	return first
}

func between(a, b *bootv1.Event) time.Duration {
	return b.GetTime().AsTime().Sub(a.GetTime().AsTime())
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.1fs", d.Seconds()) }

// phaseName writes abbreviations as people do.
func phaseName(name string) string {
	switch name {
	case "dhcp":
		return "DHCP"
	case "tftp":
		return "TFTP"
	case "http":
		return "HTTP"
	case "ready":
		return "Ready"
	}
	return name
}
