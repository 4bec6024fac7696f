// Package controlplane says what makes a machine a control-plane node: etcd,
// the Kubernetes control plane, cluster DNS and the objects every cluster
// starts with. PID 1 calls it for machines whose role is control-plane and
// runs the units beside those of package worker.
//
// It is pure: it returns units and files; it starts and writes nothing.
package controlplane

import (
	"errors"
	"time"

	"slipway/configs/machine"
	"slipway/controlplane/addons"
	"slipway/controlplane/etcd"
	"slipway/controlplane/kube"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

// Units returns the control plane's units; none for a worker.
func Units(cfg *machine.Config, id machine.Identity) []supervise.Unit {
	if cfg.Role != machine.ControlPlane || cfg.ControlPlaneKeys == nil || cfg.Etcd == nil { // Files says what is wrong
		return nil
	}
	units := etcd.Units(cfg, id)
	units = append(units, kube.Units(cfg, id)...)
	return append(units, addons.Units(id)...)
}

// Files returns what the units read; nothing for a worker. Each call mints new
// certificates, valid from now (see package leaf).
func Files(cfg *machine.Config, id machine.Identity, now time.Time) ([]proc.File, error) {
	if cfg.Role != machine.ControlPlane {
		return nil, nil
	}
	if cfg.ControlPlaneKeys == nil || cfg.Etcd == nil {
		return nil, errors.New("make control plane files: the machine config has no controlPlaneKeys or no etcd")
	}
	files, err := etcd.Files(cfg, id, now)
	if err != nil {
		return nil, err
	}
	components, err := kube.Files(cfg, id, now)
	if err != nil {
		return nil, err
	}
	objects, err := addons.Files(cfg)
	return append(append(files, components...), objects...), err
}
