package agent

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"
	"github.com/google/go-cmp/cmp"

	"slipway/configs/machine"
	"slipway/controlplane/apiclient"
	"slipway/controlplane/apiclient/apitest"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
	"slipway/nodeinit/worker"
)

// TestResetSteps: what a reset comes to, by what the machine is.
func TestResetSteps(t *testing.T) {
	member := func(role machine.Role, planes int) *machine.Config {
		c := &machine.Config{Hostname: "a", Role: role}
		c.Cluster.ControlPlanes = make([]netip.Addr, planes)
		if role != machine.Worker {
			c.Etcd = &machine.Etcd{Members: []machine.EtcdMember{{Name: "a"}}}
		}
		return c
	}
	end := []string{"tell the boot service", "stop all units and restart"}
	for name, test := range map[string]struct {
		config *machine.Config
		want   []string
	}{
		"free":                   {nil, nil},
		"worker":                 {member(machine.Worker, 1), []string{"have the Node deleted"}},
		"control plane of three": {member(machine.ControlPlane, 3), []string{"leave etcd", "have the Node deleted"}},
		"the only one":           {member(machine.ControlPlane, 1), []string{"leave etcd"}},
		"etcd":                   {member(machine.EtcdOnly, 1), []string{"leave etcd"}},
	} {
		var got []string
		for _, s := range (&resetter{}).steps(test.config, resetOrder{}) {
			if !s.skip {
				got = append(got, s.name)
			}
		}
		if diff := cmp.Diff(append(test.want, end...), got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

// TestReset: a reset leaves etcd first, and goes no further if that is refused,
// unless it is forced.
func TestReset(t *testing.T) {
	b := newBootService(t)
	b.approved, b.config = true, bytes.Replace(exampleConfig(t), []byte("controlPlanes:\n"), []byte("controlPlanes:\n  - 10.0.0.99\n"), 1)
	n := newNode(t, b)
	n.agent.retire = func(context.Context, *machine.Config) error { return errors.New("the API does not answer") }
	member := newEtcdMember(t, n)
	member.refusal = "two voters remain, of which one answers"
	n.start(t)
	n.pid1.take(t)
	b.await("the config to be applied", func() bool { return b.applied != nil })
	reset := func(force bool) ([]*nodev1.ResetStep, error) {
		return readSteps(nodeClient(t, n, b.ca, pair(t, b.ca, admin)).Reset(t.Context(), connect.NewRequest(&nodev1.ResetRequest{Force: force})))
	}

	steps, err := reset(false)
	checkCode(t, "Reset", err, connect.CodeFailedPrecondition, "leave etcd: ")
	if len(steps) != 1 || !strings.Contains(steps[0].Problem, member.refusal) || len(n.pid1.reboots) != 0 {
		t.Errorf("steps %v, %d reboots; want one step, refused", steps, len(n.pid1.reboots))
	}

	steps, err = reset(true)
	checkCode(t, "Reset, forced", err, 0, "")
	var got []string
	for _, s := range steps {
		got = append(got, s.Name+": "+s.Problem)
	}
	want := []string{"leave etcd: ", "have the Node deleted: the API does not answer", "tell the boot service: ", "stop all units and restart: "}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("forced (-want +got):\n%s", diff)
	}
	if force := <-member.left; !force || len(n.pid1.reboots) != 1 || !slices.Contains(b.events, "resetting") {
		t.Errorf("left by force: %t, %d reboots, events %v", force, len(n.pid1.reboots), b.events)
	}
}

// TestResetWatched: who asks while a reset is under way sees that one; by force,
// another begins when it has failed.
func TestResetWatched(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		refuse := make(chan error)
		r := &resetter{
			config:  func() (*machine.Config, error) { return &machine.Config{Hostname: "a", Role: machine.Worker}, nil },
			retire:  func(context.Context, *machine.Config) error { return <-refuse },
			console: quiet(&screen{}), reports: newReporter(&reports{}, store{dir: t.TempDir()}, quiet(&screen{}), clock{sinceBoot: func() time.Duration { return 0 }}),
			pid1: rebooter{},
		}
		type result struct {
			steps int
			err   error
		}
		ask := func(force bool) <-chan result {
			done := make(chan result, 1)
			go func() {
				var got result
				got.err = r.run(t.Context(), resetOrder{force: force}, func(*nodev1.ResetStep) { got.steps++ })
				done <- got
			}()
			synctest.Wait()
			return done
		}
		first, second, forced := ask(false), ask(false), ask(true)
		refuse <- errors.New("no API")
		for _, done := range []<-chan result{first, second} {
			if got := <-done; got.steps != 1 || got.err == nil {
				t.Errorf("%d steps, %v; want one that fails", got.steps, got.err)
			}
		}
		refuse <- errors.New("no API")
		if got := <-forced; got.steps != 4 || got.err != nil {
			t.Errorf("forced: %d steps, %v; want one that failed and then three", got.steps, got.err)
		}
	})
}

// rebooter is a PID 1 that restarts.
type rebooter struct {
	nodev1connect.NodeServiceClient
}

func (rebooter) Reboot(context.Context, *connect.Request[nodev1.RebootRequest]) (*connect.Response[nodev1.RebootResponse], error) {
	return connect.NewResponse(&nodev1.RebootResponse{}), nil
}

func readSteps(stream *connect.ServerStreamForClient[nodev1.ResetStep], err error) (steps []*nodev1.ResetStep, _ error) {
	if err != nil {
		return nil, err
	}
	defer stream.Close()
	for stream.Receive() {
		steps = append(steps, stream.Msg())
	}
	return steps, stream.Err()
}

// TestReleased: a machine that its cluster let go resets itself, but gives up
// no quorum for it.
func TestReleased(t *testing.T) {
	b := newBootService(t)
	b.approved, b.config = true, exampleConfig(t)
	n := newNode(t, b)
	n.start(t)
	n.pid1.take(t)
	b.await("a poll", func() bool { return b.follows > 0 })
	b.update(func() { b.released = true })
	b.await("a reset that fails", func() bool { return strings.Contains(b.waiting, "its reset: leave etcd: ") })
	if len(n.pid1.reboots) != 0 {
		t.Error("it restarted without having left etcd")
	}
	member := newEtcdMember(t, n)
	if off := <-n.pid1.reboots; off {
		t.Error("it was switched off")
	}
	if force := <-member.left; force {
		t.Error("it left by force")
	}
}

// TestGivenUp: of a cluster that was given up, the last member goes too.
func TestGivenUp(t *testing.T) {
	b := newBootService(t)
	b.approved, b.config = true, exampleConfig(t)
	n := newNode(t, b)
	member := newEtcdMember(t, n)
	member.refusal = "it is the only one"
	n.start(t)
	n.pid1.take(t)
	b.await("a poll", func() bool { return b.follows > 0 })
	b.update(func() { b.released, b.byForce = true, true })
	<-n.pid1.reboots
	if force := <-member.left; !force {
		t.Error("it did not leave by force")
	}
}

// nodeObject is an API server with one Node, which control planes delete once it
// is labelled. Another machine registers at once, as if it had waited for that.
type nodeObject struct {
	mu     sync.Mutex
	uid    string // empty: there is none
	next   string // the UID of the Node that comes when this one is deleted
	labels []string
	marked bool // there was the mark of a machine that leaves at each question
	mark   string
}

func (o *nodeObject) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if _, err := os.Stat(o.mark); err != nil {
		o.marked = false
	}
	var patch struct{ Metadata struct{ UID string } }
	switch {
	case r.URL.Path != "/api/v1/nodes/prod-1" || o.uid == "":
		w.WriteHeader(http.StatusNotFound)
	case r.Method == http.MethodGet:
		fmt.Fprintf(w, `{"metadata":{"uid":%q}}`, o.uid)
	case json.NewDecoder(r.Body).Decode(&patch) != nil || patch.Metadata.UID != o.uid:
		w.WriteHeader(http.StatusUnprocessableEntity)
	default:
		o.labels = append(o.labels, o.uid)
		o.uid = o.next
	}
}

// TestRetireNode: a machine that leaves has its own Node deleted, and not that of
// the machine which took its name. Before it begins, PID 1 knows of it.
func TestRetireNode(t *testing.T) {
	for name, test := range map[string]struct {
		known, there, next string
		labelled           []string
	}{
		"its own":                          {known: "u1", there: "u1", labelled: []string{"u1"}},
		"it is gone":                       {known: "u1"},
		"it never saw it":                  {there: "u1", next: "u2", labelled: []string{"u1"}},
		"another has its name":             {known: "u1", there: "u2"},
		"another takes its name meanwhile": {known: "u1", there: "u1", next: "u2", labelled: []string{"u1"}},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if test.known != "" {
				if err := os.WriteFile(filepath.Join(dir, registeredMark), []byte(test.known+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
			api := &nodeObject{uid: test.there, next: test.next, marked: true, mark: filepath.Join(dir, leavingMark)}
			access := apiclient.Access(apitest.Serve(t, api))
			if err := retireNode(t.Context(), &machine.Config{Hostname: "prod-1"}, access, dir); err != nil {
				t.Error(err)
			}
			if diff := cmp.Diff(test.labelled, api.labels); diff != "" || !api.marked {
				t.Errorf("the mark was there: %t; labelled (-want +got):\n%s", api.marked, diff)
			}
		})
	}
}

// TestMarks: what the agent and the unit "node" tell each other has one name.
func TestMarks(t *testing.T) {
	for mark, theirs := range map[string]string{registeredMark: worker.Registered, leavingMark: worker.Leaving} {
		if filepath.Join(runtimeDir, mark) != theirs {
			t.Errorf("the agent has %s in %s, the unit %s", mark, runtimeDir, theirs)
		}
	}
}
