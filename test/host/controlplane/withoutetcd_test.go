package controlplane

import (
	"syscall"
	"testing"

	"slipway/nodeinit/vip"
)

// testWithoutEtcd has etcd stand still, as one does for its API server when it
// lost its quorum, and looks as the unit vip does: the address stays where
// something answers. It comes last: programs that lose their leases end, and
// the supervisor starts them again.
func testWithoutEtcd(t *testing.T, n *node) {
	look := vip.NewLook()
	seen := func(want uint8) func() bool { return func() bool { return look(t.Context()) == want } }
	eventually(t, "an API server that is ready", seen(vip.Ready))

	etcd := n.pids()["etcd"]
	must(t, syscall.Kill(etcd, syscall.SIGSTOP))
	goOn := func() error { return syscall.Kill(etcd, syscall.SIGCONT) }
	t.Cleanup(func() { _ = goOn() })
	eventually(t, "an API server that answers without etcd", seen(vip.Serving))
	for path, want := range map[string]string{"/readyz": "500", "/livez": "500", "/livez?exclude=etcd": "200"} {
		if got := ask(t, "https://127.0.0.1:6443"+path, "ca", ""); got != want {
			t.Errorf("GET %s while etcd stands still: %s, want %s", path, got, want)
		}
	}

	must(t, goOn())
	eventually(t, "an API server that is ready again", seen(vip.Ready))
	kubectl(t, "", "create", "configmap", "written-after-etcd-stood-still")
}
