package worker

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"slipway/configs/kubeconfig"
	"slipway/configs/machine"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

const (
	kubeletName = "kubelet"

	kubeletConfig     = "/etc/kubernetes/kubelet.yaml"
	kubeletKubeconfig = "/etc/kubernetes/kubelet.kubeconfig" // written by package kube on a control plane

	// kubeletPKI outlives a restart of the machine, if it has a disk.
	kubeletPKI = "/var/lib/kubelet/pki"
)

// login is how a node logs in to the API server: PEM files, which may be one.
type login struct{ certFile, keyFile string }

// loginOf says where the unit certificates has the node's credentials. A worker
// asks for them and keeps them. A control-plane machine holds the CA and mints
// them, as for every component: the first node need not wait for a controller
// manager to sign it, and one that was off for long comes back alone.
func loginOf(cfg *machine.Config) login {
	if cfg.Role == machine.ControlPlane {
		return login{"/etc/kubernetes/pki/kubelet.crt", "/etc/kubernetes/pki/kubelet.key"}
	}
	return login{kubeletPKI + "/client.pem", kubeletPKI + "/client.pem"}
}

// clusterAPI is the unit that what asks the API comes after on a worker: without
// an API server a kubelet has nothing to do.
const clusterAPI = "cluster-api"

// apiPatience is how long a worker waits for an API server. What comes after it
// starts without one then, and says itself what is wrong.
const apiPatience = 10 * time.Minute

func apiReached() supervise.Unit {
	return supervise.Unit{Name: clusterAPI, After: []string{apiProxyName}, Service: &proc.Gate{
		Probe: proc.HTTPSProbe{URL: apiServer + "/readyz", CAFile: caFile}, Patience: apiPatience,
	}}
}

// kubelet comes after the API server where that is on the same machine, and
// elsewhere after any: its first request would fail, and it waits seconds until
// the next.
func kubelet(cfg *machine.Config, id machine.Identity) supervise.Unit {
	api := clusterAPI
	if cfg.Role == machine.ControlPlane {
		api = "kube-apiserver"
	}
	args := []string{
		"--config=" + kubeletConfig,
		"--kubeconfig=" + kubeletKubeconfig,
		"--cert-dir=" + kubeletPKI,
		"--hostname-override=" + id.Hostname,
		"--node-ip=" + id.Address.String(),
	}
	if labels := labelFlag(cfg.Kubelet.Labels); labels != "" {
		args = append(args, "--node-labels="+labels)
	}
	after := []string{containerdName, imagesName, podsName, apiProxyName, api, certificatesName}
	return supervise.Unit{Name: kubeletName, After: after, Service: &proc.Process{
		Name:        kubeletName,
		Path:        "/usr/bin/kubelet",
		Args:        args,
		Reads:       []string{kubeletConfig, kubeletKubeconfig},
		Ready:       proc.HTTPProbe{URL: "http://127.0.0.1:10248/healthz"},
		OOMScoreAdj: -999,
	}}
}

func labelFlag(labels map[string]string) string {
	var pairs []string
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		pairs = append(pairs, key+"="+labels[key])
	}
	return strings.Join(pairs, ",")
}

func kubeletFiles(cfg *machine.Config, _ machine.Identity) ([]proc.File, error) {
	taints, err := parseTaints(cfg.Kubelet.Taints)
	if err != nil {
		return nil, err
	}
	config, err := render("kubelet.yaml", kubeletConfig, map[string]any{
		"CAFile":   caFile,
		"StateDir": stateDir,
		"Socket":   containerdSocket,
		"DNS":      cfg.Cluster.DNSAddress(),
		"Domain":   cfg.Cluster.DNSDomain,
		"Reserved": reserved(cfg.Role),
		"Taints":   taints,
	})
	if err != nil || cfg.Role == machine.ControlPlane {
		return []proc.File{config}, err
	}
	access, err := nodeKubeconfig(cfg)
	return []proc.File{config, {Path: kubeletKubeconfig, Mode: 0o600, Data: access}}, err
}

// nodeKubeconfig is a kubeconfig of the node itself.
func nodeKubeconfig(cfg *machine.Config) ([]byte, error) {
	login := loginOf(cfg)
	return kubeconfig.Config{
		Cluster: cfg.Cluster.Name, Server: apiServer, CAFile: caFile,
		User: "node", CertFile: login.certFile, KeyFile: login.keyFile,
	}.Encode()
}

// reserved is the memory that pods may not count on: what our own programs use.
func reserved(role machine.Role) string {
	if role == machine.ControlPlane {
		return "900Mi"
	}
	return "250Mi"
}

// taint is one of the taints a node registers with.
type taint struct{ Key, Value, Effect string }

// parseTaints reads key=value:Effect or key:Effect, as kubectl taint takes them.
func parseTaints(texts []string) ([]taint, error) {
	var taints []taint
	for _, text := range texts {
		pair, effect, ok := strings.Cut(text, ":")
		key, value, _ := strings.Cut(pair, "=")
		if !ok || key == "" || effect == "" {
			return nil, fmt.Errorf("read taint %q: want key=value:Effect", text)
		}
		taints = append(taints, taint{key, value, effect})
	}
	return taints, nil
}
