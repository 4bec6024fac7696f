package agent

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"testing"
	"time"

	"slipway/configs/enroll"
)

// TestTheBootServicesCAIsRotated: a machine that runs takes the new CA and a
// certificate of it, keeps its key and its config, and forgets the old CA.
func TestTheBootServicesCAIsRotated(t *testing.T) {
	b := newBootService(t)
	b.approved, b.config = true, exampleConfig(t)
	n := newNode(t, b)
	n.start(t)
	n.pid1.take(t)
	b.await("the config to be applied", func() bool { return b.applied != nil })
	old := b.ca

	b.rotate()
	b.update(func() { b.config = append(b.config, "# changed"...) }) // which ends a call that blocks
	b.await("the new CAs to be trusted", func() bool { return b.trusts == enroll.TrustDigest(b.bundle()) })
	if cas, err := n.store.authorities(); err != nil || len(cas) != 2 || !cas[0].Equal(b.ca.cert) {
		t.Errorf("it trusts %d CAs, %v", len(cas), err)
	}
	b.update(func() { b.both = false; b.config = append(b.config, "# again"...) })
	b.await("the old CA to be forgotten", func() bool { return b.trusts == enroll.TrustDigest(b.bundle()) })
	impostor := chain(t, old.pair(t, "boot", "slipway:server"))
	var pin *PinError
	if err := n.trust().verify(tls.ConnectionState{PeerCertificates: impostor}); !errors.As(err, &pin) {
		t.Errorf("who has the old CA's key passes for the boot service: %v", err)
	}
	if len(b.enrolments) != 1 || b.renewals > 4 {
		t.Errorf("%d enrolments, %d renewals", len(b.enrolments), b.renewals)
	}
}

// TestOffDuringTheRotation: a machine that was off until the old CA was
// forgotten comes back by its machine key, and takes the new CA.
func TestOffDuringTheRotation(t *testing.T) {
	b := newBootService(t)
	n, _ := installed(t, b) // it lives on its disk: it has its config and asks nobody
	key, err := n.store.key()
	if err != nil {
		t.Fatal(err)
	}
	b.rotate()
	b.update(func() { b.both, b.applied = false, nil })

	n.start(t)
	if got := n.pid1.take(t); !bytes.Equal(got.Config, exampleConfig(t)) {
		t.Errorf("PID 1 got\n%s", got.Config)
	}
	b.await("the new CA to be trusted", func() bool { return b.trusts == enroll.TrustDigest(b.bundle()) })
	b.await("the config to be applied", func() bool { return b.applied != nil })
	request, err := x509.ParseCertificateRequest(b.enrolments[len(b.enrolments)-1].Csr)
	if err != nil || !key.PublicKey.Equal(request.PublicKey) || len(b.enrolments) != 2 {
		t.Errorf("%d enrolments, the last with another key: %v", len(b.enrolments), err)
	}
}

// TestAnchors: which CAs a machine knows its boot service by.
func TestAnchors(t *testing.T) {
	ca, next := newCA(t), newCA(t)
	pin, other := sha256.Sum256(ca.cert.Raw), sha256.Sum256([]byte("another boot service's"))
	s := store{dir: t.TempDir()}
	if got := s.anchors(pin); len(got) != 1 || got[0] != pin {
		t.Errorf("before it enrolled: %x", got)
	}
	key, err := s.key()
	if err != nil {
		t.Fatal(err)
	}
	cert := next.lasting(t, &key.PublicKey, time.Now(), time.Hour)
	if err := s.replaceTrust(cert, toPEM(next.cert.Raw), pin); err != nil {
		t.Fatal(err)
	}
	if got := s.anchors(pin); len(got) != 1 || got[0] != sha256.Sum256(next.cert.Raw) {
		t.Errorf("after a rotation: %x", got)
	}
	if got := s.anchors(other); len(got) != 1 || got[0] != other {
		t.Errorf("with the pin of another boot service: %x", got)
	}
	for name, bundle := range map[string][]byte{"nothing": nil, "no CA": cert, "another CA": toPEM(ca.cert.Raw), "no certificate": toPEM([]byte("x"))} {
		if err := s.replaceTrust(cert, bundle, pin); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
	if got := s.anchors(pin); len(got) != 1 || got[0] != sha256.Sum256(next.cert.Raw) {
		t.Errorf("what was refused changed it: %x", got)
	}
}

// FuzzParseCAs: whatever a boot service says is to be trusted is CAs, or refused.
func FuzzParseCAs(f *testing.F) {
	der := []byte("-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n")
	f.Add([]byte(nil))
	f.Add(der)
	f.Add(append([]byte("text\n"), der[:len(der)-4]...))
	f.Fuzz(func(t *testing.T, data []byte) {
		cas, err := parseCAs(data)
		if (err == nil) != (len(cas) > 0) {
			t.Errorf("%d CAs, %v", len(cas), err)
		}
		for _, ca := range cas {
			if !ca.IsCA {
				t.Error("one is none")
			}
		}
	})
}
