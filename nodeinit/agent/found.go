package agent

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/configs/wipe"
	"slipway/nodeinit/api/nodev1"
	"slipway/nodeinit/sysdisk"
)

// adopt makes a machine that runs from RAM the one that its disk keeps, if an
// installation of it there came to its end. The boot service sent it the
// installer then because it does not know: the report was lost, or its memory.
// To install once more would cost what is on the disk, so the machine enrols
// with the key that it had and goes on from the disk.
//
// A machine that has another key by now was refused the old one, or was told to
// install itself anew; it stays what it is.
func (a *agent) adopt(ctx context.Context) error {
	if a.booted != "" {
		return nil
	}
	found, err := a.disk.Find(ctx)
	if err != nil {
		a.console.say("look for an installation of this machine: %v", err)
		return nil // it is looked at again before anything is written
	}
	if found == nil {
		return nil
	}
	if found.Reset != "" {
		if err := a.wipe(ctx, found); !errors.Is(err, errWiped) {
			a.console.say("%v", err)
		}
		return nil
	}
	key, err := a.store.load(keyFile)
	switch {
	case err != nil:
		return err
	case key == nil && a.args.Anew, key != nil && !bytes.Equal(key, found.Files[keyFile]):
		return nil
	}
	// The certificate is asked for anew: that tells whether the key is still good.
	for _, name := range []string{keyFile, configFile} {
		if err := a.store.save(name, found.Files[name]); err != nil {
			return err
		}
	}
	a.found = found
	return nil
}

// strange says that the machine was booted by another boot service than the one
// that an installation is of, or by the same with another CA by now: the latter
// knows the key of the installation. Of the former, nothing is to be had.
func (a *agent) strange() bool {
	if a.found == nil {
		return false
	}
	cas, err := parseCAs(a.found.Files[caFile])
	return err != nil || len(anchored(cas, [][sha256.Size]byte{a.args.CA})) == 0
}

// errWiped is of a machine whose installation is no more: it is a new one.
var errWiped = errors.New("what was installed on this machine is wiped")

// wipe ends a reset from RAM. It returns errWiped if that went well.
func (a *agent) wipe(ctx context.Context, found *sysdisk.Found) error {
	a.console.say("a reset of this machine goes on: %s is wiped", found.State.Path)
	if err := a.disk.Wipe(ctx, found); err != nil {
		return fmt.Errorf("end the reset of this machine: %w", err)
	}
	return errWiped
}

// telling is how the boot service is told of an installation it does not know.
// A machine that is held asks as often as its firmware would.
var telling = attempts{deadline: 10 * time.Second, first: 250 * time.Millisecond, most: 30 * time.Second}

// toDisk tells the boot service where the machine is installed, so that the
// next boot is from there, and restarts. Where it leads nowhere but back to here,
// the boot service holds the machine. One that was let go while it was away is
// not started again: its disk is wiped.
func (n nodeLife) toDisk(ctx context.Context, found *sysdisk.Found) error {
	a, path := n.agent, found.State.Path
	a.console.say("this machine is installed on %s already: it goes on from there", path)
	n.reports.state("", "its restart from "+path+", where it is installed already")
	n.reports.systemDisk(diskReport(found.State, "", ""))
	n.reports.event(event{name: "found", detail: path, at: n.reports.sinceBoot()})
	var release *bootv1.ReportResponse
	err := a.console.until(ctx, telling, "the boot service to hear that this machine is installed", func(ctx context.Context) error {
		answer, err := n.reports.ask(ctx)
		switch {
		case connect.CodeOf(err) == connect.CodePermissionDenied:
			return finalError{fmt.Errorf("%w: %w", errKeyRefused, err)}
		case err != nil:
			return err
		case answer.Held != "":
			return pendingError{"a person: " + answer.Held}
		}
		release = answer
		return nil
	})
	switch {
	case err != nil:
		return err
	case release.Released:
		found.Reset = wipe.How(release.Wipe)
		return a.wipe(ctx, found)
	}
	return n.restart(ctx)
}

// restart has PID 1 restart the machine, and waits for its end.
func (n nodeLife) restart(ctx context.Context) error {
	err := n.agent.console.until(ctx, asking, "PID 1 to restart the machine", func(ctx context.Context) error {
		_, err := n.nodes.Reboot(ctx, connect.NewRequest(&nodev1.RebootRequest{}))
		return err
	})
	if err != nil {
		return err
	}
	<-ctx.Done()
	return ctx.Err()
}

// resetting is how the disk that the machine booted from is to be wiped, by a
// reset that was cut short; empty: none was.
func (n nodeLife) resetting() (wipe.How, error) {
	if n.agent.booted == "" {
		return "", nil
	}
	return n.agent.disk.Resetting()
}
