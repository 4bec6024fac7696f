package bootsvc

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// explainPort adds to an error of listening who has the port, or what is
// missing.
func explainPort(err error) error {
	var op *net.OpError
	switch {
	case errors.Is(err, syscall.EACCES) || errors.Is(err, syscall.EPERM):
		return fmt.Errorf("%w: ports below 1024 and DHCP need root, or the capabilities net_bind_service, net_raw and net_admin", err)
	case !errors.Is(err, syscall.EADDRINUSE) || !errors.As(err, &op) || op.Addr == nil:
		return err
	}
	_, port, splitErr := net.SplitHostPort(op.Addr.String())
	if splitErr != nil {
		return err
	}
	if owner := portOwner(op.Net, port); owner != "" {
		return fmt.Errorf("%w: %s has it; stop it first", err, owner)
	}
	return fmt.Errorf("%w: find who has it with ss -tulpn 'sport = :%s', and stop it", err, port)
}

// portOwner names the process that listens on a port of "tcp4" or "udp4":
// "dnsmasq (pid 812)". It is empty when that cannot be seen.
func portOwner(network, port string) string {
	table, err := os.ReadFile("/proc/net/" + strings.TrimSuffix(network, "4"))
	if err != nil {
		return ""
	}
	for _, inode := range listeners(string(table), port) {
		sockets, err := filepath.Glob("/proc/[0-9]*/fd/*")
		if err != nil {
			return ""
		}
		for _, fd := range sockets {
			if target, err := os.Readlink(fd); err == nil && target == "socket:["+inode+"]" {
				return processName(strings.Split(fd, "/")[2])
			}
		}
	}
	return ""
}

// listeners picks from /proc/net/{tcp,udp} (proc_pid_net(5)) the inodes of the
// sockets that are bound to a port and connected to nothing.
func listeners(table, port string) (inodes []string) {
	var number int
	if _, err := fmt.Sscan(port, &number); err != nil {
		return nil
	}
	for _, line := range strings.Split(table, "\n") {
		fields := strings.Fields(line)
		if len(fields) > 9 && strings.HasSuffix(fields[1], fmt.Sprintf(":%04X", number)) && strings.HasSuffix(fields[2], ":0000") {
			inodes = append(inodes, fields[9])
		}
	}
	return inodes
}

func processName(pid string) string {
	name, err := os.ReadFile(filepath.Join("/proc", pid, "comm"))
	if err != nil {
		return "process " + pid
	}
	return fmt.Sprintf("%s (pid %s)", strings.TrimSpace(string(name)), pid)
}
