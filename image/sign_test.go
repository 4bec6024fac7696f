package image

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"slipway/image/grub"
	"slipway/image/uki"
	"slipway/test/need"
)

// testKey makes a key and its certificate, as PEM files.
func testKey(t *testing.T, dir string) (key, cert string) {
	t.Helper()
	private, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	template := x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "Slipway test"},
		NotBefore: time.Now(), NotAfter: time.Now().Add(time.Hour), BasicConstraintsValid: true, IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, &template, &template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	key, cert = filepath.Join(dir, "db.key"), filepath.Join(dir, "db.crt")
	for name, block := range map[string]*pem.Block{key: {Type: "PRIVATE KEY", Bytes: pkcs8}, cert: {Type: "CERTIFICATE", Bytes: der}} {
		if err := os.WriteFile(name, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return key, cert
}

// TestSign lets sbsign of Debian's sbsigntool sign a unified kernel image, and
// sbverify check it: its structure is one that signatures can be added to, and
// one with another command line is not signed any more until that is done anew.
func TestSign(t *testing.T) {
	need.Programs(t, "sbsign", "sbverify", "grub-mkimage")
	need.File(t, grub.ModulesUEFI, "grub-efi-amd64-bin")
	dir := t.TempDir()
	key, cert := testKey(t, dir)
	signer := filepath.Join(dir, "sign")
	script := fmt.Sprintf("#!/bin/sh\nexec sbsign --key %s --cert %s --output \"$1\" \"$1\"\n", key, cert)
	if err := os.WriteFile(signer, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	verify := func(path string) error {
		out, err := exec.CommandContext(t.Context(), "sbverify", "--cert", cert, path).CombinedOutput()
		if err != nil {
			err = fmt.Errorf("sbverify %s: %w: %s", filepath.Base(path), err, out)
		}
		return err
	}
	stub, err := grub.ToDisk(t.Context()) // any program with sections will do
	if err != nil {
		t.Fatal(err)
	}
	image, err := uki.Join(stub, uki.Section{Name: ".cmdline", Data: []byte("quiet")}, uki.Section{Name: ".linux", Data: make([]byte, 100_001)})
	if err != nil {
		t.Fatal(err)
	}
	out := artifacts{dir: dir}
	out.bytes(UKI, image)
	out.bytes(GRUBToDisk, stub)
	path := filepath.Join(dir, UKI)
	if verify(path) == nil {
		t.Error("it is signed before it was")
	}
	out.sign(t.Context(), Signer(signer))
	if out.err != nil || len(out.list) != 2 {
		t.Fatalf("%d artifacts, %v", len(out.list), out.err)
	}
	for _, a := range out.list {
		if err := verify(filepath.Join(dir, filepath.FromSlash(a.Name))); err != nil {
			t.Error(err)
		}
		if size, sum, err := hashFile(filepath.Join(dir, filepath.FromSlash(a.Name))); err != nil || size != a.Size || sum != a.SHA256 {
			t.Errorf("the manifest has %+v; the file has %d bytes, %v", a, size, err)
		}
	}
	t.Run("another command line", func(t *testing.T) {
		signed, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		other, err := uki.WithCommandLine(signed, "quiet slipway.server=https://10.0.0.1:8443")
		if err != nil {
			t.Fatal(err)
		}
		if other, err = Signer(signer).signed(t.Context(), "other.efi", other); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "other.efi"), other, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := verify(filepath.Join(dir, "other.efi")); err != nil {
			t.Error(err)
		}
	})
	if err := Signer("false").sign(t.Context(), path); err == nil || !strings.Contains(err.Error(), "sign uki.efi with false: exit status 1") {
		t.Errorf("a signer that fails: %v", err)
	}
}
