// Package bootsvc is the boot service in one piece: DHCP, TFTP, HTTP boot, the
// inventory, enrolment and the API, over one store. A Service is a plain struct
// of what a person can choose; Serve runs it. The command slipway serve is its
// caller, and nothing else knows all the parts.
package bootsvc

import (
	"context"
	"crypto/tls"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"golang.org/x/sync/errgroup"

	"slipway/bootsvc/enroll"
	"slipway/bootsvc/ipxe"
	"slipway/bootsvc/store"
)

// The ports of the boot service, beside DHCP's 67.
const (
	tftpPort = 69
	httpPort = 80
	apiPort  = 8443
)

// Service is a boot service.
type Service struct {
	// DataDir holds the embedded etcd, the CA certificate (ca.pem) and the
	// administrator's context (admin.yaml). It is made when missing.
	DataDir string
	// ImageDir is what slipway image build wrote.
	ImageDir string
	// KernelArgs are what a kernel that boots by the network gets, after the
	// image's own. An installed machine has a command line that is part of its image.
	KernelArgs []string
	// Interface is the machines' network; empty when there is only one.
	Interface string
	// Range is what DHCP leases, FIRST-LAST; empty is the subnet's upper half.
	Range string
	// Rules say which machines need no person's approval.
	Rules enroll.Rules
	// KeyFile encrypts the store's secrets; empty is DataDir/key.
	KeyFile string
	// Endpoints are an etcd cluster to use instead of the embedded member,
	// and TLS is how; several boot services may share one.
	Endpoints []string
	TLS       *tls.Config
	Log       *slog.Logger
	// Now is the clock; nil is the system's.
	Now func() time.Time
}

// Started says where things are once everything answers.
type Started struct {
	Interface string
	Subnet    netip.Prefix
	First     netip.Addr // of the range
	Last      netip.Addr
	HTTP      string // base URL of the public artifacts
	API       string // URL of enrolment and API
	Context   string // the administrator's context file
	Image     string // its version
	CA        string // hex SHA-256, as machines check it
}

// Serve runs the boot service until ctx ends, and returns when all of it has
// stopped. It calls started once, when every port answers. An error at the
// start says what to do about it.
func (s Service) Serve(ctx context.Context, started func(Started)) error {
	s = s.withDefaults()
	link, err := findLink(s.Interface)
	if err != nil {
		return err
	}
	pool, err := link.poolOf(s.Range)
	if err != nil {
		return err
	}
	image, err := loadImage(s.ImageDir)
	if err != nil {
		return err
	}
	image.Arguments = append(image.Arguments, s.KernelArgs...)
	if _, err := (ipxe.Script{Args: image.Arguments}).Render(); err != nil {
		return err
	}
	if err := os.MkdirAll(s.DataDir, 0o755); err != nil {
		return fmt.Errorf("make data folder: %w", err)
	}
	state, err := store.Open(ctx, store.Config{
		Dir: filepath.Join(s.DataDir, "etcd"), Endpoints: s.Endpoints, TLS: s.TLS, KeyFile: s.KeyFile, Log: s.Log,
	})
	if err != nil {
		return err
	}
	defer state.Close()
	who, err := newIdentity(ctx, state, link.prefix.Addr(), s.Now)
	if err != nil {
		return err
	}
	parts, err := s.assemble(ctx, plan{link, pool, image, state, who})
	if err != nil {
		return err
	}
	where := parts.where
	where.Context = filepath.Join(s.DataDir, "admin.yaml")
	if _, err := who.writeFiles(s.DataDir, where.API); err != nil {
		return err
	}
	return parts.run(ctx, func() { started(where) })
}

func (s Service) withDefaults() Service {
	if s.KeyFile == "" {
		s.KeyFile = filepath.Join(s.DataDir, "key")
	}
	if s.Now == nil {
		s.Now = time.Now
	}
	return s
}

// part is one server of the service: it calls ready once it listens.
type part struct {
	name string
	run  func(ctx context.Context, ready func()) error
}

// parts are all servers, and where they will answer.
type parts struct {
	all   []part
	where Started
}

// run runs all parts until ctx ends or one fails, and calls ready when every
// one is.
func (p parts) run(ctx context.Context, ready func()) error {
	group, ctx := errgroup.WithContext(ctx)
	up := make(chan struct{}, len(p.all))
	for _, one := range p.all {
		group.Go(func() error {
			if err := one.run(ctx, func() { up <- struct{}{} }); err != nil {
				return fmt.Errorf("%s: %w", one.name, explainPort(err))
			}
			if ctx.Err() == nil {
				return fmt.Errorf("%s: stopped by itself", one.name)
			}
			return nil
		})
	}
	group.Go(func() error {
		for range p.all {
			select {
			case <-up:
			case <-ctx.Done():
				return nil
			}
		}
		ready()
		return nil
	})
	return group.Wait()
}

// registry counts the process too: memory, file descriptors, goroutines.
func registry() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	return r
}
