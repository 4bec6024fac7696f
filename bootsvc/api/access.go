package api

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"slices"
	"strings"
	"time"

	"connectrpc.com/connect"

	"slipway/bootsvc/api/bootv1/bootv1connect"
	"slipway/bootsvc/authority"
	"slipway/configs/enroll"
	"slipway/controlplane/pki"
)

// Role is what a caller may be, as the organization of its certificate says.
type Role string

// The roles. Anyone is a client without a certificate.
const (
	Anyone   Role = ""
	Admin    Role = "slipway:admin"
	Operator Role = "slipway:operator"
	Reader   Role = "slipway:reader"
	Backup   Role = "slipway:etcd-backup"
	Machine  Role = "slipway:machine"
)

// Access is who may call what: any one of a procedure's roles is enough. A
// procedure that is not here may be called by nobody.
func Access() map[string][]Role {
	return map[string][]Role{
		bootv1connect.EnrollServiceEnrollProcedure: {Anyone},

		bootv1connect.MachineServiceFetchConfigProcedure:      {Machine},
		bootv1connect.MachineServiceAckConfigProcedure:        {Machine},
		bootv1connect.MachineServiceReportProcedure:           {Machine},
		bootv1connect.MachineServiceRedeemBootstrapProcedure:  {Machine},
		bootv1connect.MachineServiceFetchSnapshotProcedure:    {Machine},
		bootv1connect.MachineServiceReportWipeProcedure:       {Machine},
		bootv1connect.MachineServiceRenewCertificateProcedure: {Machine},

		bootv1connect.InventoryServiceListMachinesProcedure:     {Reader, Operator, Admin},
		bootv1connect.InventoryServiceGetMachineProcedure:       {Reader, Operator, Admin},
		bootv1connect.InventoryServiceApproveProcedure:          {Operator, Admin},
		bootv1connect.InventoryServiceGetImageProcedure:         {Reader, Operator, Admin},
		bootv1connect.InventoryServiceAgreeWipeProcedure:        {Operator, Admin},
		bootv1connect.InventoryServiceBootFromProcedure:         {Operator, Admin},
		bootv1connect.InventoryServiceForgetProcedure:           {Operator, Admin},
		bootv1connect.InventoryServiceRenewCredentialsProcedure: {Reader, Backup, Operator, Admin},

		bootv1connect.ClusterServiceGetClusterProcedure:     {Reader, Backup, Operator, Admin},
		bootv1connect.ClusterServiceCreateClusterProcedure:  {Admin},
		bootv1connect.ClusterServiceKubeconfigProcedure:     {Admin},
		bootv1connect.ClusterServiceUpdateClusterProcedure:  {Admin},
		bootv1connect.ClusterServiceDeleteClusterProcedure:  {Admin},
		bootv1connect.ClusterServiceTakeSnapshotProcedure:   {Backup, Operator, Admin},
		bootv1connect.ClusterServiceListSnapshotsProcedure:  {Reader, Backup, Operator, Admin},
		bootv1connect.ClusterServiceReadSnapshotProcedure:   {Backup, Admin},
		bootv1connect.ClusterServiceUploadSnapshotProcedure: {Admin},
		bootv1connect.ClusterServiceRestoreClusterProcedure: {Admin},
		bootv1connect.ClusterServicePlanRecoveryProcedure:   {Operator, Admin},
		bootv1connect.ClusterServiceRecoverClusterProcedure: {Admin},
		bootv1connect.ClusterServiceRotateProcedure:         {Admin},

		bootv1connect.AuthorityServiceGetAuthorityProcedure:     {Reader, Backup, Operator, Admin},
		bootv1connect.AuthorityServiceRotateAuthorityProcedure:  {Admin},
		bootv1connect.AuthorityServiceRetireAuthorityProcedure:  {Admin},
		bootv1connect.AuthorityServiceIssueCredentialsProcedure: {Admin},
	}
}

// caller is who called, as TLS proved it.
type caller struct {
	name    string // the certificate's common name; a machine's ID
	roles   []Role // none without a certificate
	key     *ecdsa.PublicKey
	keyHash string
	address netip.Addr
	problem error // why the certificate that was shown counts for nothing
	until   time.Time
	old     bool   // its certificate is not of the CA that signs now
	trusts  string // the digest of the CAs that it trusts, as it says
}

type callerKey struct{}

// callerOf returns who made the request; withCaller has put it there.
func callerOf(ctx context.Context) caller {
	c, _ := ctx.Value(callerKey{}).(caller)
	return c
}

// withCaller reads the caller from the connection.
func (s *Server) withCaller(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		var c caller
		if remote, err := netip.ParseAddrPort(r.RemoteAddr); err == nil {
			c.address = remote.Addr().Unmap()
		}
		if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
			c.problem = c.identify(r.TLS.PeerCertificates[0], s.Office.CA.View(), s.Now())
			c.trusts = r.Header.Get(enroll.TrustHeader)
			s.sees(r.Context(), c, w.Header())
		}
		next.ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c)))
	})
}

// identify takes name, roles and key from a certificate of ours. It says why a
// certificate is none of ours: the handshake could only break off.
func (c *caller) identify(cert *x509.Certificate, ca *authority.View, now time.Time) error {
	_, err := cert.Verify(x509.VerifyOptions{
		Roots: ca.Pool, CurrentTime: now, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	switch {
	case err != nil && ca.Retired(cert):
		return fmt.Errorf("%w: the CA that signed it was rotated", err)
	case err != nil:
		return err
	}
	c.until, c.old = cert.NotAfter, cert.CheckSignatureFrom(ca.Signer) != nil
	key, ok := cert.PublicKey.(*ecdsa.PublicKey)
	if !ok {
		return errors.New("its key is not ECDSA")
	}
	hash, err := pki.KeyHash(key)
	if err != nil {
		return err
	}
	c.name, c.key, c.keyHash = cert.Subject.CommonName, key, hash
	for _, organization := range cert.Subject.Organization {
		c.roles = append(c.roles, Role(organization))
	}
	return nil
}

// authorize says why the caller may not act in any of the roles, or nil.
func (c caller) authorize(allowed []Role) *connect.Error {
	if slices.Contains(allowed, Anyone) {
		return nil
	}
	for _, role := range c.roles {
		if slices.Contains(allowed, role) {
			return nil
		}
	}
	switch {
	case len(allowed) == 0:
		return connect.NewError(connect.CodePermissionDenied, errors.New("nobody may call this"))
	case c.problem != nil:
		return connect.NewError(connect.CodeUnauthenticated, fmt.Errorf(
			"this boot service does not know the client certificate: %w; use the context file that this one wrote", c.problem))
	case len(c.roles) == 0:
		return connect.NewError(connect.CodeUnauthenticated, fmt.Errorf(
			"no client certificate: this needs one of this boot service's CA with the role %s", names(allowed)))
	}
	return connect.NewError(connect.CodePermissionDenied, fmt.Errorf(
		"%s has the role %s: this needs the role %s", c.name, names(c.roles), names(allowed)))
}

func names(roles []Role) string {
	var text []string
	for _, role := range roles {
		text = append(text, strings.TrimPrefix(string(role), "slipway:"))
	}
	return strings.Join(text, " or ")
}

// guard refuses calls that the table does not allow, streams among them.
type guard struct {
	*Server
	table map[string][]Role
}

// admit says why the caller may not call the procedure, or nil.
func (g guard) admit(ctx context.Context, procedure string) error {
	c := callerOf(ctx)
	if err := c.authorize(g.table[procedure]); err != nil {
		g.Refusals.Refuse(service, c.address.String(), err.Code().String(), "procedure", procedure, "caller", c.name)
		return err
	}
	return nil
}

// WrapUnary guards calls with one request and one answer.
func (g guard) WrapUnary(next connect.UnaryFunc) connect.UnaryFunc {
	return func(ctx context.Context, request connect.AnyRequest) (connect.AnyResponse, error) {
		if err := g.admit(ctx, request.Spec().Procedure); err != nil {
			return nil, err
		}
		return next(ctx, request)
	}
}

// WrapStreamingHandler guards streams, before their first message is read.
func (g guard) WrapStreamingHandler(next connect.StreamingHandlerFunc) connect.StreamingHandlerFunc {
	return func(ctx context.Context, conn connect.StreamingHandlerConn) error {
		if err := g.admit(ctx, conn.Spec().Procedure); err != nil {
			return err
		}
		return next(ctx, conn)
	}
}

// WrapStreamingClient is for clients: there is none here.
func (g guard) WrapStreamingClient(next connect.StreamingClientFunc) connect.StreamingClientFunc {
	return next
}

// readersOnly guards what is not a procedure.
func (s *Server) readersOnly(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c := callerOf(r.Context())
		if err := c.authorize([]Role{Reader, Operator, Admin}); err != nil {
			status := http.StatusForbidden
			if err.Code() == connect.CodeUnauthenticated {
				status = http.StatusUnauthorized
			}
			s.Refusals.Refuse(service, c.address.String(), err.Code().String(), "path", r.URL.Path, "caller", c.name)
			http.Error(w, err.Message(), status)
			return
		}
		next.ServeHTTP(w, r)
	})
}
