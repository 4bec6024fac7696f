package machine

import (
	"errors"
	"fmt"
)

// CheckSuccessor says why next cannot take this config's place on a machine
// that runs, or nil. What a node is called, which cluster it is of and what it
// is for stand in its certificates, in its Node and in etcd's member list: to
// change them is to take the node out and let the machine join again.
func (c *Config) CheckSuccessor(next *Config) error {
	var errs []error
	for _, change := range []struct{ what, from, to string }{
		{"hostname", c.Hostname, next.Hostname},
		{"cluster.name", c.Cluster.Name, next.Cluster.Name},
		{"role", string(c.Role), string(next.Role)},
	} {
		if change.from != change.to {
			errs = append(errs, fmt.Errorf("%s: a node that runs as %q does not become %q: reset it first, with `slipway node reset %s`",
				change.what, change.from, change.to, c.Hostname))
		}
	}
	return errors.Join(errs...)
}
