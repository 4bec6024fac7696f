package main

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"

	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

// etcdAnswer is what a node said of its member, or why it did not.
type etcdAnswer struct {
	node   etcdNode
	status *nodev1.EtcdStatusResponse // never nil
	err    error
}

func (a etcdAnswer) leads() bool {
	return a.err == nil && a.status.GetMemberId() != "" && a.status.GetMemberId() == a.status.GetLeaderId()
}

// statusOf asks all nodes at once. The answers are in the nodes' order.
func statusOf(ctx context.Context, nodes []etcdNode) []etcdAnswer {
	answers := make([]etcdAnswer, len(nodes))
	var all sync.WaitGroup
	for i, n := range nodes {
		all.Go(func() {
			status, err := once(ctx, etcdCall, n, func(ctx context.Context, e nodev1connect.EtcdServiceClient) (*connect.Response[nodev1.EtcdStatusResponse], error) {
				return e.Status(ctx, connect.NewRequest(&nodev1.EtcdStatusRequest{}))
			})
			if err != nil {
				status = &nodev1.EtcdStatusResponse{Name: n.name, WaitingFor: explain(err)}
			}
			answers[i] = etcdAnswer{n, status, err}
		})
	}
	all.Wait()
	return answers
}

func etcdStatusCommand(r *etcdRemote) *cobra.Command {
	return &cobra.Command{
		Use: "status [NODE...]", Short: "Show how each member does",
		Long: `Show how each member does.

FSYNC P99 is how long the member's disk takes to keep a write, RTT the way to the
slowest other member and back: heartbeat and election timeouts come from these.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			nodes, err := r.nodes(cmd.Context(), args)
			if err != nil {
				return err
			}
			answers := statusOf(cmd.Context(), nodes)
			var messages []proto.Message
			for _, a := range answers {
				messages = append(messages, a.status)
			}
			if err := showList(cmd.OutOrStdout(), r.output, messages, func(w io.Writer) { etcdStatusTable(w, answers) }); err != nil {
				return err
			}
			if i := slices.IndexFunc(answers, func(a etcdAnswer) bool { return a.err == nil }); i < 0 {
				return fmt.Errorf("no member answers: %w", answers[0].err)
			}
			return nil
		},
	}
}

func etcdStatusTable(w io.Writer, answers []etcdAnswer) {
	row(w, "NAME", "ID", "LEADER", "LEARNER", "TERM", "INDEX", "REVISION", "DB SIZE", "IN USE", "FSYNC P99", "RTT", "ALARMS", "WAITING FOR")
	for _, a := range answers {
		s := a.status
		row(w, s.GetName(), s.GetMemberId(), tick(a.leads()), tick(s.GetLearner()),
			number(s.GetRaftTerm()), number(s.GetRaftIndex()), number(uint64(s.GetRevision())),
			megabytes(s.GetDbSize()), megabytes(s.GetDbInUse()), micros(s.GetFsyncP99Us()), micros(s.GetRoundTripUs()),
			commas(s.GetAlarms()), shorten(s.GetWaitingFor()))
	}
}

// showList is show for a list of messages.
func showList(w io.Writer, format string, messages []proto.Message, table func(io.Writer)) error {
	list := &structpb.ListValue{}
	for _, m := range messages {
		text, err := protojson.MarshalOptions{UseProtoNames: true, EmitDefaultValues: true}.Marshal(m)
		if err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
		var value any
		if err := json.Unmarshal(text, &value); err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
		item, err := structpb.NewValue(value)
		if err != nil {
			return fmt.Errorf("encode answer: %w", err)
		}
		list.Values = append(list.Values, item)
	}
	return show(w, format, list, table)
}

func etcdDefragCommand(r *etcdRemote) *cobra.Command {
	return &cobra.Command{
		Use: "defrag [NODE...]", Short: "Give the members' free pages back, one member after the other",
		Long: `Give the members' free pages back, one member after the other, the leader last.

A member answers nobody meanwhile. It happens by itself where it is worth it.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			nodes, err := r.nodes(cmd.Context(), args)
			if err != nil {
				return err
			}
			answers := statusOf(cmd.Context(), nodes)
			for _, a := range answers {
				if a.err != nil { // with another member away, one that answers nobody may cost the quorum
					return fmt.Errorf("nothing was done, since a member does not answer: %w", a.err)
				}
			}
			for _, a := range leaderLast(answers) {
				if err := defrag(cmd, r, a); err != nil {
					return err
				}
			}
			return nil
		},
	}
}

// leaderLast is an order in which leadership moves at most once.
func leaderLast(answers []etcdAnswer) []etcdAnswer {
	sorted := slices.Clone(answers)
	slices.SortStableFunc(sorted, func(a, b etcdAnswer) int {
		switch {
		case a.leads() == b.leads():
			return 0
		case a.leads():
			return 1
		}
		return -1
	})
	return sorted
}

func defrag(cmd *cobra.Command, r *etcdRemote, a etcdAnswer) error {
	const most = 5 * time.Minute // a database of 8 GiB on a slow disk
	ctx, cancel := context.WithTimeout(cmd.Context(), most)
	defer cancel()
	answer, err := a.node.etcd.Defrag(ctx, connect.NewRequest(&nodev1.EtcdDefragRequest{}))
	if err != nil {
		return nodeError(a.node.name, err)
	}
	return show(cmd.OutOrStdout(), r.output, answer.Msg, func(w io.Writer) {
		fmt.Fprintf(w, "%s: from %s to %s\n", a.status.GetName(), megabytes(answer.Msg.GetBefore()), megabytes(answer.Msg.GetAfter()))
	})
}

// Cells of a table; what is not known is empty.

func tick(yes bool) string {
	if yes {
		return "yes"
	}
	return ""
}

func number(n uint64) string {
	if n == 0 {
		return ""
	}
	return fmt.Sprint(n)
}

func megabytes(bytes int64) string {
	switch {
	case bytes > 0 && bytes < 1<<10:
		return fmt.Sprintf("%d bytes", bytes)
	case bytes > 0 && bytes < 1<<20:
		return fmt.Sprintf("%d KiB", bytes>>10)
	}
	return size(uint64(bytes))
}

func micros(us int64) string {
	if us == 0 {
		return ""
	}
	return (time.Duration(us) * time.Microsecond).Round(10 * time.Microsecond).String()
}

func commas(list []string) string { return strings.Join(list, ",") }

// shorten makes a text one short line.
func shorten(text string) string {
	runes := []rune(strings.Join(strings.Fields(text), " "))
	const most = 100
	if len(runes) > most {
		return string(runes[:most]) + "..."
	}
	return string(runes)
}
