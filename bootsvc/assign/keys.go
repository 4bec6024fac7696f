package assign

import (
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"slices"
	"time"

	"slipway/configs/machine"
	"slipway/configs/secret"
	"slipway/controlplane/pki"
)

const (
	// caValidity is how long a cluster's CAs hold.
	caValidity = 10 * 365 * 24 * time.Hour

	// A bootstrap token's two parts, in letters (kubernetes.io, bootstrap tokens).
	tokenID     = 6
	tokenSecret = 16
)

// Keys are a cluster's secrets. They are encrypted at rest.
type Keys struct {
	CA             Authority `json:"ca"`
	EtcdCA         Authority `json:"etcdCA"`
	FrontProxyCA   Authority `json:"frontProxyCA"`
	ServiceAccount []byte    `json:"serviceAccount"` // signs tokens, PEM
	// NextServiceAccount is to sign once every API server accepts its tokens, PEM.
	NextServiceAccount []byte `json:"nextServiceAccount,omitempty"`
	// OtherServiceAccount is the public half of the next one, then of the one
	// before: its tokens are accepted too. PEM; none outside of a rotation.
	OtherServiceAccount []byte `json:"otherServiceAccount,omitempty"`
	// EncryptionKeys encrypt Secrets in etcd: the first writes, all read.
	EncryptionKeys []EncryptionKey `json:"encryptionKeys"`
	// Retired encrypted Secrets before, oldest first. No machine has them:
	// they are for the day when a snapshot of their time is restored.
	Retired        []EncryptionKey `json:"retired,omitempty"`
	BootstrapToken string          `json:"bootstrapToken"` // id.secret
	// Rotations are those under way, in the order they began.
	Rotations []Rotation `json:"rotations,omitempty"`
	// FormerIDs are the hashes of the etcd CAs before the present one, oldest
	// first: snapshots taken then name the cluster by them.
	FormerIDs []string `json:"formerIDs,omitempty"`
}

// Authority is one of a cluster's CAs: the one that signs, and during a
// rotation the certificate of another that is trusted too.
type Authority struct {
	pki.CA
	Next     *pki.CA `json:"next,omitempty"`     // is to sign once every machine trusts it
	Previous []byte  `json:"previous,omitempty"` // signed before, PEM; its key is forgotten
}

// EncryptionKey is a key for Secrets at rest.
type EncryptionKey struct {
	Name   string `json:"name"`   // key-1, key-2, ...; never used twice
	Secret string `json:"secret"` // 32 bytes, base64
}

// Bundle is what a machine trusts, PEM: the certificate that signs comes first.
// Nodes rely on that order, for a worker has no key to tell by.
func (a Authority) Bundle() string {
	bundle := slices.Clone(a.CertPEM)
	if a.Next != nil {
		bundle = append(bundle, a.Next.CertPEM...)
	}
	return string(append(bundle, a.Previous...))
}

// IDs are what the cluster's snapshots may call it: the hashes of its etcd CAs,
// oldest first. The first of all names most of them; an etcd that was started
// anew after a rotation has a later one.
func (k Keys) IDs() ([]string, error) {
	ids := slices.Clone(k.FormerIDs)
	signers := [][]byte{k.EtcdCA.CertPEM}
	if k.EtcdCA.Next != nil {
		signers = append(signers, k.EtcdCA.Next.CertPEM)
	}
	for _, signer := range signers {
		id, err := certID(signer)
		if err != nil {
			return nil, err
		}
		ids = append(ids, id)
	}
	return ids, nil
}

func certID(certPEM []byte) (string, error) {
	cert, err := pki.ParseCert(certPEM)
	if err != nil {
		return "", fmt.Errorf("read etcd CA: %w", err)
	}
	return pki.CertHash(cert), nil
}

// UnmarshalJSON reads a record. The first ones had one encryption key and no list.
func (k *Keys) UnmarshalJSON(text []byte) error {
	type plain Keys
	var read struct {
		plain
		EncryptionKey string `json:"encryptionKey"`
	}
	if err := json.Unmarshal(text, &read); err != nil {
		return err
	}
	*k = Keys(read.plain)
	if len(k.EncryptionKeys) == 0 && read.EncryptionKey != "" {
		k.EncryptionKeys = []EncryptionKey{{Name: "key-1", Secret: read.EncryptionKey}}
	}
	return nil
}

// NewKeys makes the secrets of a new cluster.
func NewKeys(name string, now time.Time) (Keys, error) {
	var k Keys
	for _, what := range authorities {
		made, err := newCA(what, name, now)
		if err != nil {
			return Keys{}, err
		}
		k.authority(what).CA = made
	}
	account, err := newAccountKey(name)
	if err != nil {
		return Keys{}, err
	}
	k.ServiceAccount = account
	k.EncryptionKeys = []EncryptionKey{newEncryptionKey(1)}
	k.BootstrapToken = randomText(tokenID) + "." + randomText(tokenSecret)
	return k, nil
}

// newCA names a CA by its making, so that people can tell two apart.
func newCA(what What, cluster string, now time.Time) (pki.CA, error) {
	return pki.NewCA(fmt.Sprintf("%s of %s, %s", what, cluster, now.UTC().Format("2006-01-02T15:04")), now, caValidity)
}

func newEncryptionKey(number int) EncryptionKey {
	secret := make([]byte, 32)
	rand.Read(secret)
	return EncryptionKey{Name: fmt.Sprintf("key-%d", number), Secret: base64.StdEncoding.EncodeToString(secret)}
}

func newAccountKey(cluster string) ([]byte, error) {
	_, text, err := pki.NewKey()
	if err != nil {
		return nil, fmt.Errorf("make service account key of %s: %w", cluster, err)
	}
	return text, nil
}

// publicHalf is the public key of a private one, both PEM.
func publicHalf(private []byte) ([]byte, error) {
	key, err := pki.ParseKey(private)
	if err != nil {
		return nil, fmt.Errorf("read service account key: %w", err)
	}
	der, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return nil, fmt.Errorf("encode service account key: %w", err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

// forControlPlane is what control-plane machines alone may know.
func (k Keys) forControlPlane() *machine.ControlPlaneKeys {
	keys := &machine.ControlPlaneKeys{
		CAKey:          secret.New(string(k.CA.KeyPEM)),
		FrontProxyCA:   k.FrontProxyCA.Bundle(),
		FrontProxyKey:  secret.New(string(k.FrontProxyCA.KeyPEM)),
		ServiceAccount: secret.New(string(k.ServiceAccount)),
		OtherAccounts:  string(k.OtherServiceAccount),
		RewriteSecrets: k.rewriting(),
	}
	for _, key := range k.EncryptionKeys {
		keys.EncryptionKeys = append(keys.EncryptionKeys, machine.EncryptionKey{Name: key.Name, Secret: secret.New(key.Secret)})
	}
	return keys
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
