// Package pki makes certificate authorities and the certificates they sign:
// ECDSA P-256 throughout. The functions are pure but for the randomness of
// keys: they read no file, open no connection and take the time from the
// caller. The boot service calls it for its own CA and for the CAs of the
// clusters it makes; control-plane nodes call it for their components.
//
// It is not a certificate manager: it renews and revokes nothing. Renewing is
// issuing again.
package pki

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/pem"
	"errors"
	"fmt"
)

// The types of PEM blocks that this package reads and writes.
const (
	certBlock = "CERTIFICATE"
	keyBlock  = "EC PRIVATE KEY" // SEC 1, which every Kubernetes component reads
)

// NewKey makes an ECDSA P-256 key and returns it with its PEM form.
func NewKey() (*ecdsa.PrivateKey, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, fmt.Errorf("make key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, nil, fmt.Errorf("encode key: %w", err)
	}
	return key, pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der}), nil
}

// ParseKey reads an ECDSA private key, as NewKey writes it.
func ParseKey(text []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(text)
	if block == nil || block.Type != keyBlock {
		return nil, errors.New("parse key: no EC PRIVATE KEY block in the PEM text")
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("parse key: %w", err)
	}
	return key, nil
}

// ParseCert reads the first certificate of a PEM text.
func ParseCert(text []byte) (*x509.Certificate, error) {
	cert, _, err := nextCert(text)
	return cert, err
}

// ParseCerts reads all certificates of a PEM text; none is an error.
func ParseCerts(text []byte) ([]*x509.Certificate, error) {
	var certs []*x509.Certificate
	for rest := text; len(certs) == 0 || len(bytes.TrimSpace(rest)) > 0; {
		cert, after, err := nextCert(rest)
		if err != nil {
			return nil, err
		}
		certs, rest = append(certs, cert), after
	}
	return certs, nil
}

func nextCert(text []byte) (cert *x509.Certificate, rest []byte, err error) {
	block, rest := pem.Decode(text)
	if block == nil || block.Type != certBlock {
		return nil, nil, errors.New("parse certificate: no CERTIFICATE block in the PEM text")
	}
	cert, err = x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, nil, fmt.Errorf("parse certificate: %w", err)
	}
	return cert, rest, nil
}

// KeyHash names a public key: the hex SHA-256 of its SubjectPublicKeyInfo.
func KeyHash(pub crypto.PublicKey) (string, error) {
	spki, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return "", fmt.Errorf("encode public key: %w", err)
	}
	return digest(spki), nil
}

// CertHash names a certificate: the hex SHA-256 of its DER form. It is the
// pin that machines carry on their kernel command line.
func CertHash(cert *x509.Certificate) string { return digest(cert.Raw) }

func digest(b []byte) string {
	sum := sha256.Sum256(b)
	return hex.EncodeToString(sum[:])
}
