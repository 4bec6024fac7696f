package recipe

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

const example = "../../configs/examples/image.yaml"

func TestExampleIsValid(t *testing.T) {
	r, err := Read(example)
	if err != nil {
		t.Fatal(err)
	}
	if got := r.Kernel.Release(); got != "6.12.117+deb12-amd64" {
		t.Errorf("kernel release is %q", got)
	}
	names := r.PackageNames()
	for _, want := range []string{r.Kernel.Package, "nftables", "busybox-static", "ipxe", "e2fsprogs", "systemd-boot-efi"} {
		if !strings.Contains(" "+strings.Join(names, " ")+" ", " "+want+" ") {
			t.Errorf("PackageNames lacks %s: %v", want, names)
		}
	}
}

// TestErrorsSayWhere changes one thing of the example and looks at the message.
func TestErrorsSayWhere(t *testing.T) {
	text, err := os.ReadFile(example)
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct{ name, old, new, want string }{
		{"kind", "kind: Image", "kind: Cluster", `r.yaml:3:7: kind: "Cluster" is not valid; want Image`},
		{"unknown field", "  architecture: amd64", "  architektur: amd64", `r.yaml:6:3: unknown field "architektur"`},
		{"architecture", "architecture: amd64", "architecture: arm64", `r.yaml:6:17: debian.architecture: "arm64" is not valid; want amd64`},
		{"kernel", "package: linux-image-6", "package: linux-6", "is not a kernel package; want linux-image-<release>"},
		{"argument", "console=tty0,", "console=tty0 quiet,", `kernel.arguments[0]: "console=tty0 quiet" is not one kernel argument`},
		{"pattern", "kernel/arch/x86/crypto/", "/lib/x/", `kernel.modules.include[0]: pattern "/lib/x/": want a relative path`},
		{"path", "path: /init", "path: init", `init.path: "init" is not an absolute path of the node`},
		{"image name", "slipway.local/pause:1", "pause", `images[0].name: "pause" is not a full image name; want host/name:tag`},
		{"mode", `mode: "1777"`, `mode: "9"`, `"9" is not a mode; want octal digits`},
		{"two sources", "program: slipway/image/pause", "program: slipway/image/pause, directory: true", "want exactly one of: package and file, program, directory"},
		{"package twice", "- name: iptables", "- name: nftables", `debian.packages[1].name: package "nftables" appears twice`},
		{"driver pattern", "- kernel/drivers/ata/ahci.ko", "- /ahci.ko", `kernel.modules.disk[0]: pattern "/ahci.ko": want a relative path`},
		{"stub", "stub: { package: systemd-boot-efi,", "stub: {", "stub.package: it is required; for example systemd-boot-efi"},
		{"not yaml", "kind: Image", "kind: [", "r.yaml:"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			changed := strings.Replace(string(text), tt.old, tt.new, 1)
			if changed == string(text) {
				t.Fatalf("the example has no %q", tt.old)
			}
			_, err := Parse("r.yaml", []byte(changed))
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("error is\n%v\nwant one with\n%s", err, tt.want)
			}
		})
	}
}

func TestParseReportsEverything(t *testing.T) {
	_, err := Parse("r.yaml", []byte("kind: Image\n"))
	for _, want := range []string{"debian.architecture", "debian.suites", "debian.lock", "kernel.package", "init.import", "payload.module"} {
		if err == nil || !strings.Contains(err.Error(), want+":") {
			t.Errorf("the error does not name %s:\n%v", want, err)
		}
	}
}

func TestPerm(t *testing.T) {
	for text, want := range map[string]os.FileMode{"": 0o640, "0755": 0o755, "1777": os.ModeSticky | 0o777} {
		got, err := Perm(text, 0o640)
		if err != nil {
			t.Error(err)
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("Perm(%q) (-want +got):\n%s", text, diff)
		}
	}
}

func FuzzParse(f *testing.F) {
	text, err := os.ReadFile(example)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("kind: Image\nfiles: [{path: /x, mode: '77'}]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		if r, err := Parse("r.yaml", data); err == nil && r.Kind != Kind {
			t.Errorf("a recipe of kind %q is valid", r.Kind)
		}
	})
}
