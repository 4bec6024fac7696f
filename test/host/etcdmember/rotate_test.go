package etcdmember

import (
	"crypto/tls"
	"crypto/x509"
	"net/http"
	"testing"
	"time"

	"slipway/bootsvc/assign"
	"slipway/configs/secret"
)

// TestRotateCA: the phases in which the boot service replaces etcd's CA, taken by
// one machine after the other, while somebody writes. Each phase has each etcd
// start anew, and in none of them do the members take no writes.
func TestRotateCA(t *testing.T) {
	t.Parallel()
	s := newSite(t)
	keys, err := assign.NewKeys("prod", time.Now())
	must(t, err)
	s.ca = keys.EtcdCA.CA
	a, b, c := s.add("a", "192.0.2.101"), s.add("b", "192.0.2.102"), s.add("c", "192.0.2.103")
	nodes := []*node{a, b, c}
	a.start(1, leave("one", ""), a, b, c)
	b.start(1, nil, a, b, c)
	c.start(1, nil, a, b, c)
	for _, n := range nodes {
		n.voter()
	}
	before := a.pair()
	writing := write(t, a, b, c)
	keys, err = keys.Begin("prod", assign.EtcdCA, time.Now())
	must(t, err)
	for len(keys.Rotations) > 0 {
		for _, n := range nodes {
			writing.through(n, func() { n.take(keys.EtcdCA) })
			t.Logf("%s has taken the phase %s", n.name, keys.Rotations[0].Phase)
		}
		keys, _, err = keys.Advance(nil, time.Now()) // nobody is behind
		must(t, err)
	}
	writing.check(a)
	for _, n := range nodes {
		if err := n.ready(keys.EtcdCA, n.pair()); err != nil {
			t.Errorf("%s with the new CA's certificates: %v", n.name, err)
		}
		if n.ready(keys.EtcdCA, before) == nil {
			t.Errorf("%s takes a certificate of the CA that was retired", n.name)
		}
	}
}

// through does something that has a machine's etcd start anew. Writes are taken
// meanwhile.
func (w *writer) through(n *node, do func()) {
	n.t.Helper()
	count, pid := w.count(), n.pid()
	do()
	n.voter()
	if now := n.pid(); now == pid || now == 0 {
		n.t.Errorf("%s's etcd runs on as process %d, was %d", n.name, now, pid)
	}
	n.eventually("write that is taken", func() bool { return w.count() > count })
}

// take gives a machine that runs a config with another CA, as its agent does:
// the files first, and then the units.
func (n *node) take(ca assign.Authority) {
	n.t.Helper()
	n.cfg.Etcd.CA, n.cfg.Etcd.CAKey = ca.Bundle(), secret.New(string(ca.KeyPEM))
	n.writeFiles()
	must(n.t, n.units.Apply(n.t.Context(), n.plan()))
}

// pid is etcd's process; 0 if there is none.
func (n *node) pid() (pid int) {
	for _, u := range n.units.Status() {
		pid = max(pid, u.PID)
	}
	return pid
}

// pair is what the machine shows its peers and clients now.
func (n *node) pair() tls.Certificate {
	n.t.Helper()
	pair, err := tls.LoadX509KeyPair(n.paths.PKI+"/server.crt", n.paths.PKI+"/server.key")
	must(n.t, err)
	return pair
}

// ready asks the machine's etcd for its health with a client's certificate, and
// checks its own against a CA.
func (n *node) ready(ca assign.Authority, client tls.Certificate) error {
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca.CertPEM)
	transport := &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{client}}}
	answer, err := (&http.Client{Transport: transport}).Get("https://" + n.paths.Local + "/readyz")
	if err == nil {
		answer.Body.Close()
	}
	return err
}
