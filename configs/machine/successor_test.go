package machine

import (
	"strings"
	"testing"
)

func TestCheckSuccessor(t *testing.T) {
	config := func() *Config {
		return &Config{Hostname: "prod-cp-1", Role: ControlPlane, Cluster: Cluster{Name: "prod"}}
	}
	for name, test := range map[string]struct {
		change func(*Config)
		want   string
	}{
		"the same":        {func(*Config) {}, ""},
		"more machines":   {func(c *Config) { c.Etcd = &Etcd{Generation: 2} }, ""},
		"another name":    {func(c *Config) { c.Hostname = "prod-cp-9" }, `hostname: a node that runs as "prod-cp-1" does not become "prod-cp-9"`},
		"another cluster": {func(c *Config) { c.Cluster.Name = "test" }, "cluster.name: "},
		"another role":    {func(c *Config) { c.Role = Worker }, "role: "},
	} {
		next := config()
		test.change(next)
		err := config().CheckSuccessor(next)
		if test.want == "" && err != nil || test.want != "" && (err == nil || !strings.Contains(err.Error(), test.want)) {
			t.Errorf("%s: %v, want %q", name, err, test.want)
		}
	}
}
