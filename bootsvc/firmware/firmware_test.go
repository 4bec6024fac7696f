package firmware

import (
	"net/netip"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"slipway/bootsvc/source"
)

var testServer = Server{TFTP: netip.MustParseAddr("10.0.0.1"), HTTP: "http://10.0.0.1"}

// Option 175 as iPXE sends it, shortened: a PCI ID, and features.
var (
	withHTTP    = []byte{0xb1, 5, 1, 0x1a, 0xf4, 0x10, 0, 0x13, 1, 1, 0x15, 1, 1}
	withoutHTTP = []byte{0xb1, 5, 1, 0x1a, 0xf4, 0x10, 0, 0x15, 1, 1}
)

func options(t testing.TB, o ...dhcpv4.Option) *dhcpv4.DHCPv4 {
	t.Helper()
	p, err := dhcpv4.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, one := range o {
		p.UpdateOption(one)
	}
	return p
}

func TestIdentifyAndChoose(t *testing.T) {
	class, arch := dhcpv4.OptClassIdentifier, dhcpv4.OptClientArch
	user, own := dhcpv4.OptUserClass("iPXE"), func(b []byte) dhcpv4.Option { return dhcpv4.OptGeneric(optionIPXE, b) }
	script := Boot{File: "http://10.0.0.1/boot.ipxe", NoProxy: true}
	bios, uefi := Boot{File: "undionly.kpxe", TFTP: testServer.TFTP}, Boot{File: "snponly.efi", TFTP: testServer.TFTP}
	cases := []struct {
		name    string
		options []dhcpv4.Option
		text    string
		boot    Boot
		ok      bool
	}{
		{"an operating system", nil, "operating system", Boot{}, true},
		{"another vendor's system", []dhcpv4.Option{class("MSFT 5.0")}, "operating system", Boot{}, true},
		{"BIOS", []dhcpv4.Option{class("PXEClient:Arch:00000:UNDI:002001"), arch(0)}, "BIOS PXE", bios, true},
		{"BIOS that shows its class only", []dhcpv4.Option{class("PXEClient:Arch:00000:UNDI:002001")}, "BIOS PXE", bios, true},
		{"UEFI", []dhcpv4.Option{class("PXEClient:Arch:00007:UNDI:003016"), arch(7)}, "UEFI x64 PXE", uefi, true},
		{"UEFI by the erratum's number", []dhcpv4.Option{class("PXEClient:Arch:00009:UNDI:003016"), arch(9)}, "UEFI x64 PXE", uefi, true},
		{"UEFI that shows its class only", []dhcpv4.Option{class("PXEClient:Arch:00007:UNDI:003016")}, "UEFI x64 PXE", uefi, true},
		{"UEFI with two architectures", []dhcpv4.Option{class("PXEClient"), arch(6, 7)}, "UEFI x64 PXE", uefi, true},
		{"UEFI HTTP boot", []dhcpv4.Option{class("HTTPClient:Arch:00016:UNDI:003001"), arch(16)}, "UEFI x64 HTTP boot",
			Boot{File: "http://10.0.0.1/loaders/snponly.efi", VendorClass: "HTTPClient"}, true},
		{"iPXE on BIOS", []dhcpv4.Option{class("PXEClient:Arch:00000:UNDI:002001"), arch(0), user, own(withHTTP)}, "BIOS iPXE", script, true},
		{"iPXE on UEFI", []dhcpv4.Option{class("PXEClient:Arch:00007:UNDI:003001"), arch(7), user, own(withHTTP)}, "UEFI x64 iPXE", script, true},
		{"iPXE by its user class only", []dhcpv4.Option{arch(0), user}, "BIOS iPXE", script, true},
		{"iPXE by its own option only", []dhcpv4.Option{arch(9), own(withHTTP)}, "UEFI x64 iPXE", script, true},
		{"iPXE with RFC 3004's user class", []dhcpv4.Option{arch(0), dhcpv4.OptRFC3004UserClass([]string{"iPXE"})}, "BIOS iPXE", script, true},
		{"iPXE without HTTP, BIOS", []dhcpv4.Option{arch(0), user, own(withoutHTTP)}, "BIOS iPXE", bios, true},
		{"iPXE without HTTP, UEFI", []dhcpv4.Option{arch(7), user, own(withoutHTTP)}, "UEFI x64 iPXE", uefi, true},
		{"32-bit UEFI", []dhcpv4.Option{class("PXEClient:Arch:00006:UNDI:003016"), arch(6)}, "EFI IA32 PXE", Boot{}, false},
		{"ARM UEFI", []dhcpv4.Option{class("PXEClient:Arch:00011:UNDI:003016"), arch(11)}, "EFI ARM64 PXE", Boot{}, false},
		{"ARM UEFI HTTP boot", []dhcpv4.Option{class("HTTPClient:Arch:00019:UNDI:003001"), arch(19)}, "EFI ARM64 boot from HTTP HTTP boot", Boot{}, false},
		{"ARM iPXE", []dhcpv4.Option{arch(11), user, own(withHTTP)}, "EFI ARM64 iPXE", Boot{}, false},
		{"PXE that does not say", []dhcpv4.Option{class("PXEClient")}, "unknown platform PXE", Boot{}, false},
		{"PXE that says nonsense", []dhcpv4.Option{class("PXEClient:Arch:x:")}, "unknown platform PXE", Boot{}, false},
		{"HTTP boot with PXE's number", []dhcpv4.Option{class("HTTPClient:Arch:00007:UNDI:003001"), arch(7)}, "UEFI x64 HTTP boot", Boot{}, false},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			client := Identify(options(t, c.options...))
			if got := client.String(); got != c.text {
				t.Errorf("it is %q, want %q", got, c.text)
			}
			if boot, ok := Choose(client, testServer, source.Installer); boot != c.boot || ok != c.ok {
				t.Errorf("it loads %+v, %t; want %+v, %t", boot, ok, c.boot, c.ok)
			}
		})
	}
}

// TestInstalled: every firmware gets what it gets otherwise when its machine
// boots from its disk, and when it is held, and the timeline is told why.
func TestInstalled(t *testing.T) {
	for name, client := range map[string]Client{
		"operating system":    {},
		"BIOS PXE":            {Kind: PXE, Archs: []iana.Arch{0}},
		"UEFI PXE":            {Kind: PXE, Archs: []iana.Arch{7}},
		"UEFI HTTP boot":      {Kind: HTTPBoot, Archs: []iana.Arch{16}},
		"BIOS iPXE":           {Kind: IPXE, HTTP: true, Archs: []iana.Arch{0}},
		"UEFI iPXE":           {Kind: IPXE, HTTP: true, Archs: []iana.Arch{7}},
		"iPXE without HTTP":   {Kind: IPXE, Archs: []iana.Arch{0}},
		"firmware not served": {Kind: PXE, Archs: []iana.Arch{11}},
	} {
		for from, why := range map[source.Source]string{source.Disk: "it is installed and boots from its disk", source.Hold: "it is held"} {
			want, wantOK := Choose(client, testServer, source.Installer)
			if client.Kind != System {
				want.Why = why
			}
			if got, ok := Choose(client, testServer, from); got != want || ok != wantOK {
				t.Errorf("%s, %s: it loads %+v, %t, want %+v, %t", name, from, got, ok, want, wantOK)
			}
		}
	}
}

// TestNoLoop: our own loaders, which have HTTP, are never given a loader again.
func TestNoLoop(t *testing.T) {
	for a := range iana.Arch(40) {
		client := Identify(options(t, dhcpv4.OptClientArch(a), dhcpv4.OptUserClass("iPXE"), dhcpv4.OptGeneric(optionIPXE, withHTTP)))
		if boot, ok := Choose(client, testServer, source.Installer); ok && boot.File != "http://10.0.0.1/boot.ipxe" {
			t.Errorf("iPXE on %s gets %s", a, boot.File)
		}
	}
}

func TestUUID(t *testing.T) {
	sent := []byte{0, 0x02, 0x1c, 0x3f, 0x8a, 0xaa, 0x55, 0x1e, 0x4b, 0x9d, 0x00, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab}
	cases := map[string][]byte{
		"8a3f1c02-55aa-4b1e-9d00-0123456789ab": sent,
		"":                                     sent[:16],
	}
	for want, b := range cases {
		if got := Identify(options(t, dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, b))).UUID; got != want {
			t.Errorf("%x is %q, want %q", b, got, want)
		}
	}
}

// FuzzFirmware: whatever the options say, there is an answer, and iPXE with
// HTTP is not sent round in a circle.
func FuzzFirmware(f *testing.F) {
	f.Add("PXEClient:Arch:00007:UNDI:003016", []byte{0, 7}, []byte("iPXE"), withHTTP, []byte{0})
	f.Add("HTTPClient:Arch:00016:UNDI:003001", []byte{0, 16}, []byte{}, []byte{}, []byte{})
	f.Fuzz(func(t *testing.T, class string, arch, user, own, uuid []byte) {
		c := Identify(options(t, dhcpv4.OptClassIdentifier(class),
			dhcpv4.OptGeneric(dhcpv4.OptionClientSystemArchitectureType, arch),
			dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, user),
			dhcpv4.OptGeneric(optionIPXE, own),
			dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, uuid)))
		boot, ok := Choose(c, testServer, source.Installer)
		if c.String() == "" || !ok && boot.File != "" {
			t.Errorf("%q loads %+v, %t", c, boot, ok)
		}
		if c.Kind == IPXE && c.HTTP && boot.TFTP.IsValid() {
			t.Errorf("%q with HTTP is given %s again", c, boot.File)
		}
	})
}
