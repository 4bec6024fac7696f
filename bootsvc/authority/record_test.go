package authority

import (
	"bytes"
	"crypto/x509"
	"errors"
	"strings"
	"testing"
	"time"

	"slipway/controlplane/pki"
)

var noon = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)

func fresh(t *testing.T) Record {
	t.Helper()
	r, err := newRecord(noon)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// in is a record whose rotation is in a phase.
func in(t *testing.T, phase Phase) Record {
	t.Helper()
	r, err := fresh(t).Begin(noon)
	for err == nil && r.Rotation.Phase != phase {
		r, err = r.Advance(nil, noon)
	}
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// TestWhoIsWaitedFor: in each phase, for whom, and what a person's word changes.
func TestWhoIsWaitedFor(t *testing.T) {
	machine := func(trusts, behind, missing string) Holder {
		return Holder{Name: "m", Trusts: trusts, Behind: behind, Missing: missing}
	}
	person := func(trusts string) Holder {
		return Holder{Name: "ann", Trusts: trusts, Missing: "her next command", Person: true}
	}
	const now, before = "now", "before"
	for name, test := range map[string]struct {
		holder             Holder
		trust, use, retire bool // is waited for in this phase
	}{
		"nobody's":                         {Holder{Trusts: now}, false, false, false},
		"a machine that has taken it":      {machine(now, "", ""), false, false, false},
		"one that has not":                 {machine(before, "", ""), true, true, true},
		"one that never said anything":     {machine("", "", ""), true, true, true},
		"one whose components have not":    {machine(now, "its config", ""), true, true, true},
		"one that is off":                  {machine(before, "", "a sign of life"), false, true, false},
		"one that is off and had taken it": {machine(now, "", "a sign of life"), false, false, false},
		"a person":                         {person(before), false, true, false},
		"a person who has renewed":         {person(now), false, false, false},
	} {
		for phase, want := range map[Phase]bool{Trust: test.trust, Use: test.use, Retire: test.retire} {
			r, h := in(t, phase), test.holder
			if h.Trusts == now {
				h.Trusts = digest(r.Trusted())
			}
			next, err := r.Advance([]Holder{h}, noon)
			if moved := next.Rotation == nil || next.Rotation.Phase != phase; err != nil || moved == want || len(r.Waiting([]Holder{h})) > 0 != want {
				t.Errorf("%s, in %s: moved %v, %v", name, phase, moved, err)
			}
			later, err := r.Advance([]Holder{h}, noon.Add(trustAtMost))
			if stays := later.Rotation != nil && later.Rotation.Phase == phase; err != nil || stays != (want && phase != Trust) {
				t.Errorf("%s, in %s, an hour later: stays %v, %v", name, phase, stays, err)
			}
			if phase != Use {
				continue
			}
			hurried, err := r.Hurry()
			if err != nil || len(hurried.Waiting([]Holder{h})) > 0 {
				t.Errorf("%s, though a person hurries: %v, %v", name, hurried.Waiting([]Holder{h}), err)
			}
		}
	}
	if _, err := fresh(t).Hurry(); !errors.Is(err, ErrNoRotation) {
		t.Errorf("without a rotation: %v", err)
	}
	if _, err := in(t, Trust).Hurry(); !errors.Is(err, ErrEarly) {
		t.Errorf("before the new CA signs: %v", err)
	}
}

// TestPhases: what is trusted, who signs, and which keys are kept.
func TestPhases(t *testing.T) {
	before := fresh(t)
	r, err := before.Begin(noon)
	if err != nil {
		t.Fatal(err)
	}
	if again, err := r.Begin(noon.Add(time.Hour)); err != nil || !bytes.Equal(again.Next.CertPEM, r.Next.CertPEM) {
		t.Errorf("beginning twice: %v", err)
	}
	next := *r.Next
	for _, want := range []struct {
		phase   Phase
		signer  pki.CA
		trusted [][]byte
	}{
		{Trust, before.CA, [][]byte{before.CertPEM, next.CertPEM}},
		{Use, next, [][]byte{next.CertPEM, before.CertPEM}},
		{Retire, next, [][]byte{next.CertPEM}},
		{"", next, [][]byte{next.CertPEM}},
	} {
		if phase := r.Rotation; phase == nil && want.phase != "" || phase != nil && phase.Phase != want.phase {
			t.Fatalf("it is in %v, want %q", phase, want.phase)
		}
		if !bytes.Equal(r.KeyPEM, want.signer.KeyPEM) || !bytes.Equal(r.Trusted(), bytes.Join(want.trusted, nil)) {
			t.Errorf("in %q: another signs, or others are trusted", want.phase)
		}
		if kept := string(r.Line) + string(r.Former); strings.Contains(kept, "KEY") {
			t.Errorf("in %q a key is kept that does not sign", want.phase)
		}
		if r, err = r.Advance(nil, noon); err != nil {
			t.Fatal(err)
		}
	}
	if r.Next != nil || r.Former != nil {
		t.Error("something is left over")
	}
}

// TestTheLine: who knows only a CA of long ago believes the server's
// certificate, and nobody else's; back to maxLine CAs.
func TestTheLine(t *testing.T) {
	var roots []*x509.Certificate
	r := fresh(t)
	for n := range maxLine + 2 {
		v, err := NewView(r)
		if err != nil {
			t.Fatal(err)
		}
		roots = append(roots, v.Signer)
		checkLine(t, v, roots)
		if r, err = r.Begin(noon.Add(time.Duration(n) * time.Hour)); err != nil {
			t.Fatal(err)
		}
		for r.Rotation != nil {
			if r, err = r.Advance(nil, noon); err != nil {
				t.Fatal(err)
			}
		}
	}
}

// checkLine checks a server's certificate by each CA that there was.
func checkLine(t *testing.T, v *View, roots []*x509.Certificate) {
	t.Helper()
	leaf, err := v.Issue(pki.Request{CommonName: "boot", DNSNames: []string{"boot"}, Server: true, Validity: time.Hour}, noon.Add(24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	shown, err := pki.ParseCerts(v.Shown(leaf.CertPEM))
	if err != nil {
		t.Fatal(err)
	}
	for n, root := range roots {
		back := len(roots) - 1 - n
		found := v.Find(sum(root)) != nil
		trusted, between := x509.NewCertPool(), x509.NewCertPool()
		trusted.AddCert(root)
		for _, cert := range shown[1:] {
			between.AddCert(cert)
		}
		_, err := shown[0].Verify(x509.VerifyOptions{DNSName: "boot", Roots: trusted, Intermediates: between, CurrentTime: noon.Add(25 * time.Hour)})
		if believes := err == nil; believes != (back <= maxLine) || found != (back <= maxLine) {
			t.Errorf("who knows the CA of %d rotations ago believes it: %v, %v; it is found: %v", back, believes, err, found)
		}
	}
}

func leafOf(t *testing.T, r Record) *x509.Certificate {
	t.Helper()
	leaf, err := r.Issue(pki.Request{CommonName: "m", Client: true, Validity: time.Hour}, noon.Add(24*time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.ParseCert(leaf.CertPEM)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// TestRetired: a certificate of a CA that was rotated is told from a stranger's.
func TestRetired(t *testing.T) {
	before := fresh(t)
	old, stranger := leafOf(t, before), leafOf(t, fresh(t))
	r, err := before.Begin(noon)
	for ; err == nil && r.Rotation != nil; r, err = r.Advance(nil, noon) {
		v, err := NewView(r)
		if err != nil {
			t.Fatal(err)
		}
		if want := r.Rotation.Phase == Retire; v.Retired(old) != want || v.Retired(stranger) {
			t.Errorf("in %s: retired %v, a stranger %v", r.Rotation.Phase, v.Retired(old), v.Retired(stranger))
		}
	}
	if err != nil {
		t.Fatal(err)
	}
}
