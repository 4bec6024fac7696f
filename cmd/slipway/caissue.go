package main

import (
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io/fs"
	"os"

	"connectrpc.com/connect"
	"github.com/spf13/cobra"

	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/api/client"
	"slipway/configs/secret"
	"slipway/controlplane/pki"
)

func caIssueCommand(r *remote) *cobra.Command {
	var role, file string
	cmd := &cobra.Command{
		Use:   "issue NAME --role admin|operator|reader|etcd-backup --file FILE",
		Short: "Make a context for a person, with a key of their own",
		Long: `Make a context for a person, with a key of their own. It is good for a year, and
renewed by being used. There is no list of revoked ones: rotate the CA when one
got into the wrong hands.`,
		Example: "  slipway ca issue ann --role operator --file ann.yaml",
		Args:    cobra.ExactArgs(1),
		RunE: r.withClient(func(cmd *cobra.Command, c *client.Client, args []string) error {
			if role == "" || file == "" {
				return fmt.Errorf("%w: --role and --file are needed; see %s --help", errUsage, cmd.CommandPath())
			}
			mine, err := client.Load(r.contextFile)
			if err != nil {
				return err
			}
			return issueContext(cmd, c, mine.Servers, args[0], role, file)
		}),
	}
	cmd.Flags().StringVar(&role, "role", "", "what the person may do: admin, operator, reader, etcd-backup")
	cmd.Flags().StringVar(&file, "file", "", "where the context is written; it must not exist")
	return cmd
}

// issueContext makes a key here, has it signed, and writes both to a new file.
func issueContext(cmd *cobra.Command, c *client.Client, servers []string, name, role, file string) error {
	if _, err := os.Lstat(file); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("write context: %s is there already: it may be somebody's key, so name another file", file)
	}
	key, keyPEM, err := pki.NewKey()
	if err != nil {
		return err
	}
	csr, err := pki.NewCSR(pkix.Name{CommonName: name}, key)
	if err != nil {
		return err
	}
	answer, err := c.Authority.IssueCredentials(cmd.Context(), connect.NewRequest(&bootv1.IssueCredentialsRequest{Name: name, Role: role, Csr: csr}))
	if err != nil {
		return err
	}
	text, err := client.Context{
		Servers: servers, CA: string(answer.Msg.GetCa()),
		Certificate: string(answer.Msg.GetCertificate()), Key: secret.New(string(keyPEM)),
	}.Encode()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return fmt.Errorf("write context: %w", err)
	}
	_, err = out.Write(text)
	if err := errors.Join(err, out.Sync(), out.Close()); err != nil {
		return fmt.Errorf("write context: %w", err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Wrote %s. Give it to %s and keep no copy: who has it is %s.\n", file, name, name)
	return nil
}
