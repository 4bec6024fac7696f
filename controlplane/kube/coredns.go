package kube

import (
	_ "embed" // the Corefile
	"fmt"
	"slices"
	"strings"
	"text/template"

	"slipway/configs/machine"
	"slipway/nodeinit/proc"
	"slipway/nodeinit/supervise"
)

const (
	coreDNSName  = "coredns"
	corefilePath = dir + "/Corefile"
)

//go:embed files/Corefile
var corefileText string

// coreDNS listens on the node's address, where the DNS service's endpoints are.
func coreDNS() supervise.Unit {
	return supervise.Unit{Name: coreDNSName, After: []string{"addons"}, Service: &proc.Process{
		Name:        coreDNSName,
		Path:        "/usr/bin/coredns",
		Args:        []string{"-conf=" + corefilePath},
		Env:         []string{"GOMEMLIMIT=128MiB"},
		Reads:       []string{corefilePath, Kubeconfig(coreDNSName)},
		Ready:       proc.HTTPProbe{URL: "http://127.0.0.1:8181/ready"},
		OOMScoreAdj: -996,
	}}
}

// corefile forwards other names to the network's own servers if it has any: a
// forward to nobody would keep CoreDNS from starting.
func corefile(cfg *machine.Config, id machine.Identity) (proc.File, error) {
	parsed, err := template.New("Corefile").Parse(corefileText)
	if err != nil {
		return proc.File{}, fmt.Errorf("parse Corefile: %w", err)
	}
	var upstream []string
	for _, addr := range id.Nameservers {
		if addr != id.Address && !slices.Contains(upstream, addr.String()) {
			upstream = append(upstream, addr.String())
		}
	}
	var text strings.Builder
	err = parsed.Execute(&text, map[string]string{
		"Address":    id.Address.String(),
		"Domain":     cfg.Cluster.DNSDomain,
		"Kubeconfig": Kubeconfig(coreDNSName),
		"Upstream":   strings.Join(upstream, " "),
	})
	if err != nil {
		return proc.File{}, fmt.Errorf("render Corefile: %w", err)
	}
	return proc.File{Path: corefilePath, Mode: 0o644, Data: []byte(text.String())}, nil
}
