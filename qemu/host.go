package qemu

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
)

// FindHost looks for the programs and firmware that machines need, and tries whether KVM
// works (see FindAccel). It fails with the Debian packages to install when something that
// these machines need is missing.
func FindHost(ctx context.Context, machines []Machine) (Host, error) {
	h := Host{
		OVMFCode: firstFile("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_CODE.fd"),
		OVMFVars: firstFile("/usr/share/OVMF/OVMF_VARS_4M.fd", "/usr/share/OVMF/OVMF_VARS.fd"),
		IPXE:     firstFile("/usr/lib/ipxe/ipxe.lkrn", "/boot/ipxe.lkrn"),
	}
	var errs []error
	need := func(ok bool, what, pkg string) {
		if !ok {
			errs = append(errs, fmt.Errorf("find %s: not installed; run: apt-get install %s", what, pkg))
		}
	}
	h.QEMU, _ = exec.LookPath("qemu-system-x86_64")
	need(h.QEMU != "", "qemu-system-x86_64", "qemu-system-x86")
	ip, _ := lookSbin("ip")
	need(ip != "", "ip", "iproute2")
	for _, m := range machines {
		need(m.Firmware != UEFI || h.OVMFCode != "" && h.OVMFVars != "", "the UEFI firmware of "+m.Name, "ovmf")
		need(m.Firmware != BIOS || m.PXE != PlainPXE || h.IPXE != "", "ipxe.lkrn for "+m.Name, "ipxe")
	}
	if err := errors.Join(errs...); err != nil {
		return Host{}, err
	}
	h.Accel, h.Version = FindAccel(ctx, h.QEMU), version(ctx, h.QEMU)
	return h, nil
}

// lookSbin finds a program that may live where an ordinary user's PATH does not look.
func lookSbin(name string) (string, error) {
	if path, err := exec.LookPath(name); err == nil {
		return path, nil
	}
	if path := firstFile("/usr/sbin/"+name, "/sbin/"+name); path != "" {
		return path, nil
	}
	return "", fmt.Errorf("find program %s: not in PATH, /usr/sbin or /sbin", name)
}

func firstFile(paths ...string) string {
	for _, path := range paths {
		if _, err := os.Stat(path); err == nil {
			return path
		}
	}
	return ""
}
