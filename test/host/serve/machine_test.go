package serve

import (
	"bufio"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/configs/enroll"
	"slipway/configs/machine"
	"slipway/controlplane/pki"
)

// playing is set in a copy of the test binary that plays a machine, on a host of
// its own. The machine prints one line for each thing that it reached, and goes
// on after each line that it reads.
const playing = "SLIPWAY_TEST_MACHINE"

// part is the machine that is played.
type part struct {
	Server, CA, ID, Address string
	Driven                  bool // it does what it is told, line by line

	key    []byte
	anyone *http.Client
	self   bootv1connect.MachineServiceClient
	config *machine.Config
	have   []byte // the config's SHA-256

	certificate []byte
}

// play runs the part that the environment names; ran is false in a test.
func play() (ran bool, err error) {
	text := os.Getenv(playing)
	if text == "" {
		return false, nil
	}
	var p part
	if err := json.Unmarshal([]byte(text), &p); err != nil {
		return true, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), 2*time.Minute)
	defer cancel()
	return true, p.play(ctx, bufio.NewScanner(os.Stdin))
}

func (p *part) play(ctx context.Context, cue *bufio.Scanner) error {
	key, keyPEM, err := pki.NewKey()
	if err != nil {
		return err
	}
	p.key, p.anyone = keyPEM, p.web(nil)
	csr, err := pki.NewCSR(pkix.Name{CommonName: p.ID}, key)
	if err != nil {
		return err
	}
	request := &bootv1.EnrollRequest{MachineId: p.ID, Address: p.Address, Csr: csr, Facts: &bootv1.Facts{Vendor: "a test", Arch: "amd64"}}
	answer, err := p.enrol(ctx, request)
	if err != nil {
		return err
	}
	if p.Driven {
		return p.driven(ctx, cue, request, answer)
	}
	words, err := p.words(&key.PublicKey)
	if err != nil {
		return err
	}
	fmt.Println("pending", words)
	if cue.Scan(); answer.GetState() != bootv1.EnrollResponse_PENDING {
		return fmt.Errorf("the first enrolment was %v", answer.GetState())
	}
	if answer, err = p.enrol(ctx, request); err != nil || answer.GetState() != bootv1.EnrollResponse_APPROVED {
		return fmt.Errorf("the enrolment after the approval: %v, %w", answer.GetState(), err)
	}
	if err := p.join(ctx, answer.GetCertificate()); err != nil {
		return err
	}
	for cue.Scan() && cue.Text() != "" { // it stands there until it is told to go on: by then its key is an old one
		if err := p.etcd(ctx, cue.Text()); err != nil {
			return err
		}
	}
	_, err = p.self.Report(ctx, connect.NewRequest(&bootv1.ReportRequest{Phase: "failed"}))
	fmt.Println("report", connect.CodeOf(err))
	_, err = p.enrol(ctx, request)
	fmt.Println("replay", connect.CodeOf(err))
	return nil
}

// join takes a machine with a certificate to Ready.
func (p *part) join(ctx context.Context, certificate []byte) error {
	cert, err := tls.X509KeyPair(certificate, p.key)
	if err != nil {
		return err
	}
	p.self = bootv1connect.NewMachineServiceClient(p.web(&cert), p.Server)
	fmt.Println("approved")
	answer, err := p.self.FetchConfig(ctx, connect.NewRequest(&bootv1.FetchConfigRequest{}))
	if err != nil {
		return err
	}
	config, err := machine.Parse(answer.Msg.GetConfig(), "config")
	if err != nil {
		return err
	}
	if config.Hostname != "demo-cp-1" || config.Cluster.ControlPlanes[0].String() != p.Address || config.Etcd.Bootstrap == nil {
		return fmt.Errorf("the config is another's: %+v", config)
	}
	if _, err := p.self.AckConfig(ctx, connect.NewRequest(&bootv1.AckConfigRequest{})); err != nil {
		return err
	}
	if _, err := p.self.FetchConfig(ctx, connect.NewRequest(&bootv1.FetchConfigRequest{})); connect.CodeOf(err) != connect.CodeFailedPrecondition {
		return fmt.Errorf("a second delivery: %w", err)
	}
	sum := sha256.Sum256(answer.Msg.GetConfig())
	p.config, p.have, p.certificate = config, sum[:], answer.Msg.GetCertificate()
	for _, report := range []*bootv1.ReportRequest{
		{Phase: "joining", Events: []*bootv1.Event{{Name: "kernel", AgeMs: 500}, {Name: "init", AgeMs: 400}, {Name: "containerd"}}, WaitingFor: "etcd"},
		{Phase: "ready", Events: []*bootv1.Event{{Name: "etcd"}, {Name: "apiserver"}, {Name: "registered"}, {Name: "ready"}}},
	} {
		if _, err := p.self.Report(ctx, connect.NewRequest(report)); err != nil {
			return err
		}
	}
	fmt.Println("ready")
	return nil
}

func (p *part) enrol(ctx context.Context, request *bootv1.EnrollRequest) (*bootv1.EnrollResponse, error) {
	answer, err := bootv1connect.NewEnrollServiceClient(p.anyone, p.Server).Enroll(ctx, connect.NewRequest(request))
	if err != nil {
		return nil, err
	}
	return answer.Msg, nil
}

// web checks the server by the pin alone, as a machine does.
func (p *part) web(cert *tls.Certificate) *http.Client {
	config := &tls.Config{InsecureSkipVerify: true, VerifyConnection: func(s tls.ConnectionState) error {
		_, err := p.pinned(s.PeerCertificates)
		return err
	}}
	if cert != nil {
		config.Certificates = []tls.Certificate{*cert}
	}
	return &http.Client{Transport: &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}}
}

// pinned finds the CA in the server's chain and checks that it signed.
func (p *part) pinned(chain []*x509.Certificate) (*x509.Certificate, error) {
	for _, cert := range chain {
		if sum := sha256.Sum256(cert.Raw); hex.EncodeToString(sum[:]) == p.CA {
			return cert, chain[0].CheckSignatureFrom(cert)
		}
	}
	return nil, errors.New("the server's chain does not have the pinned CA")
}

// words computes what the machine's console would show.
func (p *part) words(key any) (string, error) {
	answer, err := p.anyone.Get(p.Server)
	if err != nil {
		return "", err
	}
	answer.Body.Close()
	ca, err := p.pinned(answer.TLS.PeerCertificates)
	if err != nil {
		return "", err
	}
	spki, err := x509.MarshalPKIXPublicKey(key)
	return enroll.Words(spki, ca.Raw), err
}
