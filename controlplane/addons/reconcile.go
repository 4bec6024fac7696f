package addons

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/netip"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"sync/atomic"
	"time"

	"slipway/controlplane/apiclient"
	"slipway/nodeinit/supervise"
)

const (
	retry    = 250 * time.Millisecond // until the first success
	patience = 2 * time.Minute        // for a success; then it fails by name
	again    = 5 * time.Minute        // between two rounds
	joining  = 2 * time.Second        // between two looks for the Node, until it is there
	watching = 5 * time.Second        // between two looks at the control planes' Nodes, and at the files
)

// Reconciler is a service that keeps the objects in Dir's files applied, the
// machine's Node marked as a control plane's, and the DNS service's endpoints,
// and that deletes the Nodes of machines that have left. It is level-triggered:
// each round applies everything, whatever the last one did. Every control plane runs one; they apply the same, which changes nothing
// for the second.
type Reconciler struct {
	Dir       string
	Manifests [sha256.Size]byte // of what lies in Dir
	Node      string
	Address   netip.Addr // the machine's
	Access    apiclient.Access

	applied []addon      // by the last round, if that was good
	waiting atomic.Value // string: why the last round failed
}

// Equal reports whether other does the same.
func (r *Reconciler) Equal(other supervise.Service) bool {
	o, ok := other.(*Reconciler)
	return ok && r.Dir == o.Dir && r.Manifests == o.Manifests && r.Node == o.Node && r.Address == o.Address && r.Access == o.Access
}

// WaitingFor is why there was no success yet.
func (r *Reconciler) WaitingFor() string {
	text, _ := r.waiting.Load().(string)
	return text
}

// Run applies until ctx ends. Rounds may fail: a new API server makes its own
// namespaces a moment after it is ready, and later it may be away or busy. What
// fails for as long as patience ends it, with the error.
func (r *Reconciler) Run(ctx context.Context, ready func()) error {
	first, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	if err := r.untilApplied(first); err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return err
	}
	ready()
	return r.keep(ctx)
}

// keep repeats all parts until ctx ends or what is applied fails for too long.
// That the Nodes could not be looked at is looked over: the next look is seconds
// from now.
func (r *Reconciler) keep(ctx context.Context) error {
	apply, mark, watch := time.NewTicker(again), time.NewTicker(joining), time.NewTicker(watching)
	defer apply.Stop()
	defer mark.Stop()
	defer watch.Stop()
	endpoints := &dns{access: r.Access, own: r.Address}
	defer endpoints.hangUp()
	endpoints.update(ctx)
	var t trouble
	for {
		var err error
		select {
		case <-ctx.Done():
			return nil
		case now := <-apply.C:
			err = t.after(now, r.Apply(ctx))
		case now := <-watch.C:
			if endpoints.update(ctx) == nil && endpoints.first {
				_ = deleteLeaving(ctx, endpoints.client)
			}
			if r.changed() {
				err = t.after(now, r.Apply(ctx))
			}
		case now := <-mark.C:
			marked := r.mark(ctx)
			if marked == nil {
				mark.Reset(again)
			}
			if !errors.Is(marked, apiclient.ErrNotFound) { // it has not joined yet
				err = t.after(now, marked)
			}
		}
		if err != nil && ctx.Err() == nil {
			return err
		}
	}
}

// trouble is since when all that was tried has failed; zero: it has not.
type trouble struct{ since time.Time }

// after is the trouble after one more try, begun at now: its error once that
// has lasted.
func (t *trouble) after(now time.Time, err error) error {
	switch {
	case err == nil:
		t.since = time.Time{}
	case t.since.IsZero():
		t.since = now
	case now.Sub(t.since) >= patience:
		return err
	}
	return nil
}

// role is the label by which kubectl and others know a control plane's Node. A
// kubelet may not give itself this one (NodeRestriction).
const role = `{"metadata":{"labels":{"node-role.kubernetes.io/control-plane":""}}}`

func (r *Reconciler) mark(ctx context.Context) error {
	client, err := apiclient.Open(r.Access)
	if err != nil {
		return err
	}
	defer client.Close()
	return client.Patch(ctx, "/api/v1/nodes/"+url.PathEscape(r.Node), apiclient.Merge, []byte(role))
}

// untilApplied returns nil after a round without errors, or the last round's
// error when ctx ends.
func (r *Reconciler) untilApplied(ctx context.Context) error {
	tick := time.NewTicker(retry)
	defer tick.Stop()
	for {
		err := r.Apply(ctx)
		if err == nil {
			return nil
		}
		r.waiting.Store(err.Error())
		select {
		case <-ctx.Done():
			return err
		case <-tick.C:
		}
	}
}

// addon is one of the files.
type addon struct{ name, text string }

// read reads the files, in order.
func (r *Reconciler) read() ([]addon, error) {
	names, err := filepath.Glob(filepath.Join(r.Dir, "*.yaml"))
	if err != nil {
		return nil, fmt.Errorf("list %s: %w", r.Dir, err)
	}
	slices.Sort(names)
	var all []addon
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil {
			return nil, fmt.Errorf("read addon: %w", err)
		}
		all = append(all, addon{name, string(text)})
	}
	return all, nil
}

// changed says whether the files are others than those that were applied last.
// The bootstrap token in one of them is replaced with the cluster's CA.
func (r *Reconciler) changed() bool {
	files, err := r.read()
	return err == nil && !slices.Equal(files, r.applied)
}

// Apply applies every object once, files in order, and stops at the first
// that is refused: later ones may rest on it. Files of which one was count as
// changed.
func (r *Reconciler) Apply(ctx context.Context) error {
	r.applied = nil
	files, err := r.read()
	if err != nil {
		return err
	}
	client, err := apiclient.Open(r.Access)
	if err != nil {
		return err
	}
	defer client.Close()
	resources := newResources(client)
	for _, file := range files {
		objects, err := split([]byte(file.text))
		if err != nil {
			return fmt.Errorf("read %s: %w", file.name, err)
		}
		for _, o := range objects {
			if err := resources.apply(ctx, o); err != nil {
				return fmt.Errorf("apply %s: %w", o, err)
			}
		}
	}
	r.applied = files
	return nil
}
