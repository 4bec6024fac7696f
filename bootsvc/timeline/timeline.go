// Package timeline names what the boot service's servers tell about a machine:
// each packet and each artifact is one Event, and together they are the
// machine's boot, hop by hop. It is only the vocabulary; the inventory keeps
// the events. The DHCP, TFTP and HTTP servers call it.
package timeline

import (
	"context"
	"net"
	"net/netip"
	"time"
)

// Event is one step of a machine's boot as a server saw it.
type Event struct {
	// MAC is the machine's address on the wire. It is nil when the server
	// saw only an IP address and no lease tells whose it is.
	MAC net.HardwareAddr
	// Name is the hop: "dhcp", "tftp" or "http"; "download" is no hop, but a running system's fetch.
	Name string
	// Asker is who sent a "dhcp" event's packet. It tells the first hop of a
	// boot from a running system that renews its lease.
	Asker Asker
	// Detail says what happened, for people: "DISCOVER, offered 10.0.0.7".
	Detail string
	At     time.Time
	// Address is the machine's IPv4 address; the zero value when it has none yet.
	Address netip.Addr
	// UUID is the SMBIOS system UUID, from DHCP option 97; often empty.
	UUID string
}

// Asker is what sort of program on a machine asks for an address.
type Asker string

// The askers.
const (
	Firmware Asker = "firmware" // PXE or HTTP boot: power is on and nothing is loaded
	Loader   Asker = "loader"   // iPXE
	System   Asker = "system"   // an operating system
)

// Observer is told of every event, in the order of the machine's packets. It
// is called from the server's own loop, so it must not block; a server with no
// observer uses Discard.
type Observer func(ctx context.Context, e Event)

// Discard is the Observer that forgets.
func Discard(context.Context, Event) {}
