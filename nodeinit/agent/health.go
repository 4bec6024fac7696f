package agent

import (
	"context"
	"errors"
	"sync"
	"time"

	"connectrpc.com/connect"

	"slipway/configs/disklayout"
	"slipway/configs/machine"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
	"slipway/nodeinit/supervise"
)

// health decides whether the slot that the machine booted from is good. It is
// once the config is applied and what the machine is for works; the deadline
// for that is PID 1's (package trial). From then on it watches that the root
// image stays what it is.
type health struct {
	booted    disklayout.Slot
	disk      systemDisk
	corrupted func() (bool, error) // is the root image
	reports   *reporter
	console   *console
	pid1      nodev1connect.NodeServiceClient

	mu      sync.Mutex
	missing string // what keeps the slot from being good; empty: nothing
	failure string // why a slot was given up, or should be
}

// lookAtHealth is how often the machine's health is looked at.
const lookAtHealth = time.Second

// says takes what keeps the machine from being healthy.
func (h *health) says(missing string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.missing = missing
}

func (h *health) fails(why string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.failure = why
}

func (h *health) now() (missing, failure string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.missing, h.failure
}

// run returns when ctx ends. A disk that cannot be read is looked at again: the
// node works without knowing of its slots.
func (h *health) run(ctx context.Context) error {
	tick := time.NewTicker(lookAtHealth)
	defer tick.Stop()
	judge := &judge{health: h}
	spoiled, warned := false, ""
	for {
		bad, err := h.corrupted()
		if err = errors.Join(judge.look(), err); err != nil && err.Error() != warned {
			warned = err.Error()
			h.console.log.Warn("look at the slot that runs", "error", err)
		}
		if bad && !spoiled {
			spoiled = true
			h.spoiled(ctx)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// judge looks at a machine's health until its slot is good.
type judge struct {
	*health
	recalled bool
	onTrial  bool
	noted    string // what the disk was told that is missing
	done     bool
}

// recall reads, once, how the last new slot did.
func (j *judge) recall() error {
	if j.recalled {
		return nil
	}
	if err := j.disk.CameUp(); err != nil {
		return err
	}
	onTrial, failure, err := j.disk.Recall()
	if err != nil {
		return err
	}
	if failure != "" {
		j.console.say("the last new slot was given up: %s", failure)
		j.fails(failure)
	}
	j.onTrial, j.recalled = onTrial, true
	j.report()
	return nil
}

// look marks the slot good once nothing is missing. Until then it keeps what is,
// should the machine not be there later to say it.
func (j *judge) look() error {
	if err := j.recall(); err != nil {
		return err
	}
	missing, _ := j.now()
	switch {
	case j.done, missing != "" && (!j.onTrial || missing == j.noted):
		return nil
	case missing != "":
		j.noted = missing
		return j.disk.Note(missing)
	}
	if err := j.disk.Keep(j.onTrial); err != nil {
		return err
	}
	j.done = true
	if j.onTrial {
		j.console.say("slot %s is good", j.booted)
	}
	j.report()
	return nil
}

// report tells the boot service how the disk is.
func (h *health) report() {
	state, err := h.disk.State()
	if err != nil {
		h.console.log.Warn("look at the system disk", "error", err)
		return
	}
	_, failure := h.now()
	h.reports.systemDisk(diskReport(state, h.booted, failure))
}

// spoiled has the machine boot the other slot: programs that need what is
// corrupted fail from now on. Without another slot it goes on as it can.
func (h *health) spoiled(ctx context.Context) {
	const why = "a block of its root image is not what its root hash says"
	h.console.say("slot %s: %s", h.booted, why)
	h.fails("slot " + string(h.booted) + ": " + why)
	h.report()
	if err := h.disk.Spoil(why); err != nil {
		h.console.say("no other slot to go to, the machine goes on as it can: %v", err)
		return
	}
	if _, err := h.pid1.Reboot(ctx, connect.NewRequest(&nodev1.RebootRequest{})); err != nil {
		h.console.log.Error("restart on the other slot", "error", err)
	}
}

// status is the disk for people.
func (h *health) status() *nodev1.SystemDisk {
	missing, failure := h.now()
	state, err := h.disk.State()
	status := diskStatus(state, h.booted, failure, missing)
	if err != nil {
		status.Problem = err.Error()
	}
	return status
}

// unhealthy says what keeps a machine's units from being what it is for; empty
// if nothing does: the Node is Ready, and the member of etcd a voter.
func (p *progress) unhealthy(config *machine.Config) string {
	needed := []string{lastUnit(config.Role)}
	if config.IsMember() && needed[0] != etcdUnit {
		needed = append(needed, etcdUnit)
	}
	for _, name := range needed {
		u := p.units[name]
		if u == nil {
			return "unit " + name
		}
		if u.State != string(supervise.Ready) {
			if _, why := p.holdup(); why != "" {
				return why
			}
			return describe(u)
		}
	}
	return ""
}
