package enroll

import (
	"crypto/ecdsa"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"log/slog"
	"net/netip"
	"path/filepath"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"slipway/bootsvc/authority"
	"slipway/bootsvc/inventory"
	"slipway/bootsvc/store"
	"slipway/configs/enroll"
	"slipway/controlplane/pki"
)

const id = "52-54-00-00-00-01"

var (
	noon    = time.Date(2026, 6, 1, 12, 0, 0, 0, time.UTC)
	address = netip.MustParseAddr("10.0.0.7")
)

func TestDecide(t *testing.T) {
	known := inventory.Enrolment{Approved: inventory.Key{Hash: "now"}, Retired: []string{"before", "once"}}
	tests := map[string]struct {
		enrolment inventory.Enrolment
		hash      string
		byRule    bool
		want      verdict
	}{
		"a stranger":                     {inventory.Enrolment{}, "a", false, wait},
		"a stranger that a rule matches": {inventory.Enrolment{}, "a", true, approve},
		"the machine again":              {known, "now", false, issue},
		"the machine again, with a rule": {known, "now", true, issue},
		"a new key of a known machine":   {known, "new", false, wait},
		"a new key and a rule":           {known, "new", true, approve},
		"a replay of an old key":         {known, "before", false, refuse},
		"a replay, with a rule":          {known, "once", true, refuse},
	}
	for name, test := range tests {
		if got := decide(test.enrolment, test.hash, test.byRule); got != test.want {
			t.Errorf("%s: %d, want %d", name, got, test.want)
		}
	}
}

// newDesk is a desk on a store of its own.
func newDesk(t testing.TB, rules Rules) *Desk {
	t.Helper()
	dir := t.TempDir()
	log := slog.New(slog.DiscardHandler)
	s, err := store.Open(t.Context(), store.Config{Dir: filepath.Join(dir, "etcd"), KeyFile: filepath.Join(dir, "key"), Log: log})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	made, err := pki.NewCA("test", noon, time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	ca, err := authority.NewView(authority.Record{CA: made})
	if err != nil {
		t.Fatal(err)
	}
	return &Desk{Inventory: inventory.New(s, log, prometheus.NewRegistry()), CA: func() *authority.View { return ca }, Rules: rules, Now: func() time.Time { return noon }}
}

// machineKey is a machine's side of an enrolment.
type machineKey struct {
	key *ecdsa.PrivateKey
	csr []byte
}

func newKey(t testing.TB) machineKey {
	t.Helper()
	key, _, err := pki.NewKey()
	if err != nil {
		t.Fatal(err)
	}
	csr, err := pki.NewCSR(pkix.Name{CommonName: id}, key)
	if err != nil {
		t.Fatal(err)
	}
	return machineKey{key, csr}
}

func (k machineKey) enrol(t *testing.T, d *Desk) (inventory.Machine, []byte, error) {
	t.Helper()
	return d.Enrol(t.Context(), Request{MachineID: id, CSR: k.csr, Address: address, Facts: enroll.Facts{Vendor: "QEMU"}})
}

func TestAPersonApproves(t *testing.T) {
	d, key := newDesk(t, Rules{}), newKey(t)
	for range 2 { // it asks until somebody has looked
		m, cert, err := key.enrol(t, d)
		if err != nil || cert != nil || m.Phase != enroll.Enrolling {
			t.Fatalf("before the approval: %s, certificate %q, %v", m.Phase, cert, err)
		}
	}
	m, err := d.Inventory.Get(t.Context(), id)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Approve(t.Context(), id, "other-words-than-these", "ann"); !errors.Is(err, ErrWords) {
		t.Errorf("other words: %v", err)
	}
	for range 2 { // it may be repeated
		if m, err = d.Approve(t.Context(), id, m.Words(), "ann"); err != nil || m.Phase != enroll.Approved {
			t.Fatalf("approve: %s, %v", m.Phase, err)
		}
	}
	_, text, err := key.enrol(t, d)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := pki.ParseCert(text)
	if err != nil {
		t.Fatal(err)
	}
	if cert.Subject.CommonName != id || cert.Subject.Organization[0] != MachineRole || !key.key.PublicKey.Equal(cert.PublicKey) || !cert.IPAddresses[0].Equal(address.AsSlice()) {
		t.Errorf("the certificate is for %v, %v", cert.Subject, cert.IPAddresses)
	}
}

// TestWordsAreOfTheCAThatTheMachineChecked: while the boot service's CA is
// rotated, the console's words and the list's stay the same.
func TestWordsAreOfTheCAThatTheMachineChecked(t *testing.T) {
	d, key := newDesk(t, Rules{}), newKey(t)
	before := d.CA().Signer
	r, err := d.CA().Begin(noon)
	for n := 0; err == nil && n < 2; n++ {
		r, err = r.Advance(nil, noon)
	}
	if err != nil {
		t.Fatal(err)
	}
	after, err := authority.NewView(r)
	if err != nil {
		t.Fatal(err)
	}
	d.CA = func() *authority.View { return after }
	spki, err := x509.MarshalPKIXPublicKey(key.key.Public())
	if err != nil {
		t.Fatal(err)
	}
	old, now, stranger := sha256.Sum256(before.Raw), sha256.Sum256(after.Signer.Raw), sha256.Sum256(nil)
	for _, test := range []struct {
		checked []byte
		ca      *x509.Certificate
	}{{nil, after.Signer}, {old[:], before}, {now[:], after.Signer}, {stranger[:], after.Signer}, {[]byte("x"), after.Signer}} {
		m, _, err := d.Enrol(t.Context(), Request{MachineID: id, CSR: key.csr, Address: address, Checked: test.checked})
		if want := enroll.Words(spki, test.ca.Raw); err != nil || m.Words() != want {
			t.Errorf("checked by %.8x: the words are %s, %v; want %s", test.checked, m.Words(), err, want)
		}
	}
}

func TestUnknownMachinesAreNotApproved(t *testing.T) {
	if _, err := newDesk(t, Rules{}).Approve(t.Context(), id, "a-b-c-d", "ann"); !errors.Is(err, store.ErrNotFound) {
		t.Errorf("approving a machine that never enrolled: %v", err)
	}
}

func TestANewKeyNeedsANewApproval(t *testing.T) {
	d, first, second := newDesk(t, Rules{}), newKey(t), newKey(t)
	m, _, err := first.enrol(t, d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Approve(t.Context(), id, m.Words(), "ann"); err != nil {
		t.Fatal(err)
	}
	m, cert, err := second.enrol(t, d)
	if err != nil || cert != nil {
		t.Fatalf("the second key got %q, %v", cert, err)
	}
	if _, cert, err = first.enrol(t, d); err != nil || cert == nil {
		t.Errorf("a stranger's try took the machine's certificate: %v", err)
	}
	if _, err := d.Approve(t.Context(), id, m.Words(), "ann"); err != nil {
		t.Fatal(err)
	}
	if _, cert, err := second.enrol(t, d); err != nil || cert == nil {
		t.Errorf("the approved second key got nothing: %v", err)
	}
	if _, _, err := first.enrol(t, d); !errors.Is(err, ErrReplaced) {
		t.Errorf("a replay of the first enrolment: %v", err)
	}
}

func TestARuleApprovesEachBootOfAMachineInRAM(t *testing.T) {
	d := newDesk(t, Any())
	var last machineKey
	for range 3 {
		key := newKey(t)
		m, cert, err := key.enrol(t, d)
		if err != nil || cert == nil || m.Enrolment.Approved.By != "rule 1" {
			t.Fatalf("%+v, %v", m.Enrolment, err)
		}
		if last.csr != nil {
			if _, _, err := last.enrol(t, d); !errors.Is(err, ErrReplaced) {
				t.Errorf("a rule took an old key back: %v", err)
			}
		}
		last = key
	}
}

func TestAStrangerChangesNothingOfAKnownMachine(t *testing.T) {
	d, key := newDesk(t, Rules{}), newKey(t)
	m, _, err := key.enrol(t, d)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.Approve(t.Context(), id, m.Words(), "ann"); err != nil {
		t.Fatal(err)
	}
	_, err = d.Inventory.Change(t.Context(), id, func(m *inventory.Machine) ([]inventory.Event, error) {
		*m = m.Enter(enroll.Ready)
		return nil, nil
	})
	if err != nil {
		t.Fatal(err)
	}
	m, _, err = d.Enrol(t.Context(), Request{MachineID: id, CSR: newKey(t).csr, Address: netip.MustParseAddr("10.0.0.66"), Facts: enroll.Facts{Vendor: "Evil"}})
	if err != nil {
		t.Fatal(err)
	}
	if m.Address != address || m.Facts.Vendor != "QEMU" || m.Phase != enroll.Ready {
		t.Errorf("the machine is now %s, %s, %s", m.Address, m.Facts.Vendor, m.Phase)
	}
	if m.WaitingFor == "" {
		t.Error("nobody is told that another key claims to be the machine")
	}
}

func TestBadRequests(t *testing.T) {
	d, key := newDesk(t, Any()), newKey(t)
	for name, r := range map[string]Request{
		"no ID":          {CSR: key.csr, Address: address},
		"a group's ID":   {MachineID: "ff-ff-ff-ff-ff-ff", CSR: key.csr, Address: address},
		"no address":     {MachineID: id, CSR: key.csr},
		"IPv6":           {MachineID: id, CSR: key.csr, Address: netip.MustParseAddr("fe80::1")},
		"no key":         {MachineID: id, Address: address},
		"a broken key":   {MachineID: id, CSR: key.csr[:100], Address: address},
		"a huge request": {MachineID: id, CSR: make([]byte, 1<<20), Address: address},
	} {
		if _, cert, err := d.Enrol(t.Context(), r); !errors.Is(err, ErrRequest) || cert != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if machines, err := d.Inventory.List(t.Context()); err != nil || len(machines) != 0 {
		t.Errorf("bad requests left %d machines, %v", len(machines), err)
	}
}

func FuzzEnrol(f *testing.F) {
	d := newDesk(f, Rules{})
	f.Add(id, newKey(f).csr, "QEMU")
	f.Add("52:54:00:00:00:02", []byte{0x30, 0x03}, "\x1b[2J")
	f.Fuzz(func(t *testing.T, id string, csr []byte, vendor string) {
		m, cert, err := d.Enrol(t.Context(), Request{MachineID: id, CSR: csr, Address: address, Facts: enroll.Facts{Vendor: vendor}})
		if cert != nil {
			t.Errorf("a certificate without an approval: %+v, %v", m, err)
		}
	})
}
