package agent

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/configs/enroll"
)

// renewer keeps the machine's certificate young. Nothing is restarted for it:
// the agent reads the file for each connection, and the kubelet, which serves
// with it, watches the file (its feature ReloadKubeletServerCertificateFile).
type renewer struct {
	pin     [sha256.Size]byte
	store   store
	client  bootv1connect.MachineServiceClient
	console *console
	news    <-chan verdict              // what the boot service says of the certificate
	enrol   func(context.Context) error // gets a certificate for the same key, by enrolling
	renewed func()                      // is called when there is another certificate

	enrolled time.Time // when it enrolled again last
}

// verdict is what a boot service's answer says of the machine's certificate.
type verdict struct {
	refused bool   // it is of a CA that is trusted no more
	trusts  string // the digest of the CAs that the boot service trusts; empty: unknown
}

// hearing is a transport that tells the boot service which CAs the machine
// trusts, and hears from its answers whether that is right.
type hearing struct {
	to    http.RoundTripper
	store store
	news  chan<- verdict
}

func (h *hearing) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set(enroll.TrustHeader, h.store.trusts())
	answer, err := h.to.RoundTrip(r)
	if err != nil {
		return nil, err
	}
	said := answer.Header.Get(enroll.TrustHeader)
	v := verdict{refused: answer.StatusCode == http.StatusUnauthorized, trusts: said}
	if v.refused || said != "" && said != h.store.trusts() {
		select {
		case h.news <- v:
		default: // the one before is not yet taken; there will be other answers
		}
	}
	return answer, nil
}

// lookAtCertificate is how often the certificate's dates are looked at.
const lookAtCertificate = time.Minute

// run renews until ctx ends. What fails is tried again at the next look: there
// are months for it.
func (r *renewer) run(ctx context.Context) error {
	tick := time.NewTicker(lookAtCertificate)
	defer tick.Stop()
	var said verdict
	for {
		if err := r.look(ctx, said, time.Now()); err != nil && ctx.Err() == nil {
			r.console.log.Warn("renew the machine's certificate", "error", err, "again", lookAtCertificate.String())
		}
		said = verdict{}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		case said = <-r.news:
		}
	}
}

// look renews the certificate if it is time. One that has expired or is of a CA
// that was rotated meanwhile proves nothing any more, so its key enrols again: it
// is approved still.
func (r *renewer) look(ctx context.Context, said verdict, now time.Time) error {
	cert, err := r.store.certificate()
	if err != nil {
		return err
	}
	rotated := said.trusts != "" && said.trusts != r.store.trusts()
	switch {
	case said.refused || now.After(cert.Leaf.NotAfter):
		return r.enrolAgain(ctx, now)
	case !rotated && !due(cert.Leaf, now):
		return nil
	}
	ctx, cancel := context.WithTimeout(ctx, asking.deadline)
	defer cancel()
	answer, err := r.client.RenewCertificate(ctx, connect.NewRequest(&bootv1.RenewCertificateRequest{}))
	if err != nil {
		return err
	}
	if len(answer.Msg.Certificate) == 0 {
		return errors.New("the boot service answered without a certificate")
	}
	if err := r.store.replaceTrust(answer.Msg.Certificate, answer.Msg.Ca, r.pin); err != nil {
		return fmt.Errorf("take the new certificate: %w", err)
	}
	r.renewed()
	r.console.log.Info("the machine's certificate was renewed")
	return nil
}

// enrolAgain enrols, at most once a minute: a boot service that refuses the
// certificate it has just given is not flooded.
func (r *renewer) enrolAgain(ctx context.Context, now time.Time) error {
	if now.Sub(r.enrolled) < lookAtCertificate {
		return nil
	}
	r.enrolled = now
	if err := r.enrol(ctx); err != nil {
		return err
	}
	r.renewed()
	return nil
}

// due reports whether less than a third of a certificate's life is left.
func due(leaf *x509.Certificate, now time.Time) bool {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return now.After(leaf.NotAfter.Add(-life / 3))
}
