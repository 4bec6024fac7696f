package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/structpb"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
	"slipway/configs/machine"
	"slipway/controlplane/drain"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
)

// How long the parts of an upgrade may take, and how often they are looked at.
const (
	writing    = 20 * time.Minute // a slot, over a slow network
	lookPeriod = 2 * time.Second
)

// upgradeFlags are what a person may say to whatever boots another slot.
type upgradeFlags struct {
	kexec, older, force, noDrain, yes bool
	anySkew                           bool // whatever Kubernetes' version-skew policy says
	timeout, healthy, draining        time.Duration
}

// upgrade has machines run from their other slot, one call of one for each.
type upgrade struct {
	*remote
	upgradeFlags
	boot  *client.Client
	kube  func(context.Context) (drain.Node, error) // the API, with no node's name
	out   io.Writer
	every time.Duration

	mu sync.Mutex // guards out: workers go at once
}

// journey is one machine's way to another slot.
type journey struct {
	machine *bootv1.Machine
	hash    string // the root hash that is to run
	prepare begin  // writes what is to run; nil: it is there
	start   begin  // restarts the machine into it
}

// begin asks a node for a part of its journey.
type begin func(context.Context, nodev1connect.NodeServiceClient) (steps, error)

// steps is the stream of an upgrade.
type steps interface {
	Receive() bool
	Msg() *nodev1.UpgradeStep
	Err() error
	Close() error
}

// errWentBack says that the machine is on the slot before.
var errWentBack = errors.New("it went back to the slot before")

// place is where a machine stands on its journey.
type place int

const (
	inRAM   place = iota // it has no slots
	before               // it runs something else
	onTrial              // it runs what it should, which is not known to be good yet
	there                // it runs what it should, and that is good
)

// placeOf is pure.
func placeOf(d *nodev1.SystemDisk, hash string) place {
	switch {
	case d == nil:
		return inRAM
	case hashOf(d, d.GetBooted()) != hash:
		return before
	case d.GetGood() != d.GetBooted():
		return onTrial
	}
	return there
}

func hashOf(d *nodev1.SystemDisk, slot string) string {
	for _, s := range d.GetSlots() {
		if s.GetName() == slot {
			return s.GetRootHash()
		}
	}
	return ""
}

// one takes a machine to its journey's end. It may be repeated: what is done
// already is not done again.
func (u *upgrade) one(ctx context.Context, j journey) error {
	node, err := u.node(ctx, j.machine.GetAddress())
	if err != nil {
		return err
	}
	disk, _, err := u.disk(ctx, node, j)
	if err != nil {
		return err
	}
	switch placeOf(disk, j.hash) {
	case inRAM:
		return runsFromRAM(j.machine)
	case there:
		u.say(j, "it runs that already")
		return u.giveBack(ctx, j)
	case before:
		if err := u.depart(ctx, node, j); err != nil {
			return errors.Join(err, u.giveBack(ctx, j))
		}
	}
	err = u.await(ctx, node, j)
	if err != nil && !errors.Is(err, errWentBack) {
		return err // who knows how it does: it keeps its cordon
	}
	return errors.Join(err, u.giveBack(ctx, j))
}

func runsFromRAM(m *bootv1.Machine) error {
	return fmt.Errorf("%s runs from RAM: it gets the boot service's image at its next start, slipway node reboot %s", name(m), name(m))
}

// depart has a machine restart into what it is to run. That is written and checked
// while its pods still run: an image that is refused, or does not come, costs them nothing.
func (u *upgrade) depart(ctx context.Context, node nodev1connect.NodeServiceClient, j journey) error {
	if j.prepare != nil {
		if err := u.follow(ctx, node, j, j.prepare); err != nil {
			return err
		}
	}
	if err := u.takePods(ctx, j); err != nil {
		return err
	}
	return u.follow(ctx, node, j, j.start)
}

func name(m *bootv1.Machine) string {
	if m.GetHostname() != "" {
		return m.GetHostname()
	}
	return m.GetId()
}

// say tells of a machine, or of a cluster: a line for people, an object for programs.
func (u *upgrade) say(j journey, format string, args ...any) {
	u.mu.Lock()
	defer u.mu.Unlock()
	text := fmt.Sprintf(format, args...)
	said := &structpb.Struct{Fields: map[string]*structpb.Value{
		"machine": structpb.NewStringValue(j.machine.GetId()), "name": structpb.NewStringValue(name(j.machine)), "text": structpb.NewStringValue(text),
	}}
	_ = show(u.out, u.output, said, func(w io.Writer) { fmt.Fprintf(w, "%s: %s\n", name(j.machine), text) })
}

// disk asks the node for its slots, and for how long it has been up.
func (u *upgrade) disk(ctx context.Context, node nodev1connect.NodeServiceClient, j journey) (*nodev1.SystemDisk, time.Duration, error) {
	ctx, cancel := context.WithTimeout(ctx, 15*time.Second)
	defer cancel()
	answer, err := node.Status(ctx, connect.NewRequest(&nodev1.StatusRequest{}))
	if err != nil {
		return nil, 0, nodeError(name(j.machine), err)
	}
	return answer.Msg.GetSystemDisk(), time.Duration(answer.Msg.GetUptimeMs()) * time.Millisecond, nil
}

// follow has the node do a part of its journey, and shows its steps.
func (u *upgrade) follow(ctx context.Context, node nodev1connect.NodeServiceClient, j journey, part begin) error {
	ctx, cancel := context.WithTimeout(ctx, writing)
	defer cancel()
	stream, err := part(ctx, node)
	if err != nil {
		return nodeError(name(j.machine), err)
	}
	defer stream.Close()
	last := ""
	for stream.Receive() {
		step := stream.Msg()
		last = step.GetName()
		switch {
		case step.GetProblem() != "":
			u.say(j, "%s: %s", last, step.GetProblem())
		case step.GetEnded():
			u.say(j, "%s: done", last)
		}
	}
	if err := stream.Err(); err != nil && last != lastStep { // that the connection broke then is no surprise
		return nodeError(name(j.machine), err)
	}
	return nil
}

// await waits until the node runs what it should and that is good, or until it
// is back on the slot before.
func (u *upgrade) await(ctx context.Context, node nodev1connect.NodeServiceClient, j journey) error {
	began := time.Now()
	ctx, cancel := context.WithTimeout(ctx, u.timeout)
	defer cancel()
	ticker := time.NewTicker(u.every)
	defer ticker.Stop()
	said := ""
	for {
		disk, up, err := u.disk(ctx, node, j)
		done, waits, failed := verdict(disk, up, time.Since(began), j.hash)
		switch {
		case err != nil:
			waits = "its restart"
		case done:
			u.say(j, "it runs from slot %s, which is good", disk.GetBooted())
			return nil
		case failed != nil:
			return fmt.Errorf("%s: %w", name(j.machine), failed)
		}
		if waits != said {
			said = waits
			u.say(j, "waits for %s", waits)
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("%s: after %v it still waits for %s: %w; look at slipway node status %s", name(j.machine), u.timeout, waits, errDeadline, name(j.machine))
		}
	}
}

// verdict says how a node does that was told to restart a while ago. It is pure.
func verdict(d *nodev1.SystemDisk, up, since time.Duration, hash string) (done bool, waits string, failed error) {
	const slack = 5 * time.Second // the node answers before it goes down
	switch placeOf(d, hash) {
	case there:
		return true, "", nil
	case onTrial:
		return false, orElse(d.GetWaitingFor(), "its slot to be known as good"), nil
	case inRAM:
		return false, "its restart", nil
	}
	if up > since+slack || d.GetTrying() != "" {
		return false, "its restart", nil // it has not gone down yet, or comes up once more
	}
	return false, "", fmt.Errorf("%w: %s", errWentBack, orElse(d.GetFailure(), "it does not say why; its console and slipway node logs may"))
}

func orElse(text, other string) string {
	if text != "" {
		return text
	}
	return other
}

// takePods drains the machine's node, if it has one and its pods have elsewhere
// to go.
func (u *upgrade) takePods(ctx context.Context, j journey) error {
	if u.noDrain || !hasNode(j.machine) {
		return nil
	}
	node, err := u.kubeNode(ctx, j)
	if err != nil {
		return err
	}
	elsewhere, err := node.Elsewhere(ctx)
	if err != nil {
		return fmt.Errorf("drain %s: %w", name(j.machine), err)
	}
	if !elsewhere {
		u.say(j, "its pods stop with it: there is no other node for them")
		return nil
	}
	u.say(j, "its pods are evicted")
	if err := node.Cordon(ctx); err != nil {
		return fmt.Errorf("cordon %s: %w", name(j.machine), err)
	}
	ctx, cancel := context.WithTimeout(ctx, u.draining)
	defer cancel()
	return node.Evict(ctx, u.force)
}

func hasNode(m *bootv1.Machine) bool {
	return m.GetCluster() != "" && m.GetRole() != string(machine.EtcdOnly)
}

// giveBack undoes the cordon. The API may take a while to be back.
func (u *upgrade) giveBack(ctx context.Context, j journey) error {
	if u.noDrain || !hasNode(j.machine) {
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Minute)
	defer cancel()
	ticker := time.NewTicker(u.every)
	defer ticker.Stop()
	for {
		node, err := u.kubeNode(ctx, j)
		if err == nil {
			err = node.Uncordon(ctx)
		}
		if err == nil {
			return nil
		}
		select {
		case <-ticker.C:
		case <-ctx.Done():
			return fmt.Errorf("uncordon %s: %w; kubectl uncordon %s does it", name(j.machine), err, strings.TrimSpace(j.machine.GetHostname()))
		}
	}
}

func (u *upgrade) kubeNode(ctx context.Context, j journey) (drain.Node, error) {
	node, err := u.kube(ctx)
	node.Name, node.Every = j.machine.GetHostname(), u.every
	return node, err
}
