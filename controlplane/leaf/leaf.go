// Package leaf turns a component's certificate request into the two files that
// the component reads. Packages etcd and kube list their leaves with it; the
// cryptography is package pki's.
//
// Leaves are made anew each time a control-plane machine gets its config, and
// last a year. Renewing them on a running node is not built yet.
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

// Validity is how long a leaf lasts.
const Validity = 365 * 24 * time.Hour

// Leaf is a certificate that a component of this machine holds.
type Leaf struct {
	Path    string // of the files, without .crt and .key
	CA      pki.CA
	Request pki.Request // Validity is filled in
}

// CA joins a CA's two halves as a machine config carries them.
func CA(cert string, key secret.String) pki.CA {
	return pki.CA{CertPEM: []byte(cert), KeyPEM: []byte(key.Reveal())}
}

// Files mints the leaves: for each its certificate, 0644, and its key, 0600.
func Files(leaves []Leaf, now time.Time) ([]proc.File, error) {
	var files []proc.File
	for _, l := range leaves {
		l.Request.Validity = Validity
		minted, err := l.CA.Issue(l.Request, now)
		if err != nil {
			return nil, fmt.Errorf("mint %s.crt: %w", l.Path, err)
		}
		files = append(files,
			proc.File{Path: l.Path + ".crt", Mode: 0o644, Data: minted.CertPEM},
			proc.File{Path: l.Path + ".key", Mode: 0o600, Data: minted.KeyPEM})
	}
	return files, nil
}

// IPs converts addresses for a pki.Request.
func IPs(addrs ...netip.Addr) []net.IP {
	var ips []net.IP
	for _, a := range addrs {
		ips = append(ips, a.AsSlice())
	}
	return ips
}
