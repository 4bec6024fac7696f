package worker

import (
	"context"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"slipway/nodeinit/proc"
)

// credential is the kubelet's client certificate, and the CA that is to have
// signed it. The kubelet renews its certificate only near its end; when the CA
// is rotated it must have a new one before the old CA is trusted no more. So
// each time before the kubelet starts, a certificate of another CA is thrown
// away (Prepare): the kubelet then asks for one with the bootstrap token. And
// the kubelet is not ready, nor is the rotation gone on with, until it has one
// (Probe). A change of the CA restarts the kubelet, for it changes its unit.
//
// Pods run on while the kubelet restarts.
type credential struct {
	// Asked is what the kubelet asked for: certificate and key in one PEM file.
	Asked string
	// Made is the certificate that a control-plane machine makes for itself,
	// PEM, used while Asked is not there; empty on workers.
	Made string
	// CA is the cluster's, PEM. The first of its certificates signs.
	CA      string
	Healthz proc.HTTPProbe
}

// kubeletCredential is the credential of a kubelet that logs in by login.
func kubeletCredential(login login, ca string) credential {
	c := credential{Asked: askedFile, CA: ca, Healthz: proc.HTTPProbe{URL: "http://127.0.0.1:10248/healthz"}}
	if !login.bootstraps {
		c.Made = login.certFile
	}
	return c
}

// Prepare removes a certificate that the CA did not sign or that has ended. It
// does nothing when there is none.
func (c credential) Prepare() error {
	err := c.check(c.Asked, time.Now())
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	// The kubelet takes up a renewal that was cut short: that is removed too.
	for _, path := range []string{filepath.Join(filepath.Dir(c.Asked), renewedName), c.Asked} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("remove the certificate of another CA: %w", err)
		}
	}
	return nil
}

// Probe succeeds when the kubelet answers and has a certificate of the CA.
func (c credential) Probe(ctx context.Context) error {
	if err := c.Healthz.Probe(ctx); err != nil {
		return err
	}
	err := c.check(c.Asked, time.Now())
	if errors.Is(err, fs.ErrNotExist) && c.Made != "" {
		err = c.check(c.Made, time.Now())
	}
	if err != nil {
		return fmt.Errorf("a client certificate of the cluster's CA: %w", err)
	}
	return nil
}

func (c credential) String() string { return c.Healthz.String() }

// check says why the certificate in a file is no good.
func (c credential) check(path string, now time.Time) error {
	ca, err := firstCertificate([]byte(c.CA))
	if err != nil {
		return fmt.Errorf("read the cluster's CA: %w", err)
	}
	text, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	cert, err := firstCertificate(text)
	switch {
	case err != nil:
		return fmt.Errorf("read %s: %w", path, err)
	case cert.CheckSignatureFrom(ca) != nil:
		return fmt.Errorf("%s was signed by %s, and %s signs now", path, cert.Issuer.CommonName, ca.Subject.CommonName)
	case now.After(cert.NotAfter):
		return fmt.Errorf("%s ended on %s", path, cert.NotAfter.Format(time.DateOnly))
	}
	return nil
}

// firstCertificate is the first one of a PEM text, which may hold keys too.
func firstCertificate(text []byte) (*x509.Certificate, error) {
	for block, rest := pem.Decode(text); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			return x509.ParseCertificate(block.Bytes)
		}
	}
	return nil, errors.New("no certificate in it")
}
