package debian

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/ProtonMail/go-crypto/openpgp"
	"github.com/ProtonMail/go-crypto/openpgp/clearsign"
)

// DefaultKeyring is where Debian's package debian-archive-keyring puts the keys
// that sign Debian's archive.
const DefaultKeyring = "/usr/share/keyrings/debian-archive-keyring.gpg"

// Release is the part of an InRelease file that the builder uses.
type Release struct {
	Codename string
	Files    map[string]Sum // by path below dists/<suite>/
}

// Sum is the size and SHA-256 of a file.
type Sum struct {
	Size   int64
	SHA256 string // lower-case hex
}

// ReadKeyring reads a binary OpenPGP keyring.
func ReadKeyring(path string) (openpgp.EntityList, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read archive keyring (install debian-archive-keyring): %w", err)
	}
	defer f.Close()
	keys, err := openpgp.ReadKeyRing(f)
	if err != nil {
		return nil, fmt.Errorf("read archive keyring %s: %w", path, err)
	}
	return keys, nil
}

// VerifyRelease checks the signature of an InRelease file at a time and returns
// what was signed. An unsigned file, an unknown key, an expired key and a file
// past its Valid-Until are errors.
func VerifyRelease(inRelease []byte, keys openpgp.KeyRing, now time.Time) (*Release, error) {
	block, _ := clearsign.Decode(inRelease)
	if block == nil {
		return nil, errors.New("it carries no OpenPGP signature")
	}
	signer, err := openpgp.CheckDetachedSignature(keys, bytes.NewReader(block.Bytes), block.ArmoredSignature.Body, nil)
	if err != nil {
		return nil, fmt.Errorf("check signature against the archive keyring: %w", err)
	}
	if signer == nil {
		return nil, errors.New("check signature: no signer")
	}
	return ParseRelease(block.Plaintext, now)
}

// ParseRelease reads the text of a Release file.
func ParseRelease(text []byte, now time.Time) (*Release, error) {
	for p, err := range Paragraphs(bytes.NewReader(text)) {
		if err != nil {
			return nil, err
		}
		if err := checkValidUntil(p["valid-until"], now); err != nil {
			return nil, err
		}
		files, err := parseSums(p["sha256"])
		return &Release{Codename: p["codename"], Files: files}, err
	}
	return nil, errors.New("it is empty")
}

func checkValidUntil(value string, now time.Time) error {
	if value == "" {
		return nil
	}
	until, err := time.Parse(time.RFC1123, value)
	if err != nil {
		return fmt.Errorf("Valid-Until: %w", err)
	}
	if now.After(until) {
		return fmt.Errorf("it expired at %s (now it is %s): use a current archive, or set this computer's clock",
			until.UTC().Format(time.RFC3339), now.UTC().Format(time.RFC3339))
	}
	return nil
}

// parseSums reads the lines "sha256 size path" of a Release file's SHA256 field.
func parseSums(field string) (map[string]Sum, error) {
	files := map[string]Sum{}
	for line := range strings.Lines(field) {
		words := strings.Fields(line)
		if len(words) == 0 {
			continue
		}
		if len(words) != 3 || !isSHA256(words[0]) {
			return nil, fmt.Errorf("SHA256: %q is not \"hash size path\"", line)
		}
		size, err := strconv.ParseInt(words[1], 10, 64)
		if err != nil || size < 0 {
			return nil, fmt.Errorf("SHA256: %q has a bad size", line)
		}
		files[words[2]] = Sum{Size: size, SHA256: words[0]}
	}
	return files, nil
}

func isSHA256(s string) bool {
	return len(s) == 64 && strings.Trim(s, "0123456789abcdef") == ""
}
