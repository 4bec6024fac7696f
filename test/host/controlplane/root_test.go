package controlplane

import (
	"os"
	"syscall"
	"testing"

	"slipway/test/payload"
)

// programs are the names that the payload binary answers to, of those needed here.
var programs = []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "coredns", "kubectl"}

// newRoot makes this process's root look like a node's: the programs where a
// node has them, all else empty. It is gone with the process's mount namespace.
func newRoot(t *testing.T) {
	t.Helper()
	binary := payload.Path(t)
	const root = "/mnt"
	must(t, syscall.Mount("tmpfs", root, "tmpfs", 0, ""))
	for _, dir := range []string{"/dev", "/proc"} {
		must(t, os.Mkdir(root+dir, 0o755))
		must(t, syscall.Mount(dir, root+dir, "", syscall.MS_BIND|syscall.MS_REC, ""))
	}
	for _, dir := range []string{"/usr/lib/slipway", "/usr/bin", "/etc", "/run/slipway", "/tmp", "/var/log/slipway"} {
		must(t, os.MkdirAll(root+dir, 0o755))
	}
	const multicall = "/usr/lib/slipway/multicall"
	must(t, os.WriteFile(root+multicall, nil, 0o755))
	must(t, syscall.Mount(binary, root+multicall, "", syscall.MS_BIND, ""))
	for _, name := range programs {
		must(t, os.Symlink(multicall, root+"/usr/bin/"+name))
	}
	must(t, syscall.Chroot(root))
	must(t, os.Chdir("/"))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
