// Package recipe is the document that says what goes into an image: which
// kernel and modules, which Debian files, which programs, which OCI images.
//
// It is data: parsing is strict and checks what can be checked without the
// network or the archive; package image does the work.
package recipe

// Kind is the value of Recipe.Kind.
const Kind = "Image"

// Recipe is one image. Paths of this computer are relative to the source tree's
// root; paths of the node are absolute.
type Recipe struct {
	Kind    string   `yaml:"kind"`
	Debian  Debian   `yaml:"debian"`
	Kernel  Kernel   `yaml:"kernel"`
	Init    Program  `yaml:"init"`    // PID 1; its path is /init of the initramfs
	Payload Payload  `yaml:"payload"` // upstream Go programs
	Images  []Image  `yaml:"images"`  // OCI images, imported by the node at boot
	Loaders []Loader `yaml:"loaders"` // boot loaders, not in the image but beside it
	Stub    Loader   `yaml:"stub"`    // UEFI program that the unified kernel image is made from
	Files   []File   `yaml:"files"`   // files, links and directories written here
}

// Debian names the archive's suites and the packages taken from it.
type Debian struct {
	Architecture string    `yaml:"architecture"` // amd64
	Suites       []string  `yaml:"suites"`       // code names, newest version of a package wins
	Mirrors      []string  `yaml:"mirrors"`      // archive URLs; none: those of this computer's apt
	Lock         string    `yaml:"lock"`         // file that pins versions and hashes
	Packages     []Package `yaml:"packages"`
}

// Package takes files of one Debian package into the root image.
type Package struct {
	Name  string   `yaml:"name"`
	Files []string `yaml:"files"` // patterns of package paths: usr/sbin/nft, usr/lib/x/*.so, usr/share/x/
}

// Kernel names the kernel package, its modules and its command line.
type Kernel struct {
	Package   string   `yaml:"package"`
	Arguments []string `yaml:"arguments"` // before those of the boot service
	Modules   Modules  `yaml:"modules"`
}

// Modules chooses kernel modules. What a chosen module depends on comes along.
type Modules struct {
	Boot    []string `yaml:"boot"`    // names, loaded by init before the root image is mounted from RAM
	Slot    []string `yaml:"slot"`    // the same for a root image in a slot of a disk
	Disk    []string `yaml:"disk"`    // patterns of the drivers by which init finds that disk
	Include []string `yaml:"include"` // patterns of paths below lib/modules/<release>
	Exclude []string `yaml:"exclude"`
}

// Payload is the nested Go module of upstream programs.
type Payload struct {
	Module   string    `yaml:"module"` // its directory
	Programs []Program `yaml:"programs"`
}

// Program is one Go program and where it goes.
type Program struct {
	Import    string            `yaml:"import"` // import path
	Path      string            `yaml:"path"`   // on the node
	Links     []string          `yaml:"links"`  // symbolic links to it
	Static    bool              `yaml:"static"` // link C libraries statically instead of doing without C
	Tags      []string          `yaml:"tags"`
	Variables map[string]string `yaml:"variables"` // package variables set at link time
}

// Image is one OCI image.
type Image struct {
	Name       string        `yaml:"name"` // slipway.local/pause:1
	Entrypoint []string      `yaml:"entrypoint"`
	Files      []ImageSource `yaml:"files"`
}

// ImageSource is one file of an OCI image, from a package or a program of ours,
// or a directory.
type ImageSource struct {
	Path      string   `yaml:"path"`
	Package   string   `yaml:"package"` // a Debian package...
	File      string   `yaml:"file"`    // ...and the file in it
	Program   string   `yaml:"program"` // import path of a Go program of this module
	Directory bool     `yaml:"directory"`
	Mode      string   `yaml:"mode"`  // octal; by default 0755
	Links     []string `yaml:"links"` // symbolic links to it
}

// Loader is a boot loader, or a part of one, copied out of a Debian package.
type Loader struct {
	Package string `yaml:"package"`
	File    string `yaml:"file"`
}

// File is something written into the root image: content, a link to a target,
// or an empty directory.
type File struct {
	Path      string `yaml:"path"`
	Content   string `yaml:"content"`
	Target    string `yaml:"target"`
	Directory bool   `yaml:"directory"`
	Mode      string `yaml:"mode"` // octal; by default 0644, for directories 0755
}

// PackageNames returns every Debian package the recipe uses, each once.
func (r *Recipe) PackageNames() []string {
	var names []string
	seen := map[string]bool{"": true}
	add := func(name string) {
		if !seen[name] {
			seen[name] = true
			names = append(names, name)
		}
	}
	add(r.Kernel.Package)
	for _, p := range r.Debian.Packages {
		add(p.Name)
	}
	for _, i := range r.Images {
		for _, f := range i.Files {
			add(f.Package)
		}
	}
	for _, l := range r.Loaders {
		add(l.Package)
	}
	add(r.Stub.Package)
	return names
}
