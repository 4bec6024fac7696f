// Package leaf is a component's certificate as the two files that the component
// reads: where they lie, what they hold, and what makes it time for new ones.
// Packages etcd and kube list their leaves with it; package renew keeps them on
// the node; the cryptography is package pki's.
package leaf

import (
	"fmt"
	"net"
	"net/netip"
	"time"

	"slipway/configs/secret"
	"slipway/controlplane/pki"
	"slipway/nodeinit/proc"
)

// Leaf is a certificate that a component of this machine holds.
type Leaf struct {
	Path    string // of the files, without .crt and .key
	CA      pki.CA
	Request pki.Request // Validity is Mint's to fill in
}

// CA joins a CA's two halves as a machine config carries them.
func CA(cert string, key secret.String) pki.CA {
	return pki.CA{CertPEM: []byte(cert), KeyPEM: []byte(key.Reveal())}
}

// CertFile is the path of the certificate.
func (l Leaf) CertFile() string { return l.Path + ".crt" }

// KeyFile is the path of its key.
func (l Leaf) KeyFile() string { return l.Path + ".key" }

// Mint makes the leaf anew, with a new key: the certificate's file, 0644, and
// the key's, 0600. It is valid for lifetime, and never beyond its CA's end.
func (l Leaf) Mint(now time.Time, lifetime time.Duration) (cert, key proc.File, err error) {
	request := l.Request
	request.Validity = lifetime
	minted, err := l.CA.Issue(request, now)
	if err != nil {
		return cert, key, fmt.Errorf("mint %s: %w", l.CertFile(), err)
	}
	return proc.File{Path: l.CertFile(), Mode: 0o644, Data: minted.CertPEM},
		proc.File{Path: l.KeyFile(), Mode: 0o600, Data: minted.KeyPEM}, nil
}

// IPs converts addresses for a pki.Request.
func IPs(addrs ...netip.Addr) []net.IP {
	var ips []net.IP
	for _, a := range addrs {
		ips = append(ips, a.AsSlice())
	}
	return ips
}
