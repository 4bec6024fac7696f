package module

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const aliasFile = `# Aliases extracted from modules themselves.
alias virtio:d00000001v* virtio_net
alias pci:v00008086d00001572sv*sd*bc*sc*i* i40e
alias pci:v*d*sv*sd*bc01sc08i02* nvme
alias pci:v0000144DdA808sv*sd*bc*sc*i* nvme
alias usb:v*p*d*dc*dsc*dp*ic03isc*ip*in* usbhid
alias usb:v0B05p1[7-9]*d*dc*dsc*dp*ic*isc*ip*in* other_hid
alias net-pf-10 ipv6
alias nft-chain-2-nat nft_chain_nat
alias platform:i2c-mux-pinctrl i2c_mux_pinctrl
alias of:N*T*Cvendor,x/y z_of
alias cpu:type:x86,ven*fam*mod*:feature:*0099* aesni_intel
`

func TestMatch(t *testing.T) {
	for _, test := range []struct {
		alias string
		want  []string
	}{
		{"virtio:d00000001v00001AF4", []string{"virtio_net"}},
		{"virtio:d00000002v00001AF4", nil},
		{"pci:v00008086d00001572sv00008086sd00000000bc02sc00i00", []string{"i40e"}},
		{"pci:v0000144Ddxxxxsvxsdxbc01sc08i02", []string{"nvme"}},
		{"pci:v0000144DdA808svxsdxbc01sc08i02", []string{"nvme"}},
		{"usb:v0B05p1866d0100dc00dsc00dp00ic03isc01ip01in00", []string{"other_hid", "usbhid"}},
		{"usb:v0B05p1666d0100dc00dsc00dp00ic03isc01ip01in00", []string{"usbhid"}},
		{"net-pf-10", []string{"ipv6"}},
		{"net_pf_10", []string{"ipv6"}},
		{"net-pf-1", nil},
		{"net-pf-100", nil},
		{"nft-chain-2-nat", []string{"nft_chain_nat"}},
		{"platform:i2c-mux-pinctrl", []string{"i2c_mux_pinctrl"}},
		{"of:NmuxT(null)Cvendor,x/y", []string{"z_of"}},
		{"", nil},
	} {
		if diff := cmp.Diff(test.want, Aliases(aliasFile).Match(test.alias)); diff != "" {
			t.Errorf("Match(%q) (-want +got):\n%s", test.alias, diff)
		}
	}
}

const depFile = `kernel/net/bridge/br_netfilter.ko: kernel/net/bridge/bridge.ko kernel/net/802/stp.ko kernel/net/llc/llc.ko
kernel/net/bridge/bridge.ko: kernel/net/802/stp.ko kernel/net/llc/llc.ko
kernel/net/802/stp.ko: kernel/net/llc/llc.ko
kernel/net/llc/llc.ko:
kernel/net/ipv6/ipv6.ko.xz:
kernel/fs/over-lay.ko:
kernel/drivers/net/virtio_net.ko:
kernel/drivers/bad.ko:
kernel/drivers/needs-bad.ko: kernel/drivers/bad.ko
`

// recorder is a kernel that notes what it is given.
type recorder struct {
	mu     sync.Mutex
	loaded []string
}

func (r *recorder) insert(path string) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if filepath.Base(path) == "bad.ko" {
		return errors.New("invalid argument")
	}
	r.loaded = append(r.loaded, filepath.Base(path))
	return nil
}

func (r *recorder) loader(t *testing.T) *Loader {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"alias": aliasFile, "dep": depFile, "builtin": "kernel/fs/ext4/ext4.ko\n"} {
		if err := os.WriteFile(filepath.Join(dir, "modules."+name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	l, err := open(dir, r.insert)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func TestLoad(t *testing.T) {
	for _, test := range []struct {
		names []string
		want  []string // loaded, in this order
		err   string
	}{
		{[]string{"br_netfilter"}, []string{"llc.ko", "stp.ko", "bridge.ko", "br_netfilter.ko"}, ""},
		{[]string{"br-netfilter"}, []string{"llc.ko", "stp.ko", "bridge.ko", "br_netfilter.ko"}, ""},
		{[]string{"over_lay"}, []string{"over-lay.ko"}, ""},
		{[]string{"net-pf-10"}, []string{"ipv6.ko.xz"}, ""},
		{[]string{"ext4"}, nil, ""},
		{[]string{"needs_bad"}, nil, "load module needs_bad: bad: invalid argument"},
		{[]string{"nothing"}, nil, "load module nothing: this kernel has none of that name"},
		{[]string{"nothing", "llc", "bad"}, []string{"llc.ko"},
			"load module nothing: this kernel has none of that name\nload module bad: bad: invalid argument"},
	} {
		t.Run(strings.Join(test.names, " "), func(t *testing.T) {
			var r recorder
			err := r.loader(t).Load(t.Context(), test.names...)
			if got := errorText(err); got != test.err {
				t.Errorf("error %q, want %q", got, test.err)
			}
			if !slices.Equal(r.loaded, test.want) {
				t.Errorf("loaded %q, want %q", r.loaded, test.want)
			}
		})
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestEachFileIsLoadedOnce(t *testing.T) {
	var r recorder
	l := r.loader(t)
	if err := l.Load(t.Context(), "bridge", "stp", "llc", "br_netfilter", "bridge"); err != nil {
		t.Fatal(err)
	}
	slices.Sort(r.loaded)
	if want := []string{"br_netfilter.ko", "bridge.ko", "llc.ko", "stp.ko"}; !slices.Equal(r.loaded, want) {
		t.Errorf("loaded %q, want %q", r.loaded, want)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if err := l.Load(ctx, "over_lay"); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}

func TestByUrgency(t *testing.T) {
	const (
		nic   = "pci:v00008086d00001572sv00008086sd00000000bc02sc00i00"
		vnet  = "virtio:d00000001v00001AF4"
		nvme  = "pci:v0000144Dd0000A808sv0000144Dsd0000A801bc01sc08i02"
		vdisk = "virtio:d00000002v00001AF4"
		bus   = "pci:v00008086d00007113sv00001AF4sd00001100bc06sc80i00"
	)
	want := [3][]string{{nic, vnet}, {nvme, vdisk}, {"acpi:PNP0C0C:", bus}}
	if diff := cmp.Diff(want, byUrgency([]string{"acpi:PNP0C0C:", nvme, nic, bus, vdisk, vnet})); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func BenchmarkMatch(b *testing.B) {
	var text strings.Builder
	for i := range 20000 {
		fmt.Fprintf(&text, "alias pci:v%08Xd%08Xsv*sd*bc*sc*i* driver_%d\n", i%300, i, i)
	}
	var wanted []string
	for i := range 34 {
		wanted = append(wanted, fmt.Sprintf("pci:v%08Xd%08Xsv00000000sd00000000bc01sc08i02", i, i))
	}
	for b.Loop() {
		Aliases(text.String()).Match(wanted...)
	}
}

func TestDevicesThatAreThere(t *testing.T) {
	sys := t.TempDir()
	for path, alias := range map[string]string{
		"bus/virtio/devices/virtio0/modalias":   "virtio:d00000001v00001AF4\n",
		"bus/virtio/devices/virtio1/modalias":   "virtio:d00000001v00001AF4\n",
		"bus/cpu/devices/cpu0/modalias":         "cpu:type:x86,ven0000fam0006mod0055:feature:,0099,\n",
		"bus/pci/devices/0000:00:05.0/modalias": "pci:v0000dddd\n",
	} {
		path = filepath.Join(sys, path)
		os.MkdirAll(filepath.Dir(path), 0o755)
		os.WriteFile(path, []byte(alias), 0o644)
	}
	var r recorder
	d := &Devices{Loader: r.loader(t), Log: slog.New(slog.DiscardHandler), Sys: sys}
	ctx, cancel := context.WithCancel(t.Context())
	if err := d.Run(ctx, cancel); err != nil {
		if errors.Is(err, os.ErrPermission) {
			t.Skipf("no device events here: %v", err)
		}
		t.Fatal(err)
	}
	if want := []string{"virtio_net.ko"}; !slices.Equal(r.loaded, want) {
		t.Errorf("loaded %q, want %q", r.loaded, want)
	}
}

func TestAdded(t *testing.T) {
	for _, test := range []struct{ message, want string }{
		{"add@/devices/x\x00ACTION=add\x00DEVPATH=/devices/x\x00MODALIAS=usb:v1\x00SEQNUM=1\x00", "usb:v1"},
		{"remove@/devices/x\x00ACTION=remove\x00MODALIAS=usb:v1\x00", ""},
		{"add@/devices/x\x00ACTION=add\x00SUBSYSTEM=block\x00", ""},
		{"libudev\x00\xfe\xed\xca\xfe", ""},
		{"", ""},
	} {
		if got := added([]byte(test.message)); got != test.want {
			t.Errorf("%q: got %q, want %q", test.message, got, test.want)
		}
	}
}
