package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

// nodePort is where nodes serve their API.
const nodePort = "8444"

func nodeCommand() *cobra.Command {
	r := &remote{}
	cmd := &cobra.Command{
		Use: "node", Aliases: []string{"nodes"}, Short: "Look into a node, restart it, upgrade it, take it out of its cluster",
		Long: `Look into a node, restart it, upgrade it, take it out of its cluster.

NODE is an address, or a machine's ID or host name, which is then looked up at
the boot service. The node itself answers; the boot service need not.`,
	}
	r.register(cmd)
	cmd.AddCommand(
		nodeStatusCommand(r), nodeServicesCommand(r), nodeLogsCommand(r), nodeDmesgCommand(r),
		nodeRebootCommand(r), nodeUpgradeCommand(r), nodeRollbackCommand(r), nodeJoinCommand(r), nodeResetCommand(r),
	)
	return cmd
}

func nodeStatusCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "status NODE", Short: "Show what a node is and how it does", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			status, err := nodeStatus(cmd.Context(), r, args[0])
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), r.output, status, func(w io.Writer) { statusTable(w, status) })
		},
	}
}

func nodeServicesCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use: "services NODE", Aliases: []string{"units"}, Short: "List a node's units, their state and what they wait for", Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			status, err := nodeStatus(cmd.Context(), r, args[0])
			if err != nil {
				return err
			}
			return show(cmd.OutOrStdout(), r.output, &nodev1.StatusResponse{Units: status.GetUnits()}, func(w io.Writer) { unitTable(w, status.GetUnits()) })
		},
	}
}

func nodeStatus(ctx context.Context, r *remote, name string) (*nodev1.StatusResponse, error) {
	node, err := r.node(ctx, name)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	answer, err := node.Status(ctx, connect.NewRequest(&nodev1.StatusRequest{}))
	if err != nil {
		return nil, nodeError(name, err)
	}
	return answer.Msg, nil
}

func statusTable(w io.Writer, s *nodev1.StatusResponse) {
	row(w, "Hostname", s.GetHostname())
	row(w, "Role", s.GetRole())
	row(w, "Cluster", s.GetCluster())
	row(w, "Slipway", s.GetVersion())
	row(w, "Kernel", s.GetKernel())
	row(w, "Up for", (time.Duration(s.GetUptimeMs()) * time.Millisecond).Round(time.Second))
	row(w, "Memory", fmt.Sprintf("%s, %s of it available", size(s.GetMemoryTotal()), size(s.GetMemoryAvailable())))
	diskRows(w, s.GetSystemDisk())
	var well int
	var rest []*nodev1.Unit
	for _, u := range s.GetUnits() {
		if u.GetState() == "ready" || u.GetState() == "done" {
			well++
		} else {
			rest = append(rest, u)
		}
	}
	row(w, "Units", fmt.Sprintf("%d of %d ready", well, len(s.GetUnits())))
	for _, u := range rest {
		row(w, "  "+u.GetName(), strings.TrimSpace(u.GetState()+" "+reason(u)))
	}
}

// diskRows are the slots of an installed node.
func diskRows(w io.Writer, d *nodev1.SystemDisk) {
	if d == nil {
		row(w, "Runs from", "RAM")
		return
	}
	row(w, "Runs from", fmt.Sprintf("slot %s of %s", d.GetBooted(), d.GetPath()))
	for _, s := range d.GetSlots() {
		row(w, "  Slot "+s.GetName(), slotState(&bootv1.Slot{Name: s.GetName(), Version: s.GetVersion(), Kubernetes: s.GetKubernetes()},
			&bootv1.SystemDisk{Booted: d.GetBooted(), Good: d.GetGood(), Trying: d.GetTrying(), Tries: d.GetTries()}))
	}
	for _, said := range []struct{ what, text string }{
		{"  Good when", d.GetWaitingFor()}, {"  Last upgrade went back", d.GetFailure()}, {"  Last operation", d.GetOperation()},
		{"  Not known", d.GetProblem()},
	} {
		if said.text != "" {
			row(w, said.what, said.text)
		}
	}
}

func unitTable(w io.Writer, units []*nodev1.Unit) {
	now := time.Now()
	row(w, "UNIT", "STATE", "FOR", "RESTARTS", "PID", "MEMORY", "CPU", "WAITING FOR")
	for _, u := range units {
		pid := ""
		if u.GetPid() != 0 {
			pid = fmt.Sprint(u.GetPid())
		}
		row(w, u.GetName(), u.GetState(), now.Sub(u.GetSince().AsTime()).Round(time.Second), u.GetRestarts(), pid, size(u.GetMemory()), (time.Duration(u.GetCpuMs()) * time.Millisecond).Round(100*time.Millisecond), reason(u))
	}
}

// reason says, in one short line, what a unit waits for and what became of it
// last. Of a unit that is well it says nothing.
func reason(u *nodev1.Unit) string {
	if u.GetState() == "ready" || u.GetState() == "done" {
		return ""
	}
	var parts []string
	for _, part := range []string{u.GetWaitingFor(), u.GetLastError()} {
		if part = strings.Join(strings.Fields(part), " "); part != "" {
			parts = append(parts, part)
		}
	}
	return shorten(strings.Join(parts, "; "))
}

// node opens a node's API.
func (r *remote) node(ctx context.Context, name string) (nodev1connect.NodeServiceClient, error) {
	web, base, err := r.nodeHTTP(ctx, name)
	if err != nil {
		return nil, err
	}
	return nodev1connect.NewNodeServiceClient(web, base), nil
}

// nodeHTTP is the way to a node's API. It connects when it is first used.
func (r *remote) nodeHTTP(ctx context.Context, name string) (web *http.Client, base string, err error) {
	if err := checkOutput(r.output); err != nil {
		return nil, "", err
	}
	identity, err := client.Load(r.contextFile)
	if err != nil {
		return nil, "", err
	}
	host, port, err := nodeAddress(ctx, identity, name)
	if err != nil {
		return nil, "", err
	}
	config, err := identity.TLS(host)
	if err != nil {
		return nil, "", err
	}
	dialer := &net.Dialer{Timeout: 5 * time.Second}
	transport := &http.Transport{DialContext: dialer.DialContext, TLSClientConfig: config, ForceAttemptHTTP2: true}
	return &http.Client{Transport: transport}, "https://" + net.JoinHostPort(host, port), nil
}

// nodeAddress finds where a node is: in the name itself, or at the boot service.
func nodeAddress(ctx context.Context, identity client.Context, name string) (host, port string, err error) {
	if addr, err := netip.ParseAddrPort(name); err == nil {
		return addr.Addr().String(), fmt.Sprint(addr.Port()), nil
	}
	if addr, err := netip.ParseAddr(name); err == nil {
		return addr.String(), nodePort, nil
	}
	c, err := identity.New()
	if err != nil {
		return "", "", err
	}
	m, err := getMachine(ctx, c, name)
	if err != nil {
		return "", "", err
	}
	if m.GetAddress() == "" {
		return "", "", fmt.Errorf("machine %s has no address yet: it is %s and waits for %s", m.GetId(), m.GetPhase(), waitsFor(m))
	}
	return m.GetAddress(), nodePort, nil
}

func waitsFor(m *bootv1.Machine) string {
	if m.GetWaitingFor() == "" {
		return "nothing that is known"
	}
	return m.GetWaitingFor()
}

// errUnreachable says that a node did not answer.
var errUnreachable = errors.New("not reachable")

// nodeError says which node an error is about.
func nodeError(name string, err error) error {
	var answer *connect.Error
	switch {
	case err == nil:
		return nil
	case errors.As(err, &answer) && (answer.Code() == connect.CodeUnavailable || answer.Code() == connect.CodeDeadlineExceeded):
		return fmt.Errorf("node %s is %w: %s; see `slipway machines list` for what it does", name, errUnreachable, answer.Message())
	}
	return fmt.Errorf("ask node %s: %w", name, err)
}
