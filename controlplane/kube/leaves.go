package kube

import (
	"net/netip"
	"net/url"
	"path/filepath"
	"slices"

	"slipway/configs/kubeconfig"
	"slipway/configs/machine"
	"slipway/controlplane/leaf"
	"slipway/controlplane/pki"
	"slipway/nodeinit/proc"
)

// client is a component that logs in to the API server: its name gives its
// files, the certificate's subject its rights. Those that serve on loopback
// serve with the same certificate.
type client struct {
	name   string
	user   string
	groups []string
	serves bool
}

// The users that begin with system: get their rights from the API server's own
// roles, the others from package addons.
func clients(id machine.Identity) []client {
	return []client{
		{name: controllerManagerName, user: "system:kube-controller-manager", serves: true},
		{name: schedulerName, user: "system:kube-scheduler", serves: true},
		{name: coreDNSName, user: "slipway:coredns"},
		{name: "kube-proxy", user: "system:kube-proxy"},
		{name: "kubelet", user: "system:node:" + id.Hostname, groups: []string{"system:nodes"}},
	}
}

// AddonsCert is the certificate of the unit addons, without .crt and .key. It
// applies the roles on which all other rights rest, so it cannot get its own
// from one.
const AddonsCert = pkiDir + "/addons"

var addonsRequest = pki.Request{CommonName: "slipway:addons", Organizations: []string{"system:masters"}, Client: true}

func (c client) path() string { return pkiDir + "/" + c.name }

func (c client) request() pki.Request {
	r := pki.Request{CommonName: c.user, Organizations: c.groups, Client: true}
	if c.serves {
		r.Server, r.IPs, r.DNSNames = true, leaf.IPs(loopback), []string{"localhost"}
	}
	return r
}

// Leaves are all certificates of this package's components. A member beside the
// API server asks for none; that for an etcd that someone else runs is theirs to
// make: Files writes it.
func Leaves(cfg *machine.Config, id machine.Identity) []leaf.Leaf {
	keys := cfg.ControlPlaneKeys
	ca := leaf.CA(cfg.Cluster.CA, keys.CAKey)
	list := []leaf.Leaf{
		{Path: servingCert, CA: ca, Request: servingRequest(cfg, id)},
		{Path: kubeletClientCert, CA: ca, Request: pki.Request{CommonName: "slipway:apiserver-kubelet-client", Client: true}},
		{Path: proxyClientCert, CA: leaf.CA(keys.FrontProxyCA, keys.FrontProxyKey), Request: pki.Request{CommonName: frontProxyUser, Client: true}},
	}
	if cfg.Etcd.External == nil && !cfg.IsMember() {
		list = append(list, leaf.Leaf{Path: etcdClientCert, CA: leaf.CA(cfg.Etcd.CA, cfg.Etcd.CAKey), Request: pki.Request{CommonName: "kube-apiserver", Client: true}})
	}
	for _, c := range clients(id) {
		list = append(list, leaf.Leaf{Path: c.path(), CA: ca, Request: c.request()})
	}
	return append(list, leaf.Leaf{Path: AddonsCert, CA: ca, Request: addonsRequest})
}

// servingRequest names the API server by every name clients use for it.
func servingRequest(cfg *machine.Config, id machine.Identity) pki.Request {
	names := []string{
		"kubernetes", "kubernetes.default", "kubernetes.default.svc",
		"kubernetes.default.svc." + cfg.Cluster.DNSDomain, "localhost", id.Hostname,
	}
	addrs := []netip.Addr{cfg.Cluster.APIAddress(), id.Address, loopback}
	if cfg.Cluster.VirtualIP.IsValid() {
		addrs = append(addrs, cfg.Cluster.VirtualIP)
	}
	if endpoint, err := url.Parse(cfg.Cluster.Endpoint); err == nil {
		if addr, err := netip.ParseAddr(endpoint.Hostname()); err != nil {
			names = append(names, endpoint.Hostname())
		} else if !slices.Contains(addrs, addr) {
			addrs = append(addrs, addr)
		}
	}
	return pki.Request{CommonName: "kube-apiserver", DNSNames: names, IPs: leaf.IPs(addrs...), Server: true}
}

// kubeconfigs tell the components where the API is and where their
// certificates lie: as paths, so that a renewed one is picked up.
func kubeconfigs(cfg *machine.Config, id machine.Identity) ([]proc.File, error) {
	var files []proc.File
	for _, c := range clients(id) {
		text, err := kubeconfig.Config{
			Cluster: cfg.Cluster.Name, Server: Balancer, CAFile: CAFile,
			User: c.user, CertFile: c.path() + ".crt", KeyFile: c.path() + ".key",
		}.Encode()
		if err != nil {
			return nil, err
		}
		files = append(files, proc.File{Path: Kubeconfig(c.name), Mode: 0o600, Data: text})
	}
	return files, nil
}

// Kubeconfig is the path of a component's kubeconfig.
func Kubeconfig(component string) string {
	return filepath.Join(dir, component+".kubeconfig")
}
