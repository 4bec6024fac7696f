package kube

import (
	"embed"
	"fmt"
	"strings"
	"text/template"

	"slipway/configs/machine"
	"slipway/controlplane/etcd"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

// Certificates of the API server, without .crt and .key.
const (
	servingCert       = pkiDir + "/apiserver"
	kubeletClientCert = pkiDir + "/apiserver-kubelet-client"
	etcdClientCert    = pkiDir + "/apiserver-etcd-client"
	proxyClientCert   = pkiDir + "/front-proxy-client"

	// frontProxyUser is whom extension API servers trust to name users.
	frontProxyUser = "front-proxy-client"
)

// files are the API server's configuration files, named as on the node. The
// one with the encryption key is a template.
//
//go:embed files/*.yaml
var settings embed.FS

func apiServer(cfg *machine.Config, id machine.Identity) supervise.Unit {
	args := []string{
		"--advertise-address=" + id.Address.String(),
		"--secure-port=" + port,
		"--service-cluster-ip-range=" + cfg.Cluster.ServiceSubnet.String(),
		"--allow-privileged",
		"--profiling=false",
	}
	for _, group := range [][]string{
		servingArgs(), authenticationArgs(cfg), etcdArgs(), kubeletArgs(), aggregationArgs(), policyArgs(),
	} {
		args = append(args, group...)
	}
	if len(cfg.Cluster.ControlPlanes) > 1 {
		// Clients hold their connections for hours; now and then one is asked
		// to connect anew, so that a restarted server gets its share again.
		args = append(args, "--goaway-chance=0.001")
	}
	return supervise.Unit{Name: APIServer, After: []string{etcd.Name}, Service: &proc.Process{
		Name:  APIServer,
		Path:  "/usr/bin/kube-apiserver",
		Args:  args,
		Ready: proc.HTTPSProbe{URL: LocalServer + "/readyz", CAFile: CAFile},
		// Half as many collections: a fifth less processor time until it is
		// ready, for 40 MB.
		Env:         []string{"GOGC=200"},
		OOMScoreAdj: -998,
	}}
}

func servingArgs() []string {
	return append(pair("--tls-cert-file", "--tls-private-key-file", servingCert),
		"--tls-min-version=VersionTLS13")
}

func authenticationArgs(cfg *machine.Config) []string {
	return []string{
		"--client-ca-file=" + CAFile,
		"--authentication-config=" + dir + "/authentication.yaml",
		"--enable-bootstrap-token-auth",
		"--service-account-issuer=https://kubernetes.default.svc." + cfg.Cluster.DNSDomain,
		"--service-account-signing-key-file=" + accountKeyFile,
		"--service-account-key-file=" + accountKeyFile,
	}
}

func etcdArgs() []string {
	return append(pair("--etcd-certfile", "--etcd-keyfile", etcdClientCert),
		"--etcd-servers="+etcd.Endpoint,
		"--etcd-cafile="+etcd.CAFile,
		"--encryption-provider-config="+dir+"/encryption.yaml")
}

// kubeletArgs: kubelets serve with their machine's certificate, which the boot
// service's CA signed, for the node's address.
func kubeletArgs() []string {
	return append(pair("--kubelet-client-certificate", "--kubelet-client-key", kubeletClientCert),
		"--kubelet-certificate-authority="+machineCAFile,
		"--kubelet-preferred-address-types=InternalIP")
}

func aggregationArgs() []string {
	return append(pair("--proxy-client-cert-file", "--proxy-client-key-file", proxyClientCert),
		"--requestheader-client-ca-file="+frontProxyCAFile,
		"--requestheader-allowed-names="+frontProxyUser,
		"--requestheader-username-headers=X-Remote-User",
		"--requestheader-group-headers=X-Remote-Group",
		"--requestheader-extra-headers-prefix=X-Remote-Extra-")
}

func policyArgs() []string {
	return []string{
		"--authorization-mode=Node,RBAC",
		"--enable-admission-plugins=NodeRestriction",
		"--admission-control-config-file=" + dir + "/admission.yaml",
		"--audit-policy-file=" + dir + "/audit.yaml",
		"--audit-log-path=/var/log/slipway/audit/audit.log",
		"--audit-log-mode=batch", // requests do not wait for it
		"--audit-log-maxsize=20", // MB
		"--audit-log-maxbackup=3",
	}
}

// pair gives the two flags of a certificate.
func pair(certFlag, keyFlag, path string) []string {
	return []string{certFlag + "=" + path + ".crt", keyFlag + "=" + path + ".key"}
}

// apiServerFiles renders the embedded files. All are 0600: one holds a key.
func apiServerFiles(cfg *machine.Config) ([]proc.File, error) {
	templates, err := template.New("").Option("missingkey=error").ParseFS(settings, "files/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("parse API server files: %w", err)
	}
	values := map[string]string{"EncryptionKey": cfg.ControlPlaneKeys.EncryptionKeys[0].Secret.Reveal()}
	var list []proc.File
	for _, name := range []string{"admission.yaml", "audit.yaml", "authentication.yaml", "encryption.yaml"} {
		var text strings.Builder
		if err := templates.ExecuteTemplate(&text, name, values); err != nil {
			return nil, fmt.Errorf("render %s: %w", name, err)
		}
		list = append(list, proc.File{Path: dir + "/" + name, Mode: 0o600, Data: []byte(text.String())})
	}
	return list, nil
}
