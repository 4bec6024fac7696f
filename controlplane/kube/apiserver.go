package kube

import (
	"embed"
	"fmt"
	"net/netip"
	"strconv"
	"strings"
	"text/template"

	"slipway/configs/machine"
	"slipway/controlplane/etcd"
	"slipway/controlplane/renew"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

// Certificates of the API server, without .crt and .key.
const (
	servingCert       = pkiDir + "/apiserver"
	kubeletClientCert = pkiDir + "/apiserver-kubelet-client"
	etcdClientCert    = pkiDir + "/apiserver-etcd-client"
	proxyClientCert   = pkiDir + "/front-proxy-client"

	// EncryptionFile says with which keys Secrets are encrypted. The API server
	// loads it anew when it changes.
	EncryptionFile = dir + "/encryption.yaml"

	// frontProxyUser is whom extension API servers trust to name users.
	frontProxyUser = "front-proxy-client"
)

// files are the API server's configuration files, named as on the node. The
// one with the encryption keys is a template.
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
		// Without it, watches are left open when it stops, and it waits for them
		// until it is killed.
		"--shutdown-watch-termination-grace-period=5s",
	}
	for _, group := range [][]string{
		servingArgs(), authenticationArgs(cfg), etcdArgs(cfg), costArgs(id.Emulated), kubeletArgs(), aggregationArgs(), policyArgs(),
	} {
		args = append(args, group...)
	}
	if len(cfg.Cluster.ControlPlanes) > 1 {
		// Clients hold their connections for hours; now and then one is asked
		// to connect anew, so that a restarted server gets its share again.
		args = append(args, "--goaway-chance=0.001")
	}
	return supervise.Unit{Name: APIServer, After: after(cfg), Service: &proc.Process{
		Name:  APIServer,
		Path:  "/usr/bin/kube-apiserver",
		Args:  args,
		Ready: proc.HTTPSProbe{URL: LocalServer + "/readyz", CAFile: CAFile},
		// Half as many collections: a fifth less processor time until it is
		// ready, for 40 MB.
		Env:         append([]string{"GOGC=200"}, generation(cfg)...),
		Reads:       reads(cfg),
		OOMScoreAdj: -998,
	}}
}

// reads are the files whose change is a reason to start the API server anew.
func reads(cfg *machine.Config) []string {
	list := append([]string{dir + "/admission.yaml", dir + "/audit.yaml"}, accountKeyFiles(cfg)...)
	if cfg.IsMember() {
		return list
	}
	return append(list, etcd.CAFile)
}

// generation has a program restarted when etcd is started anew from other data:
// what it has seen and holds in memory is not what is there now.
func generation(cfg *machine.Config) []string {
	if cfg.Etcd.Generation == 0 {
		return nil
	}
	return []string{"SLIPWAY_ETCD_GENERATION=" + strconv.Itoa(cfg.Etcd.Generation)}
}

// after: a member on this machine is waited for. Others are the API server's
// own to find.
func after(cfg *machine.Config) []string {
	if cfg.IsMember() {
		return []string{renew.Name, etcd.Name}
	}
	return []string{renew.Name}
}

func servingArgs() []string {
	return append(pair("--tls-cert-file", "--tls-private-key-file", servingCert),
		"--tls-min-version=VersionTLS13")
}

func authenticationArgs(cfg *machine.Config) []string {
	args := []string{
		"--client-ca-file=" + CAFile,
		"--authentication-config=" + dir + "/authentication.yaml",
		"--enable-bootstrap-token-auth",
		"--service-account-issuer=https://kubernetes.default.svc." + cfg.Cluster.DNSDomain,
		"--service-account-signing-key-file=" + accountKeyFile,
	}
	for _, file := range accountKeyFiles(cfg) {
		args = append(args, "--service-account-key-file="+file)
	}
	return args
}

// accountKeyFiles hold the keys whose tokens are accepted: the one that signs,
// and another during a rotation.
func accountKeyFiles(cfg *machine.Config) []string {
	if cfg.ControlPlaneKeys.OtherAccounts == "" {
		return []string{accountKeyFile}
	}
	return []string{accountKeyFile, otherAccountFile}
}

func etcdArgs(cfg *machine.Config) []string {
	args := []string{
		"--etcd-servers=" + strings.Join(etcdServers(cfg), ","),
		"--encryption-provider-config=" + EncryptionFile,
		"--encryption-provider-config-automatic-reload",
	}
	if cfg.IsMember() { // the socket asks for no certificate
		return args
	}
	return append(append(args, "--etcd-cafile="+etcd.CAFile), pair("--etcd-certfile", "--etcd-keyfile", etcdClientCert)...)
}

// costArgs are what the API server asks of etcd when nothing happens. Each question
// is a read from a quorum: six messages where the member beside it follows, and a
// message is dear to an emulated processor. There it goes without knowing how many
// objects of each kind there are, which it asks for each kind every minute, also to
// tell how much a list of them will cost.
func costArgs(emulated bool) []string {
	// Without a CA for its peers it does nothing but keep a lease of each.
	gates := "--feature-gates=UnknownVersionInteroperabilityProxy=false"
	// How long it waits for etcd when it is asked for its health, twice as long as
	// until it asks again. The 2 s it has by itself are little for busy members.
	patience := "4s"
	var spared []string
	if emulated {
		gates += ",SizeBasedListCostEstimate=false"
		patience = "10s"
		spared = []string{"--etcd-count-metric-poll-period=0"}
	}
	return append(spared, gates, "--etcd-healthcheck-timeout="+patience, "--etcd-readycheck-timeout="+patience)
}

// etcdServers: the member beside the API server if there is one, which is as
// available as the API server itself; otherwise all there are.
func etcdServers(cfg *machine.Config) []string {
	if cfg.Etcd.External != nil {
		return cfg.Etcd.External.Endpoints
	}
	if cfg.IsMember() {
		return []string{etcd.APIServerEndpoint}
	}
	var servers []string
	for _, m := range cfg.Etcd.Members {
		servers = append(servers, "https://"+netip.AddrPortFrom(m.Address, 2379).String())
	}
	return servers
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

// apiServerFiles renders the embedded files. All are 0600: one holds keys.
func apiServerFiles(cfg *machine.Config) ([]proc.File, error) {
	templates, err := template.New("").Option("missingkey=error").ParseFS(settings, "files/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("parse API server files: %w", err)
	}
	values := map[string]any{"EncryptionKeys": cfg.ControlPlaneKeys.EncryptionKeys}
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
