package agent

import (
	"context"
	"sync"
	"time"

	"slipway/configs/disklayout"
	"slipway/configs/machine"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/supervise"
)

// health decides whether the slot that the machine booted from is good. It is
// once the config is applied and what the machine is for works; the deadline
// for that is PID 1's (package trial).
type health struct {
	booted  disklayout.Slot
	disk    systemDisk
	root    *rootWatch
	reports *reporter
	console *console

	unread error  // why the disk could not be looked at last
	told   string // of its trouble, last

	mu      sync.Mutex
	missing string // what keeps the slot from being good; empty: nothing
	failure string // why a slot was given up, or should be
}

const (
	lookAtHealth = time.Second      // how often the machine's health is looked at
	lookAtDisk   = 30 * time.Second // and its disk, once the slot is good
)

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

// run returns when ctx ends. A disk that cannot be read is told, and looked at
// again: the node works without knowing of its slots.
func (h *health) run(ctx context.Context) error {
	tick := time.NewTicker(lookAtHealth)
	defer tick.Stop()
	disk := time.NewTicker(lookAtDisk)
	defer disk.Stop()
	judge := &judge{health: h}
	told := ""
	for {
		err := judge.look()
		if err == nil {
			err = h.unread
		}
		h.troubled(err)
		if why := h.root.problem(); why != told {
			told = why
			h.fails(why)
			h.report()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-disk.C:
			h.report()
		case <-tick.C:
		}
	}
}

// troubled tells people what is wrong with the disk, once; nil: nothing is.
func (h *health) troubled(err error) {
	text := ""
	if err != nil {
		text = "its system disk: " + err.Error()
	}
	if text == h.told {
		return
	}
	h.told = text
	if err != nil {
		h.console.log.Warn("look at the system disk", "error", err)
	}
	h.reports.diskProblem(text)
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
		if err := j.disk.Note(missing); err != nil {
			return err
		}
		j.noted = missing
		return nil
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
	if h.unread = err; err != nil {
		return
	}
	_, failure := h.now()
	h.reports.systemDisk(diskReport(state, h.booted, failure))
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
// if nothing does: the Node is Ready, the member of etcd a voter, and the control
// plane whole, or the last of its schedulers could go with the next machine.
func (p *progress) unhealthy(config *machine.Config) string {
	needed := append([]string{lastUnit(config.Role)}, sharedUnits(config)...)
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
