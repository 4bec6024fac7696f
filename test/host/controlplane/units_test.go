package controlplane

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"os"

	"slipway/configs/machine"
	"slipway/controlplane"
	"slipway/controlplane/etcd"
	"slipway/nodeinit/supervise"
)

// unitsOf are the units of the machine, with two of the test's own: one that
// lets etcd start without asking anybody, and a balancer that knows one API
// server.
func unitsOf(cfg *machine.Config) []supervise.Unit {
	units := controlplane.Units(cfg, identity)
	for i, u := range units {
		if u.Name == etcd.MemberUnit {
			units[i].Service = bootstrap{}
		}
	}
	return append(units, supervise.Unit{Name: "apiproxy", Service: balancer{}})
}

// bootstrap writes the configuration of an etcd that makes a new cluster.
type bootstrap struct{}

// Run writes it and waits.
func (bootstrap) Run(ctx context.Context, ready func()) error {
	paths := etcd.NodePaths()
	data, err := os.ReadFile(paths.Settings)
	if err != nil {
		return err
	}
	var settings etcd.Settings
	if err := json.Unmarshal(data, &settings); err != nil {
		return err
	}
	text, err := etcd.Program{Paths: paths, Settings: &settings, New: true}.ConfigFile()
	if err != nil {
		return err
	}
	if err := os.WriteFile(paths.Config, text, 0o600); err != nil {
		return err
	}
	ready()
	<-ctx.Done()
	return nil
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
