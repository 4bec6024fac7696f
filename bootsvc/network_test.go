package bootsvc

import (
	"errors"
	"maps"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

func TestPoolOf(t *testing.T) {
	for name, test := range map[string]struct {
		subnet, text string
		want         string // the range, or a part of the error
	}{
		"guessed in a /24":    {"10.0.0.1/24", "", "10.0.0.128-10.0.0.254"},
		"guessed in a /28":    {"10.0.0.17/28", "", "10.0.0.24-10.0.0.30"},
		"guessed in a /8":     {"10.0.0.1/8", "", "10.255.0.0-10.255.255.254"},
		"too small to guess":  {"10.0.0.1/30", "", "--range FIRST-LAST"},
		"given":               {"10.0.0.1/24", "10.0.0.50-10.0.0.60", "10.0.0.50-10.0.0.60"},
		"given with spaces":   {"10.0.0.1/24", "10.0.0.50 - 10.0.0.60", "10.0.0.50-10.0.0.60"},
		"one address only":    {"10.0.0.1/24", "10.0.0.50", "not FIRST-LAST"},
		"no addresses":        {"10.0.0.1/24", "a-b", "not FIRST-LAST"},
		"backwards":           {"10.0.0.1/24", "10.0.0.60-10.0.0.50", "comes before the first"},
		"another subnet":      {"10.0.0.1/24", "10.0.1.50-10.0.1.60", "not inside 10.0.0.0/24"},
		"beyond the subnet":   {"10.0.0.1/24", "10.0.0.50-10.0.1.60", "not inside 10.0.0.0/24"},
		"IPv6 is not IPv4":    {"10.0.0.1/24", "fe80::1-fe80::9", "must be IPv4"},
		"more than a table":   {"10.0.0.1/8", "10.0.0.2-10.200.0.0", "at most"},
		"the server's own":    {"10.0.0.200/24", "", "10.0.0.128-10.0.0.254"},
		"a range of one only": {"10.0.0.1/24", "10.0.0.9-10.0.0.9", "10.0.0.9-10.0.0.9"},
	} {
		l := link{name: "eth0", prefix: netip.MustParsePrefix(test.subnet)}
		pool, err := l.poolOf(test.text)
		got := pool.First.String() + "-" + pool.Last.String()
		if err != nil {
			got = err.Error()
		}
		if !strings.Contains(got, test.want) {
			t.Errorf("%s: %s, want %s", name, got, test.want)
		}
		if err == nil && (len(pool.Exclude) != 1 || pool.Exclude[0] != l.prefix.Addr()) {
			t.Errorf("%s: the server's own address may be leased: %v", name, pool.Exclude)
		}
	}
}

func TestFindLink(t *testing.T) {
	l, err := findLink("lo")
	if err != nil || l.prefix.Addr() != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("lo: %+v, %v", l, err)
	}
	if _, err := findLink("nosuch0"); err == nil || !strings.Contains(err.Error(), "lo") {
		t.Errorf("an interface that is not there: %v", err)
	}
}

func TestAPortsOwnerIsNamed(t *testing.T) {
	listener, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	_, err = net.Listen("tcp4", listener.Addr().String())
	if got := explainPort(err).Error(); !errors.Is(err, syscall.EADDRINUSE) || !strings.Contains(got, "bootsvc.test (pid ") {
		t.Errorf("the explanation is %s", got)
	}
	if got := explainPort(syscall.EACCES).Error(); !strings.Contains(got, "need root") {
		t.Errorf("without permission: %s", got)
	}
	if got := explainPort(os.ErrNotExist); got != os.ErrNotExist {
		t.Errorf("an error of something else: %v", got)
	}
}

func TestListeners(t *testing.T) {
	const table = `  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 101 1 0
   1: 0100007F:0050 0100007F:9C40 01 00000000:00000000 00:00000000 00000000     0        0 102 1 0
   2: 00000000:20FB 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 103 1 0
   3: short
`
	for port, want := range map[string]string{"80": "101", "8443": "103", "81": "", "x": ""} {
		if got := strings.Join(listeners(table, port), " "); got != want {
			t.Errorf("port %s: %q, want %q", port, got, want)
		}
	}
}

func TestLoadImage(t *testing.T) {
	const complete = `{"version":"v1","kernelArguments":["console=ttyS0"],"artifacts":[
		{"name":"kernel","size":6},{"name":"initramfs","size":9},{"name":"bin/multicall","size":13},
		{"name":"loaders/undionly.kpxe","size":21},{"name":"loaders/snponly.efi","size":19},
		{"name":"root.img","size":8},{"name":"loaders/grub/core.img","size":21},{"name":"slipway.iso","size":11}]}`
	paths := []string{"/image/initramfs", "/image/kernel", "/image/loaders/grub/core.img", "/image/loaders/snponly.efi", "/image/loaders/undionly.kpxe",
		"/image/manifest.json", "/image/root.img", "/loaders/snponly.efi", "/loaders/undionly.kpxe"}
	for name, test := range map[string]struct{ manifest, want string }{
		"complete":  {complete, ""},
		"not JSON":  {"{", "manifest.json"},
		"no kernel": {strings.Replace(complete, `{"name":"kernel","size":6},`, "", 1), "does not list kernel"},
		"no loader": {strings.Replace(complete, `,
		{"name":"loaders/undionly.kpxe","size":21}`, "", 1), "does not list loaders/undionly.kpxe"},
		"a file elsewhere": {strings.Replace(complete, `"kernel"`, `"../kernel"`, 1), "not a file below it"},
		"a missing file":   {strings.Replace(complete, `"kernel"`, `"kernel2"`, 1), "no such file"},
		"another size":     {strings.Replace(complete, `"size":6`, `"size":7`, 1), "6 bytes and not the manifest's 7"},
	} {
		dir := t.TempDir()
		for _, file := range []string{"kernel", "initramfs", "bin/multicall", "loaders/undionly.kpxe", "loaders/snponly.efi", "root.img", "loaders/grub/core.img", "slipway.iso"} {
			if err := errors.Join(os.MkdirAll(filepath.Dir(filepath.Join(dir, file)), 0o755), os.WriteFile(filepath.Join(dir, file), []byte(file), 0o644)); err != nil {
				t.Fatal(err)
			}
		}
		if err := os.WriteFile(filepath.Join(dir, "manifest.json"), []byte(test.manifest), 0o644); err != nil {
			t.Fatal(err)
		}
		image, err := loadImage(dir)
		switch {
		case test.want == "":
			if err != nil || !slices.Equal(slices.Sorted(maps.Keys(image.web)), paths) || len(image.loaders) != 2 || string(image.loaders["undionly.kpxe"]) != "loaders/undionly.kpxe" {
				t.Errorf("%s: %+v, %v", name, image, err)
			}
		case test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)):
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
	if _, err := loadImage(t.TempDir()); err == nil || !strings.Contains(err.Error(), "slipway image build") {
		t.Errorf("no image: %v", err)
	}
}
