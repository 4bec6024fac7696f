package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/configs/enroll"
)

// maxAnswer bounds what the agent reads of one answer, in bytes: a config
// with its certificates is about 20 KiB.
const maxAnswer = 1 << 20

// enrolment is the way from no certificate to one. Each of its steps may be
// repeated: the key stays the same until it is approved.
type enrolment struct {
	args    Args
	store   store
	trust   *trust
	console *console
	clock   clock
	facts   enroll.Facts
	address netip.Addr
}

// asking is how often the boot service is asked.
var asking = attempts{deadline: 10 * time.Second, first: 250 * time.Millisecond, most: 3 * time.Second}

// errKeyRefused says that the boot service does not take the machine's key any more.
var errKeyRefused = errors.New("the boot service refuses the machine's key")

// enrol returns when the machine has a certificate. It returns errKeyRefused
// when another key is needed.
func (e *enrolment) enrol(ctx context.Context) error {
	if cert, err := e.store.certificate(); err == nil && e.stillGood(cert.Leaf) {
		return nil
	}
	key, err := e.store.key()
	if err != nil {
		return err
	}
	csr, err := newRequest(e.args.Machine, key)
	if err != nil {
		return err
	}
	client, done := e.client()
	defer done()
	request := &bootv1.EnrollRequest{MachineId: e.args.Machine, Facts: factsMessage(e.facts), Csr: csr, Address: e.address.String()}
	return e.console.until(ctx, asking, "the boot service "+e.args.Server.Host, func(ctx context.Context) error {
		return e.ask(ctx, client, request, key)
	})
}

// stillGood reports whether a stored certificate is of the pinned CA: then an
// agent that was restarted goes on where it was.
func (e *enrolment) stillGood(leaf *x509.Certificate) bool {
	data, err := e.store.load(caFile)
	if err != nil {
		return false
	}
	ca, err := parseCert(data)
	if err != nil || sha256.Sum256(ca.Raw) != e.args.CA || leaf.CheckSignatureFrom(ca) != nil {
		return false
	}
	e.trust.clockIsSet()
	return time.Now().Before(leaf.NotAfter)
}

func (e *enrolment) client() (bootv1connect.EnrollServiceClient, func()) {
	transport := newTransport(e.trust.client(nil))
	client := bootv1connect.NewEnrollServiceClient(&http.Client{Transport: transport}, e.args.Server.String(), connect.WithReadMaxBytes(maxAnswer))
	return client, transport.CloseIdleConnections
}

func newTransport(config *tls.Config) *http.Transport {
	return &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 10 * time.Second}
}

// ask asks once.
func (e *enrolment) ask(ctx context.Context, client bootv1connect.EnrollServiceClient, request *bootv1.EnrollRequest, key *ecdsa.PrivateKey) error {
	answer, err := client.Enroll(ctx, connect.NewRequest(request))
	if connect.CodeOf(err) == connect.CodePermissionDenied {
		return finalError{fmt.Errorf("%w: %w", errKeyRefused, err)}
	}
	if err != nil {
		return err
	}
	if err := e.setClock(answer.Msg); err != nil {
		return err
	}
	if answer.Msg.State != bootv1.EnrollResponse_APPROVED {
		return e.pending(answer.Msg, key)
	}
	return e.accept(answer.Msg, key)
}

// setClock takes the boot service's time: it is trusted once the pin was checked.
func (e *enrolment) setClock(answer *bootv1.EnrollResponse) error {
	if answer.ServerTime == nil {
		return nil
	}
	server := answer.ServerTime.AsTime()
	if now := time.Now(); skewed(now, server) {
		if err := e.clock.set(server); err != nil {
			return err
		}
		e.console.say("set the clock from %s to %s", now.UTC().Format(time.RFC3339), server.UTC().Format(time.RFC3339))
	}
	e.trust.clockIsSet()
	return nil
}

func (e *enrolment) pending(answer *bootv1.EnrollResponse, key *ecdsa.PrivateKey) error {
	words, err := e.words(key)
	if err != nil {
		return err
	}
	what := answer.WaitingFor
	if what == "" {
		what = "approval"
	}
	return pendingError{fmt.Sprintf("%s of machine %s with the words %s", what, e.args.Machine, words)}
}

// words are what a person compares with `slipway machines list`.
func (e *enrolment) words(key *ecdsa.PrivateKey) (string, error) {
	ca, err := e.trust.authority()
	if err != nil {
		return "", err
	}
	spki, err := x509.MarshalPKIXPublicKey(key.Public())
	if err != nil {
		return "", fmt.Errorf("encode the machine's key: %w", err)
	}
	return enroll.Words(spki, ca.Raw), nil
}

// accept checks and stores the certificate; the CA first, so that a
// certificate is never there without it.
func (e *enrolment) accept(answer *bootv1.EnrollResponse, key *ecdsa.PrivateKey) error {
	ca, err := parseCert(answer.Ca)
	if err != nil {
		return fmt.Errorf("read the boot service's CA: %w", err)
	}
	if sha256.Sum256(ca.Raw) != e.args.CA {
		return errors.New("the boot service answered with another CA than it has")
	}
	if err := checkCertificate(answer.Certificate, ca, key); err != nil {
		return err
	}
	if err := e.store.save(caFile, answer.Ca); err != nil {
		return err
	}
	if err := e.store.save(certFile, answer.Certificate); err != nil {
		return err
	}
	words, err := e.words(key)
	if err != nil {
		return err
	}
	e.console.say("enrolled as %s with the words %s", e.args.Machine, words)
	return nil
}

// checkCertificate checks that data is a certificate of ours, signed by ca.
func checkCertificate(data []byte, ca *x509.Certificate, key *ecdsa.PrivateKey) error {
	cert, err := parseCert(data)
	if err != nil {
		return fmt.Errorf("read the machine's certificate: %w", err)
	}
	if err := cert.CheckSignatureFrom(ca); err != nil {
		return fmt.Errorf("check the machine's certificate: %w", err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return errors.New("check the machine's certificate: it is for another key")
	}
	return nil
}

func parseCert(data []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(bytes.TrimSpace(data))
	if block == nil {
		return nil, errors.New("not PEM")
	}
	return x509.ParseCertificate(block.Bytes)
}

func newRequest(machine string, key *ecdsa.PrivateKey) ([]byte, error) {
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{Subject: pkix.Name{CommonName: machine}}, key)
	if err != nil {
		return nil, fmt.Errorf("make certificate request: %w", err)
	}
	return csr, nil
}

func factsMessage(f enroll.Facts) *bootv1.Facts {
	m := &bootv1.Facts{
		Uuid: f.UUID, Vendor: f.Vendor, Product: f.Product, Serial: f.Serial,
		Arch: f.Arch, Firmware: f.Firmware, Cpus: int32(f.CPUs), Memory: f.Memory,
	}
	for _, n := range f.NICs {
		m.Nics = append(m.Nics, &bootv1.NIC{Name: n.Name, Mac: n.MAC, Driver: n.Driver, Up: n.Up})
	}
	for _, d := range f.Disks {
		m.Disks = append(m.Disks, &bootv1.Disk{Name: d.Name, Size: d.Size, Model: d.Model, Serial: d.Serial, Wwn: d.WWN, Type: d.Type, Removable: d.Removable, Rotational: d.Rotational})
	}
	return m
}
