// Package firmware tells from a DHCP packet what is asking - a machine's
// BIOS, its UEFI, iPXE, an operating system - and what it should load next.
// Both are pure functions. The DHCP server calls them and puts the answer in
// its reply; nothing here sends or serves anything.
package firmware

import (
	"bytes"
	"fmt"
	"net/netip"
	"strconv"
	"strings"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"slipway/bootsvc/source"
)

// Kind is what sort of client asks.
type Kind int

// The kinds of client.
const (
	System   Kind = iota // an operating system: it wants an address, no loader
	PXE                  // firmware that loads by TFTP (RFC 4578)
	HTTPBoot             // UEFI firmware that loads by HTTP (UEFI 2.5, 24.7)
	IPXE                 // iPXE, in a network card's ROM or loaded by us
)

// Client is what a packet tells about its sender.
type Client struct {
	Kind Kind
	// Archs are the architectures it can run, best first; empty if it does not say.
	Archs []iana.Arch
	// HTTP is whether an IPXE can fetch by HTTP.
	HTTP bool
	// UUID is the SMBIOS system UUID as dmidecode prints it; empty if not sent.
	UUID string
}

// iPXE's own encapsulated options and the one that says it was built with HTTP.
const (
	optionIPXE    = dhcpv4.GenericOptionCode(175)
	featureHTTP   = 0x13
	settingDirect = 0xb0 // "no-pxedhcp"
)

// Direct is the option that carries Boot.NoProxy.
func Direct() dhcpv4.Option { return dhcpv4.OptGeneric(optionIPXE, []byte{settingDirect, 1, 1}) }

// Identify reads the sender's nature from options 60, 77, 93, 97 and 175. iPXE
// is told from the firmware below it by any of the last two, for it keeps that
// firmware's vendor class: whoever mistakes it feeds it itself for ever.
func Identify(p *dhcpv4.DHCPv4) Client {
	class := p.ClassIdentifier()
	c := Client{Archs: archs(p, class), UUID: uuid(p)}
	own := p.Options.Get(optionIPXE)
	switch {
	case own != nil || bytes.Contains(p.Options.Get(dhcpv4.OptionUserClassInformation), []byte("iPXE")):
		c.Kind, c.HTTP = IPXE, own == nil || hasHTTP(own)
	case strings.HasPrefix(class, "HTTPClient"):
		c.Kind = HTTPBoot
	case strings.HasPrefix(class, "PXEClient"):
		c.Kind = PXE
	}
	return c
}

// archs reads option 93, or else the vendor class that begins
// "PXEClient:Arch:00007:": some firmware sends only that.
func archs(p *dhcpv4.DHCPv4, class string) []iana.Arch {
	if list := p.ClientArch(); len(list) > 0 {
		return list
	}
	parts := strings.Split(class, ":")
	if len(parts) < 3 || parts[1] != "Arch" {
		return nil
	}
	n, err := strconv.ParseUint(parts[2], 10, 16)
	if err != nil {
		return nil
	}
	return []iana.Arch{iana.Arch(n)}
}

// uuid reads option 97: type 0 and 16 bytes, the first three fields little
// endian as SMBIOS stores them.
func uuid(p *dhcpv4.DHCPv4) string {
	b := p.Options.Get(dhcpv4.OptionClientMachineIdentifier)
	if len(b) != 17 || b[0] != 0 {
		return ""
	}
	b = b[1:]
	return fmt.Sprintf("%x-%x-%x-%x-%x", []byte{b[3], b[2], b[1], b[0]}, []byte{b[5], b[4]}, []byte{b[7], b[6]}, b[8:10], b[10:16])
}

func hasHTTP(encapsulated []byte) bool {
	o := dhcpv4.Options{}
	return o.FromBytes(encapsulated) == nil && o.Has(dhcpv4.GenericOptionCode(featureHTTP))
}

// String names the client for a timeline: "UEFI x64 PXE".
func (c Client) String() string {
	if c.Kind == System {
		return "operating system"
	}
	platform := "unknown platform"
	switch {
	case c.runs(iana.INTEL_X86PC):
		platform = "BIOS"
	case c.runs(x64...), c.runs(iana.EFI_X86_64_HTTP):
		platform = "UEFI x64"
	case len(c.Archs) > 0:
		platform = c.Archs[0].String()
	}
	return platform + " " + [...]string{PXE: "PXE", HTTPBoot: "HTTP boot", IPXE: "iPXE"}[c.Kind]
}

// x64 is two numbers: RFC 4578 and its erratum disagree, and firmware sends both.
var x64 = []iana.Arch{iana.EFI_X86_64, iana.EFI_BC}

func (c Client) runs(wanted ...iana.Arch) bool {
	for _, a := range c.Archs {
		for _, w := range wanted {
			if a == w {
				return true
			}
		}
	}
	return false
}

// The loaders' names on TFTP, and below /loaders/ on HTTP.
const (
	LoaderBIOS = "undionly.kpxe"
	LoaderUEFI = "snponly.efi"
)

// Server is where the loaders and the script are.
type Server struct {
	// TFTP is the TFTP server's address.
	TFTP netip.Addr
	// HTTP is the base URL of the HTTP server, without a slash at its end.
	HTTP string
}

// Boot is what a client should load next. The zero value is nothing.
type Boot struct {
	// File is a TFTP file name, or a URL.
	File string
	// TFTP is the server of a TFTP file; the zero value with a URL.
	TFTP netip.Addr
	// VendorClass is what the reply must carry as option 60; empty for none.
	VendorClass string
	// NoProxy tells an iPXE not to wait for a proxyDHCP server's word after
	// ours, which would cost it three seconds.
	NoProxy bool
	// Why says to people what the file does not: that the machine is installed, or held.
	Why string
}

// Choose decides what the client loads next. False means that it is a machine
// that boots from the network and that there is no loader for it.
//
// A machine that is to boot from its disk gets iPXE like any other, and so does
// one that is held: the script sends it on, or has it wait. Without an answer
// firmware waits a minute at each of its network entries before it tries a disk.
func Choose(c Client, s Server, from source.Source) (Boot, bool) {
	boot, ok := c.loads(s)
	switch {
	case c.Kind == System:
	case from == source.Disk:
		boot.Why = "it is installed and boots from its disk"
	case from == source.Hold:
		boot.Why = "it is held"
	}
	return boot, ok
}

// loads is the way to the script: by a loader of ours, or at once.
func (c Client) loads(s Server) (Boot, bool) {
	bios, uefi := c.runs(iana.INTEL_X86PC), c.runs(x64...)
	switch {
	case c.Kind == System:
		return Boot{}, true
	case c.Kind == HTTPBoot && c.runs(iana.EFI_X86_64_HTTP):
		// The UEFI specification lets the client drop a reply that does not say HTTPClient.
		return Boot{File: s.HTTP + "/loaders/" + LoaderUEFI, VendorClass: "HTTPClient"}, true
	case c.Kind == IPXE && c.HTTP && (bios || uefi):
		return Boot{File: s.HTTP + "/boot.ipxe", NoProxy: true}, true
	case c.Kind == HTTPBoot:
		return Boot{}, false
	// An iPXE without HTTP gets ours, which has it: that cannot loop.
	case bios:
		return Boot{File: LoaderBIOS, TFTP: s.TFTP}, true
	case uefi:
		return Boot{File: LoaderUEFI, TFTP: s.TFTP}, true
	}
	return Boot{}, false
}
