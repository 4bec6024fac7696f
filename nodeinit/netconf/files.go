package netconf

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

// SetHostname names the node: in the kernel, in etc/hostname and in etc/hosts
// below root. It may be repeated.
func SetHostname(root, hostname string, addr netip.Addr) error {
	if err := unix.Sethostname([]byte(hostname)); err != nil {
		return fmt.Errorf("set host name %s: %w", hostname, err)
	}
	if err := writeFile(root, "etc/hostname", hostname+"\n"); err != nil {
		return err
	}
	return writeFile(root, "etc/hosts", hosts(hostname, addr))
}

func hosts(hostname string, addr netip.Addr) string {
	return fmt.Sprintf("127.0.0.1 localhost\n::1 localhost ip6-localhost ip6-loopback\n%s %s\n", addr, hostname)
}

func writeResolvConf(root string, l Lease) error {
	return writeFile(root, "etc/resolv.conf", resolvConf(l))
}

// resolvConf has at most three servers, as resolvers read no more (resolv.conf(5)).
func resolvConf(l Lease) string {
	var b strings.Builder
	fmt.Fprintf(&b, "# from the DHCP server %s\n", l.Server)
	if isDomain(l.Domain) {
		fmt.Fprintf(&b, "search %s\n", l.Domain)
	}
	for _, dns := range l.DNS[:min(len(l.DNS), 3)] {
		fmt.Fprintf(&b, "nameserver %s\n", dns)
	}
	return b.String()
}

// nameservers reads back what writeResolvConf wrote.
func nameservers(root string) (list []netip.Addr) {
	data, _ := os.ReadFile(filepath.Join(root, "etc/resolv.conf"))
	for line := range strings.Lines(string(data)) {
		text, ok := strings.CutPrefix(strings.TrimSpace(line), "nameserver ")
		if addr, err := netip.ParseAddr(text); ok && err == nil {
			list = append(list, addr)
		}
	}
	return list
}

// isDomain keeps what a server sent from becoming lines of its own.
func isDomain(s string) bool {
	return s != "" && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._") == ""
}

// writeFile replaces a file as a whole: readers see the old or the new.
func writeFile(root, name, text string) error {
	path := filepath.Join(root, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	temp := path + ".new"
	if err := os.WriteFile(temp, []byte(text), 0o644); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("write %s: %w", path, err)
	}
	return nil
}
