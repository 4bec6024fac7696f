// Package addons holds the objects every cluster of ours has from its first
// second: the bootstrap token, the roles by which kubelets join, by which the
// API server reaches kubelets and people administer, and cluster DNS. It
// renders them and keeps them applied. Package controlplane calls it.
//
// An object that is taken out of the manifests stays in the cluster.
package addons

import (
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
// minutes. It is ready after the first time.
func Units(id machine.Identity) []supervise.Unit {
	service := &Reconciler{Dir: Dir, Node: id.Hostname, Address: id.Address, Access: apiclient.Access{
		Server: kube.Balancer, CAFile: kube.CAFile,
		CertFile: kube.AddonsCert + ".crt", KeyFile: kube.AddonsCert + ".key",
	}}
	return []supervise.Unit{{Name: Name, After: kube.AfterAPI(), Service: service}}
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
