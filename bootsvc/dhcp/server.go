package dhcp

import (
	"context"
	"errors"
	"fmt"
	"hash/fnv"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"slipway/bootsvc/firmware"
	"slipway/bootsvc/lease"
	"slipway/bootsvc/refusal"
	"slipway/bootsvc/source"
	"slipway/bootsvc/timeline"
)

// Seams are the server's ways to the rest of the boot service. All must be set.
type Seams struct {
	Table   *lease.Table
	Store   lease.Store
	Observe timeline.Observer
	// Source says what a machine whose firmware asks is to boot from.
	Source   func(context.Context, net.HardwareAddr) source.Source
	Refusals *refusal.Recorder
	Metrics  prometheus.Registerer
	Log      *slog.Logger
	Now      func() time.Time
}

// Server answers DHCP.
type Server struct {
	config Config
	Seams
	metrics metrics
	// deciding makes looking at the table and changing it one step.
	deciding sync.Mutex
	lanes    []chan job
}

// job is a packet, or a machine whose stored lease is to be deleted.
type job struct {
	packet []byte
	forget string
}

// A client's packets are handled in order, by the lane of its MAC. There are
// many lanes because each waits for the store, and the store serves many
// writers at the cost of one.
const (
	lanes       = 64
	laneLength  = 64
	saveTimeout = 5 * time.Second
	service     = "dhcp"
)

// New checks the config and returns a server that does not listen yet. Its
// counters are registered, so there is one Server per registry.
func New(c Config, s Seams) (*Server, error) {
	c, err := c.complete()
	if err != nil {
		return nil, fmt.Errorf("configure DHCP: %w", err)
	}
	server := &Server{config: c, Seams: s, metrics: newMetrics(s)}
	for range lanes {
		server.lanes = append(server.lanes, make(chan job, laneLength))
	}
	return server, nil
}

// Run listens, calls ready, and answers until the context ends. Nothing that a
// client sends makes it return.
func (s *Server) Run(ctx context.Context, ready func()) error {
	sock, err := listen(ctx, s.config.Interface)
	if err != nil {
		return err
	}
	defer sock.close()
	group, ctx := errgroup.WithContext(ctx)
	stop := context.AfterFunc(ctx, func() { sock.udp.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	for _, lane := range s.lanes {
		group.Go(func() error { return s.work(ctx, sock, lane) })
	}
	group.Go(func() error { return s.read(ctx, sock) })
	ready()
	return group.Wait()
}

// MAC returns the hardware address of the machine that holds an address by
// lease or offer, nil if none does.
func (s *Server) MAC(a netip.Addr) net.HardwareAddr {
	l, ok := s.Table.Holder(a, s.Now())
	if !ok {
		return nil
	}
	mac, _ := net.ParseMAC(l.MAC)
	return mac
}

// read hands packets to lanes until the context ends. An interface that goes
// down gives an error for each read until it is back, so errors are waited out.
func (s *Server) read(ctx context.Context, sock *socket) error {
	buffer := make([]byte, maxPacket+1)
	for {
		n, from, err := sock.udp.ReadFromUDPAddrPort(buffer)
		switch {
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("read DHCP on %s: %w", s.config.Interface, err)
		case err != nil:
			s.Refusals.Refuse(service, s.config.Interface, "read failed", "error", err)
			pause(ctx, time.Second)
			continue
		}
		s.metrics.received.Add(float64(n))
		if !s.enqueue(mac(buffer[:n]), job{packet: append([]byte(nil), buffer[:n]...)}) {
			s.Refusals.Refuse(service, from.Addr().String(), "overload")
		}
	}
}

// mac is a packet's hardware address before anything is known of the packet.
func mac(b []byte) string {
	const chaddr = 28
	if len(b) < chaddr+6 {
		return ""
	}
	return net.HardwareAddr(b[chaddr : chaddr+6]).String()
}

// enqueue never blocks: a client repeats what was dropped.
func (s *Server) enqueue(mac string, j job) bool {
	h := fnv.New32a()
	h.Write([]byte(mac))
	select {
	case s.lanes[h.Sum32()%lanes] <- j:
		return true
	default:
		return false
	}
}

func (s *Server) work(ctx context.Context, sock *socket, lane <-chan job) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case j := <-lane:
			if j.forget != "" {
				s.forget(ctx, j.forget)
				continue
			}
			s.serve(ctx, sock, j.packet)
		}
	}
}

// serve takes one packet through parse, decide and answer.
func (s *Server) serve(ctx context.Context, sock *socket, b []byte) {
	r, err := parse(b)
	if err != nil {
		s.metrics.packet("in", "unreadable")
		s.Refusals.Refuse(service, mac(b), err.Error())
		return
	}
	s.metrics.packet("in", r.kind.String())
	if r.firmware.Kind != firmware.System {
		r.from = s.Source(ctx, r.packet.ClientHWAddr)
	}
	d := s.record(r)
	if d.reason != "" {
		s.Refusals.Refuse(service, r.client.MAC, d.reason, "packet", r.kind, "wants", r.client.Wants)
	}
	if err := s.persist(ctx, d); err != nil {
		s.Refusals.Refuse(service, r.client.MAC, "lease not stored", "error", err)
		return
	}
	if d.reply != dhcpv4.MessageTypeNone {
		s.reply(sock, r, d)
	}
	s.observe(ctx, r, d)
}

// record decides, and changes the table by the decision.
func (s *Server) record(r request) decision {
	s.deciding.Lock()
	defer s.deciding.Unlock()
	now := s.Now()
	d := s.config.decide(r, s.Table.View(r.client, now), now)
	held := true
	switch d.change {
	case grant:
		if ended := s.Table.Grant(d.lease); ended != "" {
			s.enqueue(ended, job{forget: ended})
		}
	case release:
		held = s.Table.Release(d.lease.MAC, d.lease.Address, now)
	case decline:
		held = s.Table.Decline(d.lease.MAC, d.lease.Address, now.Add(quarantine))
	}
	if !held {
		return silent("client does not hold that address")
	}
	return d
}

// quarantine is how long an address that a client found in use is not leased.
const quarantine = 10 * time.Minute

// persist brings the store up to a decision. A lease that could not be saved
// stays in the table, unpromised: the client repeats its request, and that saves it again.
func (s *Server) persist(ctx context.Context, d decision) error {
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	switch {
	case d.change == grant && d.reply == dhcpv4.MessageTypeAck:
		return s.Store.Save(ctx, d.lease)
	case d.change == release || d.change == decline:
		return s.Store.Delete(ctx, d.lease.MAC)
	}
	return nil
}

// forget deletes the stored lease of a machine whose address another got,
// unless the machine has a new one by now.
func (s *Server) forget(ctx context.Context, mac string) {
	if s.Table.Known(mac) {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, saveTimeout)
	defer cancel()
	if err := s.Store.Delete(ctx, mac); err != nil {
		s.Log.Warn("ended lease not deleted", "unit", service, "machine", mac, "error", err)
	}
}

func (s *Server) reply(sock *socket, r request, d decision) {
	p, to, err := s.config.answer(r, d)
	if err == nil {
		b := p.ToBytes()
		s.metrics.sent.Add(float64(len(b)))
		s.metrics.packet("out", d.reply.String())
		err = sock.send(b, s.config.Address, p.ClientHWAddr, to)
	}
	if err != nil {
		s.Refusals.Refuse(service, r.client.MAC, "reply not sent", "error", err)
	}
}

// observe tells the timeline, and the log of machines that cannot boot from us.
func (s *Server) observe(ctx context.Context, r request, d decision) {
	boot, ok := firmware.Choose(r.firmware, firmware.Server{TFTP: s.config.Address, HTTP: s.config.HTTP}, r.from)
	if !ok && d.reply == dhcpv4.MessageTypeOffer {
		s.Refusals.Refuse(service, r.client.MAC, "no loader for its architecture", "firmware", r.firmware)
	}
	e := timeline.Event{
		MAC:    r.packet.ClientHWAddr,
		Name:   service,
		Asker:  asker(r.firmware.Kind),
		Detail: fmt.Sprintf("%s from %s: %s", r.kind, r.firmware, outcome(d, boot)),
		At:     s.Now(),
		UUID:   r.firmware.UUID,
	}
	if d.reply == dhcpv4.MessageTypeAck {
		e.Address = d.lease.Address
	}
	s.Observe(ctx, e)
}

// asker says in the timeline's words what asks.
func asker(k firmware.Kind) timeline.Asker {
	switch k {
	case firmware.PXE, firmware.HTTPBoot:
		return timeline.Firmware
	case firmware.IPXE:
		return timeline.Loader
	}
	return timeline.System
}

func outcome(d decision, b firmware.Boot) string {
	why := ""
	if b.Why != "" {
		why = ", " + b.Why
	}
	switch {
	case d.reply == dhcpv4.MessageTypeNak:
		return "NAK, " + d.reason
	case d.reason != "":
		return "no answer, " + d.reason
	case d.change == grant && b.File != "":
		return fmt.Sprintf("%s %s, %s%s", d.reply, d.lease.Address, b.File, why)
	case d.change == grant:
		return fmt.Sprintf("%s %s%s", d.reply, d.lease.Address, why)
	case d.reply != dhcpv4.MessageTypeNone:
		return d.reply.String()
	}
	return "noted"
}

func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
