package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"slipway/configs/disklayout"
)

// bench knows what is measured and with what.
type bench struct {
	slipway string // the program
	image   string // the release image's directory
}

const lab = "bench"

// Peers, measured on a computer of this kind.
var (
	kubeadmReady = peer{"kubeadm-init-to-Ready", 46} // kubeadm v1.37.1 in a machine with 2 emulated CPUs, images preloaded, containerd running
	talosImage   = peer{"Talos-initramfs", 56}       // as published; 9 to 10 images are pulled besides
)

// phaseBudgets are seconds under software emulation.
var phaseBudgets = map[string]*float64{
	"tftp": upTo(20), "http": upTo(10), "kernel": upTo(20), "init": upTo(10), "enrolled": upTo(10), "assigned": upTo(5), "configured": upTo(5),
	"etcd": upTo(25), "containerd": upTo(10), "apiserver": upTo(40), "registered": upTo(15), "ready": upTo(15),
}

// memoryBudgets are MB of a unit, its page cache included.
var memoryBudgets = map[string]*float64{
	"etcd": upTo(200), "containerd": upTo(250), "agent": upTo(40), "kube-apiserver": upTo(400), "kube-controller-manager": upTo(120), "kube-scheduler": upTo(80),
	"coredns": upTo(60), "kubelet": upTo(120), "kube-proxy": upTo(60), "masquerade": upTo(20),
}

// payload is what a machine downloads, and the root image of an installed one: a
// slot, whose size no disk can change later, takes three of it.
func (b bench) payload(context.Context) ([]figure, error) {
	total := 0.0
	for _, name := range []string{"kernel", "initramfs"} {
		info, err := os.Stat(filepath.Join(b.image, name))
		if err != nil {
			return nil, fmt.Errorf("measure the image: %w", err)
		}
		total += float64(info.Size()) / 1e6
	}
	root, err := os.Stat(filepath.Join(b.image, "root.img"))
	if err != nil {
		return nil, fmt.Errorf("measure the image: %w", err)
	}
	return []figure{
		{name: "image.payload", value: total, unit: "MB", budget: upTo(100), peer: talosImage},
		{name: "image.root", value: float64(root.Size()) / 1e6, unit: "MB", budget: upTo(float64(disklayout.SlotBytes / 3 / 1_000_000))},
	}, nil
}

// rebuild is how long a change in init takes to be in an image that boots. The change is made
// in a copy of the source tree, as git has it.
func (b bench) rebuild(ctx context.Context) ([]figure, error) {
	tree, err := os.MkdirTemp("", "slipway-bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(tree)
	if out, err := exec.CommandContext(ctx, "git", "checkout-index", "--all", "--prefix="+tree+"/").CombinedOutput(); err != nil {
		return nil, fmt.Errorf("copy the source tree: %w: %s", err, out)
	}
	change := fmt.Sprintf("package main\n\nconst changed = %q\n\nfunc init() { println(changed) }\n", time.Now())
	if err := os.WriteFile(filepath.Join(tree, "cmd", "init", "changed.go"), []byte(change), 0o600); err != nil {
		return nil, fmt.Errorf("change init: %w", err)
	}
	begin := time.Now()
	if err := b.run(ctx, "image", "build", "--source", tree, "--cache", ".cache", "--out", filepath.Join(tree, "image")); err != nil {
		return nil, err
	}
	return []figure{{name: "image.rebuild", value: time.Since(begin).Seconds(), unit: "s", budget: upTo(10)}}, nil
}

// cold is the whole build by a compiler that has compiled nothing yet, on a computer that has
// only downloaded: modules and packages are there.
func (b bench) cold(ctx context.Context) ([]figure, error) {
	dir, err := os.MkdirTemp("", "slipway-bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	if err := os.CopyFS(filepath.Join(dir, "cache", "debian"), os.DirFS(".cache/debian")); err != nil {
		return nil, fmt.Errorf("copy the downloaded packages: %w", err)
	}
	cmd := exec.CommandContext(ctx, b.slipway, "image", "build", "--cache", filepath.Join(dir, "cache"), "--out", filepath.Join(dir, "image"))
	cmd.Env = append(os.Environ(), "GOCACHE="+filepath.Join(dir, "go"))
	begin := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		return nil, fmt.Errorf("build the image: %w\n%s", err, out)
	}
	return []figure{{name: "image.cold", value: time.Since(begin).Seconds(), unit: "s", budget: upTo(600)}}, nil
}

// serve is the boot service by itself, in a lab's network: from its start to the line that says
// that every port answers, and its memory then.
func (b bench) serve(ctx context.Context) ([]figure, error) {
	if err := b.run(ctx, "lab", "up", lab, "--service=false", "--off"); err != nil {
		return nil, err
	}
	defer b.down()
	data, err := os.MkdirTemp("", "slipway-bench")
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(data)
	cmd := exec.CommandContext(ctx, b.slipway, "lab", "exec", lab, "--", b.slipway, "serve",
		"--data-dir", data, "--image", b.image, "--interface", "br0", "--range", "10.77.0.100-10.77.0.200")
	said, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	begin := time.Now()
	if err := cmd.Start(); err != nil {
		return nil, fmt.Errorf("start the boot service: %w", err)
	}
	defer func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }() // measured, not wanted any more
	line, err := bufio.NewReader(said).ReadString('\n')
	took := time.Since(begin)
	if err != nil {
		return nil, fmt.Errorf("wait for the boot service: %w: %s", err, line)
	}
	memory, err := resident(last(cmd.Process.Pid))
	if err != nil {
		return nil, err
	}
	return []figure{
		{name: "serve.start", value: took.Seconds(), unit: "s", budget: upTo(2)},
		{name: "serve.memory", value: memory / 1e6, unit: "MB", budget: upTo(150)},
	}, nil
}

// last is the process at the end of a chain of parents with one child each: entering the lab
// takes processes of its own.
func last(pid int) int {
	children, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	child, convErr := strconv.Atoi(strings.TrimSpace(string(children)))
	if err != nil || convErr != nil {
		return pid
	}
	return last(child)
}

// resident is a process's resident memory in bytes.
func resident(pid int) (float64, error) {
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		return 0, fmt.Errorf("read memory: %w", err)
	}
	for line := range strings.Lines(string(status)) {
		if value, ok := strings.CutPrefix(line, "VmRSS:"); ok {
			kib, err := strconv.ParseFloat(strings.TrimSpace(strings.TrimSuffix(strings.TrimSpace(value), "kB")), 64)
			return kib * 1024, err
		}
	}
	return 0, fmt.Errorf("read memory of process %d: it has ended", pid)
}

// boot is a blank machine's way from power-on to Ready, and what it then uses.
func (b bench) boot(ctx context.Context) ([]figure, error) {
	begin := time.Now()
	if err := b.run(ctx, "lab", "up", lab, "--image", b.image, "--memory", "2048"); err != nil {
		return nil, err
	}
	defer b.down()
	if err := b.inside(ctx, "cluster", "create", lab, "--yes", "--wait", "--timeout", "10m"); err != nil {
		return nil, err
	}
	figures := []figure{{name: "boot.ready", value: time.Since(begin).Seconds(), unit: "s", budget: upTo(90), peer: kubeadmReady}}
	phases, err := b.phases(ctx)
	figures = append(figures, phases...)
	if err != nil {
		return figures, err
	}
	memory, err := b.memory(ctx)
	figures = append(figures, memory...)
	if err != nil {
		return figures, err
	}
	pulls, err := b.output(ctx, "lab", "kubectl", lab, "--", "get", "events", "-A", "--field-selector", "reason=Pulling", "-o", "name")
	if err != nil {
		return figures, err
	}
	return append(figures, figure{name: "pulls", value: float64(len(strings.Fields(pulls))), unit: "count", budget: upTo(0)}), nil
}

// cluster is four blank machines' way from power-on to a cluster of three
// control planes and a worker, all Ready.
func (b bench) cluster(ctx context.Context) ([]figure, error) {
	begin := time.Now()
	if err := b.run(ctx, "lab", "up", lab, "--image", b.image, "--machines", "4", "--memory", "2048"); err != nil {
		return nil, err
	}
	defer b.down()
	if err := b.inside(ctx, "cluster", "create", lab, "--control-planes", "3", "--workers", "1", "--yes", "--wait", "--timeout", "20m"); err != nil {
		return nil, err
	}
	return []figure{{name: "cluster.ready.3+1", value: time.Since(begin).Seconds(), unit: "s", budget: upTo(360)}}, nil
}

// phases are the steps of the boot, each with the time since the one before.
func (b bench) phases(ctx context.Context) ([]figure, error) {
	var machine struct {
		Timeline []struct {
			Name string    `json:"name"`
			Time time.Time `json:"time"`
		} `json:"timeline"`
	}
	if err := b.read(ctx, &machine, "machines", "show", firstMachine); err != nil {
		return nil, err
	}
	var figures []figure
	seen := map[string]bool{}
	last := time.Time{}
	for _, event := range machine.Timeline {
		if seen[event.Name] {
			continue
		}
		seen[event.Name] = true
		if !last.IsZero() {
			figures = append(figures, figure{name: "boot.phase." + event.Name, value: event.Time.Sub(last).Seconds(), unit: "s", budget: phaseBudgets[event.Name]})
		}
		last = event.Time
	}
	return figures, nil
}

// firstMachine is the MAC address that the lab gives its first machine.
const firstMachine = "52-54-00-77-00-01"

// memory is what the node uses in all, and each of its units.
func (b bench) memory(ctx context.Context) ([]figure, error) {
	var status struct {
		Total     uint64 `json:"memory_total,string"`
		Available uint64 `json:"memory_available,string"`
		Units     []struct {
			Name   string `json:"name"`
			Memory uint64 `json:"memory,string"`
		} `json:"units"`
	}
	if err := b.read(ctx, &status, "node", "status", firstMachine); err != nil {
		return nil, err
	}
	figures := []figure{{name: "node.memory", value: float64(status.Total-status.Available) / 1e6, unit: "MB", budget: upTo(1500)}}
	for _, unit := range status.Units {
		if unit.Memory > 0 {
			figures = append(figures, figure{name: "node.memory." + unit.Name, value: float64(unit.Memory) / 1e6, unit: "MB", budget: memoryBudgets[unit.Name]})
		}
	}
	return figures, nil
}

// read runs a slipway command in the lab and decodes the JSON it prints.
func (b bench) read(ctx context.Context, into any, args ...string) error {
	out, err := b.output(ctx, append([]string{"lab", "exec", lab, "--", b.slipway}, append(args, "-o", "json")...)...)
	if err != nil {
		return err
	}
	if err := json.Unmarshal([]byte(out), into); err != nil {
		return fmt.Errorf("read what %s printed: %w", strings.Join(args, " "), err)
	}
	return nil
}

func (b bench) inside(ctx context.Context, args ...string) error {
	return b.run(ctx, append([]string{"lab", "exec", lab, "--", b.slipway}, args...)...)
}

func (b bench) run(ctx context.Context, args ...string) error {
	_, err := b.output(ctx, args...)
	return err
}

func (b bench) output(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, b.slipway, args...)
	var complaint bytes.Buffer
	cmd.Stderr = &complaint
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("slipway %s: %w\n%s%s", strings.Join(args, " "), err, out, &complaint)
	}
	return string(out), nil
}

// down ends the lab; one that is not up needs no ending.
func (b bench) down() {
	_ = exec.Command(b.slipway, "lab", "down", lab).Run()
}
