package agent

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"

	"slipway/configs/enroll"
)

// authorities are the boot service's CAs as they are stored; none is an error.
func (s store) authorities() ([]*x509.Certificate, error) {
	data, err := s.load(caFile)
	if err != nil {
		return nil, err
	}
	return parseCAs(data)
}

// parseCAs reads CA certificates, PEM; none is an error.
func parseCAs(data []byte) (cas []*x509.Certificate, err error) {
	for block, rest := pem.Decode(data); block != nil; block, rest = pem.Decode(rest) {
		ca, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, fmt.Errorf("read the boot service's CA: %w", err)
		}
		if !ca.IsCA {
			return nil, errors.New("read the boot service's CA: the certificate is not a CA's")
		}
		cas = append(cas, ca)
	}
	if len(cas) == 0 {
		return nil, errors.New("read the boot service's CA: not PEM")
	}
	return cas, nil
}

// anchors are the CAs by which the boot service is known, by hash: the pin, or
// what the boot service that had it said to be trusted instead. A pin that is
// another one, because the machine was given to another boot service, counts again.
func (s store) anchors(pin [sha256.Size]byte) [][sha256.Size]byte {
	of, err := s.load(pinFile)
	if err != nil || string(bytes.TrimSpace(of)) != hex.EncodeToString(pin[:]) {
		return [][sha256.Size]byte{pin}
	}
	cas, err := s.authorities()
	if err != nil {
		return [][sha256.Size]byte{pin}
	}
	var anchors [][sha256.Size]byte
	for _, ca := range cas {
		anchors = append(anchors, sha256.Sum256(ca.Raw))
	}
	return anchors
}

// trusts is the digest of the CAs that are stored; empty without any.
func (s store) trusts() string {
	data, err := s.load(caFile)
	if err != nil {
		return ""
	}
	return enroll.TrustDigest(data)
}

// replaceCertificate stores another certificate of the machine's key, if it is
// one of the CAs that are stored.
func (s store) replaceCertificate(cert []byte) error {
	data, err := s.load(caFile)
	if err != nil {
		return err
	}
	return s.checkAndSave(cert, data)
}

// replaceTrust stores a certificate and the CAs that are to be trusted with it,
// as a boot service said that has the pin or came of it. The certificate goes
// first: who trusts the new CAs has a certificate of them.
func (s store) replaceTrust(cert, cas []byte, pin [sha256.Size]byte) error {
	if err := s.checkAndSave(cert, cas); err != nil {
		return err
	}
	if err := s.save(caFile, cas); err != nil {
		return err
	}
	return s.save(pinFile, []byte(hex.EncodeToString(pin[:])+"\n"))
}

func (s store) checkAndSave(cert, cas []byte) error {
	roots, err := parseCAs(cas)
	if err != nil {
		return err
	}
	key, err := s.key()
	if err != nil {
		return err
	}
	if err := checkCertificate(cert, roots, key); err != nil {
		return err
	}
	return s.save(certFile, cert)
}

// checkCertificate checks that data is a certificate of ours, of one of the CAs.
func checkCertificate(data []byte, cas []*x509.Certificate, key *ecdsa.PrivateKey) error {
	cert, err := parseCert(data)
	if err != nil {
		return fmt.Errorf("read the machine's certificate: %w", err)
	}
	if err := signedBy(cert, data, cas); err != nil {
		return fmt.Errorf("check the machine's certificate: %w", err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return errors.New("check the machine's certificate: it is for another key")
	}
	return nil
}

// signedBy checks that a CA signed the certificate, or vouched for the one that
// did: chain, PEM, has what it signed for that. It does not look at the clock,
// which may be wrong.
func signedBy(cert *x509.Certificate, chain []byte, cas []*x509.Certificate) error {
	between := x509.NewCertPool()
	between.AppendCertsFromPEM(chain)
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: pool(cas), Intermediates: between, CurrentTime: cert.NotBefore.Add(cert.NotAfter.Sub(cert.NotBefore) / 2),
		KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageAny},
	})
	return err
}
