// Package addons holds the objects every cluster of ours has from its first
// second: the bootstrap token, the roles by which kubelets join, by which the
// API server reaches kubelets and people administer, and cluster DNS. It
// renders them and keeps them applied. Package controlplane calls it.
//
// An object that is taken out of the manifests stays in the cluster.
package addons

import (
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"fmt"
	"net/netip"
	"path/filepath"
	"strings"
	"text/template"

	"slipway/configs/machine"
	"slipway/controlplane/apiclient"
	"slipway/controlplane/kube"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

// Name is the unit's.
const Name = "addons"

// Dir is where the rendered manifests lie; they are applied in their names' order.
const Dir = "/etc/kubernetes/addons"

//go:embed manifests/*.yaml
var manifests embed.FS

// Units returns the unit that applies what lies in Dir, and again every few
// minutes. It is ready after the first time. Other manifests make it another
// unit, so that they are applied at once: a new bootstrap token, for instance.
func Units(cfg *machine.Config, id machine.Identity) []supervise.Unit {
	service := &Reconciler{Dir: Dir, Manifests: digest(cfg), Node: id.Hostname, Address: id.Address, Access: apiclient.Access{
		Server: kube.Balancer, CAFile: kube.CAFile,
		CertFile: kube.AddonsCert + ".crt", KeyFile: kube.AddonsCert + ".key",
	}}
	return []supervise.Unit{{Name: Name, After: kube.AfterAPI(), Service: service}}
}

// digest names the manifests. Files says what is wrong with a config of which
// there are none.
func digest(cfg *machine.Config) [sha256.Size]byte {
	files, _ := Files(cfg)
	all := sha256.New()
	for _, f := range files {
		fmt.Fprintf(all, "%s %x\n", f.Path, sha256.Sum256(f.Data))
	}
	return [sha256.Size]byte(all.Sum(nil))
}

// values are what the manifests' templates may use.
type values struct {
	TokenID, TokenSecret string
	DNSAddress           netip.Addr
}

// Files renders the manifests. They are 0600: one holds the bootstrap token.
func Files(cfg *machine.Config) ([]proc.File, error) {
	id, secret, ok := strings.Cut(cfg.Cluster.BootstrapToken.Reveal(), ".")
	if !ok {
		return nil, fmt.Errorf("render addons: the bootstrap token is not of the form id.secret")
	}
	v := values{id, secret, cfg.Cluster.DNSAddress()}
	templates, err := template.New("").Funcs(template.FuncMap{"base64": encode}).ParseFS(manifests, "manifests/*.yaml")
	if err != nil {
		return nil, fmt.Errorf("parse addons: %w", err)
	}
	entries, err := manifests.ReadDir("manifests")
	if err != nil {
		return nil, fmt.Errorf("list addons: %w", err)
	}
	var files []proc.File
	for _, entry := range entries {
		var text strings.Builder
		if err := templates.ExecuteTemplate(&text, entry.Name(), v); err != nil {
			return nil, fmt.Errorf("render %s: %w", entry.Name(), err)
		}
		files = append(files, proc.File{Path: filepath.Join(Dir, entry.Name()), Mode: 0o600, Data: []byte(text.String())})
	}
	return files, nil
}

func encode(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }
