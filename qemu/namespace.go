package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"syscall"
)

// Usable says why this user cannot run a lab of these machines on this computer, or nil.
func Usable(ctx context.Context, machines []Machine) error {
	if _, err := FindHost(ctx, machines); err != nil {
		return err
	}
	for _, user := range []uintptr{syscall.CLONE_NEWUSER, 0} {
		try := exec.CommandContext(ctx, "true")
		try.SysProcAttr = isolation(user)
		err := try.Run()
		if err == nil {
			break
		}
		if user == 0 || os.Geteuid() != 0 {
			return namespaceError(err)
		}
	}
	if len(machines) == 0 {
		return nil
	}
	return tunUsable()
}

// tunUsable says why taps cannot be made, or nil.
func tunUsable() error {
	tun, err := os.OpenFile("/dev/net/tun", os.O_RDWR, 0)
	if err == nil {
		err = tun.Close()
	}
	if err != nil {
		return fmt.Errorf("make taps: %w (let users open it: chmod 0666 /dev/net/tun; load it: modprobe tun)", err)
	}
	return nil
}

func namespaceError(err error) error {
	advice := ""
	if errors.Is(err, syscall.EPERM) || errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EACCES) {
		advice = " (this user may not make namespaces: run as root, or allow it with sysctl: user.max_user_namespaces=10000," +
			" on Debian kernel.unprivileged_userns_clone=1, on Ubuntu kernel.apparmor_restrict_unprivileged_userns=0)"
	}
	return fmt.Errorf("make namespaces: %w%s", err, advice)
}

// isolation makes a process the first of the lab's namespaces. user is CLONE_NEWUSER or 0.
func isolation(user uintptr) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{
		Setsid:     true, // the terminal's Ctrl-C is for whoever holds the leash
		Cloneflags: user | syscall.CLONE_NEWNET | syscall.CLONE_NEWNS | syscall.CLONE_NEWPID | syscall.CLONE_NEWIPC,
	}
	if user != 0 {
		attr.UidMappings = idMap("/proc/self/uid_map", os.Geteuid())
		attr.GidMappings = idMap("/proc/self/gid_map", os.Getegid())
		attr.GidMappingsEnableSetgroups = os.Geteuid() == 0
	}
	return attr
}

// idMap makes the caller root in the lab. For root, everybody else stays who they are, so
// that it may read in the lab what it may read outside.
func idMap(current string, id int) []syscall.SysProcIDMap {
	if id != 0 {
		return []syscall.SysProcIDMap{{ContainerID: 0, HostID: id, Size: 1}}
	}
	var maps []syscall.SysProcIDMap
	data, _ := os.ReadFile(current)
	for line := range strings.Lines(string(data)) {
		var inside, outside, size int
		if _, err := fmt.Sscan(line, &inside, &outside, &size); err == nil {
			maps = append(maps, syscall.SysProcIDMap{ContainerID: inside, HostID: inside, Size: size})
		}
	}
	return maps
}
