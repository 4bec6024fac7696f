package serve

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc"
	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/bootsvc/enroll"
	configs "slipway/configs/enroll"
	"slipway/controlplane/pki"
	"slipway/test/netns"
)

// believer is a machine's side of trust: it has the pin, or what came of it.
type believer struct {
	pin     string // hex
	trusted []byte // PEM; empty: the pin counts
	request *bootv1.EnrollRequest
	key     []byte
	cert    []byte
	served  int // which of the trusted CAs signed what the server showed last; 0: none
}

// web is a client that shows the certificate, tells which CAs it trusts, and
// believes whom a CA that it trusts vouches for.
func (b *believer) web(cert []byte) (*http.Client, error) {
	config := &tls.Config{InsecureSkipVerify: true, VerifyConnection: b.verify}
	if cert != nil {
		pair, err := tls.X509KeyPair(cert, b.key)
		if err != nil {
			return nil, err
		}
		config.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: config, ForceAttemptHTTP2: true}
	return &http.Client{Transport: says{transport, configs.TrustDigest(b.trusted)}}, nil
}

// says is a transport that says which CAs a machine trusts.
type says struct {
	*http.Transport
	trusts string
}

func (s says) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(configs.TrustHeader, s.trusts)
	return s.Transport.RoundTrip(r)
}

// verify takes a server by the ordinary rules, but for the clock.
func (b *believer) verify(s tls.ConnectionState) error {
	roots, between := x509.NewCertPool(), x509.NewCertPool()
	roots.AppendCertsFromPEM(b.trusted)
	for _, cert := range s.PeerCertificates[1:] {
		between.AddCert(cert)
		if sum := sha256.Sum256(cert.Raw); len(b.trusted) == 0 && hex.EncodeToString(sum[:]) == b.pin {
			roots.AddCert(cert)
		}
	}
	leaf := s.PeerCertificates[0]
	b.served = 0
	certs, _ := pki.ParseCerts(b.trusted)
	for n, ca := range certs {
		if leaf.CheckSignatureFrom(ca) == nil {
			b.served = n + 1
		}
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between, CurrentTime: leaf.NotBefore.Add(time.Hour)})
	return err
}

// enrol gets a certificate for the key, with what is to be trusted.
func (b *believer) enrol(ctx context.Context, server string) error {
	web, err := b.web(nil)
	if err != nil {
		return err
	}
	answer, err := bootv1connect.NewEnrollServiceClient(web, server).Enroll(ctx, connect.NewRequest(b.request))
	if err == nil && len(answer.Msg.GetCertificate()) == 0 {
		err = errors.New("it is not approved")
	}
	if err != nil {
		return err
	}
	b.cert, b.trusted = answer.Msg.GetCertificate(), answer.Msg.GetCa()
	return nil
}

// trusting does what a machine does for its certificate, as it is told.
func (d *driven) trusting(ctx context.Context, order string) (string, error) {
	b := d.believer
	switch order {
	case "enrol":
		if err := b.enrol(ctx, d.server); err != nil {
			return "", err
		}
	case "renew":
		answer, err := d.self.RenewCertificate(ctx, connect.NewRequest(&bootv1.RenewCertificateRequest{}))
		if err != nil {
			return "", err
		}
		b.cert, b.trusted = answer.Msg.GetCertificate(), answer.Msg.GetCa()
	}
	if err := d.reconnect(); err != nil {
		return "", err
	}
	if _, err := d.self.Report(ctx, connect.NewRequest(&bootv1.ReportRequest{})); err != nil {
		return "", err
	}
	certs, err := pki.ParseCerts(b.trusted)
	if err != nil {
		return "", err
	}
	mine, err := pki.ParseCert(b.cert)
	return fmt.Sprintf("trusts %d, signed by the first %v, served by %d", len(certs), mine.CheckSignatureFrom(certs[0]) == nil, b.served), err
}

// reconnect speaks with the present certificate.
func (d *driven) reconnect() error {
	web, err := d.believer.web(d.believer.cert)
	d.self = bootv1connect.NewMachineServiceClient(web, d.server)
	return err
}

// pinOf is the pin that a machine would boot with now.
func (r *rack) pinOf(h *netns.Host) string {
	r.t.Helper()
	pin := regexp.MustCompile(`slipway\.ca=(\S+)`).FindStringSubmatch(h.Run("curl", "-sS", "http://10.99.0.1/boot.ipxe"))
	if pin == nil {
		r.t.Fatal("the boot script has no pin")
	}
	return pin[1]
}

// inPhase waits until the CA is in a phase: its service looks whenever a machine
// has reported.
func (r *rack) inPhase(want string) string {
	r.t.Helper()
	shown := ""
	for range 100 {
		shown = r.slipway(0, "ca", "status", "-o", "yaml")
		if strings.Contains(shown, "phase: "+want+"\n") {
			return shown
		}
	}
	r.t.Fatalf("the CA is never in phase %s:\n%s", want, shown)
	return ""
}

// TestTheBootServicesCARotates: with a machine that is there, one that is off, a
// context that is used and one that is not, and a boot service that is killed
// in each phase.
func TestTheBootServicesCARotates(t *testing.T) {
	r := newRack(t)
	service := r.serve("--approve", "any")
	hosts := []*netns.Host{r.Host("02:00:00:00:00:01"), r.Host("02:00:00:00:00:02")}
	m := r.power(hosts...)
	there, off := m[0], m[1]
	before := r.pinOf(hosts[0])
	copies := []string{filepath.Join(t.TempDir(), "bob.yaml"), filepath.Join(t.TempDir(), "eve.yaml")}
	for n, name := range []string{"bob", "eve"} {
		r.slipway(0, "ca", "issue", name, "--role", "reader", "--file", copies[n])
	}
	r.slipway(1, "ca", "issue", "bob", "--role", "reader", "--file", copies[0]) // it is there
	bob := func(code int) string {
		return r.slipway(code, "machines", "list", "--context", copies[0])
	}
	bob(0)
	crash := func() {
		t.Helper()
		_ = service.Process.Kill()
		_ = service.Wait()
		service = r.serve("--approve", "any")
	}
	there.told("trust", "trusts 1, signed by the first true")
	off.told("trust", "trusts 1, signed by the first true")
	r.slipway(0, "ca", "rotate", "--yes")
	if shown := r.inPhase("trust"); !strings.Contains(shown, "the CAs that it is to trust") {
		t.Errorf("it does not say whom it waits for:\n%s", shown)
	}
	crash()
	off.told("renew", "trusts 2, signed by the first true")
	there.told("renew", "trusts 2, signed by the first true")
	r.inPhase("use")
	there.told("trust", "trusts 2, signed by the first true, served by 2") // the server was not restarted for that
	crash()
	if after := r.pinOf(hosts[0]); after == before {
		t.Error("machines boot with the old pin")
	}
	there.told("renew", "trusts 2, signed by the first true, served by 1")
	if shown := r.inPhase("use"); !strings.Contains(shown, "bob (reader)") {
		t.Errorf("bob, who has not renewed, is not named:\n%s", shown)
	}
	bob(0)
	bob(0)                                                                                                        // which shows what the first has renewed
	if text, err := os.ReadFile(copies[0]); err != nil || strings.Count(string(text), "BEGIN CERTIFICATE") != 4 { // its own with what vouches for it, and two CAs
		t.Errorf("the context that was used, %v:\n%s", err, text)
	}
	if shown := r.inPhase("use"); !strings.Contains(shown, "02-00-00-00-00-02") || strings.Contains(shown, "bob") || strings.Contains(shown, "02-00-00-00-00-01") {
		t.Errorf("who is named is\n%s", shown)
	}
	r.slipway(0, "ca", "retire", "--yes", "--wait", "--timeout", "20s")
	r.inPhase(`""`)
	crash()
	bob(0)
	there.told("renew", "trusts 1, signed by the first true")
	off.told("trust", "unauthenticated")
	off.told("enrol", "trusts 1, signed by the first true")
	if out := r.slipway(4, "machines", "list", "--context", copies[1]); !strings.Contains(out, "was rotated") {
		t.Errorf("with a context that was never used it says\n%s", out)
	}
	r.slipway(0, "machines", "list") // the administrator's own is always good
}

// copyContext copies the administrator's context for others.
func (r *rack) copyContext(names ...string) (paths []string) {
	r.t.Helper()
	text, err := os.ReadFile(filepath.Join(r.data, "admin.yaml"))
	if err != nil {
		r.t.Fatal(err)
	}
	for _, name := range names {
		path := filepath.Join(r.t.TempDir(), name)
		if err := os.WriteFile(path, text, 0o600); err != nil {
			r.t.Fatal(err)
		}
		paths = append(paths, path)
	}
	return paths
}

// serveAt runs a boot service at another time until the function returned is called.
func (r *rack) serveAt(offset time.Duration) (stop func()) {
	r.t.Helper()
	ctx, cancel := context.WithCancel(r.t.Context())
	started, done := make(chan bootsvc.Started, 1), make(chan error, 1)
	service := bootsvc.Service{
		DataDir: r.data, ImageDir: r.image, Interface: r.Device, Rules: enroll.Any(),
		Log: slog.New(slog.NewTextHandler(r.t.Output(), nil)), Now: func() time.Time { return time.Now().Add(offset) },
	}
	go func() { done <- service.Serve(ctx, func(at bootsvc.Started) { started <- at }) }()
	select {
	case <-started:
	case err := <-done:
		r.t.Fatal(err)
	}
	return func() {
		r.t.Helper()
		cancel()
		if err := <-done; err != nil {
			r.t.Error(err)
		}
	}
}

// TestAfterAYear: a machine that was off for longer than its certificate lives
// comes back by its key, and nobody has to approve anything; a person's context
// of long ago is renewed by being used, and one that ended is refused.
func TestAfterAYear(t *testing.T) {
	const day = 24 * time.Hour
	r := newRack(t)
	stop := r.serveAt(-366 * day)
	m := r.power(r.Host("02:00:00:00:00:01"))[0]
	ended := r.copyContext("ended.yaml")[0]
	stop()
	r.serveAt(-250 * day)()
	old := r.copyContext("old.yaml")[0]
	stop = r.serveAt(-100 * day)
	young := r.copyContext("young.yaml")[0]
	stop()

	service := r.serve() // with nobody's approval but what was given
	m.told("trust", "unauthenticated")
	m.told("enrol", "trusts 1, signed by the first true")
	m.told("renew", "trusts 1, signed by the first true")
	for path, renews := range map[string]bool{old: true, young: false} {
		before, _ := os.ReadFile(path)
		r.slipway(0, "machines", "list", "--context", path)
		if after, err := os.ReadFile(path); err != nil || (string(after) != string(before)) != renews {
			t.Errorf("%s: renewed %v, %v; want %v", filepath.Base(path), string(after) != string(before), err, renews)
		}
	}
	if out := r.slipway(4, "machines", "list", "--context", ended); !strings.Contains(out, "expired") {
		t.Errorf("with a context that ended it says\n%s", out)
	}
	if err := service.Process.Signal(syscall.SIGTERM); err != nil {
		t.Error(err)
	}
}
