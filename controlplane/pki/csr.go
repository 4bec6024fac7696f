package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
)

// MaxCSR is the largest certificate request that CheckCSR reads, in bytes. A
// P-256 request with a name is about 300.
const MaxCSR = 4096

// NewCSR makes a certificate request (PKCS #10, DER) that proves possession of
// key. The boot service takes the subject as a courtesy and decides itself what
// it signs; Kubernetes signs it as it is.
func NewCSR(subject pkix.Name, key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: subject}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request for %s: %w", subject, err)
	}
	return der, nil
}

// CheckCSR reads a certificate request (PKCS #10, DER) and returns its key. It
// takes only ECDSA P-256 keys whose possession the signature proves.
func CheckCSR(der []byte) (*ecdsa.PublicKey, error) {
	if len(der) > MaxCSR {
		return nil, fmt.Errorf("check certificate request: %d bytes are more than %d", len(der), MaxCSR)
	}
	request, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, fmt.Errorf("check certificate request: %w", err)
	}
	key, ok := request.PublicKey.(*ecdsa.PublicKey)
	if !ok || key.Curve != elliptic.P256() {
		return nil, errors.New("check certificate request: the key is not ECDSA P-256")
	}
	if err := request.CheckSignature(); err != nil {
		return nil, fmt.Errorf("check certificate request: %w", err)
	}
	return key, nil
}
