package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
)

// systemDisk is the disk of the lab's first machine, below the lab's directory.
const systemDisk = "m1.disk0"

// installed is a blank machine's way from power-on to a Ready node that lives on
// its disk, what its disk then holds, and for how long the API is gone while the
// machine moves to another image, through the firmware and without it.
//
// install.bytes is all that is on the disk at Ready: beside what the installation
// wrote, etcd's log and database and what containerd unpacked.
func (b bench) installed(ctx context.Context) ([]figure, error) {
	dir, err := os.MkdirTemp("", "slipway-bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	served := filepath.Join(dir, "served")
	if err := b.serveImage(b.image, served); err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := b.run(ctx, "lab", "up", lab, "--image", served, "--machine", "m1,memory=2048,disk=8"); err != nil {
		return nil, err
	}
	defer b.down()
	if err := b.inside(ctx, "cluster", "create", lab, "--disk", "any", "--yes", "--wait", "--timeout", "15m"); err != nil {
		return nil, err
	}
	figures := []figure{{name: "install.time", value: time.Since(begin).Seconds(), unit: "s", budget: upTo(240)}}
	written, err := b.allocated(ctx)
	if err != nil {
		return figures, err
	}
	figures = append(figures, figure{name: "install.bytes", value: written / 1e6, unit: "MB", budget: upTo(1000)})
	for _, way := range []struct{ name, flag string }{{"upgrade.outage", "--kexec=false"}, {"upgrade.outage.kexec", "--kexec"}} {
		outage, err := b.outage(ctx, filepath.Join(dir, way.name), served, way.flag)
		if err != nil {
			return figures, err
		}
		figures = append(figures, figure{name: way.name, value: outage.Seconds(), unit: "s", budget: upTo(180)})
	}
	return figures, nil
}

// serveImage has a link lead to an image.
func (b bench) serveImage(image, link string) error {
	image, err := filepath.Abs(image)
	if err != nil {
		return err
	}
	if err := os.Symlink(image, link+".new"); err != nil {
		return err
	}
	return os.Rename(link+".new", link)
}

// allocated is what the system disk takes up on this computer now, in bytes, whoever
// wrote it: the lab's disks are sparse files.
func (b bench) allocated(ctx context.Context) (float64, error) {
	file, err := b.output(ctx, "lab", "exec", lab, "--", "printenv", "SLIPWAY_CONTEXT")
	if err != nil {
		return 0, err
	}
	path := filepath.Join(filepath.Dir(filepath.Dir(strings.TrimSpace(file))), systemDisk)
	var stat syscall.Stat_t
	if err := syscall.Stat(path, &stat); err != nil {
		return 0, fmt.Errorf("look at the machine's disk: %w", err)
	}
	return float64(stat.Blocks) * 512, nil
}

// outage upgrades the machine to an image that differs by a kernel argument, and
// returns the time from the API's last answer before the restart to a Ready node after it.
func (b bench) outage(ctx context.Context, dir, served, flag string) (time.Duration, error) {
	if err := b.variant(ctx, dir); err != nil {
		return 0, err
	}
	if err := b.serveImage(filepath.Join(dir, "image"), served); err != nil {
		return 0, err
	}
	if err := b.run(ctx, "lab", "service", lab, "cycle"); err != nil {
		return 0, err
	}
	before, err := b.bootID(ctx)
	if err != nil {
		return 0, err
	}
	watching, stop := context.WithCancel(ctx)
	defer stop()
	var left, back time.Time
	var watch errgroup.Group
	watch.Go(func() (err error) {
		left, back, err = b.watchRestart(watching, before)
		return err
	})
	if err := b.inside(ctx, "node", "upgrade", firstMachine, "--yes", flag); err != nil {
		stop()
		return 0, errors.Join(err, watch.Wait())
	}
	err = watch.Wait()
	return back.Sub(left), err
}

// watchRestart blocks until the machine's Node is Ready by another start than
// before. It returns when the API spoke last before it was silent for longest,
// and when the Node is Ready: the API is back before that, and tells of the start
// before at first.
func (b bench) watchRestart(ctx context.Context, before string) (left, back time.Time, err error) {
	var silence time.Duration
	for last := time.Now(); ; {
		now, err := b.bootID(ctx)
		if err == nil {
			if gap := time.Since(last); gap > silence {
				silence, left = gap, last
			}
			if last = time.Now(); now != before {
				return left, last, nil
			}
		}
		select {
		case <-ctx.Done():
			return left, back, ctx.Err()
		case <-time.After(500 * time.Millisecond):
		}
	}
}

// variant builds an image whose installed machines have one kernel argument more.
func (b bench) variant(ctx context.Context, dir string) error {
	const old = "panic=30]"
	recipe, err := os.ReadFile(filepath.Join("configs", "examples", "image.yaml"))
	if err != nil {
		return err
	}
	if err := os.Mkdir(dir, 0o700); err != nil {
		return err
	}
	changed := strings.Replace(string(recipe), old, "panic=30, slipway.bench="+filepath.Base(dir)+"]", 1)
	if changed == string(recipe) {
		return fmt.Errorf("the recipe has no kernel arguments that end in %s", old)
	}
	file := filepath.Join(dir, "image.yaml")
	if err := os.WriteFile(file, []byte(changed), 0o600); err != nil {
		return err
	}
	return b.run(ctx, "image", "build", "--profile", "release", "--recipe", file, "--out", filepath.Join(dir, "image"))
}

// bootID is the start of the machine by which its Node is Ready.
func (b bench) bootID(ctx context.Context) (string, error) {
	out, err := b.output(ctx, "lab", "kubectl", lab, "--", "get", "nodes", "--request-timeout=3s",
		"-o", `jsonpath={.items[0].status.conditions[?(@.type=="Ready")].status} {.items[0].status.nodeInfo.bootID}`)
	if err != nil {
		return "", err
	}
	id, ready := strings.CutPrefix(out, "True ")
	if !ready {
		return "", fmt.Errorf("the node is not Ready: %s", out)
	}
	return id, nil
}
