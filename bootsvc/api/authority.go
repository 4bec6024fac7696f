package api

import (
	"context"
	"net/http"
	"slices"
	"time"

	"connectrpc.com/connect"
	"google.golang.org/protobuf/types/known/timestamppb"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/authority"
	"slipway/configs/enroll"
	"slipway/controlplane/pki"
)

// noting is how long a call waits for it to be noted who made it.
const noting = 2 * time.Second

// sees tells the caller which CAs are trusted, and notes which ones a person
// trusts. What a machine trusts comes with its reports. A connection with a
// certificate of another CA than the one that signs ends with its answer: who
// has renewed shows the new one on the next.
func (s *Server) sees(ctx context.Context, c caller, answer http.Header) {
	answer.Set(enroll.TrustHeader, s.Office.CA.View().Digest)
	if c.problem != nil || c.old {
		answer.Set("Connection", "close")
	}
	roles := personRoles(c.roles)
	if c.problem != nil || len(roles) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, noting)
	defer cancel()
	err := s.Office.People.Seen(ctx, authority.Credential{
		Key: c.keyHash, Name: c.name, Roles: roles, Until: c.until, Trusts: s.trustOf(c), Used: s.Now(),
	})
	if err != nil {
		s.Log.Warn("a person's credentials are not noted", "unit", service, "person", c.name, "error", err)
	}
}

// trustOf is which CAs a person trusts. Programs that are not ours do not say
// it; then it counts which CA signed their certificate.
func (s *Server) trustOf(c caller) string {
	if c.trusts == "" && !c.old {
		return s.Office.CA.View().Digest
	}
	return c.trusting()
}

// trusting is what the caller says it trusts, if that can be.
func (c caller) trusting() string {
	if len(c.trusts) > 64 || clean(c.trusts) != c.trusts {
		return ""
	}
	return c.trusts
}

// authorityHandler shows and rotates the boot service's CA.
type authorityHandler struct{ *Server }

// GetAuthority shows the CA and its rotation.
func (h *authorityHandler) GetAuthority(ctx context.Context, _ *connect.Request[bootv1.GetAuthorityRequest]) (*connect.Response[bootv1.GetAuthorityResponse], error) {
	shown, err := h.shown(ctx)
	if err != nil {
		return nil, h.failed(ctx, "CA not shown", err)
	}
	return connect.NewResponse(&bootv1.GetAuthorityResponse{Authority: shown}), nil
}

// RotateAuthority begins a rotation; it goes on by itself.
func (h *authorityHandler) RotateAuthority(ctx context.Context, _ *connect.Request[bootv1.RotateAuthorityRequest]) (*connect.Response[bootv1.RotateAuthorityResponse], error) {
	shown, err := h.change(ctx, "rotation of the boot service's CA begun", func(r authority.Record) (authority.Record, error) { return r.Begin(h.Now()) })
	if err != nil {
		return nil, h.failed(ctx, "rotation refused", err)
	}
	return connect.NewResponse(&bootv1.RotateAuthorityResponse{Authority: shown}), nil
}

// RetireAuthority goes on without who is missing.
func (h *authorityHandler) RetireAuthority(ctx context.Context, _ *connect.Request[bootv1.RetireAuthorityRequest]) (*connect.Response[bootv1.RetireAuthorityResponse], error) {
	shown, err := h.change(ctx, "the boot service's old CA retires, whoever has renewed", authority.Record.Hurry)
	if err != nil {
		return nil, h.failed(ctx, "retirement refused", err)
	}
	return connect.NewResponse(&bootv1.RetireAuthorityResponse{Authority: shown}), nil
}

func (h *authorityHandler) change(ctx context.Context, what string, change func(authority.Record) (authority.Record, error)) (*bootv1.Authority, error) {
	if err := h.Office.ChangeAuthority(ctx, change); err != nil {
		return nil, err
	}
	h.Log.Info(what, "unit", service, "person", callerOf(ctx).name)
	return h.shown(ctx)
}

func (h *authorityHandler) shown(ctx context.Context) (*bootv1.Authority, error) {
	r, holders, err := h.Office.Holders(ctx)
	if err != nil {
		return nil, err
	}
	signer, err := r.Signer()
	if err != nil {
		return nil, err
	}
	shown := &bootv1.Authority{Hash: pki.CertHash(signer), Until: timestamppb.New(signer.NotAfter), Trusted: r.Trusted()}
	if r.Rotation == nil {
		return shown, nil
	}
	shown.Phase, shown.Since = string(r.Rotation.Phase), timestamppb.New(r.Rotation.Since)
	for _, w := range r.Waiting(holders) {
		shown.Waiting = append(shown.Waiting, &bootv1.Holder{Name: w.Name, WaitingFor: w.For, Missing: w.Missing, After: w.After})
	}
	slices.SortStableFunc(shown.Waiting, func(a, b *bootv1.Holder) int { // who can do something first
		switch {
		case a.Missing == b.Missing:
			return 0
		case a.Missing:
			return 1
		}
		return -1
	})
	return shown, nil
}
