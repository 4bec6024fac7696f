package main

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"slipway/configs/version"
	"slipway/image"
	"slipway/image/debian"
)

// imageFlags are what the image commands have in common.
type imageFlags struct {
	source, recipe, out, cache, profile, keyring, aptDir string
	mirrors, formats, arguments                          []string
	sign                                                 string
	updateLock                                           bool
}

// imageCommand returns `slipway image`.
func imageCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "image", Short: "Build and check the image that machines boot"}
	cmd.AddCommand(imageBuildCommand(), imageMediaCommand(), imageLockCommand(), imageVerifyCommand())
	return cmd
}

func (f *imageFlags) register(cmd *cobra.Command) {
	cmd.Flags().StringVar(&f.source, "source", "", "root of Slipway's source tree (default: found from the current directory)")
	cmd.Flags().StringVar(&f.recipe, "recipe", "", "recipe file (default: configs/examples/image.yaml of the source tree)")
	cmd.Flags().StringVar(&f.cache, "cache", os.Getenv("SLIPWAY_CACHE"), "cache directory, also $SLIPWAY_CACHE (default: .cache of the source tree)")
	cmd.Flags().StringArrayVar(&f.mirrors, "mirror", nil, "URL of a Debian archive; may be repeated (default: the sources of this computer's apt)")
	cmd.Flags().StringVar(&f.keyring, "keyring", debian.DefaultKeyring, "OpenPGP keys that sign the archive")
	cmd.Flags().StringVar(&f.aptDir, "apt-dir", "/etc/apt", "where apt's sources are read")
}

func imageBuildCommand() *cobra.Command {
	var f imageFlags
	cmd := &cobra.Command{
		Use:   "build",
		Short: "Build kernel, initramfs, loaders and manifest from a recipe",
		Long: `Build kernel, initramfs, loaders and manifest from a recipe.

What machines boot over a network and what they install is always built. A raw
disk or an ISO boots a machine without a network's help; to find its boot
service it needs the arguments slipway.server and slipway.ca, which
'slipway image media' adds by itself.

Needs neither root nor a container engine. Debian packages are downloaded once,
checked against the lock file, and kept in the cache; with a full cache the
build needs no network.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error { return buildImage(cmd, &f) },
	}
	f.register(cmd)
	cmd.Flags().StringVar(&f.out, "out", "", "output directory (default: .build/image of the source tree)")
	cmd.Flags().StringVar(&f.profile, "profile", string(image.Dev), "dev (quick to build) or release (small)")
	cmd.Flags().StringArrayVar(&f.formats, "format", []string{string(image.PXE)},
		"pxe (always built), raw (slipway.raw, an installed disk) or iso (slipway.iso, for a CD or a stick); may be repeated")
	cmd.Flags().StringArrayVar(&f.arguments, "argument", nil,
		"kernel argument of raw and iso, such as slipway.server=https://10.0.0.1:8443; may be repeated")
	cmd.Flags().StringVar(&f.sign, "sign", "", "program that signs the UEFI program whose path is its argument, in place, for Secure Boot")
	cmd.Flags().BoolVar(&f.updateLock, "update-lock", false, "first pin the newest packages of the archive")
	return cmd
}

func buildImage(cmd *cobra.Command, f *imageFlags) error {
	builder, err := f.builder(cmd.ErrOrStderr())
	if err != nil {
		return err
	}
	if f.updateLock {
		if _, err := builder.UpdateLock(cmd.Context()); err != nil {
			return err
		}
	}
	if err := f.addMedia(builder); err != nil {
		return err
	}
	manifest, err := builder.Build(cmd.Context())
	if err != nil {
		return err
	}
	return printArtifacts(cmd.OutOrStdout(), manifest)
}

// addMedia checks and adds the formats and their arguments.
func (f *imageFlags) addMedia(b *image.Builder) error {
	var errs []error
	for _, name := range f.formats {
		format, err := image.ParseFormat(name)
		b.Formats = append(b.Formats, format)
		errs = append(errs, err)
	}
	for _, word := range f.arguments {
		errs = append(errs, image.CheckArgument(word))
	}
	b.Arguments, b.Sign = f.arguments, image.Signer(f.sign)
	return errors.Join(errs...)
}

func imageLockCommand() *cobra.Command {
	var f imageFlags
	cmd := &cobra.Command{
		Use:   "lock",
		Short: "Pin the archive's newest version of every Debian package of a recipe",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			builder, err := f.builder(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			lock, err := builder.UpdateLock(cmd.Context())
			for _, pin := range lock {
				fmt.Fprintln(cmd.OutOrStdout(), pin)
			}
			return err
		},
	}
	f.register(cmd)
	return cmd
}

func imageVerifyCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "verify DIR",
		Short: "Compare the artifacts in a directory with their manifest",
		Args:  cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			manifest, err := image.Verify(args[0])
			if err != nil {
				return err
			}
			return printArtifacts(cmd.OutOrStdout(), manifest)
		},
	}
}

// builder fills in what the flags leave open.
func (f *imageFlags) builder(log io.Writer) (*image.Builder, error) {
	source, err := sourceRoot(f.source)
	if err != nil {
		return nil, err
	}
	or := func(value, def string) string {
		if value == "" {
			return filepath.Join(source, def)
		}
		return value
	}
	profile := image.Dev
	if f.profile != "" {
		if profile, err = image.ParseProfile(f.profile); err != nil {
			return nil, err
		}
	}
	cache, err := filepath.Abs(or(f.cache, ".cache"))
	if err != nil {
		return nil, err
	}
	return &image.Builder{
		Source: source, Recipe: or(f.recipe, "configs/examples/image.yaml"), Out: or(f.out, ".build/image"), Cache: cache,
		Mirrors: f.mirrors, AptDir: f.aptDir, Keyring: f.keyring, Profile: profile, Version: version.Version, Committed: version.CommitTime(),
		Client: &http.Client{Timeout: 10 * time.Minute}, Log: slog.New(slog.NewTextHandler(log, nil)),
	}, nil
}

// sourceRoot returns the directory of Slipway's go.mod: the one given, or the
// nearest from the current directory upwards.
func sourceRoot(given string) (string, error) {
	dir, err := filepath.Abs(given)
	if err != nil {
		return "", err
	}
	for ; ; dir = filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "image", "payload", "go.mod")); err == nil {
			return dir, nil
		}
		if given != "" || dir == filepath.Dir(dir) {
			return "", errors.New("find Slipway's source tree: run this inside it, or name it with --source")
		}
	}
}

func printArtifacts(w io.Writer, m *image.Manifest) error {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	fmt.Fprintln(table, "ARTIFACT\tMB\tSHA-256")
	for _, a := range m.Artifacts {
		fmt.Fprintf(table, "%s\t%.1f\t%s\n", a.Name, float64(a.Size)/1e6, a.SHA256)
	}
	return table.Flush()
}
