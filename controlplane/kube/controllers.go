package kube

import (
	"slipway/configs/machine"
	"slipway/controlplane/renew"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

const (
	controllerManagerName = "kube-controller-manager"
	schedulerName         = "kube-scheduler"
)

func controllerManager(cfg *machine.Config, id machine.Identity) supervise.Unit {
	args := append(loopbackArgs(controllerManagerName, "10257", id),
		"--cluster-name="+cfg.Cluster.Name,
		"--allocate-node-cidrs",
		"--cluster-cidr="+cfg.Cluster.PodSubnet.String(),
		"--service-cluster-ip-range="+cfg.Cluster.ServiceSubnet.String(),
		"--cluster-signing-cert-file="+signerFile,
		"--cluster-signing-key-file="+signerKeyFile,
		"--cluster-signing-duration="+renew.Lifetime(cfg).String(), // kubelets' certificates
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
	return controller(controllerManagerName, "10257", args, generation(cfg), CAFile, accountKeyFile)
}

func scheduler(cfg *machine.Config, id machine.Identity) supervise.Unit {
	return controller(schedulerName, "10259", loopbackArgs(schedulerName, "10259", id), generation(cfg))
}

// loopbackArgs are the flags of a controller that serves its health and
// metrics on loopback, and asks the API server who may see them. Of several the
// elected one acts. A lone one is elected too: when others join, they may begin
// before its own config says that it is one of several.
func loopbackArgs(name, port string, id machine.Identity) []string {
	args := []string{
		"--kubeconfig=" + Kubeconfig(name),
		"--authentication-kubeconfig=" + Kubeconfig(name),
		"--authorization-kubeconfig=" + Kubeconfig(name),
		"--authentication-skip-lookup", // all it would look up is given here
		"--client-ca-file=" + CAFile,
		"--requestheader-client-ca-file=" + frontProxyCAFile,
		"--bind-address=127.0.0.1",
		"--secure-port=" + port,
	}
	args = append(args, electionArgs(id.Emulated)...)
	args = append(args, "--profiling=false", "--tls-min-version=VersionTLS13")
	return append(args, pair("--tls-cert-file", "--tls-private-key-file", pkiDir+"/"+name)...)
}

// electionArgs are for how long a controller stays elected while the API does not
// answer: twice the usual times keep an election through what a busy machine may
// do to it. One that loses it ends, starts anew and reads everything again, which
// is what a cluster with emulated processors cannot bear while it is busy already:
// there it is six times.
func electionArgs(emulated bool) []string {
	lease, renew, retry := "30s", "20s", "4s"
	if emulated {
		lease, renew, retry = "90s", "75s", "10s"
	}
	return []string{"--leader-elect", "--leader-elect-lease-duration=" + lease,
		"--leader-elect-renew-deadline=" + renew, "--leader-elect-retry-period=" + retry}
}

// controller starts after the API server. Started beside it, the controller
// manager gets to work as soon as the API answers, finds it not yet healthy
// for ten seconds, and ends.
func controller(name, port string, args, env []string, reads ...string) supervise.Unit {
	return supervise.Unit{Name: name, After: AfterAPI(), Service: &proc.Process{
		Name:        name,
		Path:        "/usr/bin/" + name,
		Args:        args,
		Env:         env,
		Reads:       append(reads, Kubeconfig(name)),
		Ready:       proc.HTTPSProbe{URL: "https://127.0.0.1:" + port + "/healthz", CAFile: CAFile},
		OOMScoreAdj: -997,
	}}
}
