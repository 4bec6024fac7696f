package qemu

import (
	"errors"
	"fmt"
	"net/netip"
	"time"
)

// Config is a whole lab.
type Config struct {
	Name     string    `json:"name"`              // default "default"
	Address  string    `json:"address,omitempty"` // of the bridge, with prefix length; default 10.77.0.1/24
	Machines []Machine `json:"machines"`
	Service  *Service  `json:"service,omitempty"` // nil: nobody answers the machines
	Off      bool      `json:"off,omitempty"`     // leave the machines off
}

// Bridge is the name of the network interface the lab's boot service listens on.
const Bridge = "br0"

// Service is a program that runs in the lab next to the machines: the boot service.
type Service struct {
	Command []string      `json:"command"`         // an absolute path and arguments
	Env     []string      `json:"env,omitempty"`   // added to the holder's environment
	Ready   string        `json:"ready,omitempty"` // host:port that accepts TCP once it is up; empty: at once
	Within  time.Duration `json:"within"`          // how long that may take; default 60s
}

// WithDefaults returns c with its zero fields filled in, those of its machines too.
func (c Config) WithDefaults() Config {
	setDefault(&c.Name, "default")
	setDefault(&c.Address, "10.77.0.1/24")
	machines := make([]Machine, len(c.Machines))
	for i, m := range c.Machines {
		machines[i] = m.WithDefaults(i)
	}
	c.Machines = machines
	if c.Service != nil {
		service := *c.Service
		setDefault(&service.Within, time.Minute)
		c.Service = &service
	}
	return c
}

// Validate reports everything that is wrong with a lab that has its defaults.
func (c Config) Validate() error {
	var errs []error
	if !machineName.MatchString(c.Name) {
		errs = append(errs, fmt.Errorf("lab name %q: want lower-case letters, digits and dashes, at most 32", c.Name))
	}
	if p, err := netip.ParsePrefix(c.Address); err != nil || !p.Addr().Is4() {
		errs = append(errs, fmt.Errorf("address %q: want an IPv4 address with prefix length, such as 10.77.0.1/24", c.Address))
	}
	if c.Service != nil && len(c.Service.Command) == 0 {
		errs = append(errs, errors.New("service: want a command"))
	}
	seen := map[string]string{}
	for _, m := range c.Machines {
		errs = append(errs, m.Validate())
		for _, key := range []string{"name " + m.Name, "mac " + m.MAC} {
			if seen[key] != "" {
				errs = append(errs, fmt.Errorf("machine %q: %s is already taken by machine %q", m.Name, key, seen[key]))
			}
			seen[key] = m.Name
		}
	}
	return errors.Join(errs...)
}
