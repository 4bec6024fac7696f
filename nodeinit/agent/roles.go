package agent

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"

	"slipway/nodeinit/api/nodev1/nodev1connect"
)

// The roles a person's certificate may have, as its organization. That of
// backup is for what takes snapshots of etcd: the boot service, or a person's
// own timer.
const (
	reader   = "slipway:reader"
	operator = "slipway:operator"
	admin    = "slipway:admin"
	backup   = "slipway:etcd-backup"
)

// rolesFor lists the roles that may call a procedure; none for one that is
// not for people.
func rolesFor(procedure string) []string {
	switch procedure {
	case nodev1connect.NodeServiceStatusProcedure,
		nodev1connect.NodeServiceLogsProcedure,
		nodev1connect.NodeServiceDmesgProcedure:
		return []string{reader, operator, admin}
	case nodev1connect.EtcdServiceStatusProcedure,
		nodev1connect.EtcdServiceMembersProcedure:
		return []string{reader, backup, operator, admin}
	case nodev1connect.EtcdServiceSnapshotProcedure:
		return []string{backup, operator, admin}
	case nodev1connect.NodeServiceRebootProcedure,
		nodev1connect.NodeServiceResetProcedure,
		nodev1connect.NodeServiceCheckResetProcedure,
		nodev1connect.NodeServiceUpgradeProcedure,
		nodev1connect.NodeServiceRollbackProcedure,
		nodev1connect.EtcdServiceRemoveProcedure,
		nodev1connect.EtcdServicePromoteProcedure,
		nodev1connect.EtcdServiceDefragProcedure,
		nodev1connect.EtcdServiceForfeitLeadershipProcedure,
		nodev1connect.EtcdServiceLeaveProcedure:
		return []string{operator, admin}
	}
	return nil
}

// Why a caller is refused.
var (
	errNoCertificate  = errors.New("this API needs a client certificate of the boot service: `slipway serve` wrote one for its administrator")
	errBadCertificate = errors.New("the client certificate is not one of this machine's boot service")
	errRole           = errors.New("the client certificate's role does not allow this")
)

// authorize decides whether the bearer of the chain may call the procedure.
func authorize(chain []*x509.Certificate, cas []*x509.Certificate, procedure string) (person string, err error) {
	if len(chain) == 0 {
		return "", errNoCertificate
	}
	_, err = chain[0].Verify(x509.VerifyOptions{
		Roots: pool(cas), Intermediates: pool(chain[1:]), KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	})
	if err != nil {
		return "", fmt.Errorf("%w: %w", errBadCertificate, err)
	}
	person = chain[0].Subject.CommonName
	allowed := rolesFor(procedure)
	for _, role := range chain[0].Subject.Organization {
		if slices.Contains(allowed, role) {
			return person, nil
		}
	}
	return person, fmt.Errorf("%w: it has %s; allowed: %s", errRole, listed(chain[0].Subject.Organization), listed(allowed))
}

func listed(roles []string) string {
	if len(roles) == 0 {
		return "none"
	}
	return strings.Join(roles, ", ")
}
