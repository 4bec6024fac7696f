package kube

import (
	"slipway/configs/machine"
	"slipway/controlplane/etcd"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

const (
	controllerManagerName = "kube-controller-manager"
	schedulerName         = "kube-scheduler"
)

func controllerManager(cfg *machine.Config) supervise.Unit {
	args := append(loopbackArgs(controllerManagerName, "10257"),
		"--cluster-name="+cfg.Cluster.Name,
		"--allocate-node-cidrs",
		"--cluster-cidr="+cfg.Cluster.PodSubnet.String(),
		"--service-cluster-ip-range="+cfg.Cluster.ServiceSubnet.String(),
		"--cluster-signing-cert-file="+CAFile,
		"--cluster-signing-key-file="+caKeyFile,
		"--root-ca-file="+CAFile,
		"--service-account-private-key-file="+accountKeyFile,
		"--use-service-account-credentials",
		"--controllers=*,token-cleaner-controller",
		"--flex-volume-plugin-dir=/var/lib/kubelet/volume-plugins", // its default is on the read-only root
		// Its forty controllers each fetch a token when they start. At the
		// default of 20 requests per second, a new node waits for that.
		"--kube-api-qps=200",
		"--kube-api-burst=400",
	)
	return controller(controllerManagerName, "10257", args)
}

func scheduler() supervise.Unit {
	return controller(schedulerName, "10259", loopbackArgs(schedulerName, "10259"))
}

// loopbackArgs are the flags of a controller that serves its health and
// metrics on loopback, and asks the API server who may see them.
func loopbackArgs(name, port string) []string {
	args := []string{
		"--kubeconfig=" + Kubeconfig(name),
		"--authentication-kubeconfig=" + Kubeconfig(name),
		"--authorization-kubeconfig=" + Kubeconfig(name),
		"--authentication-skip-lookup", // all it would look up is given here
		"--client-ca-file=" + CAFile,
		"--requestheader-client-ca-file=" + frontProxyCAFile,
		"--bind-address=127.0.0.1",
		"--secure-port=" + port,
		"--leader-elect",
		// The defaults are 15 s and 10 s: a machine that is busy for so long
		// would lose its controllers besides.
		"--leader-elect-lease-duration=30s",
		"--leader-elect-renew-deadline=20s",
		"--leader-elect-retry-period=1s", // also how often it asks for an API that is not there yet
		"--profiling=false",
		"--tls-min-version=VersionTLS13",
	}
	return append(args, pair("--tls-cert-file", "--tls-private-key-file", pkiDir+"/"+name)...)
}

// controller starts beside the API server, not after it: reading a program of
// this size and setting it up takes as long as that, on another processor.
// Until the API server is ready it fails to get its lease, and asks again.
func controller(name, port string, args []string) supervise.Unit {
	return supervise.Unit{Name: name, After: []string{etcd.Name}, Service: &proc.Process{
		Name:        name,
		Path:        "/usr/bin/" + name,
		Args:        args,
		Ready:       proc.HTTPSProbe{URL: "https://127.0.0.1:" + port + "/healthz", CAFile: CAFile},
		OOMScoreAdj: -997,
	}}
}
