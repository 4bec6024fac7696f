package api

import (
	"context"
	"slices"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1"
	"slipway/controlplane/pki"
)

// personValidity is how long a renewed certificate of a person holds.
const personValidity = 365 * 24 * time.Hour

// RenewCredentials signs the caller's key again. What the new certificate says
// is what the old one said, so nobody gains by it but time.
func (h *inventoryHandler) RenewCredentials(ctx context.Context, _ *connect.Request[bootv1.RenewCredentialsRequest]) (*connect.Response[bootv1.RenewCredentialsResponse], error) {
	c := callerOf(ctx)
	cert, err := h.Office.CA.View().Sign(c.key, pki.Request{
		CommonName: c.name, Organizations: personRoles(c.roles), Client: true, Validity: personValidity,
	}, h.Now())
	if err != nil {
		return nil, h.failed(ctx, "credentials refused", err)
	}
	h.Log.Info("credentials renewed", "unit", service, "person", c.name)
	return connect.NewResponse(&bootv1.RenewCredentialsResponse{Certificate: cert, Ca: h.Office.CA.View().Bundle}), nil
}

// personal are the roles that a person may have.
var personal = []Role{Reader, Backup, Operator, Admin}

// personRoles are the roles among all that a person may have.
func personRoles(all []Role) (roles []string) {
	for _, r := range all {
		if slices.Contains(personal, r) {
			roles = append(roles, string(r))
		}
	}
	return roles
}
