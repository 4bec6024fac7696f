package enroll

import (
	"bytes"
	"encoding/pem"
	"testing"
)

func block(text string) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte(text)})
}

// TestTrustDigest: it depends on the certificates and their order, and on nothing else.
func TestTrustDigest(t *testing.T) {
	a, b := block("a"), block("b")
	ab := TrustDigest(append(bytes.Clone(a), b...))
	for name, test := range map[string]struct {
		bundle []byte
		same   bool
	}{
		"again":             {append(bytes.Clone(a), b...), true},
		"with text between": {append(append(bytes.Clone(a), "\n  the other:\n"...), b...), true},
		"without its end":   {bytes.TrimSpace(append(bytes.Clone(a), b...)), true},
		"the other way":     {append(bytes.Clone(b), a...), false},
		"one":               {a, false},
	} {
		if got := TrustDigest(test.bundle); len(got) != 64 || (got == ab) != test.same {
			t.Errorf("%s: %s, and it is %s", name, got, ab)
		}
	}
	for _, none := range []string{"", "-----BEGIN", "no PEM"} {
		if got := TrustDigest([]byte(none)); got != "" {
			t.Errorf("%q has the digest %s", none, got)
		}
	}
}
