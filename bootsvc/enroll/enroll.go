// Package enroll decides which key may speak for a machine. A machine shows a
// key and its facts; a rule or a person approves the key; the machine gets a
// certificate for it. A new key of a machine that is known already is a new
// enrolment with a new approval, and a key that was replaced never comes back.
//
// The package neither listens nor renders configs: bootsvc/api calls it with
// what came over TLS, bootsvc/assign gives approved machines their config.
package enroll

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"time"

	"slipway/bootsvc/authority"
	"slipway/bootsvc/inventory"
	"slipway/configs/enroll"
	"slipway/controlplane/pki"
)

// Why an enrolment or an approval is refused.
var (
	// ErrReplaced says that the key was approved once and is not any more.
	ErrReplaced = errors.New("this key was replaced by a newer one of the same machine: make a new key")
	// ErrWords says that an approval names other words than the machine's.
	ErrWords = errors.New("the words are not the machine's")
	// ErrRequest says that the request itself is not acceptable.
	ErrRequest = errors.New("bad enrolment request")
)

// MachineRole is the organization in a machine's certificate.
const MachineRole = "slipway:machine"

// certValidity is how long a machine's certificate holds. Enrolling again with
// the same key renews it.
const certValidity = 365 * 24 * time.Hour

// Desk is where machines enrol.
type Desk struct {
	Inventory *inventory.Inventory
	CA        func() *authority.View // the boot service's, as it is now
	Rules     Rules                  // the zero value approves nothing
	Now       func() time.Time
}

// Request is an enrolment as it came in.
type Request struct {
	MachineID string
	Facts     enroll.Facts
	CSR       []byte     // PKCS #10, DER
	Address   netip.Addr // the machine's
	// Checked is the SHA-256 of the CA by which the machine checked the boot
	// service. Its console shows words of that one.
	Checked []byte
}

// Enrol handles one request. It returns the machine's certificate, PEM, or nil
// while the key waits for approval. It may be repeated.
func (d *Desk) Enrol(ctx context.Context, r Request) (inventory.Machine, []byte, error) {
	id, key, err := d.check(r)
	if err != nil {
		return inventory.Machine{}, nil, err
	}
	shown, err := d.keyOf(key, r.Checked)
	if err != nil {
		return inventory.Machine{}, nil, err
	}
	approver, approved := d.Rules.Match(id, r.Facts)
	m, err := d.Inventory.Change(ctx, id, func(m *inventory.Machine) ([]inventory.Event, error) {
		verdict := decide(m.Enrolment, shown.Hash, approved)
		if verdict == refuse {
			return nil, ErrReplaced
		}
		if verdict != wait || m.Enrolment.Approved.Hash == "" {
			m.Facts, m.Address = r.Facts, r.Address // of a known machine, only its own key tells
		}
		return d.apply(m, verdict, shown, approver), nil
	})
	if err != nil || m.Enrolment.Approved.Hash != shown.Hash {
		return m, nil, err
	}
	cert, err := d.certify(m, key)
	return m, cert, err
}

func (d *Desk) check(r Request) (string, *ecdsa.PublicKey, error) {
	id, err := enroll.ParseMachineID(r.MachineID)
	if err != nil {
		return "", nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	if !r.Address.Is4() {
		return "", nil, fmt.Errorf("%w: the address %v is not IPv4", ErrRequest, r.Address)
	}
	key, err := pki.CheckCSR(r.CSR)
	if err != nil {
		return "", nil, fmt.Errorf("%w: %w", ErrRequest, err)
	}
	return id, key, nil
}

// keyOf names a key by its hash and by the words people compare: those that the
// machine's console shows, if it checked the boot service by a CA of ours.
func (d *Desk) keyOf(key *ecdsa.PublicKey, checked []byte) (inventory.Key, error) {
	hash, err := pki.KeyHash(key)
	if err != nil {
		return inventory.Key{}, err
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	if err != nil {
		return inventory.Key{}, fmt.Errorf("encode public key: %w", err)
	}
	ca := d.CA().Find(checked)
	if ca == nil {
		ca = d.CA().Signer
	}
	return inventory.Key{Hash: hash, Words: enroll.Words(spki, ca.Raw), Since: d.Now()}, nil
}

// apply changes the machine as the verdict says and returns what to tell the
// timeline.
func (d *Desk) apply(m *inventory.Machine, v verdict, key inventory.Key, approver string) []inventory.Event {
	switch v {
	case approve:
		key.By = approver
		*m = enter(m.Approve(key))
		return d.event("enrolled", "approved by "+approver)
	case issue:
		if !settled(*m) {
			*m = enter(*m)
		}
		return d.event("enrolled", "approved by "+m.Enrolment.Approved.By)
	}
	if settled(*m) {
		m.WaitingFor = "approval of another key, " + key.Words + ": if it was not restarted, somebody else claims to be it"
	} else {
		*m = m.Enter(enroll.Enrolling)
	}
	if m.Enrolment.Pending.Hash == key.Hash && m.Enrolment.Pending.Words == key.Words {
		m.LastSeen = d.Now()
		return nil
	}
	m.Enrolment.Pending = key
	return d.event("enrolling", key.Words)
}

func (d *Desk) event(name, detail string) []inventory.Event {
	return []inventory.Event{{Name: name, Detail: detail, At: d.Now()}}
}

// settled says that the machine has its place and, as far as is known, was not
// started again since.
func settled(m inventory.Machine) bool {
	switch m.Phase {
	case enroll.Assigned, enroll.Installing, enroll.Joining, enroll.Ready, enroll.Failed:
		return true
	}
	return false
}

// enter puts an approved machine where it goes on.
func enter(m inventory.Machine) inventory.Machine {
	if m.Cluster != "" {
		return m.Enter(enroll.Assigned)
	}
	return m.Enter(enroll.Approved)
}

// Approve approves the key that has the words, in the name of a person. It may
// be repeated.
func (d *Desk) Approve(ctx context.Context, id, words, person string) (inventory.Machine, error) {
	if _, err := d.Inventory.Get(ctx, id); err != nil {
		return inventory.Machine{}, err
	}
	return d.Inventory.Change(ctx, id, func(m *inventory.Machine) ([]inventory.Event, error) {
		pending := m.Enrolment.Pending
		switch {
		case words == "" || words != m.Words():
			return nil, fmt.Errorf("%w: it shows %s", ErrWords, orNone(m.Words()))
		case pending.Hash == "":
			return nil, nil // approved already
		}
		pending.By = person
		*m = enter(m.Approve(pending))
		return d.event("approved", "by "+person), nil
	})
}

func orNone(words string) string {
	if words == "" {
		return "none yet: it has not enrolled"
	}
	return words
}

// certify signs the machine's key for its ID, host name and address.
func (d *Desk) certify(m inventory.Machine, key *ecdsa.PublicKey) ([]byte, error) {
	r := pki.Request{
		CommonName: m.ID, Organizations: []string{MachineRole},
		IPs:    []net.IP{m.Address.AsSlice()},
		Client: true, Server: true, Validity: certValidity,
	}
	if m.Hostname != "" {
		r.DNSNames = []string{m.Hostname}
	}
	return d.CA().Sign(key, r, d.Now())
}

// Certify signs a machine's approved key anew: for the host name that its
// cluster gave it.
func (d *Desk) Certify(m inventory.Machine, key *ecdsa.PublicKey) ([]byte, error) {
	hash, err := pki.KeyHash(key)
	if err != nil {
		return nil, err
	}
	if hash != m.Enrolment.Approved.Hash {
		return nil, ErrReplaced
	}
	return d.certify(m, key)
}
