package machine

import (
	"fmt"

	"github.com/goccy/go-yaml"

	"slipway/configs/document"
)

// Parse reads a machine config, fills in what may be left out and checks it.
// Its errors, joined, are all that is wrong: `name:line:column: path: problem; valid: ...`.
func Parse(data []byte, name string) (*Config, error) {
	c := &Config{}
	source := document.Decode(data, name, c)
	c.fill()
	if err := source.Err(c.problems()); err != nil {
		return nil, err
	}
	return c, nil
}

// Marshal writes a machine config as YAML, its secrets in clear: the result
// is for the machine's eyes only.
func Marshal(c *Config) ([]byte, error) {
	data, err := yaml.MarshalWithOptions(c, yaml.UseLiteralStyleIfMultiline(true))
	if err != nil {
		return nil, fmt.Errorf("write machine config of %s: %w", c.Hostname, err)
	}
	return data, nil
}

// Validate reports all that is wrong with a config that is complete.
func (c *Config) Validate() error { return c.problems().Err() }

func (c *Config) fill() {
	if c.Install.Disk == (Disk{}) {
		c.Install.Disk.Word = NoDisk
	}
	if c.Cluster.CertificateLifetime == 0 {
		c.Cluster.CertificateLifetime = DefaultCertificateLifetime
	}
}
