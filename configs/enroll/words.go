package enroll

import (
	"crypto/sha256"
	"encoding/binary"
	"strings"

	"github.com/tyler-smith/go-bip39/wordlists"
)

// Words names the pair of a machine's key and the CA it trusts by four words
// of the BIP 39 English list, joined by dashes: hazard-follow-wonder-cabbage. The
// machine's console and the boot service compute them apart; equal words mean
// that nobody stands between the two. The key is its DER SubjectPublicKeyInfo,
// the CA its DER certificate. Four words are 44 bits: making another key with
// the same words takes some 2^43 tries, while each enrolment waits for a person.
func Words(spki, caDER []byte) string {
	ca := sha256.Sum256(caDER)
	h := sha256.New()
	h.Write([]byte("slipway enrolment words v1\n"))
	h.Write(ca[:])
	h.Write(spki)
	bits := binary.BigEndian.Uint64(h.Sum(nil))
	words := make([]string, 4)
	for i := range words {
		words[i] = wordlists.English[bits>>(64-11)]
		bits <<= 11
	}
	return strings.Join(words, "-")
}
