package bootsvc

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"slipway/bootsvc/api"
	"slipway/bootsvc/api/bootv1"
	"slipway/bootsvc/assign"
	"slipway/bootsvc/authority"
	"slipway/bootsvc/dhcp"
	"slipway/bootsvc/enroll"
	"slipway/bootsvc/httpd"
	"slipway/bootsvc/inventory"
	"slipway/bootsvc/ipxe"
	"slipway/bootsvc/lease"
	"slipway/bootsvc/radv"
	"slipway/bootsvc/refusal"
	"slipway/bootsvc/source"
	"slipway/bootsvc/store"
	"slipway/bootsvc/tftp"
	"slipway/bootsvc/timeline"
	"slipway/configs/machine"
	"slipway/controlplane/pki"
)

// plan is what the start found out, before anything listens.
type plan struct {
	link  link
	pool  lease.Pool
	image artifacts
	state *store.Store
	who   *identity
}

func (p plan) address() netip.Addr { return p.link.prefix.Addr() }
func (p plan) httpURL() string     { return "http://" + p.address().String() }
func (p plan) apiURL() string {
	return "https://" + netip.AddrPortFrom(p.address(), apiPort).String()
}

// assemble makes every part and joins them: nothing else in the service knows
// more than its neighbours.
func (s Service) assemble(ctx context.Context, p plan) (parts, error) {
	metrics := registry()
	refusals := refusal.New(s.Log, metrics, s.Now)
	machines := inventory.New(p.state, s.Log, metrics)
	routers := radv.New(p.link.name, metrics, s.Log, s.Now)
	ask, err := s.dhcp(ctx, p, both(machines.Observe, routers.Observe), machines.SourceOf, refusals, metrics)
	if err != nil {
		return parts{}, err
	}
	web, err := httpd.New(netip.AddrPortFrom(p.address(), httpPort), p.image.web, httpd.Seams{
		Script: p.script(machines), MAC: ask.MAC,
		Observe: machines.Observe, Refusals: refusals, Metrics: metrics, Log: s.Log, Now: s.Now,
	})
	if err != nil {
		return parts{}, err
	}
	loaders := tftp.New(netip.AddrPortFrom(p.address(), tftpPort), p.image.loaders, tftp.Seams{
		MAC: ask.MAC, Observe: machines.Observe, Refusals: refusals, Metrics: metrics, Log: s.Log, Now: s.Now,
	})
	people := s.api(p, machines, refusals, metrics)
	taken, err := people.Office.VirtualIPs(ctx)
	if err != nil {
		return parts{}, fmt.Errorf("read the clusters' virtual IPs: %w", err)
	}
	ask.Table.Withhold(taken)
	clock, err := s.snapshots(p, people, metrics)
	if err != nil {
		return parts{}, err
	}
	return parts{
		where: p.where(),
		all: []part{
			{"store", background(p.state.Run)}, {"inventory", background(machines.Run)},
			{"api", people.Run}, {"http", web.Run}, {"tftp", loaders.Run}, {"dhcp", ask.Run}, {"radv", routers.Run},
			{"snapshots", background(clock.Run)}, {"rotations", background(s.rotations(people.Office))},
			{"ca", background(s.followCA(p, people.Office))}, {"virtual-ips", background(s.withhold(people.Office, ask.Table))},
		},
	}, nil
}

// rotations moves on what is being rotated in the clusters.
func (s Service) rotations(office *assign.Office) func(context.Context) error {
	return func(ctx context.Context) error { return office.RunRotations(ctx, s.Log) }
}

// withhold keeps what DHCP leases clear of the clusters' virtual IPs.
func (s Service) withhold(office *assign.Office, table *lease.Table) func(context.Context) error {
	return func(ctx context.Context) error { return office.RunVirtualIPs(ctx, s.Log, table.Withhold) }
}

// followCA keeps the files in the data folder what the CA is now.
func (s Service) followCA(p plan, office *assign.Office) func(context.Context) error {
	return func(ctx context.Context) error {
		return p.who.ca.Run(ctx, s.Log, func(v *authority.View) error {
			key, err := p.who.writeFiles(s.DataDir, p.apiURL())
			if err != nil {
				return err
			}
			return office.People.Renewed(ctx, key, v.Digest)
		})
	}
}

// both tells two observers.
func both(a, b timeline.Observer) timeline.Observer {
	return func(ctx context.Context, e timeline.Event) { a(ctx, e); b(ctx, e) }
}

// background is a part that others need not wait for.
func background(run func(context.Context) error) func(context.Context, func()) error {
	return func(ctx context.Context, ready func()) error {
		ready()
		return run(ctx)
	}
}

func (s Service) dhcp(ctx context.Context, p plan, observe timeline.Observer, from func(context.Context, net.HardwareAddr) source.Source, refusals *refusal.Recorder, metrics *prometheus.Registry) (*dhcp.Server, error) {
	kept := newLeases(p.state)
	known, err := kept.Load(ctx)
	if err != nil {
		return nil, fmt.Errorf("read leases: %w", err)
	}
	return dhcp.New(dhcp.Config{
		Interface: p.link.name, Address: p.address(), Subnet: p.link.prefix.Masked(), HTTP: p.httpURL(),
	}, dhcp.Seams{
		Table: lease.NewTable(p.pool, known), Store: kept,
		Observe: observe, Source: from, Refusals: refusals, Metrics: metrics, Log: s.Log, Now: s.Now,
	})
}

func (s Service) api(p plan, machines *inventory.Inventory, refusals *refusal.Recorder, metrics *prometheus.Registry) *api.Server {
	office := assign.New(p.state, machines, p.who.ca, s.Now)
	office.Image = machine.Image{Version: p.image.Version, SHA256: p.image.digest}
	return &api.Server{
		Listen:      netip.AddrPortFrom(netip.IPv4Unspecified(), apiPort),
		Inventory:   machines,
		Desk:        &enroll.Desk{Inventory: machines, CA: p.who.ca.View, Rules: s.Rules, Now: s.Now},
		Office:      office,
		Image:       &bootv1.GetImageResponse{Version: p.image.Version, Sha256: p.image.digest, Kubernetes: p.image.Kubernetes, RootHash: p.image.Root.Hash},
		Certificate: p.who.certificate,
		Metrics:     promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}),
		Refusals:    refusals,
		Log:         s.Log,
		Now:         s.Now,
	}
}

// script is what one machine's iPXE runs.
func (p plan) script(machines *inventory.Inventory) func(context.Context, net.HardwareAddr) ([]byte, error) {
	return func(ctx context.Context, mac net.HardwareAddr) ([]byte, error) {
		s := ipxe.Script{
			HTTP: p.httpURL(), API: p.apiURL(), CA: pki.CertHash(p.who.ca.View().Signer),
			Machine: strings.ReplaceAll(mac.String(), ":", "-"), Args: p.image.Arguments,
		}
		m, err := machines.Get(ctx, s.Machine)
		if err == nil {
			s.From, s.Why, s.Anew = m.Source(), m.Held(), m.Installation.Reinstall
		} else if !errors.Is(err, store.ErrNotFound) {
			return nil, err // a machine that is installed must not be taken for a new one
		}
		return s.Render()
	}
}

func (p plan) where() Started {
	return Started{
		Interface: p.link.name, Subnet: p.link.prefix.Masked(), First: p.pool.First, Last: p.pool.Last,
		HTTP: p.httpURL(), API: p.apiURL(), Image: p.image.Version, CA: pki.CertHash(p.who.ca.View().Signer),
	}
}
