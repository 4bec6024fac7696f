// Package rule holds the rules that several documents share: names, labels,
// taints, subnets, endpoints. Each function adds what is wrong to a list of
// problems and changes nothing. Packages machine and cluster are its callers.
package rule

import (
	"fmt"
	"maps"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"time"

	"slipway/configs/document"
)

var (
	dnsLabel  = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	labelPart = regexp.MustCompile(`^[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?$`)
)

const validLabel = "1 to 63 of a-z, 0-9 and -, with a letter or digit at both ends"

// Name checks an RFC 1123 label of at most max bytes.
func Name(ps *document.Problems, path, name string, max int) {
	switch {
	case name == "":
		ps.Add(path, "missing", validLabel)
	case !dnsLabel.MatchString(name):
		ps.Add(path, fmt.Sprintf("%q is not a DNS label", name), validLabel)
	case len(name) > max:
		ps.Add(path, fmt.Sprintf("%q has %d characters", name, len(name)), fmt.Sprintf("at most %d", max))
	}
}

// Domain checks a DNS domain without a trailing dot.
func Domain(ps *document.Problems, path, domain string) {
	if !isDomain(domain) {
		ps.Add(path, fmt.Sprintf("%q is not a DNS domain", domain), "DNS labels joined by dots, such as cluster.local")
	}
}

func isDomain(domain string) bool {
	if len(domain) > 253 {
		return false
	}
	for _, label := range strings.Split(domain, ".") {
		if !dnsLabel.MatchString(label) {
			return false
		}
	}
	return true
}

// Head checks a document's apiVersion or kind.
func Head(ps *document.Problems, path, got, want string) {
	if got != want {
		ps.Add(path, fmt.Sprintf("%q is not known", got), want)
	}
}

// Labels checks Kubernetes node labels, and that a kubelet may set them on
// its own node (k8s.io/kubelet/pkg/apis/well_known_labels.go).
func Labels(ps *document.Problems, path string, labels map[string]string) {
	for _, key := range slices.Sorted(maps.Keys(labels)) {
		at := document.Key(path, key)
		switch {
		case !isQualified(key):
			ps.Add(at, "this is not a label key", "[domain/]name, name of at most 63 of A-Z, a-z, 0-9, -, _ and .")
		case !kubeletMaySet(key):
			ps.Add(at, "a kubelet may not set this label on its node", "a domain of your own, or node.kubernetes.io/...")
		}
		if value := labels[key]; value != "" && !labelPart.MatchString(value) {
			ps.Add(at, fmt.Sprintf("%q is not a label value", value), "at most 63 of A-Z, a-z, 0-9, -, _ and ., a letter or digit at both ends")
		}
	}
}

func isQualified(key string) bool {
	prefix, name, found := strings.Cut(key, "/")
	if !found {
		return labelPart.MatchString(key)
	}
	return isDomain(prefix) && labelPart.MatchString(name)
}

func kubeletMaySet(key string) bool {
	switch key {
	case "kubernetes.io/hostname", "kubernetes.io/os", "kubernetes.io/arch",
		"topology.kubernetes.io/zone", "topology.kubernetes.io/region", "node.kubernetes.io/instance-type":
		return true
	}
	domain, _, found := strings.Cut(key, "/")
	if !found || within(domain, "node.kubernetes.io") || within(domain, "kubelet.kubernetes.io") {
		return true
	}
	return !within(domain, "kubernetes.io") && !within(domain, "k8s.io")
}

func within(domain, parent string) bool {
	return domain == parent || strings.HasSuffix(domain, "."+parent)
}

// Taints checks taints written as key[=value]:Effect.
func Taints(ps *document.Problems, path string, taints []string) {
	seen := map[string]bool{}
	for i, taint := range taints {
		at := document.Index(path, i)
		rest, effect, _ := cutLast(taint, ":")
		key, value, _ := strings.Cut(rest, "=")
		switch {
		case !slices.Contains([]string{"NoSchedule", "PreferNoSchedule", "NoExecute"}, effect),
			!isQualified(key), value != "" && !labelPart.MatchString(value):
			ps.Add(at, fmt.Sprintf("%q is not a taint", taint), "key=value:Effect or key:Effect, with Effect one of NoSchedule, PreferNoSchedule, NoExecute")
		case seen[key+":"+effect]:
			ps.Add(at, fmt.Sprintf("the taint %s with effect %s is there already", key, effect), "each key and effect once")
		}
		seen[key+":"+effect] = true
	}
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

// Subnets checks the cluster's address plan: IPv4, disjoint, and of sizes
// that Kubernetes takes (a /24 of the pod subnet for each node; at most 2^20
// service addresses, kube-apiserver's bound). The paths are parent's
// podSubnet and serviceSubnet.
func Subnets(ps *document.Problems, parent string, pod, service netip.Prefix) {
	podOK := subnet(ps, parent+".podSubnet", pod, 8, 24)
	serviceOK := subnet(ps, parent+".serviceSubnet", service, 12, 28)
	if podOK && serviceOK && pod.Overlaps(service) {
		ps.Add(parent+".serviceSubnet", fmt.Sprintf("%s overlaps the pod subnet %s", service, pod), "disjoint subnets")
	}
}

func subnet(ps *document.Problems, path string, p netip.Prefix, minBits, maxBits int) bool {
	switch {
	case !p.IsValid():
		ps.Add(path, "missing", "a subnet such as 10.244.0.0/16")
	case !p.Addr().Is4():
		ps.Add(path, fmt.Sprintf("%s is not IPv4", p), "an IPv4 subnet")
	case p != p.Masked():
		ps.Add(path, fmt.Sprintf("%s has bits set beyond its prefix", p), p.Masked().String())
	case p.Bits() < minBits || p.Bits() > maxBits:
		ps.Add(path, fmt.Sprintf("/%d is no size for it", p.Bits()), fmt.Sprintf("/%d to /%d", minBits, maxBits))
	default:
		return true
	}
	return false
}

// Outside checks that an address people and nodes use is in none of the
// cluster's own subnets, where no packet to it would leave a node.
func Outside(ps *document.Problems, path string, addr netip.Addr, subnets ...netip.Prefix) {
	for _, subnet := range subnets {
		if subnet.IsValid() && subnet.Contains(addr) {
			ps.Add(path, fmt.Sprintf("%s lies in the cluster's subnet %s", addr, subnet), "an address outside the pod and service subnets")
		}
	}
}

// Endpoint checks https://host:port and returns the host.
func Endpoint(ps *document.Problems, path, endpoint string) string {
	const valid = "https://HOST:PORT, such as https://10.0.0.11:6443"
	u, err := url.Parse(endpoint)
	if err != nil || u.Scheme != "https" || u.Hostname() == "" || u.User != nil ||
		strings.Trim(u.Path, "/") != "" || u.RawQuery != "" || u.Fragment != "" {
		ps.Add(path, fmt.Sprintf("%q is not an API endpoint", endpoint), valid)
		return ""
	}
	if port, err := strconv.ParseUint(u.Port(), 10, 16); err != nil || port == 0 {
		ps.Add(path, fmt.Sprintf("%q has no port", endpoint), valid)
	}
	if _, err := netip.ParseAddr(u.Hostname()); err != nil && !isDomain(u.Hostname()) {
		ps.Add(path, fmt.Sprintf("%q has no host name or address", endpoint), valid)
	}
	return u.Hostname()
}

// MinCertificateLifetime is the shortest that certificates may last: shorter
// ones would be renewed all the time.
const MinCertificateLifetime = 10 * time.Minute

// CertificateLifetime checks how long the components' certificates are to last.
func CertificateLifetime(ps *document.Problems, path string, d time.Duration) {
	if d < MinCertificateLifetime || d > 10*365*24*time.Hour {
		ps.Add(path, fmt.Sprintf("%s is too short or too long", d), "from 10m to 87600h")
	}
}
