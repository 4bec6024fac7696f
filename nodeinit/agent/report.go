package agent

import (
	"context"
	"fmt"
	"sync"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/proto"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/configs/enroll"
)

// reporter tells the boot service how the machine does. Events wait here
// while the boot service does not answer; none is told twice, also not by an
// agent that was restarted.
type reporter struct {
	client    bootv1connect.MachineServiceClient
	store     store
	console   *console
	sinceBoot func() time.Duration

	sending sync.Mutex // one report at a time

	mu       sync.Mutex
	reported map[string]bool // names, told or waiting to be
	events   []event
	phase    enroll.Phase
	waiting  string
	trouble  string             // with the config; told instead of waiting
	ill      string             // what is wrong with the system disk; told where there is no trouble
	config   []byte             // SHA-256 of the config that PID 1 runs
	etcd     *bootv1.EtcdState  // nil: no member here
	disk     *bootv1.SystemDisk // nil: it runs from RAM, for good
	wiped    bool
	facts    *bootv1.Facts // nil: not looked at yet
	known    *bootv1.Facts // what this agent has told of them; nil: nothing
	changed  chan struct{} // holds one token when there is something to tell
}

func newReporter(client bootv1connect.MachineServiceClient, s store, c *console, clock clock) *reporter {
	return &reporter{
		client: client, store: s, console: c, sinceBoot: clock.sinceBoot,
		reported: s.reported(), changed: make(chan struct{}, 1),
	}
}

// event adds to the timeline, once per name.
func (r *reporter) event(e event) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.reported[e.name] {
		return
	}
	r.reported[e.name] = true
	r.events = append(r.events, e)
	r.poke()
}

// has reports whether the event is told, or waits to be.
func (r *reporter) has(name string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.reported[name]
}

// state sets the machine's phase, and what it waits for. An empty phase leaves the server's.
func (r *reporter) state(phase enroll.Phase, waiting string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if phase == r.phase && waiting == r.waiting {
		return
	}
	r.phase, r.waiting = phase, waiting
	r.poke()
}

// problem says what is wrong with the machine's config, or, empty, that nothing
// is. A machine that is not ready has failed by it.
func (r *reporter) problem(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.trouble != text {
		r.trouble = text
		r.poke()
	}
}

// diskProblem says what is wrong with the machine's disk, or, empty, that nothing
// is. A machine that does not know its slots works on.
func (r *reporter) diskProblem(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ill != text {
		r.ill = text
		r.poke()
	}
}

// applied says which config PID 1 runs, by its SHA-256.
func (r *reporter) applied(digest []byte) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if string(r.config) != string(digest) {
		r.config = digest
		r.poke()
	}
}

// etcdState says how the machine's member of etcd does; nil: there is none.
func (r *reporter) etcdState(state *bootv1.EtcdState) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !sameEtcd(r.etcd, state) {
		r.poke()
	}
	r.etcd = state
}

// systemDisk says where the machine lives, unless it said that it wipes that disk.
func (r *reporter) systemDisk(disk *bootv1.SystemDisk) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !r.wiped && !proto.Equal(r.disk, disk) {
		r.disk = disk
		r.poke()
	}
}

// hardware says what the machine's hardware is. The message is not changed afterwards.
func (r *reporter) hardware(facts *bootv1.Facts) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !proto.Equal(r.facts, facts) {
		r.facts = facts
		r.poke()
	}
}

// wipe says that the machine is about to wipe its disk.
func (r *reporter) wipe() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.wiped, r.disk = true, nil
}

// poke has the reporter tell how things are.
func (r *reporter) poke() {
	select {
	case r.changed <- struct{}{}:
	default:
	}
}

// heartbeat is how often an idle machine says that it is there.
const heartbeat = 30 * time.Second

// reporting is how a report is tried.
var reporting = attempts{deadline: 10 * time.Second, first: 250 * time.Millisecond, most: 15 * time.Second}

// run reports until ctx ends.
func (r *reporter) run(ctx context.Context) error {
	timer := time.NewTicker(heartbeat)
	defer timer.Stop()
	for pause := time.Duration(0); ; {
		if err := r.send(ctx); err != nil && ctx.Err() == nil {
			pause = min(max(pause*2, reporting.first), reporting.most)
			r.console.log.Warn("report to the boot service failed", "error", err, "again", pause.String())
			r.poke()
		} else {
			pause = 0
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
		select {
		case <-ctx.Done():
			return nil
		case <-r.changed:
		case <-timer.C:
		}
	}
}

// send reports what is there now.
func (r *reporter) send(ctx context.Context) error {
	_, err := r.ask(ctx)
	return err
}

// ask reports what is there now, for what the boot service says to that.
func (r *reporter) ask(ctx context.Context) (*bootv1.ReportResponse, error) {
	r.sending.Lock()
	defer r.sending.Unlock()
	ctx, cancel := context.WithTimeout(ctx, reporting.deadline)
	defer cancel()
	request := r.request()
	answer, err := r.client.Report(ctx, connect.NewRequest(request))
	if err != nil {
		return nil, fmt.Errorf("report to the boot service: %w", err)
	}
	return answer.Msg, r.told(request)
}

func (r *reporter) request() *bootv1.ReportRequest {
	r.mu.Lock()
	defer r.mu.Unlock()
	request := &bootv1.ReportRequest{Phase: string(r.phase), WaitingFor: r.waiting, Applied: r.config, Etcd: r.etcd, SystemDisk: r.disk, Wiped: r.wiped}
	if r.ill != "" {
		request.WaitingFor = r.ill
	}
	if r.trouble != "" {
		request.WaitingFor = r.trouble
		if r.phase != enroll.Ready {
			request.Phase = string(enroll.Failed)
		}
	}
	if !proto.Equal(r.facts, r.known) {
		request.Facts = r.facts
	}
	now := r.sinceBoot()
	for _, e := range r.events {
		age := max(now-e.at, 0)
		request.Events = append(request.Events, &bootv1.Event{Name: e.name, Detail: e.detail, AgeMs: age.Milliseconds()})
	}
	return request
}

// told notes what the boot service has now. The events are dropped, and remembered
// for good; facts are told once more by the next agent.
func (r *reporter) told(request *bootv1.ReportRequest) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if request.Facts != nil {
		r.known = request.Facts
	}
	if len(request.Events) == 0 {
		return nil
	}
	r.events = r.events[len(request.Events):]
	names := map[string]bool{}
	for name := range r.reported {
		names[name] = true
	}
	for _, e := range r.events {
		delete(names, e.name)
	}
	return r.store.saveReported(names)
}
