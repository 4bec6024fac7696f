package main

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"log/slog"
	"os"

	"github.com/spf13/cobra"

	"slipway/bootsvc"
	"slipway/bootsvc/enroll"
)

// serveFlags are what a person may say to slipway serve.
type serveFlags struct {
	service                    bootsvc.Service
	approve, level             string
	etcdCA, etcdCert, etcdCkey string
}

func serveCommand() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:   "serve",
		Short: "Run the boot service: DHCP, TFTP, HTTP boot, enrolment and the API",
		Long: `Run the boot service on the machines' network.

It answers DHCP on one interface and is authoritative for one range there: no
other DHCP server may lease the same addresses. It needs root, or the
capabilities net_bind_service, net_raw and net_admin. It runs until SIGTERM or
Ctrl-C.`,
		Example: "  slipway serve --interface eth1 --range 10.0.0.100-10.0.0.200 --approve any",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			service, err := f.build(cmd.ErrOrStderr())
			if err != nil {
				return err
			}
			return service.Serve(cmd.Context(), func(at bootsvc.Started) { announce(cmd.OutOrStdout(), at) })
		},
	}
	flags := cmd.Flags()
	flags.StringVar(&f.service.DataDir, "data-dir", defaultDataDir, "where the state, the CA certificate and the admin context are kept")
	flags.StringVar(&f.service.ImageDir, "image", ".build/image", "what slipway image build wrote")
	flags.StringVar(&f.service.Interface, "interface", "", "the machines' network (default: the only one there is)")
	flags.StringVar(&f.service.Range, "range", "", "addresses to lease, FIRST-LAST (default: the upper half of the subnet)")
	flags.StringArrayVar(&f.service.KernelArgs, "kernel-arg", nil, "argument that a kernel gets that boots by the network, after the image's own; may be repeated. Installed machines have those of their image's recipe")
	flags.StringVar(&f.approve, "approve", "none", "machines to approve without a person: any, none, or a file of rules")
	flags.StringVar(&f.service.KeyFile, "key-file", "", "key that encrypts secrets at rest (default: DATA-DIR/key)")
	flags.StringSliceVar(&f.service.Endpoints, "etcd-endpoints", nil, "an etcd cluster to use instead of the embedded member")
	flags.StringVar(&f.etcdCA, "etcd-ca", "", "CA certificate of --etcd-endpoints")
	flags.StringVar(&f.etcdCert, "etcd-cert", "", "client certificate for --etcd-endpoints")
	flags.StringVar(&f.etcdCkey, "etcd-key", "", "its key")
	flags.StringVar(&f.level, "log-level", "info", "debug, info, warn or error")
	return cmd
}

// build turns the flags into a service, or says which flag is wrong.
func (f *serveFlags) build(log io.Writer) (bootsvc.Service, error) {
	s := f.service
	var level slog.Level
	if err := level.UnmarshalText([]byte(f.level)); err != nil {
		return s, fmt.Errorf("%w: --log-level %s is not known; valid: debug, info, warn, error", errUsage, f.level)
	}
	s.Log = slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: level}))
	var err error
	if s.Rules, err = rules(f.approve); err != nil {
		return s, err
	}
	s.TLS, err = f.etcdTLS()
	return s, err
}

// rules reads --approve.
func rules(text string) (enroll.Rules, error) {
	switch text {
	case "any":
		return enroll.Any(), nil
	case "none", "":
		return enroll.Rules{}, nil
	}
	data, err := os.ReadFile(text)
	if err != nil {
		return enroll.Rules{}, fmt.Errorf("read approval rules: %w; valid for --approve: any, none, or a file", err)
	}
	return enroll.ParseRules(data, text)
}

// etcdTLS reads the credentials for an etcd cluster; nil without any.
func (f *serveFlags) etcdTLS() (*tls.Config, error) {
	if f.etcdCA == "" && f.etcdCert == "" {
		return nil, nil
	}
	config := &tls.Config{MinVersion: tls.VersionTLS12, RootCAs: x509.NewCertPool()}
	ca, err := os.ReadFile(f.etcdCA)
	if err != nil {
		return nil, fmt.Errorf("read --etcd-ca: %w", err)
	}
	if !config.RootCAs.AppendCertsFromPEM(ca) {
		return nil, fmt.Errorf("read --etcd-ca: %s holds no certificate", f.etcdCA)
	}
	if f.etcdCert == "" {
		return config, nil
	}
	cert, err := tls.LoadX509KeyPair(f.etcdCert, f.etcdCkey)
	if err != nil {
		return nil, fmt.Errorf("read --etcd-cert and --etcd-key: %w", err)
	}
	config.Certificates = []tls.Certificate{cert}
	return config, nil
}

// announce prints the one line that says where things are.
func announce(w io.Writer, at bootsvc.Started) {
	fmt.Fprintf(w, "Serving %s: image %s, DHCP %s-%s, artifacts %s, API %s, context %s\n",
		at.Interface, at.Image, at.First, at.Last, at.HTTP, at.API, at.Context)
}
