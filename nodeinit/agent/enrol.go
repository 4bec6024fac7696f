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
	facts   func() enroll.Facts // as they are now
	address netip.Addr
	// anew is for a certificate that the boot service does not take any more.
	anew bool
	// strange: of a boot service that does not know the key, nothing is to be had.
	strange bool
}

// asking is how often the boot service is asked.
var asking = attempts{deadline: 10 * time.Second, first: 250 * time.Millisecond, most: 3 * time.Second}

// errKeyRefused says that the boot service does not take the machine's key any more.
var errKeyRefused = errors.New("the boot service refuses the machine's key")

// enrol returns when the machine has a certificate. It returns errKeyRefused
// when another key is needed.
func (e *enrolment) enrol(ctx context.Context) error {
	if cert, err := e.store.certificate(); err == nil && !e.anew && e.stillGood(cert) {
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
	request := &bootv1.EnrollRequest{MachineId: e.args.Machine, Csr: csr, Address: e.address.String()}
	return e.console.until(ctx, asking, "the boot service "+e.args.Server.Host, func(ctx context.Context) error {
		return e.ask(ctx, client, request, key)
	})
}

// stillGood reports whether a stored certificate is valid and of a CA that the
// machine trusts: then an agent that was restarted goes on where it was.
func (e *enrolment) stillGood(cert *tls.Certificate) bool {
	chain, err := e.store.load(certFile)
	if err != nil {
		return false
	}
	cas, err := e.store.authorities()
	if err != nil || len(anchored(cas, e.store.anchors(e.args.CA))) == 0 || signedBy(cert.Leaf, chain, cas) != nil {
		return false
	}
	return inLife(cert.Leaf, e.clock.now())
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
	checked := e.trust.anchors()[0]
	if ca, err := e.trust.authority(); err == nil { // after the first connection
		checked = sha256.Sum256(ca.Raw)
	}
	request.Checked, request.Facts = checked[:], factsMessage(e.facts())
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
	if answer.Msg.State != bootv1.EnrollResponse_APPROVED && e.strange {
		return finalError{fmt.Errorf("%w: it does not know it, and is not the one that this machine was installed by; what is on the disk is not touched before a person agrees", errKeyRefused)}
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
	if now := e.clock.now(); skewed(now, server) {
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

// accept checks and stores the certificate and the CAs that it is of.
func (e *enrolment) accept(answer *bootv1.EnrollResponse, key *ecdsa.PrivateKey) error {
	if err := e.store.replaceTrust(answer.Certificate, answer.Ca, e.args.CA); err != nil {
		return err
	}
	words, err := e.words(key)
	if err != nil {
		return err
	}
	e.console.say("enrolled as %s with the words %s", e.args.Machine, words)
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
