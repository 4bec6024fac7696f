package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"slipway/qemu"
)

// labUp is what `slipway lab up` was asked for.
type labUp struct {
	count      int
	specs      []string
	template   qemu.Machine
	firmware   string
	image      string
	address    string
	approve    string
	off        bool
	service    bool
	foreground bool
}

func labUpCommand(o *labOptions) *cobra.Command {
	up := &labUp{}
	cmd := &cobra.Command{
		Use:   "up [NAME]",
		Short: "Start a lab: network, boot service, machines",
		Long: `Start a lab: network, boot service, machines.

It returns when the machines are powered on; the lab stays up until 'slipway lab down'.
With --foreground it stays, and the lab ends with it (Ctrl-C).`,
		Example: `  slipway lab up                                     # m1: BIOS, 3072 MiB
  slipway lab up --machines 3                        # m1, m2, m3
  slipway lab up big --machine m1,firmware=uefi --machine m2,memory=4096,disk=20,pxe=plain`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			name := o.name
			if len(args) > 0 {
				name = args[0]
			}
			ctx, stop := signal.NotifyContext(cmd.Context(), os.Interrupt, syscall.SIGTERM)
			defer stop()
			return up.run(ctx, name, cmd.ErrOrStderr())
		},
	}
	up.flags(cmd)
	return cmd
}

func (up *labUp) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.IntVar(&up.count, "machines", 1, "how many equal machines, called m1, m2, ...")
	f.StringArrayVar(&up.specs, "machine", nil,
		"one machine, instead of --machines: NAME[,firmware=bios|uefi][,pxe=card|plain|http][,boot=network|local][,nic=virtio|e1000][,chipset=q35|pc][,memory=MiB][,cpus=N][,disk=GiB][,writes=N][,image=RAW][,cd=ISO][,stick=ISO][,clock=TIME][,mac=MAC]")
	f.StringVar(&up.firmware, "firmware", "bios", "firmware of the machines: bios or uefi")
	f.IntVar(&up.template.MemoryMiB, "memory", 3072, "memory of each machine, MiB")
	f.IntVar(&up.template.CPUs, "cpus", 0, "CPUs of each machine (default: 2; under software emulation 1 if the computer has fewer cores than that for each machine, or QEMU is older than 8.1, which may trip up guests with two)")
	f.StringVar(&up.image, "image", filepath.Join(".build", "image"), "directory with a built image")
	f.StringVar(&up.address, "address", "10.77.0.1/24", "the boot service's address in the lab, with the prefix length of its network")
	f.StringVar(&up.approve, "approve", "any", "which machines the boot service approves by itself: any, none, or a file of rules")
	f.BoolVar(&up.off, "off", false, "leave the machines off; see 'slipway lab power'")
	f.BoolVar(&up.service, "service", true, "run the boot service")
	f.BoolVar(&up.foreground, "foreground", false, "stay, and end the lab on Ctrl-C")
}

func (up *labUp) run(ctx context.Context, name string, out io.Writer) error {
	root, err := qemu.StateRoot()
	if err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find this program: %w", err)
	}
	config, err := up.config(name, filepath.Join(root, name), self)
	if err != nil {
		return err
	}
	begin := time.Now()
	leash, err := qemu.Start(ctx, root, config, []string{self, "lab", "hold"}, func(doing string) {
		fmt.Fprintf(out, "[%5.1fs] %s\n", time.Since(begin).Seconds(), doing)
	})
	if err != nil {
		return errors.Join(err, clearInterrupted(ctx, root, name))
	}
	if err := up.finish(leash, firstMachine(config), out); err != nil {
		leash.Cut()
		return err
	}
	if !up.foreground {
		return leash.Release()
	}
	select {
	case <-ctx.Done():
		leash.Cut()
		fmt.Fprintf(out, "lab %s is down\n", name)
		return clearInterrupted(ctx, root, name)
	case <-leash.Ended():
		return fmt.Errorf("lab %s has ended; its logs are in %s", name, leash.Dir())
	}
}

// clearInterrupted removes what is left of a lab that was ended by Ctrl-C. One that failed
// keeps its logs.
func clearInterrupted(ctx context.Context, root, name string) error {
	if ctx.Err() == nil {
		return nil
	}
	lab, err := qemu.Open(root, name)
	if errors.Is(err, qemu.ErrNotUp) {
		return nil
	}
	if err != nil {
		return err
	}
	return lab.Down(context.WithoutCancel(ctx), false)
}

// config makes the lab's description. dir is the lab's directory.
func (up *labUp) config(name, dir, self string) (qemu.Config, error) {
	config := qemu.Config{Name: name, Address: up.address, Off: up.off}
	up.template.Firmware = qemu.Firmware(up.firmware)
	machines := make([]qemu.Machine, up.count)
	if len(up.specs) > 0 {
		machines = nil
	}
	for _, spec := range up.specs {
		m, err := parseMachine(spec)
		if err != nil {
			return config, err
		}
		machines = append(machines, m)
	}
	for i, m := range machines {
		machines[i] = up.likeTemplate(m)
	}
	config.Machines = machines
	if !up.service {
		return config, nil
	}
	var err error
	config.Service, err = up.bootService(dir, self)
	return config, err
}

// parseMachine reads a machine whose files are named from the current directory.
func parseMachine(spec string) (qemu.Machine, error) {
	m, err := qemu.ParseMachine(spec)
	if err != nil {
		return m, err
	}
	for _, path := range []*string{&m.Image, &m.CD, &m.Stick} {
		if *path == "" {
			continue
		}
		if *path, err = filepath.Abs(*path); err != nil {
			return m, fmt.Errorf("find %s: %w", *path, err)
		}
	}
	return m, nil
}

// likeTemplate fills in what a machine's own description leaves open.
func (up *labUp) likeTemplate(m qemu.Machine) qemu.Machine {
	if m.MemoryMiB == 0 {
		m.MemoryMiB = up.template.MemoryMiB
	}
	if m.CPUs == 0 {
		m.CPUs = up.template.CPUs
	}
	if m.Firmware == "" {
		m.Firmware = up.template.Firmware
	}
	return m
}

// bootService is `slipway serve` for the lab's network.
func (up *labUp) bootService(dir, self string) (*qemu.Service, error) {
	image, err := filepath.Abs(up.image)
	if err != nil {
		return nil, fmt.Errorf("find the image: %w", err)
	}
	if _, err := os.Stat(filepath.Join(image, "manifest.json")); err != nil {
		return nil, fmt.Errorf("find the image: %w; build it: slipway image build --out %s", err, up.image)
	}
	approve := up.approve
	if approve != "any" && approve != "none" {
		if approve, err = filepath.Abs(approve); err != nil {
			return nil, fmt.Errorf("find the approval rules: %w", err)
		}
	}
	prefix, err := netip.ParsePrefix(up.address)
	if err != nil {
		return nil, fmt.Errorf("read --address: %w", err)
	}
	leases, err := leaseRange(prefix)
	if err != nil {
		return nil, err
	}
	return &qemu.Service{
		Command: []string{self, "serve", "--data-dir", filepath.Join(dir, labDataDir), "--image", image,
			"--interface", qemu.Bridge, "--range", leases, "--approve", approve},
		Ready: netip.AddrPortFrom(prefix.Addr(), bootServicePort).String(),
	}, nil
}

const (
	bootServicePort = 8443   // where the boot service accepts TLS
	labDataDir      = "data" // its data, below the lab's directory
)

// leaseRange is the part of an IPv4 network that the boot service hands out: .100 to .200.
func leaseRange(prefix netip.Prefix) (string, error) {
	if !prefix.Addr().Is4() || prefix.Bits() > 24 {
		return "", errors.New("read --address: want an IPv4 network of /24 or larger")
	}
	base := prefix.Masked().Addr().As4()
	first, last := base, base
	first[3], last[3] = 100, 200
	return netip.AddrFrom4(first).String() + "-" + netip.AddrFrom4(last).String(), nil
}

// finish links the image's kubectl for `lab kubectl` and says what comes next.
func (up *labUp) finish(leash *qemu.Leash, machine string, out io.Writer) error {
	image, err := filepath.Abs(up.image)
	if err != nil {
		return fmt.Errorf("find the image: %w", err)
	}
	if multicall := filepath.Join(image, "bin", "multicall"); up.service {
		if err := os.Symlink(multicall, filepath.Join(leash.Dir(), "kubectl")); err != nil {
			return fmt.Errorf("link kubectl: %w", err)
		}
	}
	fmt.Fprintf(out, `lab %[1]s is up (%[2]s)
  slipway lab status %[1]s
  slipway lab console -f %[1]s %[3]s
  slipway lab kubectl %[1]s -- get nodes
  slipway lab down %[1]s
`, leash.Name(), leash.Dir(), machine)
	return nil
}

// firstMachine is the name of a machine to give as an example.
func firstMachine(c qemu.Config) string {
	c = c.WithDefaults()
	if len(c.Machines) == 0 {
		return "MACHINE"
	}
	return c.Machines[0].Name
}
