package agent

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"math/big"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
)

// lasting makes a machine's certificate of a life that begins now.
func (c *testCA) lasting(t testing.TB, key *ecdsa.PublicKey, from time.Time, life time.Duration) []byte {
	t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "52-54-00-12-34-56"}, NotBefore: from, NotAfter: from.Add(life),
	}, c.cert, key, c.key)
	if err != nil {
		t.Fatal(err)
	}
	return toPEM(der)
}

// renewals is a boot service that renews certificates, when it is up.
type renewals struct {
	bootv1connect.MachineServiceClient
	issue func() []byte
	ca    []byte
	down  bool
	times []time.Duration // when it was asked
	start time.Time
}

func (r *renewals) RenewCertificate(context.Context, *connect.Request[bootv1.RenewCertificateRequest]) (*connect.Response[bootv1.RenewCertificateResponse], error) {
	r.times = append(r.times, time.Since(r.start))
	if r.down {
		return nil, connect.NewError(connect.CodeUnavailable, errors.New("connection refused"))
	}
	return connect.NewResponse(&bootv1.RenewCertificateResponse{Certificate: r.issue(), Ca: r.ca}), nil
}

// TestRenew: before two thirds of its life are over a certificate is renewed, each
// minute until that works; one that expired meanwhile is got by enrolling.
func TestRenew(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const life = 30 * time.Minute
		ca, s := newCA(t), store{dir: t.TempDir()}
		key, err := s.key()
		if err != nil {
			t.Fatal(err)
		}
		issue := func() []byte { return ca.lasting(t, &key.PublicKey, time.Now(), life) }
		if err := errors.Join(s.save(caFile, toPEM(ca.cert.Raw)), s.save(certFile, issue())); err != nil {
			t.Fatal(err)
		}
		server := &renewals{issue: issue, ca: toPEM(ca.cert.Raw), start: time.Now()}
		passed := func() time.Duration { return time.Since(server.start) }
		enrolled := make(chan time.Duration, 1)
		r := &renewer{store: s, client: server, console: quiet(&screen{}), clock: clock{sinceBoot: passed, now: time.Now}, renewed: func() {}, enrol: func(context.Context) error {
			enrolled <- passed()
			return s.save(certFile, issue())
		}}
		ctx, cancel := context.WithCancel(t.Context())
		done := make(chan error)
		go func() { done <- r.run(ctx) }()

		time.Sleep(18*time.Minute + time.Second)
		if len(server.times) != 0 {
			t.Errorf("asked at %v, with more than a third of its life left at the next look", server.times)
		}
		time.Sleep(time.Minute)
		if want := []time.Duration{19 * time.Minute}; !slices.Equal(server.times, want) {
			t.Fatalf("asked at %v, want %v", server.times, want)
		}
		cert, err := s.certificate()
		if err != nil || time.Until(cert.Leaf.NotAfter) < life-2*time.Second {
			t.Errorf("renewed until %v, %v", cert.Leaf.NotAfter, err)
		}

		server.down, server.times = true, nil
		time.Sleep(time.Hour)
		if at := <-enrolled; at != 50*time.Minute || len(server.times) < 10 {
			t.Errorf("enrolled again after %s, asked %d times before; want 50m, at the first look after its end", at, len(server.times))
		}
		cancel()
		<-done
	})
}

// TestRenewRefusesForeign: what is not a certificate of this key changes nothing.
func TestRenewRefusesForeign(t *testing.T) {
	ca, s := newCA(t), store{dir: t.TempDir()}
	key, err := s.key()
	if err != nil {
		t.Fatal(err)
	}
	old := ca.lasting(t, &key.PublicKey, time.Now().Add(-time.Hour), 61*time.Minute)
	if err := errors.Join(s.save(caFile, toPEM(ca.cert.Raw)), s.save(certFile, old)); err != nil {
		t.Fatal(err)
	}
	other := newKey(t)
	server := &renewals{issue: func() []byte { return ca.lasting(t, &other.PublicKey, time.Now(), time.Hour) }, ca: toPEM(ca.cert.Raw)}
	r := &renewer{store: s, client: server, console: quiet(&screen{})}
	if err := r.look(t.Context(), verdict{}, time.Now()); err == nil {
		t.Error("a certificate for another key was taken")
	}
	if now, err := s.load(certFile); err != nil || !bytes.Equal(now, old) {
		t.Errorf("the certificate changed: %v", err)
	}
}

// TestLongAway: a machine that was off for longer than its certificate lives
// comes back by its key: nobody approves anything, and it keeps its config.
func TestLongAway(t *testing.T) {
	b := newBootService(t)
	b.approved, b.config = true, exampleConfig(t)
	n := newNode(t, b)
	stop := n.start(t)
	n.pid1.take(t)
	b.await("the config to be applied", func() bool { return b.applied != nil })
	stop()

	key, err := n.store.key()
	if err != nil {
		t.Fatal(err)
	}
	expired := b.ca.lasting(t, &key.PublicKey, time.Now().Add(-2*time.Hour), time.Hour)
	if err := n.store.save(certFile, expired); err != nil {
		t.Fatal(err)
	}
	fetches := b.fetches
	b.update(func() { b.applied = nil })
	n.start(t)
	if got := n.pid1.take(t); !bytes.Equal(got.Config, exampleConfig(t)) {
		t.Errorf("PID 1 got\n%s", got.Config)
	}
	b.await("the config to be applied", func() bool { return b.applied != nil })
	last := b.enrolments[len(b.enrolments)-1]
	request, err := x509.ParseCertificateRequest(last.Csr)
	if err != nil || !key.PublicKey.Equal(request.PublicKey) {
		t.Errorf("it came back with another key: %v", err)
	}
	if len(b.enrolments) != 2 || b.fetches != fetches {
		t.Errorf("%d enrolments, %d fetches of a first config; want 2, %d", len(b.enrolments), b.fetches, fetches)
	}
	if cert, err := n.store.certificate(); err != nil || time.Now().After(cert.Leaf.NotAfter) {
		t.Errorf("the certificate: %v", err)
	}
}

// TestClockOff: an installed machine asks nobody who it is. When its clock is
// wrong it enrols again by its key, to have it set: nobody approves anything.
func TestClockOff(t *testing.T) {
	const day = 24 * time.Hour
	for name, clock := range map[string]time.Time{
		"1970, its battery is dead":    time.Unix(0, 0),
		"2099":                         time.Date(2099, 1, 1, 0, 0, 0, 0, time.UTC),
		"100 days ago, it stood still": time.Now().Add(-100 * day),
	} {
		t.Run(name, func(t *testing.T) {
			b := newBootService(t)
			n, _ := installed(t, b)
			key, err := n.store.key()
			if err != nil {
				t.Fatal(err)
			}
			if err := n.store.save(certFile, b.ca.lasting(t, &key.PublicKey, time.Now().Add(-200*day), 365*day)); err != nil {
				t.Fatal(err)
			}
			n.setClock(clock)
			b.update(func() { b.applied = nil })
			n.start(t)
			n.pid1.take(t) // nothing of it waits for the clock
			b.await("the config to be applied", func() bool { return b.applied != nil })
			if off := time.Until(n.now()); off.Abs() > time.Minute {
				t.Errorf("the clock is still off by %s", off)
			}
			request, err := x509.ParseCertificateRequest(b.enrolments[len(b.enrolments)-1].Csr)
			if err != nil || !key.PublicKey.Equal(request.PublicKey) || len(b.enrolments) != 2 {
				t.Errorf("%d enrolments, the last with another key: %v", len(b.enrolments), err)
			}
		})
	}
}

// TestNobodyElseSetsTheClock: who answers in the boot service's place and is not
// of its CA sets no clock, however wrong that is.
func TestNobodyElseSetsTheClock(t *testing.T) {
	b := newBootService(t)
	n, _ := installed(t, b)
	b.stop()
	b.update(func() { b.ca = newCA(t) })
	b.start()
	n.setClock(time.Unix(0, 0))
	n.start(t)
	awaitScreen(t, n, "is not the boot service that started this machine")
	if n.now().Year() != 1970 || *b.requests != 0 {
		t.Errorf("the clock says %s, after %d requests", n.now(), *b.requests)
	}
}
