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
	"slipway/image/uki"
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
func (b *Builder) media(ctx context.Context, out *artifacts, m *Manifest) {
	medium := Medium{Image: b.Out, Manifest: m, Arguments: b.Arguments, Sign: b.Sign}
	for format, name := range map[Format]string{Raw: "slipway.raw", ISO: "slipway.iso"} {
		if slices.Contains(b.Formats, format) {
			out.file(name, func(path string) error { return medium.Write(ctx, format, path) })
		}
	}
}

// Medium is what a raw disk or an ISO is made of: the artifacts of an image, and
// what the kernel is told beside the image's own arguments, which is where its
// boot service is.
type Medium struct {
	Image     string // directory
	Manifest  *Manifest
	Arguments []string
	Sign      Signer // of what is not as it is in the image: a raw disk's kernel image with arguments
}

// Write makes the medium.
func (m Medium) Write(ctx context.Context, format Format, path string) error {
	switch format {
	case Raw:
		return m.writeRaw(ctx, path)
	case ISO:
		return m.writeISO(ctx, path)
	}
	return fmt.Errorf("%s is not the format of one file", format)
}

func (m Medium) artifact(name string) ([]byte, error) {
	return os.ReadFile(filepath.Join(m.Image, filepath.FromSlash(name)))
}

// writeRaw makes a disk image. If it has arguments of its own it has a unified
// kernel image of its own, for the command line is a part of that.
func (m Medium) writeRaw(ctx context.Context, path string) error {
	own := map[string][]byte{}
	if len(m.Arguments) > 0 {
		line := strings.Join(append([]string{m.Manifest.DiskArguments()}, m.Arguments...), " ")
		built, err := m.artifact(UKI)
		if err != nil {
			return err
		}
		if built, err = uki.WithCommandLine(built, line); err != nil {
			return err
		}
		if own[UKI], err = m.Sign.signed(ctx, UKI, built); err != nil {
			return err
		}
		own[ArgumentsDisk] = []byte(line)
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	err = media.Raw(f, m.Manifest.Root.Hash, func(name string) ([]byte, error) {
		if data, ok := own[name]; ok {
			return data, nil
		}
		return m.artifact(name)
	})
	if err != nil {
		return err
	}
	return f.Close()
}

func (m Medium) writeISO(ctx context.Context, path string) error {
	image, hybrid, err := grub.CD(ctx)
	if err != nil {
		return err
	}
	line := strings.Join(append(slices.Clone(m.Manifest.Arguments), m.Arguments...), " ")
	return media.ISO(ctx, path, line, media.CDLoader{Image: image, Hybrid: hybrid}, m.artifact)
}
