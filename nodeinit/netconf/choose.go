package netconf

import (
	"bytes"
	"fmt"
	"net"
	"strings"
)

// link is an interface as far as choosing goes.
type link struct {
	name     string
	mac      net.HardwareAddr
	physical bool // a device stands behind it
	up       bool // administratively
	carrier  bool
}

// choice is what to do with the interfaces now.
type choice struct {
	up      []string // set these up
	ask     []link   // ask for a lease on these
	waiting string   // what the network waits for meanwhile
	next    string   // what it does if that does not come
}

// What is done about a wait: nextOthers after bootPatience.
const (
	nextOthers = "asks on the other interfaces after 45s"
	nextAgain  = "asks again until there is one"
)

// choose decides, from the interfaces there are, on which to ask for a lease.
// The one the machine booted from is asked alone until anyway is set.
func choose(links []link, boot net.HardwareAddr, anyway bool) choice {
	c := choice{next: nextAgain}
	var candidates []link
	booted := false
	for _, l := range links {
		isBoot := boot != nil && bytes.Equal(l.mac, boot)
		if !l.physical && !isBoot {
			continue
		}
		if !l.up {
			c.up = append(c.up, l.name)
		}
		if isBoot && !anyway {
			candidates, booted = []link{l}, true
		} else if !booted {
			candidates = append(candidates, l)
		}
	}
	if boot != nil && !anyway {
		c.next = nextOthers
	}
	if boot != nil && !booted && !anyway {
		c.waiting = fmt.Sprintf("the network interface %s, from which the machine booted", boot)
		return c
	}
	c.ask, c.waiting = withCarrier(candidates)
	return c
}

func withCarrier(candidates []link) (ask []link, waiting string) {
	var asked, dark []string
	for _, l := range candidates {
		if l.carrier {
			ask, asked = append(ask, l), append(asked, l.name)
		} else {
			dark = append(dark, l.name)
		}
	}
	switch {
	case len(candidates) == 0:
		return nil, "a network interface"
	case len(ask) == 0:
		return nil, "a carrier on " + strings.Join(dark, ", ")
	}
	return ask, "a DHCP lease on " + strings.Join(asked, ", ")
}
