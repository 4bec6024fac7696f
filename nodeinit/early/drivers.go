package early

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"os"

	"golang.org/x/sync/errgroup"

	"slipway/nodeinit/module"
)

// driverDir is where the initramfs of an installed machine has the drivers of
// disks, as the root image has all drivers.
const driverDir = "/usr/lib/modules"

// withDrivers calls do while the drivers of the machine's devices are loaded,
// those that are there and those that appear: a controller brings its disks. It
// then frees the memory of those that nobody needed. A driver that fails is no
// error as long as do succeeds.
func withDrivers(log *slog.Logger, do func() error) error {
	loader, err := module.NewLoader("/")
	if errors.Is(err, fs.ErrNotExist) { // the root image is in RAM, with all drivers
		return do()
	}
	if err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var group errgroup.Group
	devices := module.Devices{Loader: loader, Log: log, Sys: "/sys", All: true}
	loaded, all := context.WithCancel(ctx)
	group.Go(func() error {
		defer all()
		return devices.Run(ctx, all)
	})
	err = do()
	if err == nil {
		<-loaded.Done() // those of the devices that are there: one of them may be a watchdog
	}
	cancel()
	if drivers := group.Wait(); err != nil {
		return errors.Join(err, drivers)
	}
	if err := os.RemoveAll(driverDir); err != nil {
		return fmt.Errorf("free the initramfs: %w", err)
	}
	return nil
}
