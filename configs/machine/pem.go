package machine

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"
	"slices"

	"slipway/configs/document"
	"slipway/configs/secret"
)

// authorities checks the certificates of a CA in PEM: one, or two during a rotation.
func authorities(ps *document.Problems, path, text string) {
	certs, err := parseCertificates(text)
	switch {
	case text == "":
		ps.Add(path, "missing", "a CA certificate in PEM")
	case err != nil:
		ps.Add(path, "this is not a certificate", "one CA certificate in PEM, or two during a rotation")
	case slices.ContainsFunc(certs, func(c *x509.Certificate) bool { return !c.IsCA }):
		ps.Add(path, "this certificate is not a CA's", "a CA certificate in PEM")
	}
}

// privateKey checks a private key in PEM. The problem never quotes it.
func privateKey(ps *document.Problems, path string, key secret.String) {
	if _, err := parseKey(key.Reveal()); err != nil {
		ps.Add(path, "this is not a private key", "an EC or RSA key in PEM (EC PRIVATE KEY or PRIVATE KEY)")
	}
}

// publicKey checks one public key in PEM, or none. A private one is refused: it
// would be in a file that is not kept as one.
func publicKey(ps *document.Problems, path, text string) {
	if text == "" {
		return
	}
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "PUBLIC KEY" || len(bytes.TrimSpace(rest)) > 0 {
		ps.Add(path, "this is not one public key", "a public key in PEM (PUBLIC KEY)")
		return
	}
	if _, err := x509.ParsePKIXPublicKey(block.Bytes); err != nil {
		ps.Add(path, "this public key cannot be read", "an EC or RSA public key in PEM (PUBLIC KEY)")
	}
}

// pair checks that key is the one of one of the certificates.
func pair(ps *document.Problems, path, certs string, key secret.String) {
	signer, err := parseKey(key.Reveal())
	if err != nil {
		privateKey(ps, path, key)
		return
	}
	parsed, err := parseCertificates(certs)
	if err != nil {
		return // the certificates' own problem
	}
	public, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil || !slices.ContainsFunc(parsed, func(c *x509.Certificate) bool { return bytes.Equal(public, c.RawSubjectPublicKeyInfo) }) {
		ps.Add(path, "this key is not the certificate's", "the private key that belongs to the certificate")
	}
}

func encryptionKey(ps *document.Problems, path string, key secret.String) {
	raw, err := base64.StdEncoding.DecodeString(key.Reveal())
	if err != nil || len(raw) != 32 {
		ps.Add(path, "this is not an encryption key", "32 bytes in base64")
	}
}

// maxCertificates is how many a CA may have: the old one and the new.
const maxCertificates = 2

func parseCertificates(text string) (certs []*x509.Certificate, err error) {
	for rest := []byte(text); len(bytes.TrimSpace(rest)) > 0; {
		var block *pem.Block
		if block, rest = pem.Decode(rest); block == nil || block.Type != "CERTIFICATE" || len(certs) == maxCertificates {
			return nil, errors.New("not one or two certificates")
		}
		cert, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, err
		}
		certs = append(certs, cert)
	}
	if len(certs) == 0 {
		return nil, errors.New("no certificate")
	}
	return certs, nil
}

func parseKey(text string) (crypto.Signer, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not one key")
	}
	if key, err := x509.ParseECPrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	if key, err := x509.ParsePKCS1PrivateKey(block.Bytes); err == nil {
		return key, nil
	}
	key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	if err != nil {
		return nil, err
	}
	signer, ok := key.(crypto.Signer)
	if !ok {
		return nil, errors.New("not a signing key")
	}
	return signer, nil
}
