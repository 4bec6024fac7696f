package kubeconfig

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"slipway/configs/secret"
)

func TestEncode(t *testing.T) {
	tests := map[string]struct {
		config Config
		want   string // cluster and user entries
	}{
		"token": {
			Config{Cluster: "prod", Server: "https://192.0.2.1:6443", CAFile: "/ca.crt", User: "kubelet-bootstrap", Token: secret.New("abcdef.0123456789abcdef")},
			"certificate-authority: /ca.crt | token: abcdef.0123456789abcdef",
		},
		"files": {
			Config{Cluster: "prod", Server: "https://192.0.2.1:6443", CAFile: "/ca.crt", User: "scheduler", CertFile: "/s.crt", KeyFile: "/s.key"},
			"certificate-authority: /ca.crt | client-certificate: /s.crt | client-key: /s.key",
		},
		"inline": {
			Config{Cluster: "prod", Server: "https://192.0.2.1:6443", CA: "ca", User: "me", Cert: "cert", Key: secret.New("key")},
			"certificate-authority-data: Y2E= | client-certificate-data: Y2VydA== | client-key-data: a2V5",
		},
		"program": {
			Config{Cluster: "prod", Server: "https://192.0.2.1:6443", CA: "ca", User: "me", Command: []string{"/bin/slipway", "cluster", "credential"}},
			"certificate-authority-data: Y2E= | apiVersion: client.authentication.k8s.io/v1 | command: /bin/slipway",
		},
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			text, err := test.config.Encode()
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			for line := range strings.Lines(string(text)) {
				line = strings.TrimSpace(line)
				if strings.HasPrefix(line, "certificate") || strings.HasPrefix(line, "client") || strings.HasPrefix(line, "token") ||
					strings.HasPrefix(line, "command: ") || strings.HasPrefix(line, "apiVersion: client") {
					got = append(got, line)
				}
			}
			if diff := cmp.Diff(test.want, strings.Join(got, " | ")); diff != "" {
				t.Errorf("(-want +got):\n%s\nin:\n%s", diff, text)
			}
		})
	}
}
