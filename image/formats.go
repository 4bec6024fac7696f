package image

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"slipway/image/grub"
	"slipway/image/media"
)

// Format is a way in which an image reaches a machine.
type Format string

// The formats. PXE is what the boot service hands out, from which the other
// two are made; it is always built.
const (
	PXE Format = "pxe"
	Raw Format = "raw" // slipway.raw: a disk on which Slipway is installed
	ISO Format = "iso" // slipway.iso: for a CD or a stick, runs from RAM
)

// ParseFormat accepts the names of the formats.
func ParseFormat(s string) (Format, error) {
	if f := Format(s); slices.Contains([]Format{PXE, Raw, ISO}, f) {
		return f, nil
	}
	return "", fmt.Errorf("format %q is not valid; want pxe, raw or iso", s)
}

// CheckArgument refuses what is not one word of a kernel's command line.
func CheckArgument(s string) error {
	if s == "" || strings.ContainsAny(s, " \t\n\"\\$#'") {
		return fmt.Errorf("argument %q is not one word of a kernel command line; want name=value", s)
	}
	return nil
}

// media writes the media that were asked for, from artifacts that are written.
func (b *Builder) media(ctx context.Context, out *artifacts, root *rootImage, m *Manifest) {
	from := func(name string) ([]byte, error) { return os.ReadFile(filepath.Join(b.Out, filepath.FromSlash(name))) }
	if slices.Contains(b.Formats, Raw) {
		out.file("slipway.raw", func(path string) error { return b.writeRaw(path, root, m, from) })
	}
	if slices.Contains(b.Formats, ISO) {
		out.file("slipway.iso", func(path string) error { return b.writeISO(ctx, path, m, from) })
	}
}

// writeRaw makes a disk image. Its command line has the media's arguments, so
// it has a unified kernel image of its own.
func (b *Builder) writeRaw(path string, root *rootImage, m *Manifest, from media.Artifacts) error {
	line := strings.Join(append([]string{m.DiskArguments()}, b.Arguments...), " ")
	unified, err := b.unified(root, m, line)
	if err != nil {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = media.Raw(f, m.Root.Hash, func(name string) ([]byte, error) {
		switch name {
		case UKI:
			return unified, nil
		case ArgumentsDisk:
			return []byte(line), nil
		}
		return from(name)
	})
	if err != nil {
		return err
	}
	return f.Close()
}

func (b *Builder) writeISO(ctx context.Context, path string, m *Manifest, from media.Artifacts) error {
	image, hybrid, err := grub.CD(ctx)
	if err != nil {
		return err
	}
	line := strings.Join(append(slices.Clone(m.Arguments), b.Arguments...), " ")
	return media.ISO(ctx, path, line, media.CDLoader{Image: image, Hybrid: hybrid}, from)
}
