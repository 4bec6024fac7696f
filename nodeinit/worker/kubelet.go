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

	kubeletConfig       = "/etc/kubernetes/kubelet.yaml"
	bootstrapKubeconfig = "/etc/kubernetes/kubelet-bootstrap.kubeconfig"

	// kubeletCertDir is where the kubelet keeps client certificates that it
	// asked for itself.
	kubeletCertDir = "/var/lib/kubelet/pki"
	// askedFile is the present one: certificate and key. While it is being
	// renewed, the next one is called renewedName for a moment.
	askedFile   = kubeletCertDir + "/kubelet-client-current.pem"
	renewedName = "kubelet-client-updated.pem"
)

// login is how a node's kubelet logs in to the API server.
type login struct {
	kubeconfig        string
	certFile, keyFile string // PEM; may be one file
	bootstraps        bool   // the kubelet makes the files, by TLS bootstrap
}

// loginOf says where the kubelet's credentials are. A worker's kubelet asks for
// them with the bootstrap token, writes them and renews them in place. A
// control-plane machine holds the CA: the unit certificates mints and renews it
// there, as it does for every component. The first node need not wait for a
// controller manager to sign it, and one that was off for long comes back alone.
func loginOf(cfg *machine.Config) login {
	if cfg.Role == machine.ControlPlane {
		return login{
			kubeconfig: "/etc/kubernetes/kubelet.kubeconfig",
			certFile:   "/etc/kubernetes/pki/kubelet.crt", keyFile: "/etc/kubernetes/pki/kubelet.key",
		}
	}
	return login{kubeconfig: "/var/lib/kubelet/kubeconfig", certFile: askedFile, keyFile: askedFile, bootstraps: true}
}

// clusterAPI is the unit that a worker's kubelet comes after: without an API
// server it has nothing to do, and asks for its certificate again and again.
const clusterAPI = "cluster-api"

// apiPatience is how long a worker's kubelet waits for an API server. It starts
// without one then, and says itself what is wrong.
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
	after := []string{containerdName, imagesName, podsName, apiProxyName}
	if cfg.Role == machine.ControlPlane {
		after = append(after, "kube-apiserver", "certificates")
	} else {
		after = append(after, clusterAPI)
	}
	login := loginOf(cfg)
	credential := kubeletCredential(login, cfg.Cluster.CA)
	args := []string{
		"--config=" + kubeletConfig,
		"--kubeconfig=" + login.kubeconfig,
		"--cert-dir=" + kubeletCertDir,
		"--hostname-override=" + id.Hostname,
		"--node-ip=" + id.Address.String(),
	}
	if login.bootstraps {
		args = append(args, "--bootstrap-kubeconfig="+bootstrapKubeconfig)
	}
	if labels := labelFlag(cfg.Kubelet.Labels); labels != "" {
		args = append(args, "--node-labels="+labels)
	}
	return supervise.Unit{Name: kubeletName, After: after, Service: &proc.Process{
		Name:        kubeletName,
		Path:        "/usr/bin/kubelet",
		Args:        args,
		Reads:       []string{kubeletConfig},
		Before:      credential,
		Ready:       credential,
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
		"Rotates":  loginOf(cfg).bootstraps,
	})
	if err != nil || !loginOf(cfg).bootstraps {
		return []proc.File{config}, err
	}
	bootstrap, err := kubeconfig.Config{
		Cluster: cfg.Cluster.Name, Server: apiServer, CAFile: caFile,
		User: "kubelet-bootstrap", Token: cfg.Cluster.BootstrapToken,
	}.Encode()
	return []proc.File{config, {Path: bootstrapKubeconfig, Mode: 0o600, Data: bootstrap}}, err
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
