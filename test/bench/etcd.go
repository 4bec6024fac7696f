package main

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

const (
	chaosRounds = 53 // of test/host/etcdchaos: each fault five times, the slow ones four
	leaderKills = 20
)

// etcd is members of etcd that are broken while clients write, and how long
// writes wait when the leader is killed: ours and, with its default settings,
// Debian's.
func (b bench) etcd(ctx context.Context) ([]figure, error) {
	dir, err := os.MkdirTemp("", "slipway-bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	played, err := b.chaos(ctx, dir, "-run=^TestRounds$", fmt.Sprint("-rounds=", chaosRounds), "-within=0", fmt.Sprint("-seed=", time.Now().Unix()))
	if err != nil {
		return nil, err
	}
	figures := []figure{
		{name: "etcd.rounds", value: played["rounds"], unit: "count"},
		{name: "etcd.faults", value: played["faults"], unit: "count"},
		{name: "etcd.lost-writes", value: played["lost-writes"], unit: "count", budget: upTo(0)},
	}
	kills := fmt.Sprint("-failovers=", leaderKills)
	ours, err := b.chaos(ctx, dir, "-run=^TestFailover$", kills)
	if err != nil {
		return figures, err
	}
	program, err := debianEtcd(ctx, dir)
	if err != nil {
		return figures, err
	}
	theirs, err := b.chaos(ctx, dir, "-run=^TestFailover$", kills, "-peer="+program)
	if err != nil {
		return figures, err
	}
	failover := func(name string, budget float64) figure {
		return figure{name: "etcd." + name, value: ours[name], unit: "ms", budget: upTo(budget), peer: peer{"Debian-etcd-3.4", theirs[name]}}
	}
	return append(figures, failover("failover.p50", 3000), failover("failover.p99", 6000)), nil
}

// chaos runs a test of test/host/etcdchaos on the image's etcd and returns the
// figures that it took. Its output is of interest when it fails only.
func (b bench) chaos(ctx context.Context, dir, test string, args ...string) (map[string]float64, error) {
	image, err := filepath.Abs(b.image)
	if err != nil {
		return nil, err
	}
	file := filepath.Join(dir, "figures")
	if err := os.Remove(file); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, err
	}
	args = append([]string{"test", "-count=1", "-v", "-timeout=1h", test, "./test/host/etcdchaos", "-args", "-figures=" + file}, args...)
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Env = append(os.Environ(), "SLIPWAY_IMAGE="+image)
	out, err := cmd.CombinedOutput()
	if err != nil {
		return nil, fmt.Errorf("break etcd: %w\n%s", err, out)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return nil, fmt.Errorf("break etcd: no figures: %w\n%s", err, out)
	}
	taken := map[string]float64{}
	for line := range strings.Lines(string(text)) {
		words := strings.Fields(line)
		if taken[words[0]], err = strconv.ParseFloat(words[1], 64); err != nil {
			return nil, fmt.Errorf("break etcd: read its figures: %w", err)
		}
	}
	return taken, nil
}

// debianEtcd fetches Debian's etcd, and returns the program's path. It installs
// nothing: the package would start a server on this computer.
func debianEtcd(ctx context.Context, dir string) (string, error) {
	const fetch = "apt-get download etcd-server && dpkg-deb -x etcd-server_*.deb ."
	cmd := exec.CommandContext(ctx, "sh", "-c", fetch)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		return "", fmt.Errorf("fetch Debian's etcd to compare with (apt's lists may be missing or old: apt-get update): %s: %w\n%s", fetch, err, out)
	}
	return filepath.Join(dir, "usr", "bin", "etcd"), nil
}
