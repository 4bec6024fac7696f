package recipe

import (
	"fmt"
	"path"
	"regexp"
	"strings"

	"slipway/image/pattern"
)

// problem is one thing wrong at one place of the document.
type problem struct{ path, text string }

// check collects problems.
type check []problem

func (c *check) add(path, format string, args ...any) {
	*c = append(*c, problem{path, fmt.Sprintf(format, args...)})
}

func (c *check) required(path, value, example string) {
	if value == "" {
		c.add(path, "it is required; for example %s", example)
	}
}

func (c *check) nodePath(at, value string) {
	if !strings.HasPrefix(value, "/") || path.Clean(value) != value || value == "/" {
		c.add(at, "%q is not an absolute path of the node; for example /usr/bin/runc", value)
	}
}

func (c *check) mode(at, value string) {
	if _, err := Perm(value, 0); err != nil {
		c.add(at, "%v", err)
	}
}

func (c *check) patterns(at string, list []string) {
	for i, p := range list {
		if err := pattern.Check(p); err != nil {
			c.add(fmt.Sprintf("%s[%d]", at, i), "%v", err)
		}
	}
}

func (r *Recipe) problems() []problem {
	var c check
	if r.Kind != Kind {
		c.add("kind", "%q is not valid; want %s", r.Kind, Kind)
	}
	c.debian(r.Debian)
	c.kernel(r.Kernel)
	c.program("init", r.Init)
	c.required("payload.module", r.Payload.Module, "image/payload")
	for i, p := range r.Payload.Programs {
		c.program(fmt.Sprintf("payload.programs[%d]", i), p)
	}
	for i, m := range r.Images {
		c.image(fmt.Sprintf("images[%d]", i), m)
	}
	for i, l := range r.Loaders {
		at := fmt.Sprintf("loaders[%d]", i)
		c.required(at+".package", l.Package, "ipxe")
		c.required(at+".file", l.File, "usr/lib/ipxe/snponly.efi")
	}
	c.required("stub.package", r.Stub.Package, "systemd-boot-efi")
	c.required("stub.file", r.Stub.File, "usr/lib/systemd/boot/efi/linuxx64.efi.stub")
	for i, f := range r.Files {
		c.file(fmt.Sprintf("files[%d]", i), f)
	}
	return c
}

func (c *check) debian(d Debian) {
	if d.Architecture != "amd64" {
		c.add("debian.architecture", "%q is not valid; want amd64", d.Architecture)
	}
	if len(d.Suites) == 0 {
		c.add("debian.suites", "it is required; for example [bookworm, bookworm-security]")
	}
	for i, m := range d.Mirrors {
		if !strings.HasPrefix(m, "http://") && !strings.HasPrefix(m, "https://") {
			c.add(fmt.Sprintf("debian.mirrors[%d]", i), "%q is not the URL of an archive; want http://host/path", m)
		}
	}
	c.required("debian.lock", d.Lock, "image/debian.lock")
	seen := map[string]bool{}
	for i, p := range d.Packages {
		at := fmt.Sprintf("debian.packages[%d]", i)
		c.required(at+".name", p.Name, "nftables")
		if seen[p.Name] {
			c.add(at+".name", "package %q appears twice", p.Name)
		}
		seen[p.Name] = true
		if len(p.Files) == 0 {
			c.add(at, "files is required; for example [usr/sbin/nft]")
		}
		c.patterns(at+".files", p.Files)
	}
}

func (c *check) kernel(k Kernel) {
	c.required("kernel.package", k.Package, "linux-image-6.12.117+deb12-amd64")
	if k.Package != "" && k.Release() == "" {
		c.add("kernel.package", "%q is not a kernel package; want linux-image-<release>", k.Package)
	}
	c.patterns("kernel.modules.disk", k.Modules.Disk)
	c.patterns("kernel.modules.include", k.Modules.Include)
	c.patterns("kernel.modules.exclude", k.Modules.Exclude)
	for i, a := range k.Arguments {
		if strings.ContainsAny(a, " \t\n\"") || a == "" {
			c.add(fmt.Sprintf("kernel.arguments[%d]", i), "%q is not one kernel argument; write one word per entry", a)
		}
	}
}

// Release returns the kernel's release, as uname -r prints it.
func (k Kernel) Release() string {
	release, ok := strings.CutPrefix(k.Package, "linux-image-")
	if !ok {
		return ""
	}
	return strings.TrimSuffix(release, "-unsigned")
}

func (c *check) program(at string, p Program) {
	c.required(at+".import", p.Import, "slipway/cmd/init")
	c.nodePath(at+".path", p.Path)
	for i, l := range p.Links {
		c.nodePath(fmt.Sprintf("%s.links[%d]", at, i), l)
	}
}

func imageName(s string) bool {
	return regexp.MustCompile(`^[a-z0-9.-]+(/[a-z0-9._-]+)+:[A-Za-z0-9._-]+$`).MatchString(s)
}

func (c *check) image(at string, m Image) {
	if !imageName(m.Name) {
		c.add(at+".name", "%q is not a full image name; want host/name:tag, such as slipway.local/pause:1", m.Name)
	}
	if len(m.Files) == 0 {
		c.add(at, "files is required")
	}
	for i, f := range m.Files {
		at := fmt.Sprintf("%s.files[%d]", at, i)
		c.nodePath(at+".path", f.Path)
		c.mode(at+".mode", f.Mode)
		if count(f.Package != "", f.Program != "", f.Directory) != 1 {
			c.add(at, "want exactly one of: package and file, program, directory")
		}
		if (f.Package == "") != (f.File == "") {
			c.add(at, "package and file go together")
		}
	}
}

func (c *check) file(at string, f File) {
	c.nodePath(at+".path", f.Path)
	c.mode(at+".mode", f.Mode)
	if count(f.Content != "", f.Target != "", f.Directory) > 1 {
		c.add(at, "want at most one of: content, target, directory")
	}
}

func count(conditions ...bool) (n int) {
	for _, c := range conditions {
		if c {
			n++
		}
	}
	return n
}
