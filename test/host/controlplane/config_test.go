package controlplane

import (
	"crypto/rand"
	"encoding/base64"
	"net/netip"
	"testing"
	"time"

	"slipway/configs/machine"
	"slipway/configs/secret"
	"slipway/controlplane/pki"
)

// The node's address is one of loopback's in a network namespace without any
// other: the API server takes none of 127.0.0.0/8 as its own.
var identity = machine.Identity{Hostname: "cp-1", Address: netip.MustParseAddr("192.0.2.10"), Link: "lo"}

// newConfig is a machine config with keys of its own.
func newConfig(t *testing.T) *machine.Config {
	t.Helper()
	cluster, etcd, front, boot := newCA(t, "kubernetes"), newCA(t, "etcd"), newCA(t, "front-proxy"), newCA(t, "boot")
	_, account, err := pki.NewKey()
	must(t, err)
	key := make([]byte, 32)
	rand.Read(key)
	return &machine.Config{
		APIVersion: machine.APIVersion, Kind: machine.Kind,
		Hostname: identity.Hostname, Role: machine.ControlPlane,
		Cluster: machine.Cluster{
			Name: "test", Endpoint: "https://api.example.com:6443", ControlPlanes: []netip.Addr{identity.Address},
			PodSubnet: netip.MustParsePrefix("10.244.0.0/16"), ServiceSubnet: netip.MustParsePrefix("10.96.0.0/16"),
			DNSDomain: "cluster.local", CA: string(cluster.CertPEM), MachineCA: string(boot.CertPEM),
			BootstrapToken: secret.New("abcdef.0123456789abcdef"),
		},
		ControlPlaneKeys: &machine.ControlPlaneKeys{
			CAKey:        private(cluster),
			FrontProxyCA: string(front.CertPEM), FrontProxyKey: private(front),
			ServiceAccount: secret.New(string(account)),
			EncryptionKeys: []machine.EncryptionKey{{Name: "key-1", Secret: secret.New(base64.StdEncoding.EncodeToString(key))}},
		},
		Etcd: &machine.Etcd{
			CA: string(etcd.CertPEM), CAKey: private(etcd), Generation: 1,
			Members:   []machine.EtcdMember{{Name: identity.Hostname, Address: identity.Address}},
			Bootstrap: &machine.EtcdBootstrap{Token: secret.New("token")},
		},
	}
}

func newCA(t *testing.T, name string) pki.CA {
	t.Helper()
	ca, err := pki.NewCA(name, time.Now(), time.Hour)
	must(t, err)
	return ca
}

func private(ca pki.CA) secret.String { return secret.New(string(ca.KeyPEM)) }
