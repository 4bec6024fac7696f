package main

import (
	"crypto/sha256"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"slipway/bootsvc/api/client"
	"slipway/configs/disklayout"
	"slipway/configs/machine"
	"slipway/image"
)

// mediaFlags are what `slipway image media` is told.
type mediaFlags struct {
	image, format, out, context, sign, dataSize string
	arguments                                   []string
}

func imageMediaCommand() *cobra.Command {
	var f mediaFlags
	cmd := &cobra.Command{
		Use:   "media",
		Short: "Make a raw disk or an ISO of an image, for machines that do not boot from the network",
		Long: `Make a raw disk or an ISO of an image, for machines that do not boot from the network.

A raw disk is written to a machine's own disk; Slipway is then installed on it. An ISO,
on a CD or a USB stick, boots BIOS and UEFI into RAM, and installs if its cluster says
so. Both find the boot service of --context; the network must have a DHCP server.`,
		Example: `  slipway image media --format iso --out slipway.iso
  slipway image media --format raw --out slipway.raw && dd if=slipway.raw of=/dev/sdX bs=4M conv=fsync`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return f.run(cmd) },
	}
	def := os.Getenv("SLIPWAY_CONTEXT")
	if def == "" {
		def = filepath.Join(defaultDataDir, "admin.yaml")
	}
	flags := cmd.Flags()
	flags.StringVar(&f.image, "image", filepath.Join(".build", "image"), "directory with a built image")
	flags.StringVar(&f.format, "format", "", "raw or iso")
	flags.StringVar(&f.out, "out", "", "file to write")
	flags.StringVar(&f.context, "context", def, "file that says where the boot service is; also $SLIPWAY_CONTEXT")
	flags.StringArrayVar(&f.arguments, "argument", nil, "kernel argument, such as console=ttyS1; may be repeated. With slipway.server and slipway.ca no context is read")
	flags.StringVar(&f.dataSize, "data-size", "", "how much of the disk that a raw image is written to is for /var, such as 100GiB; left out, all that is left")
	flags.StringVar(&f.sign, "sign", "", "program that signs the UEFI program whose path is its argument, in place, for Secure Boot")
	_ = errors.Join(cmd.MarkFlagRequired("format"), cmd.MarkFlagRequired("out")) // they are defined above
	return cmd
}

func (f *mediaFlags) run(cmd *cobra.Command) error {
	format, err := image.ParseFormat(f.format)
	if err != nil {
		return err
	}
	data, err := f.data(format)
	if err != nil {
		return err
	}
	arguments, err := f.kernel()
	if err != nil {
		return err
	}
	arguments = slices.Concat(arguments, data)
	manifest, err := image.ReadManifest(f.image)
	if err != nil {
		return err
	}
	medium := image.Medium{Image: f.image, Manifest: manifest, Arguments: arguments, Sign: image.Signer(f.sign)}
	temporary := f.out + ".new" // a medium that is not whole is none
	err = medium.Write(cmd.Context(), format, temporary)
	if err == nil {
		err = os.Rename(temporary, f.out)
	}
	if err != nil {
		return errors.Join(fmt.Errorf("make %s: %w", f.out, err), os.RemoveAll(temporary))
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "%s: Slipway %s, boots with %s\n", f.out, manifest.Version, strings.Join(arguments, " "))
	return nil
}

// data is what the kernel is told of the data partition, which the machine makes
// at its first start.
func (f *mediaFlags) data(format image.Format) ([]string, error) {
	if f.dataSize == "" {
		return nil, nil
	}
	var size machine.Size
	err := size.UnmarshalText([]byte(f.dataSize))
	switch {
	case format != image.Raw:
		return nil, fmt.Errorf("%w: --data-size is for a raw disk; what an %s installs has the dataSize of its cluster's document", errUsage, format)
	case err != nil:
		return nil, fmt.Errorf("%w: --data-size %s is not a size such as 100GiB", errUsage, f.dataSize)
	case size < machine.SmallestData:
		return nil, fmt.Errorf("%w: --data-size %s has no room for a node's images and logs; want %s or more", errUsage, f.dataSize, machine.SmallestData)
	}
	return []string{disklayout.DataSizeArgument + "=" + size.String()}, nil
}

// kernel is what the kernel is told beside the image's own arguments.
func (f *mediaFlags) kernel() ([]string, error) {
	for _, word := range f.arguments {
		if err := image.CheckArgument(word); err != nil {
			return nil, err
		}
	}
	named := func(word string) bool { return strings.HasPrefix(word, "slipway.server=") }
	if slices.ContainsFunc(f.arguments, named) {
		return f.arguments, nil
	}
	c, err := client.Load(f.context)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode([]byte(c.CA))
	if block == nil || len(c.Servers) == 0 {
		return nil, fmt.Errorf("read context %s: it names no boot service with its CA", f.context)
	}
	return append(slices.Clone(f.arguments), "slipway.server="+c.Servers[0], fmt.Sprintf("slipway.ca=%x", sha256.Sum256(block.Bytes))), nil
}
