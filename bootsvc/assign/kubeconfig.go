package assign

import (
	"context"
	"errors"
	"time"

	"slipway/configs/kubeconfig"
	"slipway/configs/secret"
	"slipway/controlplane/pki"
)

// adminValidity is how long a person's credentials for a cluster hold.
const adminValidity = 24 * time.Hour

// ErrNoEndpoint says that nobody knows yet where the cluster's API will be.
var ErrNoEndpoint = errors.New("the cluster has no endpoint yet: its first control plane has not enrolled")

// Kubeconfig issues admin credentials for a cluster's API, valid for a day.
// person is the name that the cluster's audit log will show.
func (o *Office) Kubeconfig(ctx context.Context, name, person string) ([]byte, error) {
	c, err := o.Get(ctx, name)
	if err != nil {
		return nil, err
	}
	if c.Endpoint == "" {
		return nil, ErrNoEndpoint
	}
	keys, err := o.keys.Get(ctx, c.Document.Name)
	if err != nil {
		return nil, err
	}
	leaf, err := keys.CA.Issue(pki.Request{
		CommonName: person, Organizations: []string{"system:masters"}, Client: true, Validity: adminValidity,
	}, o.now())
	if err != nil {
		return nil, err
	}
	return kubeconfig.Config{
		Cluster: c.Document.Name, Server: c.Endpoint, CA: keys.CA.Bundle(),
		User: person, Cert: string(leaf.CertPEM), Key: secret.New(string(leaf.KeyPEM)),
	}.Encode()
}
