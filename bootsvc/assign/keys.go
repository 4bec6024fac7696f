package assign

import (
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"math/big"
	"time"

	"slipway/controlplane/pki"
)

// caValidity is how long a cluster's CAs hold.
const caValidity = 10 * 365 * 24 * time.Hour

// Keys are a cluster's secrets. They are encrypted at rest.
type Keys struct {
	CA             pki.CA `json:"ca"`
	EtcdCA         pki.CA `json:"etcdCA"`
	FrontProxyCA   pki.CA `json:"frontProxyCA"`
	ServiceAccount []byte `json:"serviceAccount"` // PEM
	EncryptionKey  string `json:"encryptionKey"`  // 32 bytes, base64
	BootstrapToken string `json:"bootstrapToken"` // id.secret
}

// NewKeys makes the secrets of a new cluster.
func NewKeys(name string, now time.Time) (Keys, error) {
	var k Keys
	for _, ca := range []struct {
		name string
		into *pki.CA
	}{
		{"kubernetes CA of " + name, &k.CA},
		{"etcd CA of " + name, &k.EtcdCA},
		{"front-proxy CA of " + name, &k.FrontProxyCA},
	} {
		made, err := pki.NewCA(ca.name, now, caValidity)
		if err != nil {
			return Keys{}, err
		}
		*ca.into = made
	}
	_, account, err := pki.NewKey()
	if err != nil {
		return Keys{}, fmt.Errorf("make service account key of %s: %w", name, err)
	}
	k.ServiceAccount = account
	secret := make([]byte, 32)
	rand.Read(secret)
	k.EncryptionKey = base64.StdEncoding.EncodeToString(secret)
	k.BootstrapToken = randomText(6) + "." + randomText(16)
	return k, nil
}

// randomText makes text of the letters that bootstrap tokens are made of.
func randomText(length int) string {
	const letters = "abcdefghijklmnopqrstuvwxyz0123456789"
	text := make([]byte, length)
	for i := range text {
		n, err := rand.Int(rand.Reader, big.NewInt(int64(len(letters))))
		if err != nil {
			panic(err) // crypto/rand does not fail: see its documentation
		}
		text[i] = letters[n.Int64()]
	}
	return string(text)
}
