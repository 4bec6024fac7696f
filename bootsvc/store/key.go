package store

import (
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"encoding/base64"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
)

// keySize is AES-256's, in bytes.
const keySize = 32

// errUnseal says that a value was not encrypted with this key for this place.
var errUnseal = errors.New("decrypt: the value was not encrypted with this key, or it was moved or changed")

// loadKey reads the key file, 32 bytes in base64, or makes it on first use.
func loadKey(file string) (cipher.AEAD, error) {
	text, err := os.ReadFile(file)
	if errors.Is(err, fs.ErrNotExist) {
		text, err = makeKey(file)
	}
	if err != nil {
		return nil, fmt.Errorf("read key file: %w", err)
	}
	key, err := base64.StdEncoding.DecodeString(strings.TrimSpace(string(text)))
	if err != nil || len(key) != keySize {
		return nil, fmt.Errorf("read key file %s: it does not hold %d bytes in base64", file, keySize)
	}
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, fmt.Errorf("use key file %s: %w", file, err)
	}
	return cipher.NewGCMWithRandomNonce(block)
}

// makeKey writes a new key file. Two processes that start at once agree on
// one: the file appears whole, under a name that must not exist yet.
func makeKey(file string) ([]byte, error) {
	key := make([]byte, keySize)
	rand.Read(key)
	if err := makeFolder(filepath.Dir(file)); err != nil {
		return nil, err
	}
	part, err := os.CreateTemp(filepath.Dir(file), ".key-*") // mode 0600
	if err != nil {
		return nil, err
	}
	defer os.Remove(part.Name())
	_, err = part.WriteString(base64.StdEncoding.EncodeToString(key) + "\n")
	if err := errors.Join(err, part.Sync(), part.Close()); err != nil {
		return nil, err
	}
	if err := os.Link(part.Name(), file); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
	}
	return os.ReadFile(file)
}

// makeFolder makes a folder if it is missing and leaves an existing one as it is.
func makeFolder(dir string) error { return os.MkdirAll(dir, 0o700) }

// encrypt seals a value for one key of the store: moved to another key, it
// does not open.
func (s *Store) encrypt(key string, value []byte) []byte {
	return s.seal.Seal(nil, nil, value, []byte(key))
}

func (s *Store) decrypt(key string, value []byte) ([]byte, error) {
	plain, err := s.seal.Open(nil, nil, value, []byte(key))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", key, errUnseal)
	}
	return plain, nil
}
