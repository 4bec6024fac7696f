package api

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
	"slipway/bootsvc/enroll"
	"slipway/configs/secret"
	"slipway/controlplane/pki"
)

// TestCredentialsRenewOnUse: two thirds into its life a person's certificate is
// renewed by whatever command is used, with the same key, name and roles, and
// not before.
func TestCredentialsRenewOnUse(t *testing.T) {
	site := start(t, enroll.Rules{})
	for name, test := range map[string]struct {
		age     time.Duration // of a certificate of 3 h 10 min
		renewed bool
	}{
		"young": {115 * time.Minute, false},
		"old":   {118 * time.Minute, true},
	} {
		leaf, err := site.ca.Issue(pki.Request{
			CommonName: "ann", Organizations: []string{string(Reader)}, Client: true, Validity: 3 * time.Hour,
		}, time.Now().Add(-test.age))
		if err != nil {
			t.Fatal(err)
		}
		text, err := client.Context{
			Servers: []string{site.url}, CA: string(site.ca.CertPEM), Certificate: string(leaf.CertPEM), Key: secret.New(string(leaf.KeyPEM)),
		}.Encode()
		if err != nil {
			t.Fatal(err)
		}
		path := filepath.Join(t.TempDir(), "context.yaml")
		if err := os.WriteFile(path, text, 0o600); err != nil {
			t.Fatal(err)
		}
		list(t, path)
		after, err := os.ReadFile(path)
		if err != nil || bytes.Equal(after, text) == test.renewed {
			t.Errorf("%s: renewed %t, %v; want %t", name, !bytes.Equal(after, text), err, test.renewed)
		}
		if !test.renewed {
			continue
		}
		again := list(t, path)
		cert, err := pki.ParseCert([]byte(again.Certificate))
		if err != nil || cert.Subject.CommonName != "ann" || len(cert.Subject.Organization) != 1 ||
			cert.Subject.Organization[0] != string(Reader) || time.Until(cert.NotAfter) < 364*24*time.Hour {
			t.Errorf("%s: %v, %v until %v", name, err, cert.Subject, cert.NotAfter)
		}
		if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 || again.Key.Reveal() != string(leaf.KeyPEM) {
			t.Errorf("%s: mode %v, %v, or another key", name, info.Mode(), err)
		}
	}
}

// list asks the boot service something with a context file.
func list(t *testing.T, path string) client.Context {
	t.Helper()
	c, err := client.Load(path)
	if err != nil {
		t.Fatal(err)
	}
	boot, err := c.New()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := boot.Inventory.ListMachines(t.Context(), connect.NewRequest(&bootv1.ListMachinesRequest{})); err != nil {
		t.Fatal(err)
	}
	return c
}
