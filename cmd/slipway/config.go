package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"slipway/configs/cluster"
	"slipway/configs/document"
	"slipway/configs/machine"
	"slipway/configs/schema"
)

func configCommand() *cobra.Command {
	cmd := &cobra.Command{Use: "config", Short: "Check the documents that people write"}
	cmd.AddCommand(configValidateCommand(), configSchemaCommand())
	return cmd
}

func configValidateCommand() *cobra.Command {
	return &cobra.Command{
		Use:   "validate FILE...",
		Short: "Check Cluster and MachineConfig documents",
		Long: `Check Cluster and MachineConfig documents, - for standard input.

All that is wrong is printed, one problem a line:

  FILE:LINE:COLUMN: PATH: PROBLEM; valid: WHAT WOULD BE RIGHT

A document without a kind is a Cluster.`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			bad := 0
			for _, file := range args {
				summary, err := validate(cmd.InOrStdin(), file)
				if err != nil {
					fmt.Fprintln(cmd.ErrOrStderr(), err)
					bad++
					continue
				}
				fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", file, summary)
			}
			if bad > 0 {
				return fmt.Errorf("%d of %d files not valid", bad, len(args))
			}
			return nil
		},
	}
}

// validate checks one file and says what is in it.
func validate(stdin io.Reader, file string) (string, error) {
	data, err := readDocument(stdin, file)
	if err != nil {
		return "", err
	}
	var head struct {
		Kind string `yaml:"kind"`
	}
	document.Decode(data, file, &head) // what is wrong is for Parse to say
	switch head.Kind {
	case machine.Kind:
		c, err := machine.Parse(data, file)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("valid: machine config of %s, %s of cluster %s", c.Hostname, c.Role, c.Cluster.Name), nil
	case cluster.Kind, "":
		c, err := cluster.Parse(data, file)
		if err != nil {
			return "", err
		}
		return fmt.Sprintf("valid: cluster %s with %d machine(s)", c.Name, len(c.Machines)), nil
	}
	return "", &document.Problem{File: file, Path: "kind", Text: fmt.Sprintf("%q is not known here", head.Kind), Valid: cluster.Kind + ", " + machine.Kind}
}

// readDocument reads a file, no further than a document may be long.
func readDocument(stdin io.Reader, file string) ([]byte, error) {
	in := stdin
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, fmt.Errorf("read document: %w", err)
		}
		defer f.Close()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, document.MaxSize+1))
	if err != nil {
		return nil, fmt.Errorf("read document %s: %w", file, err)
	}
	return data, nil
}

func configSchemaCommand() *cobra.Command {
	names := schema.Documents()
	return &cobra.Command{
		Use:       "schema " + strings.Join(names, "|"),
		Short:     "Print the JSON schema of a document",
		Args:      cobra.MatchAll(cobra.ExactArgs(1), cobra.OnlyValidArgs),
		ValidArgs: names,
		RunE: func(cmd *cobra.Command, args []string) error {
			text, err := schema.Of(args[0])
			if err != nil {
				return errors.Join(errUsage, err)
			}
			_, err = cmd.OutOrStdout().Write(text)
			return err
		},
	}
}
