// Package controlplane says what makes a machine a control-plane node: etcd,
// the Kubernetes control plane, cluster DNS and the objects every cluster
// starts with. PID 1 calls it for every machine and runs the units beside those
// of package worker; a worker has none of them.
//
// It is pure: it returns units and files; it starts and writes nothing.
package controlplane

import (
	"errors"

	"slipway/configs/machine"
	"slipway/controlplane/addons"
	"slipway/controlplane/atrest"
	"slipway/controlplane/etcd"
	"slipway/controlplane/kube"
	"slipway/controlplane/leaf"
	"slipway/controlplane/renew"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

// Units returns the control plane's units; of a machine that is for etcd only,
// those of its member; none for a worker.
func Units(cfg *machine.Config, id machine.Identity) []supervise.Unit {
	if check(cfg) != nil || cfg.Role == machine.Worker { // Files says what is wrong
		return nil
	}
	units := append([]supervise.Unit{renew.Unit(cfg, Leaves(cfg, id))}, etcd.Units(cfg)...)
	if cfg.Role == machine.ControlPlane {
		units = append(units, kube.Units(cfg, id)...)
		units = append(units, addons.Units(cfg, id)...)
		units = append(units, atrest.Units(cfg)...)
	}
	return units
}

// Leaves are the certificates that the unit certificates mints and renews.
func Leaves(cfg *machine.Config, id machine.Identity) []leaf.Leaf {
	var leaves []leaf.Leaf
	if cfg.IsMember() {
		leaves = etcd.Leaves(cfg, id)
	}
	if cfg.Role == machine.ControlPlane {
		leaves = append(leaves, kube.Leaves(cfg, id)...)
	}
	return leaves
}

// Files returns what the units read, but for their certificates, which are made
// on the machine; nothing for a worker. The same config gives the same files.
func Files(cfg *machine.Config, id machine.Identity) ([]proc.File, error) {
	if err := check(cfg); err != nil || cfg.Role == machine.Worker {
		return nil, err
	}
	files, err := etcd.Files(cfg, id)
	if err != nil || cfg.Role != machine.ControlPlane {
		return files, err
	}
	components, err := kube.Files(cfg, id)
	if err != nil {
		return nil, err
	}
	objects, err := addons.Files(cfg)
	return append(append(files, components...), objects...), err
}

func check(cfg *machine.Config) error {
	switch {
	case cfg.Role != machine.Worker && cfg.Etcd == nil:
		return errors.New("make control plane files: the machine config has no etcd")
	case cfg.Role == machine.ControlPlane && cfg.ControlPlaneKeys == nil:
		return errors.New("make control plane files: the machine config has no controlPlaneKeys")
	}
	return nil
}
