package machine

import (
	"bytes"
	"crypto"
	"crypto/x509"
	"encoding/base64"
	"encoding/pem"
	"errors"

	"slipway/configs/document"
	"slipway/configs/secret"
)

// certificate checks one CA certificate in PEM.
func certificate(ps *document.Problems, path, text string) {
	cert, err := parseCertificate(text)
	switch {
	case text == "":
		ps.Add(path, "missing", "a CA certificate in PEM")
	case err != nil:
		ps.Add(path, "this is not a certificate", "one CA certificate in PEM")
	case !cert.IsCA:
		ps.Add(path, "this certificate is not a CA's", "a CA certificate in PEM")
	}
}

// privateKey checks a private key in PEM. The problem never quotes it.
func privateKey(ps *document.Problems, path string, key secret.String) {
	if _, err := parseKey(key.Reveal()); err != nil {
		ps.Add(path, "this is not a private key", "an EC or RSA key in PEM (EC PRIVATE KEY or PRIVATE KEY)")
	}
}

// pair checks that key is the one of the certificate.
func pair(ps *document.Problems, path, cert string, key secret.String) {
	signer, err := parseKey(key.Reveal())
	if err != nil {
		privateKey(ps, path, key)
		return
	}
	parsed, err := parseCertificate(cert)
	if err != nil {
		return // the certificate's own problem
	}
	public, err := x509.MarshalPKIXPublicKey(signer.Public())
	if err != nil || !bytes.Equal(public, parsed.RawSubjectPublicKeyInfo) {
		ps.Add(path, "this key is not the certificate's", "the private key that belongs to the certificate")
	}
}

func encryptionKey(ps *document.Problems, path string, key secret.String) {
	raw, err := base64.StdEncoding.DecodeString(key.Reveal())
	if err != nil || len(raw) != 32 {
		ps.Add(path, "this is not an encryption key", "32 bytes in base64")
	}
}

func parseCertificate(text string) (*x509.Certificate, error) {
	block, rest := pem.Decode([]byte(text))
	if block == nil || block.Type != "CERTIFICATE" || len(bytes.TrimSpace(rest)) > 0 {
		return nil, errors.New("not one certificate")
	}
	return x509.ParseCertificate(block.Bytes)
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
