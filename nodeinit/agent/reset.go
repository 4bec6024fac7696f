package agent

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"connectrpc.com/connect"

	"slipway/configs/machine"
	"slipway/configs/wipe"
	"slipway/controlplane/apiclient"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
	"slipway/nodeinit/proc"
)

// step is a part of a reset. Each may be done twice.
type step struct {
	name     string
	deadline time.Duration
	optional bool // its failure stops nothing
	skip     bool // it is not needed this time
	do       func(context.Context) error
}

// resetter takes the node out of its cluster and has the machine start anew. A
// machine that runs from RAM keeps nothing over that, and what an installed one
// keeps is wiped by PID 1 once nothing uses it: both come back with a new key, free.
type resetter struct {
	config  func() (*machine.Config, error) // nil: none yet
	etcd    nodev1connect.EtcdServiceClient
	pid1    nodev1connect.NodeServiceClient
	reports *reporter
	console *console
	retire  func(context.Context, *machine.Config) error // has the Node deleted

	installed bool       // it lives on a disk, which is wiped
	disk      systemDisk // that one
	under     operation[*nodev1.ResetStep]
}

// resetOrder is what a reset was asked for with.
type resetOrder struct {
	force bool     // go on though a step fails
	wipe  wipe.How // empty: metadata
	again bool     // it was cut short once the node had left its cluster
}

// run resets the machine, or watches if that is under way already, and tells
// of each step. A forced one begins anew after another has failed.
func (r *resetter) run(ctx context.Context, order resetOrder, tell func(*nodev1.ResetStep)) error {
	order.wipe = cmp.Or(order.wipe, wipe.Metadata)
	if !order.again {
		if err := r.check(order.wipe); err != nil { // while nothing is lost
			return err
		}
	}
	return r.under.run(ctx, order.force, func(tell func(*nodev1.ResetStep)) error { return r.do(ctx, order, tell) }, tell)
}

// check refuses a way of wiping that the machine's disk does not know.
func (r *resetter) check(how wipe.How) error {
	if !r.installed {
		return nil
	}
	return r.disk.CanWipe(how)
}

// do does the steps. The first that fails ends it, unless forced: what comes
// later does harm without it.
func (r *resetter) do(ctx context.Context, order resetOrder, tell func(*nodev1.ResetStep)) error {
	config, err := r.config()
	if err != nil {
		return err
	}
	for _, s := range r.steps(config, order) {
		if s.skip {
			continue
		}
		err := s.run(ctx)
		told := &nodev1.ResetStep{Name: s.name}
		if err != nil {
			told.Problem = err.Error()
			r.console.say("reset: %s: %v", s.name, err)
		} else {
			r.console.say("reset: %s: done", s.name)
		}
		tell(told)
		if err != nil && !order.force && !s.optional {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

func (s step) run(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.deadline)
	defer cancel()
	return s.do(ctx)
}

// steps are what a reset comes to on this machine: etcd first, since it may
// refuse, and nothing is lost then.
func (r *resetter) steps(config *machine.Config, order resetOrder) (list []step) {
	if config != nil && config.IsMember() && !order.again {
		list = append(list, step{name: "leave etcd", deadline: 2 * time.Minute, do: func(ctx context.Context) error {
			_, err := r.etcd.Leave(ctx, connect.NewRequest(&nodev1.EtcdLeaveRequest{Force: order.force}))
			return noMember(err)
		}})
	}
	if config != nil && othersRemain(config) && !order.again {
		list = append(list, step{name: "have the Node deleted", deadline: time.Minute, do: func(ctx context.Context) error {
			return r.retire(ctx, config)
		}})
	}
	return append(list,
		step{name: "note that the disk is to be wiped: " + string(order.wipe), deadline: 15 * time.Second, optional: true, skip: !r.installed, do: func(context.Context) error {
			return r.disk.NoteReset(order.wipe)
		}},
		step{name: "tell the boot service", deadline: 15 * time.Second, optional: true, do: func(ctx context.Context) error {
			r.reports.event(event{name: "resetting", at: r.reports.sinceBoot()})
			if r.installed {
				r.reports.wipe()
			}
			return r.reports.send(ctx)
		}},
		step{name: "stop all units and restart", deadline: 15 * time.Second, do: func(ctx context.Context) error {
			request := &nodev1.RebootRequest{}
			if r.installed {
				request.Wipe = string(order.wipe)
			}
			_, err := r.pid1.Reboot(ctx, connect.NewRequest(request))
			return err
		}},
	)
}

// resume goes on with a reset that was cut short: the node has left its cluster,
// and is about to be wiped.
func (r *resetter) resume(ctx context.Context, how wipe.How) error {
	r.console.say("the reset of this machine was cut short: it goes on")
	return r.untilGone(ctx, resetOrder{force: true, wipe: how, again: true})
}

// othersRemain says whether the machine has a Node and somebody stays who could
// delete it.
func othersRemain(config *machine.Config) bool {
	switch config.Role {
	case machine.Worker:
		return true
	case machine.ControlPlane:
		return len(config.Cluster.ControlPlanes) > 1
	}
	return false
}

// released is a reset because the cluster let the machine go. It returns only
// if that failed; then it is tried again. Quorum is not given up for it, unless
// a person has said so.
func (r *resetter) released(ctx context.Context, order resetOrder) error {
	r.console.say("the cluster let this machine go: it resets itself")
	return r.untilGone(ctx, order)
}

func (r *resetter) untilGone(ctx context.Context, order resetOrder) error {
	if err := r.run(ctx, order, func(*nodev1.ResetStep) {}); err != nil {
		r.reports.problem("its reset: " + err.Error())
		return fmt.Errorf("reset: %w", err)
	}
	<-ctx.Done() // PID 1 is stopping everything
	return ctx.Err()
}

// Reset resets the node and streams the steps. It goes on when the caller hangs up.
func (f forward) Reset(ctx context.Context, request *connect.Request[nodev1.ResetRequest], out *connect.ServerStream[nodev1.ResetStep]) error {
	how, err := wipe.Parse(request.Msg.Wipe)
	if err != nil {
		return connect.NewError(connect.CodeInvalidArgument, err)
	}
	err = f.reset.run(context.WithoutCancel(ctx), resetOrder{force: request.Msg.Force, wipe: how}, func(s *nodev1.ResetStep) { _ = out.Send(s) })
	if err != nil {
		return connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return nil
}

// CheckReset refuses what Reset would refuse, and does nothing.
func (f forward) CheckReset(_ context.Context, request *connect.Request[nodev1.CheckResetRequest]) (*connect.Response[nodev1.CheckResetResponse], error) {
	how, err := wipe.Parse(request.Msg.Wipe)
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	if err := f.reset.check(how); err != nil {
		return nil, connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return connect.NewResponse(&nodev1.CheckResetResponse{}), nil
}

// lookAtNode is how often a machine that leaves looks whether its Node is gone.
const lookAtNode = 500 * time.Millisecond

// retireNode has the machine's Node deleted. A node may not do that itself
// (kubernetes.io/docs/reference/access-authn-authz/admission-controllers,
// NodeRestriction), but it may label its own object: the control planes delete
// Nodes that are labelled so. It returns when the Node is gone. From then on
// until the machine restarts, a mark among those in runtime has PID 1 leave it so.
func retireNode(ctx context.Context, config *machine.Config, access apiclient.Access, runtime string) error {
	if err := proc.WriteFiles([]proc.File{{Path: filepath.Join(runtime, leavingMark), Mode: 0o644}}); err != nil {
		return err
	}
	client, err := apiclient.Open(access)
	if err != nil {
		return err
	}
	defer client.Close()
	uid, _ := os.ReadFile(filepath.Join(runtime, registeredMark)) // without it, the one that is there first counts
	own := &ownNode{api: client, path: "/api/v1/nodes/" + url.PathEscape(config.Hostname), uid: strings.TrimSpace(string(uid))}
	tick := time.NewTicker(lookAtNode)
	defer tick.Stop()
	for {
		gone, err := own.leave(ctx)
		if gone {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("the Node %s is still there: %w; `kubectl delete node %s` does the rest", config.Hostname, err, config.Hostname)
		case <-tick.C:
		}
	}
}

// ownNode is the Node of a machine that leaves.
type ownNode struct {
	api  *apiclient.Client
	path string
	uid  string // empty: not known yet
}

// leave labels the Node and says whether it is gone, and otherwise why not. One
// with another UID is of the machine that took the name: it is left alone, also
// if it comes between the look and the label, for a UID cannot be changed.
func (n *ownNode) leave(ctx context.Context) (gone bool, err error) {
	var is struct{ Metadata struct{ UID string } }
	if err := n.api.Get(ctx, n.path, &is); err != nil {
		return errors.Is(err, apiclient.ErrNotFound), err
	}
	n.uid = cmp.Or(n.uid, is.Metadata.UID)
	if is.Metadata.UID != n.uid {
		return true, nil
	}
	label := fmt.Sprintf(`{"metadata":{"uid":%q,"labels":{%q:"true"}}}`, n.uid, apiclient.Leaving)
	if err := n.api.Patch(ctx, n.path, apiclient.Merge, []byte(label)); err != nil {
		return errors.Is(err, apiclient.ErrNotFound), err
	}
	return false, errors.New("it is marked, and no control plane has deleted it")
}
