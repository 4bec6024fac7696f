package worker

import (
	"slipway/configs/machine"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

const (
	kubeProxyName       = "kube-proxy"
	kubeProxyConfig     = "/etc/kubernetes/kube-proxy.yaml"
	kubeProxyKubeconfig = "/etc/kubernetes/kube-proxy.kubeconfig"
)

// kubeProxy comes after the node: it asks for its own Node's address, and its
// start would only slow the kubelet's.
func kubeProxy() supervise.Unit {
	return supervise.Unit{Name: kubeProxyName, After: []string{nodeName}, Service: &proc.Process{
		Name:        kubeProxyName,
		Path:        "/usr/bin/kube-proxy",
		Args:        []string{"--config=" + kubeProxyConfig},
		Reads:       []string{kubeProxyConfig, kubeProxyKubeconfig},
		Ready:       proc.HTTPProbe{URL: "http://127.0.0.1:10256/livez"},
		OOMScoreAdj: -999,
	}}
}

// kubeProxyFiles includes credentials on workers only. There kube-proxy logs in
// as the node, with the same certificate as the kubelet: a worker
// holds no key that could sign another, and the role binding slipway:node-proxier
// (package addons) adds little to what a node may read anyway. On control-plane
// machines package controlplane mints its own certificate.
func kubeProxyFiles(cfg *machine.Config, id machine.Identity) ([]proc.File, error) {
	config, err := render("kube-proxy.yaml", kubeProxyConfig, map[string]any{
		"Kubeconfig": kubeProxyKubeconfig,
		"Hostname":   id.Hostname,
		"PodSubnet":  cfg.Cluster.PodSubnet,
	})
	if err != nil || cfg.Role == machine.ControlPlane {
		return []proc.File{config}, err
	}
	access, err := nodeKubeconfig(cfg)
	return []proc.File{config, {Path: kubeProxyKubeconfig, Mode: 0o600, Data: access}}, err
}
