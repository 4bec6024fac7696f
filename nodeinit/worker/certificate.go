package worker

import (
	"context"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"slipway/configs/machine"
	"slipway/configs/secret"
	"slipway/controlplane/apiclient"
	"slipway/controlplane/leaf"
	"slipway/controlplane/pki"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

const (
	// certificatesName is the unit that has the kubelet's client certificate on
	// disk: this one on a worker, package renew's on a control plane.
	certificatesName = "certificates"

	// signing is how long a request waits to be signed before another is made: a
	// controller manager may have to be elected first.
	signing = 5 * time.Minute
	// lookForSigned is how often it is asked after.
	lookForSigned = 500 * time.Millisecond
	// askAgain is the pause after a request that the API did not take: on a cluster
	// that is just made, the bootstrap token may not be in it yet.
	askAgain = 2 * time.Second
)

// errUnsigned is within the error when the API took a request.
var errUnsigned = errors.New("no certificate came of it")

// certificates is the worker's. It comes after an API server, which it asks.
func certificates(cfg *machine.Config, id machine.Identity) supervise.Unit {
	return supervise.Unit{Name: certificatesName, After: []string{clusterAPI}, Service: &certificate{
		Path: loginOf(cfg).certFile, Hostname: id.Hostname, Server: apiServer,
		CA: cfg.Cluster.CA, Token: cfg.Cluster.BootstrapToken,
	}}
}

// certificate keeps the certificate with which a worker's kubelet and kube-proxy
// log in as the node. It asks the cluster for one by a CertificateSigningRequest
// that the controller manager approves and signs
// (kubernetes.io/docs/reference/access-authn-authz/kubelet-tls-bootstrapping), in
// the kubelet's stead: that renews its own when 70 to 90 % of its life are over,
// and only then when the cluster's CA is rotated. This one is renewed as all
// others are, before a third of its life is left, and at once when another CA
// signs. It always asks with the bootstrap token: so it does not matter for how
// long the machine was off.
//
// It is ready while there is a good one. Its users look at the file every five
// minutes (package kube's table); nothing is restarted.
type certificate struct {
	Path     string // PEM file: certificate and key
	Hostname string
	Server   string        // the API, https://host:port
	CA       string        // the cluster's, PEM; the first of its certificates signs
	Token    secret.String // the cluster's bootstrap token

	waiting atomic.Value // string
}

// Equal reports whether other does the same.
func (c *certificate) Equal(other supervise.Service) bool {
	o, ok := other.(*certificate)
	return ok && c.Path == o.Path && c.Hostname == o.Hostname && c.Server == o.Server && c.CA == o.CA && c.Token == o.Token
}

// WaitingFor is what keeps the node from having a good certificate.
func (c *certificate) WaitingFor() string {
	text, _ := c.waiting.Load().(string)
	return text
}

// Run looks each minute whether it is time for another certificate, and gets it,
// until ctx ends. It may be repeated. What fails is tried again: a certificate that
// is good serves on meanwhile, and one that is not stays until another takes its
// place, so that a clock that is off by years loses nothing. It is an error only
// that a good one is near its end.
func (c *certificate) Run(ctx context.Context, ready func()) error {
	ready = sync.OnceFunc(ready)
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-timer.C:
		}
		again, err := c.look(ctx, time.Now(), ready)
		if err != nil && ctx.Err() == nil {
			return err
		}
		timer.Reset(again)
	}
}

// look gets another certificate if it is time, and says when to look again. It is
// ready before, if the one that is there is good.
func (c *certificate) look(ctx context.Context, now time.Time, ready func()) (again time.Duration, err error) {
	cert, bad := c.present(now)
	if bad == nil {
		ready()
	}
	if bad == nil && !leaf.Aged(cert, now) {
		return leaf.Look, nil
	}
	err = c.renew(ctx)
	switch {
	case err == nil:
		ready()
		return leaf.Look, nil
	case bad == nil && nearEnd(cert, now):
		return leaf.Look, fmt.Errorf("renew the node's client certificate, which ends at %s: %w", cert.NotAfter.UTC().Format(time.RFC3339), err)
	case bad == nil:
		return leaf.Look, nil
	}
	c.waiting.Store("a client certificate for the node: " + err.Error())
	if errors.Is(err, errUnsigned) {
		return leaf.Look, nil
	}
	return askAgain, nil
}

// nearEnd says that a sixth of a certificate's life is left, half of what was when
// it was first to be renewed.
func nearEnd(cert *x509.Certificate, now time.Time) bool {
	return cert.NotAfter.Sub(now) < cert.NotAfter.Sub(cert.NotBefore)/6
}

// present is the certificate that is there; the error says why it is no good.
func (c *certificate) present(now time.Time) (*x509.Certificate, error) {
	text, err := os.ReadFile(c.Path)
	if err != nil {
		return nil, err
	}
	return c.check(text, now)
}

// check says why a certificate with its key, PEM, is no good.
func (c *certificate) check(text []byte, now time.Time) (*x509.Certificate, error) {
	ca, err := pki.ParseCert([]byte(c.CA))
	if err != nil {
		return nil, fmt.Errorf("read the cluster's CA: %w", err)
	}
	pair, err := tls.X509KeyPair(text, text)
	if err != nil {
		return nil, err
	}
	cert := pair.Leaf
	switch {
	case cert.CheckSignatureFrom(ca) != nil:
		return nil, fmt.Errorf("%s signed it, and %s signs now", cert.Issuer.CommonName, ca.Subject.CommonName)
	case cert.Subject.CommonName != c.subject().CommonName:
		return nil, fmt.Errorf("it is of %s, and this is %s", cert.Subject.CommonName, c.subject().CommonName)
	case now.Before(cert.NotBefore):
		return nil, fmt.Errorf("it begins at %s only, by this machine's clock", cert.NotBefore.UTC().Format(time.RFC3339))
	case now.After(cert.NotAfter):
		return nil, fmt.Errorf("it ended at %s", cert.NotAfter.UTC().Format(time.RFC3339))
	}
	return cert, nil
}

// subject is how a node is called
// (kubernetes.io/docs/reference/access-authn-authz/node).
func (c *certificate) subject() pkix.Name {
	return pkix.Name{Organization: []string{"system:nodes"}, CommonName: "system:node:" + c.Hostname}
}

// renew asks for a certificate of a new key and puts both in the place of the
// old ones, in one step.
func (c *certificate) renew(ctx context.Context) error {
	api, err := apiclient.NewBearer(c.Server, []byte(c.CA), c.Token)
	if err != nil {
		return err
	}
	defer api.Close()
	key, keyPEM, err := pki.NewKey()
	if err != nil {
		return err
	}
	csr, err := pki.NewCSR(c.subject(), key)
	if err != nil {
		return err
	}
	name, body, err := c.request(csr)
	if err != nil {
		return err
	}
	if err := api.Post(ctx, requests, body); err != nil {
		return err
	}
	certPEM, err := c.signed(ctx, api, name)
	if err != nil {
		return fmt.Errorf("CertificateSigningRequest %s: %w: %w", name, errUnsigned, err)
	}
	text := append(certPEM, keyPEM...)
	if _, err := c.check(text, time.Now()); err != nil {
		return fmt.Errorf("CertificateSigningRequest %s: %w that is good: %w", name, errUnsigned, err)
	}
	return proc.WriteFiles([]proc.File{{Path: c.Path, Mode: 0o600, Data: text}})
}

// requests is where the API keeps them.
const requests = "/apis/certificates.k8s.io/v1/certificatesigningrequests"

// signingRequest is what is written and read of a CertificateSigningRequest.
type signingRequest struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Metadata   struct {
		Name string `json:"name"`
	} `json:"metadata"`
	Spec struct {
		Request    []byte   `json:"request"` // PEM
		SignerName string   `json:"signerName"`
		Usages     []string `json:"usages"`
	} `json:"spec"`
	Status struct {
		Certificate []byte                                   `json:"certificate,omitempty"` // PEM
		Conditions  []struct{ Type, Reason, Message string } `json:"conditions,omitempty"`
	} `json:"status"`
}

// request is a request for the controller manager, with a name of its own. Those
// are the uses for which it approves one of an ECDSA key by itself.
func (c *certificate) request(csr []byte) (name string, body []byte, err error) {
	var unique [4]byte
	rand.Read(unique[:])
	r := signingRequest{APIVersion: "certificates.k8s.io/v1", Kind: "CertificateSigningRequest"}
	r.Metadata.Name = "node-" + c.Hostname + "-" + hex.EncodeToString(unique[:])
	r.Spec.Request = pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE REQUEST", Bytes: csr})
	r.Spec.SignerName = "kubernetes.io/kube-apiserver-client-kubelet"
	r.Spec.Usages = []string{"digital signature", "client auth"}
	body, err = json.Marshal(r)
	return r.Metadata.Name, body, err
}

// signed waits for the answer to a request. The API may be away meanwhile.
func (c *certificate) signed(ctx context.Context, api *apiclient.Client, name string) ([]byte, error) {
	ctx, cancel := context.WithTimeout(ctx, signing)
	defer cancel()
	defer c.waiting.Store("")
	tick := time.NewTicker(lookForSigned)
	defer tick.Stop()
	for {
		var r signingRequest
		err := api.Get(ctx, requests+"/"+name, &r)
		if errors.Is(err, apiclient.ErrNotFound) {
			return nil, err
		}
		certPEM, missing, final := r.answer()
		if len(certPEM) > 0 || final != nil {
			return certPEM, final
		}
		if err != nil {
			missing = "the API: " + err.Error()
		}
		c.waiting.Store(fmt.Sprintf("CertificateSigningRequest %s: %s", name, missing))
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("waited %s for %s", signing, missing)
		case <-tick.C:
		}
	}
}

// answer is the certificate, or what is missing until there is one, or why there
// will be none.
func (r signingRequest) answer() (certPEM []byte, missing string, err error) {
	missing = "a controller manager to approve it"
	for _, c := range r.Status.Conditions {
		switch c.Type {
		case "Approved":
			missing = "a controller manager to sign it"
		case "Denied", "Failed":
			return nil, "", fmt.Errorf("%s (%s): %s", c.Type, c.Reason, c.Message)
		}
	}
	return r.Status.Certificate, missing, nil
}
