package qemu

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"sync"
	"time"
)

// Action is what can be done to a machine from outside.
type Action string

// The actions. All of them return when they are done, not when the guest has noticed.
const (
	PowerOn     Action = "on"        // nothing when it is on
	PowerOff    Action = "off"       // cuts the power; nothing when it is off
	PowerCycle  Action = "cycle"     // off, then on
	PowerReset  Action = "reset"     // the reset button
	PowerButton Action = "button"    // the power button, by ACPI: asks the guest to shut down
	LinkDown    Action = "link-down" // pulls the network cable
	LinkUp      Action = "link-up"   // plugs it in again
)

// guest is one machine of a running lab. Its methods may be called at the same time.
type guest struct {
	process
	spec  Machine
	tap   string
	host  Host
	power sync.Mutex // one action at a time; guards qmp
	qmp   *monitor
}

// do performs an action and returns when it is done.
func (g *guest) do(action Action) error {
	g.power.Lock()
	defer g.power.Unlock()
	var err error
	switch action {
	case PowerOn:
		err = g.on()
	case PowerOff:
		err = g.kill()
	case PowerCycle:
		err = errors.Join(g.kill(), g.on())
	case PowerReset:
		err = g.tell("system_reset", nil)
	case PowerButton:
		err = g.tell("system_powerdown", nil)
	case LinkDown, LinkUp:
		err = g.tell("set_link", map[string]any{"name": "net0", "up": action == LinkUp})
	default:
		err = errors.New("unknown action: want on, off, cycle, reset, button, link-down or link-up")
	}
	if err != nil {
		return fmt.Errorf("power %s %s: %w", g.spec.Name, action, err)
	}
	return nil
}

// on starts QEMU and returns once it answers.
func (g *guest) on() error {
	if g.running() {
		return nil
	}
	if err := g.prepare(); err != nil {
		return err
	}
	if err := g.launch(); err != nil {
		return err
	}
	if err := g.qmp.open(); err != nil {
		return errors.Join(fmt.Errorf("%w; QEMU says: %s", err, tail(g.spec.logFile(), 2000)), g.kill())
	}
	return nil
}

// launch starts QEMU with the connections it needs.
func (g *guest) launch() error {
	if g.qmp != nil {
		_ = g.qmp.close() // that of the QEMU before
	}
	qmp, theirs, err := newMonitor()
	if err != nil {
		return err
	}
	g.qmp = qmp
	inherited := []*os.File{theirs}
	defer func() { // QEMU has its own copies
		for _, file := range inherited {
			_ = file.Close()
		}
	}()
	if g.spec.needsCable() {
		cable, ends, err := newCable()
		if err != nil {
			return err
		}
		inherited = append(inherited, ends...)
		go g.carry(cable) // ends when the other ends are closed: by QEMU, or below
	}
	cmd := exec.Command(g.host.QEMU, g.spec.Command(g.host, g.tap)...)
	cmd.Env = append([]string{hugePages}, os.Environ()...)
	cmd.ExtraFiles = inherited // from qmpFD on
	return g.process.start(cmd, g.spec.logFile())
}

// carry runs the machine's cable; a cable that breaks is told in QEMU's log.
func (g *guest) carry(c *cable) {
	if err := c.carry(); err != nil {
		_ = appendTo(g.spec.logFile(), err.Error()+"\n")
	}
}

// tell sends one command to a machine that is on.
func (g *guest) tell(command string, arguments any) error {
	if !g.running() {
		return errors.New("the machine is off; power it on first")
	}
	return g.qmp.execute(command, arguments)
}

// prepare makes the files the machine needs; those that hold its state only once.
func (g *guest) prepare() error {
	if g.spec.Firmware == UEFI {
		if err := copyOnce(g.spec.varsFile(), g.host.OVMFVars); err != nil {
			return fmt.Errorf("copy UEFI variables: %w", err)
		}
	}
	for i, gib := range g.spec.DisksGiB {
		image := ""
		if i == 0 {
			image = g.spec.Image
		}
		if err := sparseOnce(g.spec.diskFile(i), int64(gib)<<30, image); err != nil {
			return fmt.Errorf("make disk %d: %w", i, err)
		}
	}
	mark := fmt.Sprintf("=== %s power on %s ===\n", g.spec.Name, time.Now().UTC().Format(time.RFC3339))
	if err := appendTo(g.spec.consoleFile(), mark); err != nil {
		return fmt.Errorf("mark the console: %w", err)
	}
	return nil
}

func copyOnce(to, from string) error {
	if _, err := os.Stat(to); err == nil {
		return nil
	}
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o600)
}

// sparseOnce makes a disk that takes no room for what it has not. It begins with the
// content of a file, if one is named.
func sparseOnce(path string, size int64, image string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if errors.Is(err, os.ErrExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer file.Close()
	if image != "" {
		if err := copySparse(file, image, size); err != nil {
			return errors.Join(err, os.Remove(path))
		}
	}
	return errors.Join(file.Truncate(size), file.Close())
}

// copySparse copies a file that must fit, but for the zeros in it.
func copySparse(to *os.File, image string, room int64) error {
	from, err := os.Open(image)
	if err != nil {
		return err
	}
	defer from.Close()
	info, err := from.Stat()
	if err != nil {
		return err
	}
	if info.Size() > room {
		return fmt.Errorf("%s has %d bytes, the disk %d", image, info.Size(), room)
	}
	block, zeros := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); ; at += int64(len(block)) {
		n, err := io.ReadFull(from, block)
		if n > 0 && !bytes.Equal(block[:n], zeros[:n]) {
			if _, err := to.WriteAt(block[:n], at); err != nil {
				return err
			}
		}
		switch err {
		case nil:
		case io.EOF, io.ErrUnexpectedEOF:
			return nil
		default:
			return err
		}
	}
}

func appendTo(path, text string) error {
	file, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		return err
	}
	_, err = file.WriteString(text)
	return errors.Join(err, file.Close())
}

// hugePages has glibc ask for huge pages for what QEMU allocates, as QEMU itself does for the
// guest's memory and for translated code (glibc manual: memory allocation tunables). Software
// emulation looks its code up in tables of tens of megabytes. Somebody's own tunables win.
const hugePages = "GLIBC_TUNABLES=glibc.malloc.hugetlb=1"
