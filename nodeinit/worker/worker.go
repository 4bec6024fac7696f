// Package worker says what makes a machine a Kubernetes node: the way to the
// API servers, containerd with the images it ships, kubelet, kube-proxy and the
// pod network. PID 1 calls it for every machine that has a config, and runs the
// units. A machine of role etcd is no node: there is nothing of it there.
//
// Units and Files are pure. What runs are upstream programs as processes, and
// the units images, pods, node and, on workers, certificates, which are goroutines of
// PID 1.
package worker

import (
	"slipway/configs/machine"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

const (
	caFile = "/etc/kubernetes/pki/ca.crt"

	// stateDir leads to where the node agent keeps the machine's certificate and key,
	// in memory or on its disk. PID 1 makes the link (package early).
	stateDir = "/run/slipway/machine"

	// Registered is a file that exists once the node's Node object does, with its UID.
	Registered = "/run/slipway/node-registered"

	// Leaving is a file that exists once the node leaves its cluster: the agent
	// makes it before it has the Node deleted, which is not to come back.
	Leaving = "/run/slipway/leaving"
)

// Units returns the node's units.
func Units(cfg *machine.Config, id machine.Identity) []supervise.Unit {
	if cfg.Role == machine.EtcdOnly {
		return nil
	}
	units := append(virtualIP(cfg), apiProxy())
	if cfg.Role == machine.Worker {
		units = append(units, apiReached(), certificates(cfg, id))
	}
	units = append(units, shared()...)
	return append(units,
		kubelet(cfg, id),
		nodeObject(cfg, id),
		masquerade(),
		kubeProxy(),
	)
}

// shared are the units that are the same on every node.
func shared() []supervise.Unit {
	return []supervise.Unit{containerd(), bundledImages(), runningPods()}
}

// Common returns what every node runs, whatever its config, and the files that
// is read from: a machine that waits for its config may start it.
func Common() ([]proc.File, []supervise.Unit, error) {
	files, err := containerdFiles(nil, machine.Identity{})
	return files, append(shared(), programs()), err
}

// Files returns what the units read. On a control-plane machine package
// controlplane adds its own, kube-proxy's credentials among them.
func Files(cfg *machine.Config, id machine.Identity) ([]proc.File, error) {
	if cfg.Role == machine.EtcdOnly {
		return nil, nil
	}
	files := []proc.File{{Path: caFile, Mode: 0o644, Data: []byte(cfg.Cluster.CA)}}
	for _, make := range []func(*machine.Config, machine.Identity) ([]proc.File, error){
		apiProxyFiles, virtualIPFiles, containerdFiles, kubeletFiles, kubeProxyFiles, masqueradeFiles,
	} {
		more, err := make(cfg, id)
		if err != nil {
			return nil, err
		}
		files = append(files, more...)
	}
	return files, nil
}
