// Package kube says how a control-plane machine runs the Kubernetes control
// plane: API server, controller manager, scheduler and cluster DNS, each the
// upstream program with its own certificate. Package controlplane calls it.
//
// It starts nothing: it returns units and the files they read.
package kube

import (
	"net/netip"
	"time"

	"slipway/configs/machine"
	"slipway/controlplane/leaf"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

// APIServer is the API server's unit: what needs the API comes after it.
const APIServer = "kube-apiserver"

const (
	dir    = "/etc/kubernetes"
	pkiDir = dir + "/pki"

	// CAFile holds the CA of the API server and of all its clients. Worker
	// machines have it too, from package worker.
	CAFile           = pkiDir + "/ca.crt"
	caKeyFile        = pkiDir + "/ca.key"
	machineCAFile    = pkiDir + "/machine-ca.crt"
	frontProxyCAFile = pkiDir + "/front-proxy-ca.crt"
	accountKeyFile   = pkiDir + "/sa.key"

	// LocalServer is the API as this machine's components reach it.
	LocalServer = "https://127.0.0.1:6443"
	port        = "6443"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// Units returns the control plane's units. The DNS server comes after the unit
// addons: its permissions are applied by that.
func Units(cfg *machine.Config, id machine.Identity) []supervise.Unit {
	return []supervise.Unit{
		apiServer(cfg, id),
		controllerManager(cfg),
		scheduler(cfg),
		coreDNS(),
	}
}

// Files returns what the units read: certificates minted now, the CAs they are
// checked against, kubeconfigs and each program's own configuration.
func Files(cfg *machine.Config, id machine.Identity, now time.Time) ([]proc.File, error) {
	files := authorities(cfg)
	minted, err := leaf.Files(leaves(cfg, id), now)
	if err != nil {
		return nil, err
	}
	files = append(files, minted...)
	kubeconfigs, err := kubeconfigs(cfg, id)
	if err != nil {
		return nil, err
	}
	files = append(files, kubeconfigs...)
	configs, err := apiServerFiles(cfg)
	if err != nil {
		return nil, err
	}
	files = append(files, configs...)
	corefile, err := corefile(cfg, id)
	return append(files, corefile), err
}

// authorities are the CA certificates, and the keys with which the control
// plane itself signs: kubelets' certificates and service-account tokens.
func authorities(cfg *machine.Config) []proc.File {
	keys := cfg.ControlPlaneKeys
	return []proc.File{
		{Path: CAFile, Mode: 0o644, Data: []byte(cfg.Cluster.CA)},
		{Path: caKeyFile, Mode: 0o600, Data: []byte(keys.CAKey.Reveal())},
		{Path: machineCAFile, Mode: 0o644, Data: []byte(cfg.Cluster.MachineCA)},
		{Path: frontProxyCAFile, Mode: 0o644, Data: []byte(keys.FrontProxyCA)},
		{Path: accountKeyFile, Mode: 0o600, Data: []byte(keys.ServiceAccount.Reveal())},
	}
}
