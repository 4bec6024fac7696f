package controlplane

import (
	"context"
	"errors"
	"io"
	"net"
	"slices"
	"strings"

	"slipway/configs/machine"
	"slipway/controlplane"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

// unitsOf are the units of the machine, with two of the test's own: an etcd
// that has nobody to ask whether it may start, and a balancer that knows one
// API server.
func unitsOf(cfg *machine.Config) []supervise.Unit {
	units := slices.DeleteFunc(controlplane.Units(cfg, identity), func(u supervise.Unit) bool {
		return strings.HasPrefix(u.Name, "etcd")
	})
	return append(units, etcdUnit(), supervise.Unit{Name: "apiproxy", Service: balancer{}})
}

func etcdUnit() supervise.Unit {
	const (
		dir   = "/etc/kubernetes/pki/etcd"
		local = "https://127.0.0.1:2379"
		peer  = "https://192.0.2.10:2380"
	)
	return supervise.Unit{Name: "etcd", After: []string{"certificates"}, Service: &proc.Process{
		Name: "etcd", Path: "/usr/bin/etcd", Reads: []string{dir + "/ca.crt"},
		Args: []string{
			"--name=cp-1", "--data-dir=/var/lib/etcd",
			"--listen-client-urls=" + local + ",https://192.0.2.10:2379", "--advertise-client-urls=https://192.0.2.10:2379",
			"--listen-peer-urls=" + peer, "--initial-advertise-peer-urls=" + peer, "--initial-cluster=cp-1=" + peer,
			"--client-cert-auth", "--trusted-ca-file=" + dir + "/ca.crt", "--cert-file=" + dir + "/server.crt", "--key-file=" + dir + "/server.key",
			"--peer-client-cert-auth", "--peer-trusted-ca-file=" + dir + "/ca.crt", "--peer-cert-file=" + dir + "/peer.crt", "--peer-key-file=" + dir + "/peer.key",
			"--heartbeat-interval=50", "--election-timeout=500",
		},
		Ready: proc.HTTPSProbe{URL: local + "/readyz", CAFile: dir + "/ca.crt", CertFile: dir + "/server.crt", KeyFile: dir + "/server.key"},
	}}
}

// balancer carries connections to the machine's API server.
type balancer struct{}

// Run listens until ctx ends.
func (balancer) Run(ctx context.Context, ready func()) error {
	listener, err := net.Listen("tcp", "127.0.0.1:7445")
	if err != nil {
		return err
	}
	defer context.AfterFunc(ctx, func() { listener.Close() })()
	ready()
	for {
		conn, err := listener.Accept()
		if errors.Is(err, net.ErrClosed) {
			return nil
		}
		if err != nil {
			return err
		}
		go carry(conn)
	}
}

func carry(from net.Conn) {
	defer from.Close()
	to, err := net.Dial("tcp", "127.0.0.1:6443")
	if err != nil {
		return
	}
	defer to.Close()
	go func() {
		defer from.Close()
		io.Copy(from, to)
	}()
	io.Copy(to, from)
}
