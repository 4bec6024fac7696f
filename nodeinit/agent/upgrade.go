package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"slipway/configs/disklayout"
	"slipway/configs/machine"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/api/nodev1/nodev1connect"
	"slipway/nodeinit/sysdisk"
)

// upgrader has an installed machine run from its other slot.
type upgrader struct {
	booted  disklayout.Slot // empty: it runs from RAM
	config  func() (*machine.Config, error)
	disk    systemDisk
	reports *reporter
	console *console
	pid1    nodev1connect.NodeServiceClient

	under     operation[*nodev1.UpgradeStep]
	preparing operation[*nodev1.UpgradeStep] // of its own: who asks for a restart is not to watch only this
}

// Why an upgrade is refused.
var (
	errFromRAM = errors.New("this machine runs from RAM: it has the image that it is given at its next start")
	errUnnamed = errors.New("which image? The machine's config names none: give the SHA-256 of its manifest.json")
)

// upgrade puts an image into the other slot and restarts into it, once; it only
// does the first if it is to prepare. One at a time has the disk.
func (u *upgrader) upgrade(ctx context.Context, request *nodev1.UpgradeRequest, tell func(*nodev1.UpgradeStep)) error {
	under := &u.under
	if request.Prepare {
		under = &u.preparing
	}
	return under.run(ctx, false, func(tell func(*nodev1.UpgradeStep)) error {
		sum, err := u.image(request.Sha256)
		if err != nil {
			return err
		}
		steps := &upgradeSteps{tell: tell, console: u.console}
		image, err := u.disk.Upgrade(ctx, sysdisk.Order{
			SHA256: sum, Older: request.Older, Within: milliseconds(request.HealthyWithinMs), Prepare: request.Prepare,
		}, steps.on)
		if errors.Is(err, sysdisk.ErrRunning) {
			steps.end(nil)
			return nil
		}
		if steps.end(err); err != nil || request.Prepare {
			return err
		}
		return u.restart(ctx, image, request.Kexec, tell)
	}, tell)
}

// rollback restarts into the other slot, once.
func (u *upgrader) rollback(ctx context.Context, request *nodev1.RollbackRequest, tell func(*nodev1.UpgradeStep)) error {
	return u.under.run(ctx, false, func(tell func(*nodev1.UpgradeStep)) error {
		if u.booted == "" {
			return errFromRAM
		}
		image, err := u.disk.Rollback(ctx, milliseconds(request.HealthyWithinMs))
		if err != nil {
			return err
		}
		return u.restart(ctx, image, request.Kexec, tell)
	}, tell)
}

func milliseconds(n int64) time.Duration { return time.Duration(n) * time.Millisecond }

// image is the manifest's SHA-256 of what is to be run.
func (u *upgrader) image(asked string) (string, error) {
	if u.booted == "" {
		return "", errFromRAM
	}
	if asked != "" {
		return asked, nil
	}
	config, err := u.config()
	if err != nil {
		return "", err
	}
	if config == nil || config.Install.Image.SHA256 == "" {
		return "", errUnnamed
	}
	return config.Install.Image.SHA256, nil
}

// upgradeSteps tells of the steps of an upgrade as they come.
type upgradeSteps struct {
	tell    func(*nodev1.UpgradeStep)
	console *console
	now     *nodev1.UpgradeStep // nil: none began
	told    time.Time
}

// tellEvery bounds how often progress is told.
const tellEvery = 500 * time.Millisecond

// on is a sysdisk.Tell.
func (s *upgradeSteps) on(step string, done, total int64) {
	began := s.now == nil || s.now.Name != step
	if began {
		s.end(nil)
		s.console.say("upgrade: %s", step)
	}
	s.now = &nodev1.UpgradeStep{Name: step, DoneBytes: done, TotalBytes: total}
	if began || time.Since(s.told) >= tellEvery {
		s.told = time.Now()
		s.tell(s.now)
	}
}

// end ends the step that is on, if there is one.
func (s *upgradeSteps) end(err error) {
	if err != nil {
		s.console.say("upgrade: %v", err)
	}
	if s.now == nil {
		return
	}
	last := &nodev1.UpgradeStep{Name: s.now.Name, DoneBytes: s.now.DoneBytes, TotalBytes: s.now.TotalBytes, Ended: true}
	if err != nil {
		last.Problem = err.Error()
	}
	s.now = nil
	s.tell(last)
}

// restart restarts the machine into a slot that the loader is to try. Without
// the loader its try counts as used, so that a failure goes back all the same;
// if the kernel cannot be loaded, it is the loader's again.
func (u *upgrader) restart(ctx context.Context, image sysdisk.Image, kexec bool, tell func(*nodev1.UpgradeStep)) error {
	return u.steps(ctx, tell, []step{
		{name: "load the kernel of slot " + string(image.Slot), deadline: time.Minute, optional: true, skip: !kexec, do: func(context.Context) error {
			err := u.load(image.Slot, true)
			kexec = err == nil
			return err
		}},
		{name: "tell the boot service", deadline: 15 * time.Second, optional: true, do: func(ctx context.Context) error {
			u.reports.event(event{name: "upgrading", detail: "slot " + string(image.Slot) + ", " + image.Version, at: u.reports.sinceBoot()})
			return u.reports.send(ctx)
		}},
		{name: "stop all units and restart", deadline: 15 * time.Second, do: func(ctx context.Context) error {
			_, err := u.pid1.Reboot(ctx, connect.NewRequest(&nodev1.RebootRequest{Kexec: kexec}))
			return err
		}},
	})
}

func (u *upgrader) steps(ctx context.Context, tell func(*nodev1.UpgradeStep), steps []step) error {
	for _, s := range steps {
		if s.skip {
			continue
		}
		tell(&nodev1.UpgradeStep{Name: s.name})
		err := s.run(ctx)
		end := &nodev1.UpgradeStep{Name: s.name, Ended: true}
		if err != nil {
			end.Problem = err.Error()
		}
		u.console.say("upgrade: %s: %s", s.name, firstOf(end.Problem, "done"))
		tell(end)
		if err != nil && !s.optional {
			return fmt.Errorf("%s: %w", s.name, err)
		}
	}
	return nil
}

// load has the running kernel keep that of a slot, for a restart without the
// firmware.
func (u *upgrader) load(slot disklayout.Slot, trying bool) error {
	kernel, err := u.disk.Kernel(slot)
	if err != nil {
		return err
	}
	if err := kernel.Load(); err != nil || !trying {
		return err
	}
	return u.disk.UseTry()
}

// loadNext prepares a restart without the firmware, into what the loader would start.
func (u *upgrader) loadNext() error {
	if u.booted == "" {
		return errFromRAM
	}
	state, err := u.disk.State()
	if err != nil {
		return err
	}
	next := state.ToBoot()
	return u.load(next, next == state.Trying)
}

// Upgrade goes on when the caller hangs up.
func (f forward) Upgrade(ctx context.Context, request *connect.Request[nodev1.UpgradeRequest], out *connect.ServerStream[nodev1.UpgradeStep]) error {
	err := f.upgrade.upgrade(context.WithoutCancel(ctx), request.Msg, func(s *nodev1.UpgradeStep) { _ = out.Send(s) })
	if err != nil {
		return connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return nil
}

// Rollback goes on when the caller hangs up.
func (f forward) Rollback(ctx context.Context, request *connect.Request[nodev1.RollbackRequest], out *connect.ServerStream[nodev1.UpgradeStep]) error {
	err := f.upgrade.rollback(context.WithoutCancel(ctx), request.Msg, func(s *nodev1.UpgradeStep) { _ = out.Send(s) })
	if err != nil {
		return connect.NewError(connect.CodeFailedPrecondition, err)
	}
	return nil
}
