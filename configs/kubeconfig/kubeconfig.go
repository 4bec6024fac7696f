// Package kubeconfig writes the file by which a Kubernetes client, a person's
// kubectl or a component, finds the API and proves who it is
// (kubernetes.io/docs/concepts/configuration/organize-cluster-access-kubeconfig).
// It only writes: nothing of ours reads one.
package kubeconfig

import (
	"fmt"

	"github.com/goccy/go-yaml"

	"slipway/configs/secret"
)

// Config is one cluster, one user and the context that joins them. Exactly one
// kind of credential is set: a token, files, certificate and key themselves, or a
// program that gives them.
type Config struct {
	Cluster string // the cluster's name; the context has the same name
	Server  string // https://host:port
	CAFile  string // either a path on the machine that uses the file ...
	CA      string // ... or the CA certificate itself, PEM
	User    string

	Token    secret.String
	CertFile string // paths: the client reads them again when they are renewed
	KeyFile  string
	Cert     string // PEM
	Key      secret.String

	// Command is a program, with its arguments, that the client asks for
	// credentials whenever it has none that are good
	// (client.authentication.k8s.io/v1).
	Command []string
}

// Encode gives the file's text. It holds the credential: write it 0600.
func (c Config) Encode() ([]byte, error) {
	text, err := yaml.Marshal(document{
		APIVersion: "v1",
		Kind:       "Config",
		Clusters: []namedCluster{{c.Cluster, clusterEntry{
			Server: c.Server, CAFile: c.CAFile, CA: []byte(c.CA),
		}}},
		Users: []namedUser{{c.User, userEntry{
			Token: c.Token.Reveal(), CertFile: c.CertFile, KeyFile: c.KeyFile,
			Cert: []byte(c.Cert), Key: []byte(c.Key.Reveal()), Exec: execOf(c.Command),
		}}},
		Contexts:       []namedContext{{c.Cluster, contextEntry{c.Cluster, c.User}}},
		CurrentContext: c.Cluster,
	})
	if err != nil {
		return nil, fmt.Errorf("encode kubeconfig of %s: %w", c.User, err)
	}
	return text, nil
}

type document struct {
	APIVersion     string         `yaml:"apiVersion"`
	Kind           string         `yaml:"kind"`
	Clusters       []namedCluster `yaml:"clusters"`
	Users          []namedUser    `yaml:"users"`
	Contexts       []namedContext `yaml:"contexts"`
	CurrentContext string         `yaml:"current-context"`
}

type namedCluster struct {
	Name    string       `yaml:"name"`
	Cluster clusterEntry `yaml:"cluster"`
}

type clusterEntry struct {
	Server string `yaml:"server"`
	CAFile string `yaml:"certificate-authority,omitempty"`
	CA     base64 `yaml:"certificate-authority-data,omitempty"`
}

type namedUser struct {
	Name string    `yaml:"name"`
	User userEntry `yaml:"user"`
}

type userEntry struct {
	Token    string `yaml:"token,omitempty"`
	CertFile string `yaml:"client-certificate,omitempty"`
	KeyFile  string `yaml:"client-key,omitempty"`
	Cert     base64 `yaml:"client-certificate-data,omitempty"`
	Key      base64 `yaml:"client-key-data,omitempty"`

	Exec *execEntry `yaml:"exec,omitempty"`
}

type execEntry struct {
	APIVersion      string   `yaml:"apiVersion"`
	Command         string   `yaml:"command"`
	Args            []string `yaml:"args,omitempty"`
	InteractiveMode string   `yaml:"interactiveMode"`
}

func execOf(command []string) *execEntry {
	if len(command) == 0 {
		return nil
	}
	return &execEntry{APIVersion: "client.authentication.k8s.io/v1", Command: command[0], Args: command[1:], InteractiveMode: "Never"}
}

type namedContext struct {
	Name    string       `yaml:"name"`
	Context contextEntry `yaml:"context"`
}

type contextEntry struct {
	Cluster string `yaml:"cluster"`
	User    string `yaml:"user"`
}
