package machine

import (
	"encoding/hex"
	"fmt"
	"net/netip"
	"strings"

	"slipway/configs/document"
	"slipway/configs/rule"
)

func (c *Config) checkEtcd(ps *document.Problems) {
	e := c.Etcd
	switch {
	case e == nil && c.Role != Worker:
		ps.Add("etcd", fmt.Sprintf("missing, though the role is %s", c.Role), "where the cluster's state is kept")
	case e != nil && c.Role == Worker:
		ps.Add("etcd", "a worker may not reach it", "leave it out, or another role")
	case e != nil:
		authorities(ps, "etcd.ca", e.CA)
		if e.External != nil {
			e.checkExternal(ps)
			break
		}
		pair(ps, "etcd.caKey", e.CA, e.CAKey)
		e.checkMembers(ps)
		e.checkBootstrap(ps)
		if c.Role == EtcdOnly && !c.IsMember() {
			ps.Add("etcd.members", c.Hostname+" is not one, though its role is etcd", "a list that names it")
		}
	}
}

func (e *Etcd) checkExternal(ps *document.Problems) {
	if len(e.Members) > 0 || e.Bootstrap != nil {
		ps.Add("etcd.external", "there are members of our own too", "either external or members")
	}
	if e.External.Key.Masked() {
		ps.Add("etcd.external.key", "this is not a private key", "the private key that belongs to the certificate")
	}
	CheckExternal(ps, "etcd.external", *e.External)
}

// CheckExternal adds the problems of what is said of an external etcd. A key
// that is masked passes: the document was shown to a person, and whoever takes
// it back has the key.
func CheckExternal(ps *document.Problems, path string, e EtcdExternal) {
	if len(e.Endpoints) == 0 {
		ps.Add(path+".endpoints", "there is none", "https://host:port of at least one member")
	}
	for i, endpoint := range e.Endpoints {
		rule.Endpoint(ps, document.Index(path+".endpoints", i), endpoint)
	}
	if _, err := parseCertificates(e.Cert); err != nil {
		ps.Add(path+".cert", "this is not a certificate", "a client certificate in PEM")
	}
	if !e.Key.Masked() {
		pair(ps, path+".key", e.Cert, e.Key)
	}
}

// CheckAuthorities adds a problem unless text is the certificate of a CA, in PEM.
func CheckAuthorities(ps *document.Problems, path, text string) { authorities(ps, path, text) }

func (e *Etcd) checkMembers(ps *document.Problems) {
	if e.Generation < 1 {
		ps.Add("etcd.generation", fmt.Sprintf("%d is not one", e.Generation), "1 or more")
	}
	if len(e.Members) == 0 {
		ps.Add("etcd.members", "there is none", "at least one: - {name: prod-cp-1, address: 192.0.2.10}")
	}
	names, addrs := map[string]bool{}, map[netip.Addr]bool{}
	for i, m := range e.Members {
		at := document.Index("etcd.members", i)
		rule.Name(ps, at+".name", m.Name, 63)
		if !m.Address.Is4() {
			ps.Add(at+".address", fmt.Sprintf("%s is not IPv4", m.Address), "an IPv4 address")
		}
		if names[m.Name] || addrs[m.Address] {
			ps.Add(at, fmt.Sprintf("%s, %s is there already", m.Name, m.Address), "each name and address once")
		}
		names[m.Name], addrs[m.Address] = true, true
	}
}

func (e *Etcd) checkBootstrap(ps *document.Problems) {
	b := e.Bootstrap
	if b == nil {
		return
	}
	if b.Token.IsZero() {
		ps.Add("etcd.bootstrap.token", "missing", "the one-shot token of the boot service")
	}
	if sum, err := hex.DecodeString(b.Snapshot); b.Snapshot != "" && (err != nil || len(sum) != 32 || strings.ToLower(b.Snapshot) != b.Snapshot) {
		ps.Add("etcd.bootstrap.snapshot", fmt.Sprintf("%q is not a SHA-256", b.Snapshot), "64 digits of 0-9 and a-f")
	}
	if b.Recover && b.Snapshot != "" {
		ps.Add("etcd.bootstrap", "it cannot recover and restore a snapshot", "one of recover, snapshot")
	}
}
