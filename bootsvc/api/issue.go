package api

import (
	"context"
	"fmt"
	"regexp"
	"slices"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/controlplane/pki"
)

// personName is what a person may be called in a certificate.
var personName = regexp.MustCompile(`^[a-z0-9]([a-z0-9.-]{0,61}[a-z0-9])?$`)

// IssueCredentials signs a person's key. Nobody hears the key itself.
func (h *authorityHandler) IssueCredentials(ctx context.Context, request *connect.Request[bootv1.IssueCredentialsRequest]) (*connect.Response[bootv1.IssueCredentialsResponse], error) {
	name, role := request.Msg.GetName(), Role("slipway:"+request.Msg.GetRole())
	if !personName.MatchString(name) {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%q is not a person's name: a-z, 0-9, dots and dashes, at most 63", clean(name)))
	}
	if !slices.Contains(personal, role) {
		return nil, connect.NewError(connect.CodeInvalidArgument, fmt.Errorf("%q is not a person's role: admin, operator, reader, etcd-backup", clean(request.Msg.GetRole())))
	}
	key, err := pki.CheckCSR(request.Msg.GetCsr())
	if err != nil {
		return nil, connect.NewError(connect.CodeInvalidArgument, err)
	}
	ca := h.Office.CA.View()
	cert, err := ca.Sign(key, pki.Request{CommonName: name, Organizations: []string{string(role)}, Client: true, Validity: personValidity}, h.Now())
	if err != nil {
		return nil, h.failed(ctx, "credentials refused", err)
	}
	h.Log.Info("credentials issued", "unit", service, "for", name, "role", role, "person", callerOf(ctx).name)
	return connect.NewResponse(&bootv1.IssueCredentialsResponse{Certificate: cert, Ca: ca.Bundle}), nil
}
