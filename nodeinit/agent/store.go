package agent

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"slipway/nodeinit/netconf"
	"slipway/nodeinit/sysdisk"
)

// store is what the agent remembers across its restarts: a directory of files,
// each replaced as a whole. That of an installed machine outlives the machine's
// restarts too.
type store struct {
	dir string
	// boot is a directory for what is of this boot only; empty: dir is.
	boot string
}

// The files of a store.
const (
	keyFile    = "machine.key" // PEM, the machine's private key
	certFile   = "machine.crt" // PEM, its certificate
	caFile     = "ca.crt"      // PEM, the boot service's CAs; the one that signs comes first
	pinFile    = "ca.pin"      // the pin, hex, of which those came
	configFile = "config.yaml" // the MachineConfig, as delivered
	argsFile   = "args"        // the boot service's kernel arguments, which a disk's loader does not know
	leaseFile  = "lease.json"  // the last DHCP lease
	eventsFile = "events.json" // the names of the events that were reported, of this boot
)

// load returns a file's content, nil when there is none.
func (s store) load(name string) ([]byte, error) {
	data, err := os.ReadFile(filepath.Join(s.dir, name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read state: %w", err)
	}
	return data, nil
}

// save replaces a file; it is on its storage when save returns.
func (s store) save(name string, data []byte) error {
	if err := sysdisk.WriteFile(s.dir, name, data); err != nil {
		return fmt.Errorf("save state %s: %w", name, err)
	}
	return nil
}

// forget drops all that belongs to the machine's key. Which CAs it trusts has
// nothing to do with that.
func (s store) forget() error {
	for _, path := range []string{
		filepath.Join(s.dir, configFile), filepath.Join(s.dir, certFile),
		filepath.Join(s.dir, keyFile), filepath.Join(s.ofBoot().dir, eventsFile),
	} {
		if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("forget state: %w", err)
		}
	}
	return nil
}

// key returns the machine's private key; it makes one when there is none.
func (s store) key() (*ecdsa.PrivateKey, error) {
	data, err := s.load(keyFile)
	if err != nil {
		return nil, err
	}
	if data != nil {
		return parseKey(data)
	}
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, fmt.Errorf("make the machine's key: %w", err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, fmt.Errorf("make the machine's key: %w", err)
	}
	return key, s.save(keyFile, pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}))
}

func parseKey(data []byte) (*ecdsa.PrivateKey, error) {
	block, _ := pem.Decode(data)
	if block == nil {
		return nil, errors.New("read the machine's key: not PEM")
	}
	key, err := x509.ParseECPrivateKey(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read the machine's key: %w", err)
	}
	return key, nil
}

// certificate is the machine's current certificate with its key.
func (s store) certificate() (*tls.Certificate, error) {
	cert, err := tls.LoadX509KeyPair(filepath.Join(s.dir, certFile), filepath.Join(s.dir, keyFile))
	if err != nil {
		return nil, fmt.Errorf("read the machine's certificate: %w", err)
	}
	return &cert, nil
}

// lease is the last one that was saved, nil if there is none that can be read.
func (s store) lease() *netconf.Lease {
	data, err := s.load(leaseFile)
	if err != nil || data == nil {
		return nil
	}
	var l netconf.Lease
	if json.Unmarshal(data, &l) != nil {
		return nil
	}
	return &l
}

func (s store) saveLease(l netconf.Lease) error {
	data, err := json.Marshal(l)
	if err != nil {
		return fmt.Errorf("save state %s: %w", leaseFile, err)
	}
	return s.save(leaseFile, data)
}

// ofBoot is the store of what is of this boot only.
func (s store) ofBoot() store { return store{dir: firstOf(s.boot, s.dir)} }

// reported loads the names of the events that the boot service has.
func (s store) reported() map[string]bool {
	names := map[string]bool{}
	if data, err := s.ofBoot().load(eventsFile); err == nil {
		_ = json.Unmarshal(data, &names) // unreadable: they are reported once more
	}
	return names
}

func (s store) saveReported(names map[string]bool) error {
	data, err := json.Marshal(names)
	if err != nil {
		return fmt.Errorf("save state %s: %w", eventsFile, err)
	}
	return s.ofBoot().save(eventsFile, data)
}
