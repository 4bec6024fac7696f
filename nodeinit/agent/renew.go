package agent

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"net/http"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/configs/enroll"
	"slipway/controlplane/leaf"
)

// renewer keeps the machine's certificate young. Nothing is restarted for it:
// the agent reads the file for each connection, and the kubelet, which serves
// with it, watches the file (its feature ReloadKubeletServerCertificateFile).
type renewer struct {
	pin     [sha256.Size]byte
	store   store
	client  bootv1connect.MachineServiceClient
	console *console
	clock   clock
	news    <-chan verdict              // what the boot service says of the certificate
	enrol   func(context.Context) error // gets a certificate for the same key, by enrolling
	renewed func()                      // is called when there is another certificate

	pause time.Duration // until when it does not enrol again, since the kernel started
}

// verdict is what a boot service's answer says of the machine's certificate.
type verdict struct {
	refused bool   // it is of a CA that is trusted no more
	behind  bool   // the machine's clock is, by the boot service's own certificate
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
	if errors.Is(err, errClockBehind) {
		h.tell(verdict{behind: true})
	}
	if err != nil {
		return nil, err
	}
	said := answer.Header.Get(enroll.TrustHeader)
	v := verdict{refused: answer.StatusCode == http.StatusUnauthorized, trusts: said}
	if v.refused || said != "" && said != h.store.trusts() {
		h.tell(v)
	}
	return answer, nil
}

func (h *hearing) tell(v verdict) {
	select {
	case h.news <- v:
	default: // the one before is not yet taken; there will be other answers
	}
}

// run renews until ctx ends. What fails is tried again at the next look: there
// are months for it.
func (r *renewer) run(ctx context.Context) error {
	tick := time.NewTicker(leaf.Look)
	defer tick.Stop()
	var said verdict
	for {
		if err := r.look(ctx, said, r.clock.now()); err != nil && ctx.Err() == nil {
			r.console.log.Warn("renew the machine's certificate", "error", err, "again", leaf.Look.String())
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

// look renews the certificate if it is time. One that has expired, is not valid
// yet or is of a CA that was rotated meanwhile proves nothing, so its key enrols
// again: it is approved still, and the clock is set on the way.
func (r *renewer) look(ctx context.Context, said verdict, now time.Time) error {
	cert, err := r.store.certificate()
	if err != nil {
		return err
	}
	rotated := said.trusts != "" && said.trusts != r.store.trusts()
	switch {
	case said.refused || said.behind || !inLife(cert.Leaf, now):
		return r.enrolAgain(ctx)
	case !rotated && !leaf.Aged(cert.Leaf, now):
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
func (r *renewer) enrolAgain(ctx context.Context) error {
	if r.clock.sinceBoot() < r.pause {
		return nil
	}
	defer func() { r.pause = r.clock.sinceBoot() + leaf.Look }()
	if err := r.enrol(ctx); err != nil {
		return err
	}
	r.renewed()
	return nil
}
