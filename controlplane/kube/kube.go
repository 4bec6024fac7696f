// Package kube says how a control-plane machine runs the Kubernetes control
// plane: API server, controller manager, scheduler and cluster DNS, each the
// upstream program with its own certificate. Package controlplane calls it.
//
// It starts nothing: it returns units and the files they read.
//
// # How programs come to use new certificates
//
// Package renew puts a new leaf in its place; a changed config changes the CAs'
// files. What a program does not look at again is in its Reads, so that PID 1
// restarts it when the config changes that file. No leaf is: every program
// takes those up by itself. Read in Kubernetes 1.37.1 and etcd 3.7.3:
//
//	program             file                        looks again            where that is written
//	etcd, peers too     own certificate             at each handshake      etcd client/pkg/transport/listener.go (GetCertificate)
//	                    etcd's CA                   never: Reads           the same (ServerConfig, ClientConfig)
//	kube-apiserver      serving certificate         at once                apiserver pkg/server/options/serving.go, dynamiccertificates
//	                    client and front proxy CA   at once                apiserver pkg/server/options/authentication.go
//	                    certificate for etcd        at each handshake      apiserver pkg/storage/storagebackend/factory/etcd3.go
//	                    etcd's CA                   never: Reads           the same
//	                    certificate for kubelets    within five minutes    kubernetes pkg/kubelet/client/kubelet_client.go, client-go
//	                    machines' CA                within five minutes    the same
//	                    front proxy's certificate   at once                kube-aggregator pkg/apiserver/apiserver.go
//	                    service accounts' key       never: Reads           kubernetes pkg/controlplane/apiserver/options/options.go
//	                    encryption keys             within a minute        apiserver pkg/server/options/encryptionconfig/controller
//	                    audit, admission            never: Reads           apiserver pkg/server/options/audit.go, admission.go
//	controller manager  serving, client CAs         at once                as kube-apiserver
//	                    signer                      at once                kubernetes pkg/controller/certificates/signer/ca_provider.go
//	                    CA given to pods            never: Reads           kubernetes cmd/kube-controller-manager/app/certificates.go
//	                    service accounts' key       never: Reads           kubernetes cmd/kube-controller-manager/app/service_accounts.go
//	scheduler           serving, client CAs         at once                as kube-apiserver
//	kubelet             client CA                   at once                kubernetes cmd/kubelet/app/auth.go
//	                    machine's certificate       at once                kubernetes pkg/kubelet/kubelet.go (ReloadKubeletServerCertificateFile)
//	all with a          certificate                 within five minutes    client-go transport/cert_rotation.go
//	kubeconfig          CA                          within five minutes    client-go transport/ca_rotation.go (ClientsAllowCARotation)
//	                    the kubeconfig itself       never: Reads           client-go tools/clientcmd
//
// "At once" is by fsnotify, and each minute for what that misses. The five
// minutes are why a leaf is renewed six before its end at the latest (package
// leaf), and why the steps in which a CA is replaced are longer than that.
//
// A kubelet has a kubeconfig and a leaf as the others here, and does not ask for
// its certificate by itself (rotateCertificates); on a worker, package worker does.
package kube

import (
	"net/netip"

	"slipway/configs/machine"
	"slipway/controlplane/etcd"
	"slipway/controlplane/leaf"
	"slipway/controlplane/pki"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

// APIServer is the API server's unit: what needs the API comes after it.
const APIServer = "kube-apiserver"

// AfterAPI is what a user of the API on a control plane comes after: the
// machine's own API server, so that the first request does not fail, and the
// balancer.
func AfterAPI() []string { return []string{APIServer, balancerUnit} }

const (
	dir    = "/etc/kubernetes"
	pkiDir = dir + "/pki"

	// CAFile holds the CA of the API server and of all its clients. Worker
	// machines have it too, from package worker.
	CAFile           = pkiDir + "/ca.crt"
	signerFile       = pkiDir + "/signer.crt"
	signerKeyFile    = pkiDir + "/signer.key"
	machineCAFile    = pkiDir + "/machine-ca.crt"
	frontProxyCAFile = pkiDir + "/front-proxy-ca.crt"
	accountKeyFile   = pkiDir + "/sa.key"
	otherAccountFile = pkiDir + "/sa-other.pub"

	// Balancer is the API as components reach it: the unit apiproxy finds an API
	// server that is well, this machine's own first.
	Balancer     = "https://127.0.0.1:7445"
	balancerUnit = "apiproxy"

	// LocalServer is this machine's API server, for what must know of this one.
	LocalServer = "https://127.0.0.1:6443"
	port        = "6443"
)

var loopback = netip.MustParseAddr("127.0.0.1")

// Units returns the control plane's units. The DNS server comes after the unit
// addons: its permissions are applied by that.
func Units(cfg *machine.Config, id machine.Identity) []supervise.Unit {
	return []supervise.Unit{
		apiServer(cfg, id),
		controllerManager(cfg, id),
		scheduler(cfg, id),
		coreDNS(),
	}
}

// Files returns what the units read: the CAs that certificates are checked
// against, kubeconfigs and each program's own configuration. The certificates
// are Leaves.
func Files(cfg *machine.Config, id machine.Identity) ([]proc.File, error) {
	files, err := authorities(cfg)
	if err != nil {
		return nil, err
	}
	files = append(files, etcdAccess(cfg)...)
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
// plane itself signs: kubelets' certificates and service-account tokens. While
// a CA is being replaced, both certificates are trusted and one signs.
func authorities(cfg *machine.Config) ([]proc.File, error) {
	keys := cfg.ControlPlaneKeys
	signer, err := leaf.CA(cfg.Cluster.CA, keys.CAKey).Signer()
	if err != nil {
		return nil, err
	}
	files := []proc.File{
		{Path: CAFile, Mode: 0o644, Data: []byte(cfg.Cluster.CA)},
		{Path: signerFile, Mode: 0o644, Data: pki.EncodeCert(signer)},
		{Path: signerKeyFile, Mode: 0o600, Data: []byte(keys.CAKey.Reveal())},
		{Path: machineCAFile, Mode: 0o644, Data: []byte(cfg.Cluster.MachineCA)},
		{Path: frontProxyCAFile, Mode: 0o644, Data: []byte(keys.FrontProxyCA)},
		{Path: accountKeyFile, Mode: 0o600, Data: []byte(keys.ServiceAccount.Reveal())},
	}
	if keys.OtherAccounts != "" {
		files = append(files, proc.File{Path: otherAccountFile, Mode: 0o644, Data: []byte(keys.OtherAccounts)})
	}
	return files, nil
}

// etcdAccess is how the API server gets at an etcd on other machines. Where it
// runs beside a member, package etcd writes the CA; where the machine holds
// etcd's CA key, the certificate is one of Leaves.
func etcdAccess(cfg *machine.Config) []proc.File {
	if cfg.IsMember() {
		return nil
	}
	files := []proc.File{{Path: etcd.CAFile, Mode: 0o644, Data: []byte(cfg.Etcd.CA)}}
	if external := cfg.Etcd.External; external != nil {
		files = append(files,
			proc.File{Path: etcdClientCert + ".crt", Mode: 0o644, Data: []byte(external.Cert)},
			proc.File{Path: etcdClientCert + ".key", Mode: 0o600, Data: []byte(external.Key.Reveal())})
	}
	return files
}
