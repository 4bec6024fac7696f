// Package atrest is the unit secrets, which runs while the key is replaced with
// which Secrets are encrypted in etcd. It is ready when this machine's API
// server uses the keys that the config gives, and, if the config asks for it,
// when every Secret has been written anew since.
//
// A replacement has three steps, each on all control planes before the next:
// the new key is added, so that every API server can read what another writes
// with it; it comes first, and all is rewritten; the old key goes. The API
// server looks at its file once a minute, so that "the config is applied" does
// not mean that it has the keys: this unit's readiness does.
package atrest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"sync/atomic"
	"time"

	"slipway/configs/machine"
	"slipway/controlplane/apiclient"
	"slipway/controlplane/kube"
	"slipway/nodeinit/supervise"
)

// Name is the unit's.
const Name = "secrets"

// look is how often the API server is asked whether it has the keys.
const look = time.Second

// Units returns the unit while there is more than one key, or Secrets are to be
// rewritten. It asks the machine's own API server, since each has to load the
// keys; the last one to be ready has rewritten what any of them wrote before.
func Units(cfg *machine.Config) []supervise.Unit {
	if !cfg.ReplacesEncryptionKey() {
		return nil
	}
	keys := cfg.ControlPlaneKeys
	var names []string
	for _, key := range keys.EncryptionKeys {
		names = append(names, key.Name)
	}
	return []supervise.Unit{{Name: Name, After: []string{kube.APIServer}, Restart: supervise.OnFailure, Service: &Service{
		Keys: fmt.Sprint(names), Rewrite: keys.RewriteSecrets, File: kube.EncryptionFile,
		Access: apiclient.Access{
			Server: kube.LocalServer, CAFile: kube.CAFile,
			CertFile: kube.AddonsCert + ".crt", KeyFile: kube.AddonsCert + ".key",
		},
	}}}
}

// Service waits for the keys, rewrites all Secrets, and ends.
type Service struct {
	Keys    string // names of the keys in File, in order: others make it another service
	Rewrite bool
	File    string // the API server's encryption configuration
	Access  apiclient.Access

	waiting atomic.Value // string
}

// Equal reports whether other does the same.
func (s *Service) Equal(other supervise.Service) bool {
	o, ok := other.(*Service)
	return ok && s.Keys == o.Keys && s.Rewrite == o.Rewrite && s.File == o.File && s.Access == o.Access
}

// WaitingFor says what is not done yet.
func (s *Service) WaitingFor() string {
	text, _ := s.waiting.Load().(string)
	return text
}

// Run blocks until all is done, and may be repeated: what is encrypted with the
// first key already is not written again by the API server.
func (s *Service) Run(ctx context.Context, ready func()) error {
	client, err := apiclient.Open(s.Access)
	if err != nil {
		return err
	}
	defer client.Close()
	if err := s.loaded(ctx, client); err != nil {
		return err
	}
	if s.Rewrite {
		err = rewriter{client, func(done int) { s.waiting.Store(fmt.Sprintf("Secrets to be rewritten: %d are", done)) }}.all(ctx)
	}
	if err == nil {
		ready()
	}
	return err
}

// loaded waits until the API server says that it uses File as it is now: its
// metrics name the file's SHA-256 (k8s.io/apiserver,
// pkg/server/options/encryptionconfig/metrics).
func (s *Service) loaded(ctx context.Context, client *apiclient.Client) error {
	text, err := os.ReadFile(s.File)
	if err != nil {
		return fmt.Errorf("read encryption keys: %w", err)
	}
	s.waiting.Store("the API server to load " + s.File + ", within a minute")
	label := fmt.Sprintf(`hash="sha256:%x"`, sha256.Sum256(text))
	tick := time.NewTicker(look)
	defer tick.Stop()
	for {
		found, err := client.Find(ctx, "/metrics", label)
		if err != nil || found {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-tick.C:
		}
	}
}

// errMoved: a Secret was changed by others each time it was about to be written.
var errMoved = errors.New("it changes faster than it can be written")
