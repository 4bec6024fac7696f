package enroll

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/pem"
)

// TrustHeader is the HTTP header in which the boot service and its clients tell
// each other, in every call, which CAs they trust: by TrustDigest. A client that
// trusts others than the boot service does has its certificate renewed, and
// gets them with it.
const TrustHeader = "Slipway-Trust"

// TrustDigest names CA certificates, PEM, in their order: the one that signs
// comes first. Text between them does not count; without any, it is empty.
func TrustDigest(bundle []byte) string {
	hash := sha256.New()
	for block, rest := pem.Decode(bundle); block != nil; block, rest = pem.Decode(rest) {
		one := sha256.Sum256(block.Bytes)
		hash.Write(one[:])
		bundle = nil
	}
	if bundle != nil {
		return ""
	}
	return hex.EncodeToString(hash.Sum(nil))
}
