package slot

import (
	"bytes"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"io/fs"
)

// A loader waits in its slot, with its SHA-256 behind it: damage to any other
// file of a slot costs that slot, damage to the loader would cost the machine.

// stage writes a loader into its slot.
func stage(boot Files, name string, size int64, from io.Reader) error {
	data, err := io.ReadAll(io.LimitReader(from, size+1))
	if err != nil {
		return err
	}
	sum := sha256.Sum256(data)
	return boot.Create(name, size+sha256.Size, bytes.NewReader(append(data, sum[:]...)))
}

// staged reads a loader back.
func staged(boot Files, name string) ([]byte, error) {
	text, err := boot.ReadFile(name)
	if err != nil {
		return nil, err
	}
	at := len(text) - sha256.Size
	if at < 0 || sha256.Sum256(text[:at]) != [sha256.Size]byte(text[at:]) {
		return nil, fmt.Errorf("%s on the boot partition is damaged", name)
	}
	return text[:at], nil
}

// replace writes a file that does not have the content already.
func replace(boot Files, name string, content []byte) error {
	have, err := boot.ReadFile(name)
	if err == nil && bytes.Equal(have, content) {
		return nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return boot.Create(name, int64(len(content)), bytes.NewReader(content))
}
