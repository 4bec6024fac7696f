package agent

import (
	"context"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/configs/enroll"
	"slipway/nodeinit/sysdisk"
)

// installation makes a machine that runs from RAM one that runs from a disk. It
// runs no unit of its config: the node begins its life on the disk.
//
//	config ──► disk chosen ──► nothing foreign on it ──► installed ──► restart
//	  ▲                          │ else
//	  └── agreed by a person ◄───┘
type installation struct {
	disk    systemDisk
	store   store
	client  bootv1connect.MachineServiceClient
	reports *reporter
	console *console
	gone    func(context.Context) error // restarts the machine, and waits for its end
	// next blocks until there is another config than the one at hand.
	next func(ctx context.Context, have wanted) (wanted, error)
}

// installAgain is the pause after a failure.
const installAgain = 30 * time.Second

// run returns once the machine is restarting, or ctx ends.
func (i *installation) run(ctx context.Context, have wanted) error {
	for ctx.Err() == nil {
		err := i.install(ctx, have)
		if err == nil {
			return i.restart(ctx)
		}
		var wipe *sysdisk.WipeError
		if errors.As(err, &wipe) {
			if have, err = i.agreed(ctx, have, wipeMessage(wipe.Manifest)); err != nil {
				return err
			}
			continue
		}
		i.console.say("install: %v; tries again in %s, or with another config", err, installAgain)
		i.reports.problem("install: " + err.Error())
		if have, err = i.pause(ctx, have); err != nil {
			return err
		}
	}
	return ctx.Err()
}

func (i *installation) install(ctx context.Context, have wanted) error {
	i.reports.state(enroll.Installing, "its disk: "+have.config.Install.Disk.String())
	files, err := i.files()
	if err != nil {
		return err
	}
	state, err := i.disk.Install(ctx, have.config, files, i.tell())
	if err != nil {
		return err
	}
	i.reports.problem("")
	i.reports.systemDisk(diskReport(state, "", ""))
	i.reports.event(event{name: "installed", detail: state.Path, at: i.reports.sinceBoot()})
	i.reports.state(enroll.Installing, "its restart from "+state.Path)
	return nil
}

// kept are the files that make an installed machine the one that it was.
var kept = []string{keyFile, certFile, caFile, pinFile, configFile, argsFile}

func (i *installation) files() (map[string][]byte, error) {
	files := map[string][]byte{}
	for _, name := range kept {
		data, err := i.store.load(name)
		if err != nil {
			return nil, err
		}
		if data == nil {
			return nil, fmt.Errorf("the machine has no %s to keep", name)
		}
		files[name] = data
	}
	return files, nil
}

// tell shows each step once on the console, and its progress to the boot service.
func (i *installation) tell() sysdisk.Tell {
	last := ""
	return func(step string, done, total int64) {
		if step != last {
			last = step
			i.console.say("install: %s", step)
		}
		i.reports.state(enroll.Installing, withProgress(step, done, total))
	}
}

// withProgress is a step with how far it is, in percent.
func withProgress(step string, done, total int64) string {
	if total <= 0 {
		return step
	}
	return fmt.Sprintf("%s, %d %%", step, 100*done/total)
}

// agreed reports what would be lost and returns the config that comes once a
// person has agreed, or another one.
func (i *installation) agreed(ctx context.Context, have wanted, manifest *bootv1.WipeManifest) (wanted, error) {
	i.console.say("install: %s", describeWipe(manifest))
	i.reports.problem("")
	i.reports.state(enroll.Installing, fmt.Sprintf("a person to agree to the wipe manifest %.12x", manifest.Hash))
	err := i.console.until(ctx, asking, "the boot service to take the wipe manifest", func(ctx context.Context) error {
		_, err := i.client.ReportWipe(ctx, connect.NewRequest(&bootv1.ReportWipeRequest{Manifest: manifest}))
		return err
	})
	if err != nil {
		return have, err
	}
	i.console.wait(fmt.Sprintf("a person to agree that it is wiped (manifest %.12x)", manifest.Hash), "slipway machines show, then slipway machines wipe")
	next, err := i.next(ctx, have)
	i.console.wait("", "")
	return next, err
}

func describeWipe(manifest *bootv1.WipeManifest) string {
	text := "foreign data is on"
	for _, d := range manifest.Disks {
		text += " " + d.Path
		for _, s := range d.Signatures {
			text += fmt.Sprintf(", %s on %s", s.Type, s.Device)
		}
	}
	return text
}

// pause waits, or for another config.
func (i *installation) pause(ctx context.Context, have wanted) (wanted, error) {
	waiting, cancel := context.WithTimeout(ctx, installAgain)
	defer cancel()
	next, err := i.next(waiting, have)
	if err != nil && ctx.Err() == nil {
		return have, nil
	}
	return next, err
}

// restart has PID 1 restart the machine, and waits for its end.
func (i *installation) restart(ctx context.Context) error {
	if err := i.reports.send(ctx); err != nil {
		i.console.log.Warn("the boot service was not told of the installation; the machine says so after its restart", "error", err)
	}
	i.console.say("installed; restarts from its disk")
	return i.gone(ctx)
}
