package main

import (
	"context"
	"crypto/sha256"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
	"slipway/configs/kubeconfig"
)

func clusterKubeconfigCommand(r *remote) *cobra.Command {
	var file string
	var plugin bool
	cmd := &cobra.Command{
		Use:   "kubeconfig [NAME]",
		Short: "Write the file by which kubectl reaches a cluster",
		Long: `Write the file by which kubectl reaches a cluster.

With --file it names this program, which kubectl asks for credentials: they are
good for a day, and are renewed by themselves as long as the boot service can be
reached. To standard output, and with --exec=false, the credentials are in the
file and end after a day.`,
		Example: `  slipway cluster kubeconfig --file kubeconfig
  KUBECONFIG=kubeconfig kubectl get nodes`,
		Args: cobra.MaximumNArgs(1),
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			answer, err := c.Clusters.Kubeconfig(cmd.Context(), connect.NewRequest(&bootv1.KubeconfigRequest{Name: optional(args)}))
			if err != nil {
				return err
			}
			text := answer.Msg.GetKubeconfig()
			if plugin || file != "" && !cmd.Flags().Changed("exec") {
				if text, err = withPlugin(text, r.contextFile); err != nil {
					return err
				}
			}
			if file == "" {
				_, err = cmd.OutOrStdout().Write(text)
				return err
			}
			if err := os.WriteFile(file, text, 0o600); err != nil {
				return fmt.Errorf("write kubeconfig: %w", err)
			}
			return nil
		}),
	}
	cmd.Flags().StringVar(&file, "file", "", "file to write, mode 0600 (default: standard output)")
	cmd.Flags().BoolVar(&plugin, "exec", false, "have kubectl ask this program for credentials (default with --file)")
	return cmd
}

// withPlugin is a kubeconfig with this program in the credentials' place.
func withPlugin(text []byte, contextFile string) ([]byte, error) {
	c, err := readCredentials(text)
	if err != nil {
		return nil, err
	}
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find this program: %w", err)
	}
	contextFile, err = filepath.Abs(contextFile)
	if err != nil {
		return nil, fmt.Errorf("find the context: %w", err)
	}
	return kubeconfig.Config{
		Cluster: c.cluster, Server: c.server, CA: string(c.ca), User: c.user,
		Command: []string{self, "cluster", "credential", c.cluster, "--context", contextFile},
	}.Encode()
}

func clusterCredentialCommand(r *remote) *cobra.Command {
	return &cobra.Command{
		Use:   "credential NAME",
		Short: "Print credentials for a cluster, for kubectl",
		Long: `Print credentials for a cluster, for kubectl.

It is what kubeconfigs name that slipway cluster kubeconfig --file writes
(kubernetes.io/docs/reference/access-authn-authz/authentication, "client-go
credential plugins"). They are kept in the user's cache folder until a third of
their day is left.`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			identity, err := client.Load(r.contextFile)
			if err != nil {
				return err
			}
			kept, err := cacheFile(identity, args[0])
			if err != nil {
				return err
			}
			issue := func(ctx context.Context) ([]byte, error) {
				c, err := identity.New()
				if err != nil {
					return nil, err
				}
				answer, err := c.Clusters.Kubeconfig(ctx, connect.NewRequest(&bootv1.KubeconfigRequest{Name: args[0]}))
				if err != nil {
					return nil, err
				}
				return answer.Msg.GetKubeconfig(), nil
			}
			text, err := credential(cmd.Context(), kept, time.Now(), issue)
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
}

// execCredential is what kubectl reads of a credential plugin.
type execCredential struct {
	APIVersion string `json:"apiVersion"`
	Kind       string `json:"kind"`
	Status     struct {
		Expires time.Time `json:"expirationTimestamp"`
		Cert    string    `json:"clientCertificateData"` // PEM
		Key     string    `json:"clientKeyData"`         // PEM
	} `json:"status"`
}

// credential gives the credentials that are kept in a file; new ones when less
// than a third of their life is left. If nobody issues new ones, the old ones
// do until their end.
func credential(ctx context.Context, file string, now time.Time, issue func(context.Context) ([]byte, error)) ([]byte, error) {
	kept, err := os.ReadFile(file)
	expires, left := time.Time{}, 0.0
	if err == nil {
		expires, left = remaining(kept, now)
	}
	if left > 1.0/3 {
		return kept, nil
	}
	text, err := issue(ctx)
	if err != nil {
		if now.Before(expires) {
			return kept, nil
		}
		return nil, err
	}
	fresh, err := toExecCredential(text)
	if err != nil {
		return nil, err
	}
	return fresh, keep(file, fresh)
}

// remaining is when kept credentials end and which part of their life is left;
// nothing of what is not readable.
func remaining(text []byte, now time.Time) (time.Time, float64) {
	var c execCredential
	if json.Unmarshal(text, &c) != nil {
		return time.Time{}, 0
	}
	cert, err := parsePEM([]byte(c.Status.Cert))
	if err != nil {
		return time.Time{}, 0
	}
	return cert.NotAfter, float64(cert.NotAfter.Sub(now)) / float64(cert.NotAfter.Sub(cert.NotBefore))
}

func toExecCredential(kubeconfig []byte) ([]byte, error) {
	from, err := readCredentials(kubeconfig)
	if err != nil {
		return nil, err
	}
	cert, err := parsePEM(from.cert)
	if err != nil {
		return nil, err
	}
	c := execCredential{APIVersion: "client.authentication.k8s.io/v1", Kind: "ExecCredential"}
	c.Status.Expires, c.Status.Cert, c.Status.Key = cert.NotAfter.UTC(), string(from.cert), string(from.key)
	text, err := json.Marshal(c)
	if err != nil {
		return nil, fmt.Errorf("encode credentials: %w", err)
	}
	return append(text, '\n'), nil
}

func parsePEM(text []byte) (*x509.Certificate, error) {
	block, _ := pem.Decode(text)
	if block == nil {
		return nil, errors.New("read certificate: not PEM")
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		return nil, fmt.Errorf("read certificate: %w", err)
	}
	return cert, nil
}

// cacheFile is where a person's credentials for a cluster are kept: apart for
// each boot service and each person.
func cacheFile(identity client.Context, cluster string) (string, error) {
	dir, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("find the cache folder: %w", err)
	}
	sum := sha256.Sum256([]byte(identity.CA + "\x00" + identity.Key.Reveal() + "\x00" + cluster))
	return filepath.Join(dir, "slipway", "credential-"+hex.EncodeToString(sum[:8])+".json"), nil
}

// keep replaces the file, readable by its owner only.
func keep(file string, text []byte) error {
	dir := filepath.Dir(file)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return fmt.Errorf("keep credentials: %w", err)
	}
	temp, err := os.CreateTemp(dir, ".credential-*") // mode 0600
	if err != nil {
		return fmt.Errorf("keep credentials: %w", err)
	}
	defer os.Remove(temp.Name()) // fails once it has its name
	_, err = temp.Write(text)
	if err := errors.Join(err, temp.Close()); err != nil {
		return fmt.Errorf("keep credentials: %w", err)
	}
	if err := os.Rename(temp.Name(), file); err != nil {
		return fmt.Errorf("keep credentials: %w", err)
	}
	return nil
}
