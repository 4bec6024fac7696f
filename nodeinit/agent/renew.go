package agent

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/bootv1/bootv1connect"
)

// renewer keeps the machine's certificate young. Nothing is restarted for it:
// the agent reads the file for each connection, and the kubelet, which serves
// with it, watches the file (its feature ReloadKubeletServerCertificateFile).
type renewer struct {
	store   store
	client  bootv1connect.MachineServiceClient
	console *console
	enrol   func(context.Context) error // gets a certificate for the same key, by enrolling
}

// lookAtCertificate is how often the certificate's dates are looked at.
const lookAtCertificate = time.Minute

// run renews until ctx ends. What fails is tried again at the next look: there
// are months for it.
func (r *renewer) run(ctx context.Context) error {
	tick := time.NewTicker(lookAtCertificate)
	defer tick.Stop()
	for {
		if err := r.look(ctx, time.Now()); err != nil && ctx.Err() == nil {
			r.console.log.Warn("renew the machine's certificate", "error", err, "again", lookAtCertificate.String())
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// look renews the certificate if it is time. One that has expired proves
// nothing any more, so its key enrols again: it is approved still.
func (r *renewer) look(ctx context.Context, now time.Time) error {
	cert, err := r.store.certificate()
	if err != nil {
		return err
	}
	switch {
	case !due(cert.Leaf, now):
		return nil
	case now.After(cert.Leaf.NotAfter):
		return r.enrol(ctx)
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
	if err := r.store.replaceCertificate(answer.Msg.Certificate); err != nil {
		return fmt.Errorf("take the new certificate: %w", err)
	}
	r.console.log.Info("the machine's certificate was renewed")
	return nil
}

// due reports whether less than a third of a certificate's life is left.
func due(leaf *x509.Certificate, now time.Time) bool {
	life := leaf.NotAfter.Sub(leaf.NotBefore)
	return now.After(leaf.NotAfter.Add(-life / 3))
}
